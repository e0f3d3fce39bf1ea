"""One step of a search against the literal formula: time in turns, peak memory in fresh processes.

    python -m tests.studies.search_step [--size 256] [--batch 4] [--threads 2] [--json FILE]

The network is the Fully Dense Network on MobileNetV2 with 21 classes, forward and backward. Memory
is the peak of a process' resident set above what it held before the first step (on CUDA: the
allocator's peak).
"""

import argparse
import copy
import json
import resource
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

from benchmark.experiment.environment import environment
from benchmark.speed.latency import time_calls
from common.memory import keep_freed_memory
from models.backbones import create_backbone
from models.predictor import DensePredictor
from models.relaxed_decoder import RelaxedDecoder
from tests.oracles.literal_decoder import LiteralDecoder


def networks(device: torch.device) -> dict[str, DensePredictor]:
    """The same network in the literal formulation and in the product's."""
    torch.manual_seed(0)
    backbone = create_backbone("mobilenetv2_100")
    grouped = DensePredictor(backbone, RelaxedDecoder(backbone.features), {"task": 21}).train()
    literal = copy.deepcopy(grouped)
    literal.decoder = LiteralDecoder(grouped.decoder)
    grouped.to(device, memory_format=torch.channels_last)
    return {"literal": literal.to(device).train(), "grouped": grouped}


def step(net: DensePredictor, x: Tensor) -> None:
    """Forward and backward; the noise of the weights is the same each time."""
    torch.manual_seed(1)
    for parameter in net.parameters():
        parameter.grad = None
    net(x)["task"].square().mean().backward()


def memory(name: str, x: Tensor, device: torch.device) -> float:
    """MiB that a step of ``name`` takes at its peak; to be called in a fresh process."""
    net = networks(device)[name]
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        step(net, x)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(net, x)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--min-time", type=float, default=10.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory-of", choices=["literal", "grouped"], help=argparse.SUPPRESS)
    parser.add_argument("--plain-allocator", action="store_true", help="as without cli.py")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not arguments.plain_allocator:
        keep_freed_memory()  # as the command line does
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    x = torch.rand(arguments.batch, 3, arguments.size, arguments.size).to(device)
    if arguments.memory_of:
        print(memory(arguments.memory_of, x, device))  # noqa: T201
        return
    peaks = {}
    for name in ("literal", "grouped"):
        words = [sys.executable, "-m", "tests.studies.search_step", "--memory-of", name]
        for option in ("size", "batch", "threads", "device"):
            words += [f"--{option}", str(getattr(arguments, option))]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks[name] = float(done.stdout)
    nets = networks(device)
    # a deep network magnifies rounding: that both are one is seen in double precision
    gradients = {}
    for name, net in nets.items():
        twin = copy.deepcopy(net).double()
        step(twin, x[:2, :, :128, :128].double())
        gradients[name] = twin.backbone.net.conv_stem.weight.grad
    scale = float(gradients["literal"].abs().max())
    error = float((gradients["literal"] - gradients["grouped"]).abs().max()) / scale
    calls = {name: lambda net=net: step(net, x) for name, net in nets.items()}
    calls["backbone alone"] = lambda: backbone_step(nets["grouped"], x)
    latencies = time_calls(
        calls, device, arguments.batch, min_time=arguments.min_time, min_calls=5, block=1e-9
    )
    for name, latency in latencies.items():
        peak = f"{peaks[name]:8.0f} MiB" if name in peaks else ""
        print(f"{name:<16} {latency.median_ms:9.1f} ms {peak}")  # noqa: T201
    speedup = latencies["literal"].median_ms / latencies["grouped"].median_ms
    share = peaks["grouped"] / peaks["literal"]
    print(f"speed ×{speedup:.2f}, memory {share:.0%}, stem's gradient in double: {error:.1e}")  # noqa: T201
    if arguments.json:
        facts = {"ms": {name: x.median_ms for name, x in latencies.items()}, "peak_mib": peaks,
                 "speedup": speedup, "memory_share": share, "gradient_error": error,
                 "environment": environment(arguments.device)}  # fmt: skip
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


def backbone_step(net: DensePredictor, x: Tensor) -> None:
    """What both share: the backbone's forward and backward."""
    for parameter in net.parameters():
        parameter.grad = None
    maps = net.backbone(x.contiguous(memory_format=torch.channels_last))
    torch.stack([m.square().mean() for m in maps]).sum().backward()


if __name__ == "__main__":
    main()
