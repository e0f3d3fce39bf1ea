"""HED: a side output on the last map of every stride, and their weighted fusion."""

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones import FeatureSpec
from models.decoders._sides import WeightedSum
from models.decoders.base import DECODERS, Decoder, DecoderInfo, SideHead, last_of_each_stride

SOURCE = "Xie, Tu: Holistically-Nested Edge Detection, ICCV 2015"


class _Sides(Decoder):
    """Maps → the last map of each stride. All weights are in the head."""

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        super().__init__(features)
        self.indices = list(last_of_each_stride(features).values())
        self.channels = [features[i].channels for i in self.indices]
        self.finest = features[0].stride

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [features[i] for i in self.indices]


class HalfResolutionHED(_Sides):
    """HED's first revision here: fused at the finest map's size, whose corners are the image's.

    side_s = conv1x1(map_s); fused = Σ_s h_s · up(side_s). On VGG-16 it reads conv2_2 … conv5_3 and
    pool5.
    """

    info = DecoderInfo("HED", SOURCE, counts_classifier=True)

    def head(self, channels: int) -> nn.Module:
        return _HalfResolutionHead(self.channels, channels)


@DECODERS.register("hed")
class HED(_Sides):
    """Maps → the last map of each stride, which the head scores, upsamples to the image and fuses.

    side_s = up(conv1x1(map_s)); fused = Σ_s h_s · side_s + b, each h_s starting at 1 / sides.
    Training supervises the fused logits and each side alike. On VGG-16 this is the published
    network: its maps are those of conv1_2, conv2_2, conv3_3, conv4_3 and conv5_3 before pooling, at
    strides 1 to 16. On a backbone without a map of stride 1 the finest side is coarser.

    ``up`` is bilinear between the centres of the pixels that a map's pixels cover, as the authors'
    deconvolution (kernel 2s at stride s, bilinear filter, cropped) computes inside the image. At
    the border theirs reads 35 pixels of padding around the image, this one repeats the outermost
    pixel. The filters of the sides start at random: with the published zeros no gradient reaches
    the backbone in the first step.
    """

    info = DecoderInfo(
        "HED", SOURCE, size_divisor=32, counts_classifier=True, full_resolution=True, revision=2
    )
    earlier: ClassVar = {1: HalfResolutionHED}

    def head(self, channels: int) -> nn.Module:
        return _Head(self.channels, channels, self.finest)


class _Head(SideHead):
    def __init__(self, features: Sequence[int], channels: int, finest: int) -> None:
        super().__init__()
        self.sides = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in features)
        self.fuse = WeightedSum(len(features), channels, bias=True)
        self.finest = finest

    def forward(self, maps: list[Tensor]) -> Tensor | list[Tensor]:
        height, width = (side * self.finest for side in maps[0].shape[-2:])
        sides = [
            _upsampled(conv(x), (height, width)) for conv, x in zip(self.sides, maps, strict=True)
        ]
        fused: Tensor = self.fuse(sides, (height, width))
        return [fused, *sides] if self.with_sides else fused


def _upsampled(x: Tensor, size: tuple[int, int]) -> Tensor:
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class _HalfResolutionHead(SideHead):
    def __init__(self, features: Sequence[int], channels: int) -> None:
        super().__init__()
        self.sides = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in features)
        self.fuse = WeightedSum(len(features), channels)

    def forward(self, maps: list[Tensor]) -> Tensor | list[Tensor]:
        sides = [conv(x) for conv, x in zip(self.sides, maps, strict=True)]
        fused: Tensor = self.fuse(sides, sides[0].shape[-2:])
        return [fused, *sides] if self.with_sides else fused
