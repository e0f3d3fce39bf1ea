"""Maps of the strides that decoders expect, from a backbone that has fewer: without parameters.

A plain vision transformer gives maps of one resolution. Resizing them adds nothing that could
learn, so that two decoders behind it differ by themselves only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class Level:
    """A map of ``stride`` (input pixels per map pixel), resized from the map at ``source``."""

    source: int
    stride: int


def levels(strides: Sequence[int]) -> tuple[Level, ...]:
    """What to make of maps with ``strides``, in order of depth: from high resolution to low.

    Of one stride: the strides 4, 8, 16 and 32 are shared out among the maps in order, the
    shallowest first. Of several: a map whose stride is 2 or one of those stays, another moves to
    the nearest of them, and those still missing are resized from the map that is nearest. Of two
    that are as near the finer one is taken, since it holds more.
    """
    if len(set(strides)) == 1:
        count = max(len(strides), len(STRIDES))
        return tuple(
            Level(i * len(strides) // count, STRIDES[i * len(STRIDES) // count])
            for i in range(count)
        )
    kept = [s if s in (2, *STRIDES) else _nearest(s, STRIDES) for s in strides]
    made = [Level(source, stride) for source, stride in enumerate(kept)]
    for stride in STRIDES:
        if stride not in kept:
            near = _nearest(stride, sorted(set(kept)))
            # the deepest of that stride has seen the most of the image
            made.append(Level(max(i for i, s in enumerate(kept) if s == near), stride))
    return tuple(sorted(made, key=lambda level: (level.stride, level.source)))


def _nearest(stride: int, among: Sequence[int]) -> int:
    """The nearest by ratio, the first of equals."""
    return min(among, key=lambda other: max(stride, other) / min(stride, other))


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """A map [B, C, h, w] at ``size``: bilinear, and averages where it shrinks to half or less."""
    height, width = size
    times = max(min(x.shape[-2] // height, x.shape[-1] // width), 1)
    between = (height * times, width * times)
    if x.shape[-2:] != between:
        x = F.interpolate(x, size=between, mode="bilinear", align_corners=False)
    return F.avg_pool2d(x, times) if times > 1 else x
