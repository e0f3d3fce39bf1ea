"""Costs of a decoder's connections, counted or measured on the device."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.speed.latency import time_calls
from models.connectivity import GLOBAL
from models.relaxed_decoder import RelaxedDecoder

Cost = Literal["latency", "macs", "params"]


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
