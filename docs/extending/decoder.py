"""A decoder: the deepest map and the finest one, projected and summed."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones import FeatureSpec
from models.decoders.base import DECODERS, Decoder, DecoderInfo


@DECODERS.register("two-scale")
class TwoScale(Decoder):
    """Maps [B, C_i, h_i, w_i] → [B, width, h_1, w_1], the finest resolution."""

    info = DecoderInfo("Two scales", "docs/extending.md")

    def __init__(self, features: Sequence[FeatureSpec], width: int = 64) -> None:
        super().__init__(features)
        self.out_channels = width  # what the head of each task reads
        self.fine = nn.Conv2d(features[0].channels, width, 1)
        self.deep = nn.Conv2d(features[-1].channels, width, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        fine, deep = self.fine(features[0]), self.deep(features[-1])
        return F.relu(fine + F.interpolate(deep, fine.shape[-2:], mode="bilinear"))
