"""DSS against its formula, and the published branches."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones import FeatureSpec
from models.decoders.base import DECODERS

FIVE = [FeatureSpec(c, s) for c, s in ((3, 2), (4, 2), (5, 4), (6, 8), (7, 16), (8, 32))]
FOUR = FIVE[2:]
# what every side takes in, as published: from the deepest two, or the four below
TAKES = {6: (), 5: (), 4: (5, 6), 3: (5, 6), 2: (3, 4, 5, 6), 1: (3, 4, 5, 6)}


def dss(specs: list[FeatureSpec], width: int = 2) -> Any:
    torch.manual_seed(0)
    return DECODERS.get("dss")(specs, width=width)


def maps_of(specs: list[FeatureSpec]) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(2, s.channels, 64 // s.stride, 96 // s.stride) for s in specs]


def up(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=True)


def convolutions(module: nn.Module) -> list[tuple[int, int, int]]:
    layers = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    return [(c.in_channels, c.out_channels, c.kernel_size[0]) for c in layers]


def test_the_published_branches() -> None:
    with torch.device("meta"):
        vgg = [FeatureSpec(c, s) for c, s in ((64, 2), (128, 4), (256, 8), (512, 16), (512, 32))]
        decoder: Any = DECODERS.get("dss")(vgg)
    assert [convolutions(branch) for branch in decoder.branches] == [
        [(64, 128, 3), (128, 128, 3)],
        [(128, 128, 3), (128, 128, 3)],
        [(256, 256, 5), (256, 256, 5)],
        [(512, 256, 5), (256, 256, 5)],
        [(512, 512, 5), (512, 512, 5)],
        [(512, 512, 7), (512, 512, 7)],
    ]


def test_the_branches_read_the_last_map_of_each_stride_and_the_pooled_deepest() -> None:
    decoder, maps = dss(FIVE), maps_of(FIVE)
    with torch.no_grad():
        outs = decoder(maps)
        inputs = [*maps[1:], F.max_pool2d(maps[-1], 2, ceil_mode=True)]
        for out, branch, x in zip(outs, decoder.branches, inputs, strict=True):
            first, second = (m for m in branch if isinstance(m, nn.Conv2d))
            torch.testing.assert_close(out, second(first(x).relu()).relu())


@pytest.mark.parametrize("specs", [FIVE, FOUR], ids=["five strides", "four strides"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_formula(specs: list[FeatureSpec], channels: int) -> None:
    """R_m = A_m + Σ r_i · up(R_i) for each channel; fused = Σ f_m · up(R_m)."""
    decoder = dss(specs)
    head = decoder.head(channels)
    for conv in (m for m in head.modules() if isinstance(m, nn.Conv2d)):
        nn.init.normal_(conv.weight)
    with torch.no_grad():
        branches = decoder(maps_of(specs))
        first = 7 - len(branches)
        results: dict[int, Tensor] = {}
        for side in range(6, first - 1, -1):
            results[side] = head.scores[str(side)](branches[side - first]).clone()
            if TAKES[side]:
                weights = head.short[str(side)].conv.weight.view(channels, -1)
                for c in range(channels):
                    for i, source in enumerate(TAKES[side]):
                        deeper = up(results[source], results[side].shape[-2:])
                        results[side][:, c] += weights[c, i] * deeper[:, c]
        sides = [results[side] for side in sorted(results)]
        size = sides[0].shape[-2:]
        weights = head.fuse.conv.weight.view(channels, -1)
        fused = sum(weights[:, i, None, None] * up(side, size) for i, side in enumerate(sides))
        for expected, out in zip([fused, *sides], head(branches), strict=True):
            torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
        predicted = (fused + sum(up(results[side], size) for side in (2, 3, 4))) / 4
        torch.testing.assert_close(head.eval()(branches), predicted, rtol=1e-4, atol=1e-5)
