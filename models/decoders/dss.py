"""DSS: side branches of wide convolutions, joined by short connections from deep to shallow."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones import FeatureSpec
from models.decoders._sides import WeightedSum, resized
from models.decoders.base import DECODERS, Decoder, DecoderInfo, last_of_each_stride


class Side(NamedTuple):
    """A branch's kernel, its channels as a multiple of width, and the sides that it takes in."""

    kernel: int
    factor: int
    deeper: tuple[int, ...] = ()


# as published
SIDES = {
    1: Side(3, 2, (3, 4, 5, 6)),
    2: Side(3, 2, (3, 4, 5, 6)),
    3: Side(5, 4, (5, 6)),
    4: Side(5, 4, (5, 6)),
    5: Side(5, 8),
    6: Side(7, 8),
}
AVERAGED = (2, 3, 4)


@DECODERS.register("dss")
class DSS(Decoder):
    """Maps → outputs of the side branches on the last map of each stride, finest first.

    Side 5 reads the deepest map, side 6 the same pooled by two, side 4 the map before, and so on;
    a backbone with four strides has no side 1. A branch is two convolutions with ReLU. The head
    scores each: R_m = conv1x1(branch_m) + Σ r_i · up(R_i) over deeper sides i. Training
    supervises the weighted sum of all R_m and each R_m alike; the prediction is the mean of that
    sum and R_2, R_3, R_4 (of logits rather than probabilities, so that it serves every task).

    The default width gives the published 128 to 512 channels, which were chosen for VGG-16. On
    MobileNetV2, whose deepest map has 1280, that makes 72.3 M weights. SparseMask's table 5 prints
    2.71 M for DSS on MobileNetV2, without the settings: narrower branches, or other maps; hence
    ``dss-light``.
    """

    info = DecoderInfo(
        "DSS",
        "Hou et al.: Deeply Supervised Salient Object Detection with Short Connections, CVPR 2017",
    )

    def __init__(self, features: Sequence[FeatureSpec], width: int = 64) -> None:
        super().__init__(features)
        self.indices = list(last_of_each_stride(features).values())[-5:]
        inputs = [features[i].channels for i in (*self.indices, self.indices[-1])]
        sides = list(SIDES)[-len(inputs) :]
        self.channels = {side: SIDES[side].factor * width for side in sides}
        self.branches = nn.ModuleList(
            _branch(c, self.channels[side], SIDES[side].kernel)
            for side, c in zip(sides, inputs, strict=True)
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        maps = [features[i] for i in self.indices]
        maps.append(F.max_pool2d(maps[-1], 2, ceil_mode=True))
        return [branch(x) for branch, x in zip(self.branches, maps, strict=True)]

    def head(self, channels: int) -> nn.Module:
        return _Head(self.channels, channels)


@DECODERS.register("dss-light")
class DSSLight(DSS):
    """DSS with branches of 8 to 32 channels: the width that comes nearest to SparseMask's table.

    On MobileNetV2 the branches have 3.2 M weights.
    """

    info = DecoderInfo("DSS (light)", "Hou et al., CVPR 2017; branches 1/16 as wide")

    def __init__(self, features: Sequence[FeatureSpec], width: int = 4) -> None:
        super().__init__(features, width)


def _branch(channels: int, width: int, kernel: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, padding=kernel // 2),
        nn.ReLU(),
        nn.Conv2d(width, width, kernel, padding=kernel // 2),
        nn.ReLU(),
    )


class _Head(nn.Module):
    def __init__(self, features: dict[int, int], channels: int) -> None:
        super().__init__()
        self.deepest_first = sorted(features, reverse=True)
        self.scores = nn.ModuleDict(
            {str(side): nn.Conv2d(c, channels, 1) for side, c in features.items()}
        )
        self.short = nn.ModuleDict(
            {
                str(side): WeightedSum(len(SIDES[side].deeper), channels)
                for side in features
                if SIDES[side].deeper
            }
        )
        self.fuse = WeightedSum(len(features), channels)

    def forward(self, maps: list[Tensor]) -> Tensor | list[Tensor]:
        results: dict[int, Tensor] = {}
        for side, x in zip(self.deepest_first, reversed(maps), strict=True):
            result = self.scores[str(side)](x)
            if SIDES[side].deeper:
                deeper = [results[source] for source in SIDES[side].deeper]
                result = result + self.short[str(side)](deeper, result.shape[-2:])
            results[side] = result
        sides = list(reversed(results.values()))
        size = sides[0].shape[-2:]
        fused: Tensor = self.fuse(sides, size)
        if self.training:
            return [fused, *sides]
        return torch.stack([fused, *(resized(results[s], size) for s in AVERAGED)]).mean(0)
