"""Inference against the literal formula and the bare backbone, all in turns.

    python -m tests.studies.inference [--size 512] [--threads 2] [--json FILE]

Prints medians in milliseconds for the authors' wiring on MobileNetV2, 21 classes.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmark.experiment.environment import environment
from benchmark.speed.latency import time_calls
from common.memory import keep_freed_memory
from models.backbones import create_backbone
from models.create import create_decoder
from models.predictor import DensePredictor
from tests.oracles.literal_decoder import LiteralDecoder


def literal_of(model: DensePredictor) -> DensePredictor:
    """The same network, with the decoder computed connection by connection, not fused."""
    twin = copy.deepcopy(model)
    literal = LiteralDecoder(model.decoder)
    literal.info = model.decoder.info
    twin.decoder = literal
    return twin.eval()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--decoder", default="sparsemask")
    parser.add_argument("--min-time", type=float, default=4.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--plain-allocator", action="store_true", help="as without cli.py")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not arguments.plain_allocator:
        keep_freed_memory()  # as the command line does
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    backbone = create_backbone("mobilenetv2_100")
    model = DensePredictor(
        backbone, create_decoder(arguments.decoder, backbone.features), {"task": 21}
    )
    for module in model.modules():  # statistics that are not those of a new layer
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.7, 1.3)
    model.eval()
    literal, fused = literal_of(model).to(device), model.fuse().to(device)
    x = torch.rand(1, 3, arguments.size, arguments.size, device=device)
    last = x.contiguous(memory_format=torch.channels_last)
    calls: dict[str, Callable[[], Tensor]] = {}
    seconds: dict[str, float] = {}

    def last_format(net: nn.Module) -> nn.Module:
        return copy.deepcopy(net).to(memory_format=torch.channels_last)

    def compiled(net: nn.Module) -> nn.Module:
        return net if arguments.no_compile else torch.compile(net, dynamic=False)

    with torch.inference_mode():
        maps = literal.backbone(x)
        maps_last = [m.contiguous(memory_format=torch.channels_last) for m in maps]
        decoders = {
            "decoder literal": (literal.decoder, maps),
            "decoder literal compiled": (compiled(literal.decoder), maps),
            "decoder fused": (fused.decoder, maps),
            "decoder fused channels_last": (last_format(fused.decoder), maps_last),
            "decoder fused compiled": (compiled(fused.decoder), maps),
            "decoder fused compiled channels_last": (
                compiled(last_format(fused.decoder)), maps_last,
            ),
        }  # fmt: skip
        networks = {
            "network literal": (literal, x),
            "network fused": (fused, x),
            "network fused compiled channels_last": (compiled(last_format(fused)), last),
            "backbone fused compiled channels_last": (
                compiled(last_format(fused.backbone)), last,
            ),
            "timm's backbone compiled channels_last": (
                compiled(last_format(model.backbone)), last,
            ),
        }  # fmt: skip
        outputs = {}
        for name, (net, given) in {**decoders, **networks}.items():
            calls[name] = lambda net=net, given=given: net(given)
            start = time.perf_counter()
            outputs[name] = calls[name]()
            seconds[name] = time.perf_counter() - start
        reference = outputs["decoder literal"]
        errors = {
            name: float((outputs[name] - reference).abs().max() / reference.abs().max())
            for name in decoders
        }
        latencies = time_calls(calls, device, min_time=arguments.min_time)
    rows = []
    for name, latency in latencies.items():
        base = "decoder literal" if name in decoders else "network literal"
        row = {"name": name, "ms": latency.median_ms, "iqr_ms": latency.iqr_ms,
               "speedup": latencies[base].median_ms / latency.median_ms,
               "first_call_s": seconds[name], "error": errors.get(name)}  # fmt: skip
        rows.append(row)
        error = "" if row["error"] is None else f"  error {row['error']:.1e}"
        print(f"{name:<40} {row['ms']:8.2f} ms  ×{row['speedup']:.2f}{error}")  # noqa: T201
    whole = latencies["network fused compiled channels_last"].median_ms
    ratios = {
        name: whole / latencies[f"{name} compiled channels_last"].median_ms
        for name in ("timm's backbone", "backbone fused")
    }
    for name, ratio in ratios.items():
        print(f"network / {name}: {ratio:.3f}")  # noqa: T201
    if arguments.json:
        facts = {"rows": rows, "network_to": ratios,
                 "environment": environment(arguments.device)}  # fmt: skip
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
