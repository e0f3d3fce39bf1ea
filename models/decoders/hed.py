"""HED: a side output on the last map of every stride, and their weighted fusion."""

from collections.abc import Sequence

from torch import Tensor, nn

from models.backbones import FeatureSpec
from models.decoders._sides import WeightedSum
from models.decoders.base import DECODERS, Decoder, DecoderInfo, last_of_each_stride


@DECODERS.register("hed")
class HED(Decoder):
    """Maps → the last map of each stride. All weights are in the head.

    side_s = conv1x1(map_s); fused = Σ_s h_s · up(side_s), at the finest map's size. Training
    supervises the fused logits and each side alike.
    """

    info = DecoderInfo(
        "HED",
        "Xie, Tu: Holistically-Nested Edge Detection, ICCV 2015",
        counts_classifier=True,
    )

    def __init__(self, features: Sequence[FeatureSpec], width: int = 64) -> None:  # noqa: ARG002
        super().__init__(features)
        self.indices = list(last_of_each_stride(features).values())
        self.channels = [features[i].channels for i in self.indices]

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [features[i] for i in self.indices]

    def head(self, channels: int) -> nn.Module:
        return _Head(self.channels, channels)


class _Head(nn.Module):
    def __init__(self, features: Sequence[int], channels: int) -> None:
        super().__init__()
        self.sides = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in features)
        self.fuse = WeightedSum(len(features), channels)

    def forward(self, maps: list[Tensor]) -> Tensor | list[Tensor]:
        sides = [conv(x) for conv, x in zip(self.sides, maps, strict=True)]
        fused: Tensor = self.fuse(sides, sides[0].shape[-2:])
        return [fused, *sides] if self.training else fused
