"""Costs of a decoder's connections and of whole networks, counted or measured on the device."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import TypedDict

from benchmark.experiment.config import ResolvedRun
from benchmark.experiment.network import spec_of
from benchmark.experiment.plan import make_tasks
from benchmark.speed.count import MapsOnly, deployed_costs
from benchmark.speed.latency import Setup, time_calls, time_models
from models.connectivity import GLOBAL
from models.feature_maps import Backbone
from models.predictor import DensePredictor
from models.relaxed_decoder import RelaxedDecoder

Cost = Literal["latency", "macs", "params"]
TIMING: dict[str, Any] = {"min_time": 0.3, "min_calls": 10, "warmup_time": 0.1}
"""How a network among many candidates is timed, see ``time_calls``."""
BRIEFLY: dict[str, Any] = {"min_time": 0.1, "min_calls": 5, "warmup_time": 0.03, "repeats": 1.0}
"""The same where nothing is decided by it."""


def connection_costs(
    kind: Cost, decoder: RelaxedDecoder, size: tuple[int, int], device: torch.device
) -> Tensor:
    """Each connection's share of the total cost: [connections], sum 1.

    params: weights of its convolution. macs: those times the pixels of its source, for an image of
    ``size`` (height, width). latency: median time to convolve, upsample and add it alone, in turns
    with the others. Work that connections share is not taken into account: the true saving also
    depends on which other connections stay.
    """
    features = [(-(-size[0] // s), -(-size[1] // s)) for s in decoder.strides]
    shapes = []
    for stage, source in decoder.connections:
        conv = decoder.convs[source]
        at = (1, 1) if source == GLOBAL else features[int(source[1:]) - 1]
        shapes.append((int(conv.in_channels), at, features[stage - 1]))  # type: ignore[arg-type]
    if kind == "params":
        costs = [float(channels) for channels, _, _ in shapes]
    elif kind == "macs":
        costs = [float(channels * at[0] * at[1]) for channels, at, _ in shapes]
    else:
        seconds = time_calls(
            {shape: _connection(decoder.width, *shape, device) for shape in dict.fromkeys(shapes)},
            device,
            min_time=0.05,
            min_calls=10,
            warmup_time=0.02,
            block=0.01,
        )
        costs = [seconds[shape].median_ms for shape in shapes]
    total = torch.tensor(costs)
    return total / total.sum()


def _connection(
    width: int,
    channels: int,
    at: tuple[int, int],
    to: tuple[int, int],
    device: torch.device,
) -> Callable[[], None]:
    """A call that convolves, upsamples and adds one connection."""

    def blank(count: int, size: tuple[int, int]) -> Tensor:
        x = torch.zeros(1, count, *size, device=device)
        return x.contiguous(memory_format=torch.channels_last)

    x, total = blank(channels, at), blank(width, to)
    weight = torch.zeros(width, channels, 1, 1, device=device)

    def call() -> None:
        y = F.conv2d(x, weight)
        if at not in (to, (1, 1)):
            y = F.interpolate(y, to, mode="bilinear", align_corners=True)
        total.add_(y)

    return call


class NetworkCosts(TypedDict):
    """Costs of one image: milliseconds here, multiply-accumulates; parameters of the network.

    disturbed: the share of the processors that other work took while it was timed; None: none, or
    the system does not tell.
    """

    ms: float
    macs: int
    params: int
    disturbed: float | None


def network_costs(
    configs: Mapping[str, ResolvedRun],
    threads: int,
    briefly: bool = False,
    tell: Callable[[str], None] | None = None,
) -> dict[str, NetworkCosts]:
    """Costs of whole networks as they are deployed, by name; their latencies are taken in turns.

    configs: of one backbone, which all share in memory, at one size. The networks have random
    weights: none is read. tell: is told if other work disturbed the timing.
    """
    torch.set_num_threads(threads)
    counted: dict[str, dict[str, int]] = {}
    models: dict[str, nn.Module] = {}
    light = None
    backbones: dict[bool, Backbone] = {}
    first = next(iter(configs.values()))
    for name, config in configs.items():
        model = spec_of(config, make_tasks(config)).build()
        light = light or MapsOnly(model.backbone)
        counted[name] = deployed_costs(model, light, config.image_size)
        ready, setup = Setup(amp=config.amp).prepared(model)
        assert isinstance(ready, DensePredictor)
        ready.backbone = backbones.setdefault(setup.fused, ready.backbone)
        models[name] = ready
    latencies = time_models(
        models,
        first.image_size,
        first.device,
        setup=Setup(amp=first.amp),
        **(BRIEFLY if briefly else TIMING),
    )
    share = max(latency.disturbed or 0.0 for latency in latencies.values())
    if share and tell is not None:
        tell(f"wirings timed while other work took {share:.0%} of the processors: do not trust ms")
    return {
        name: {
            "ms": float(f"{latencies[name].median_ms:.4g}"),
            "macs": counts["macs"],
            "params": counts["params"],
            "disturbed": latencies[name].disturbed or None,
        }
        for name, counts in counted.items()
    }
