"""LR-ASPP, MobileNetV3's head: a gated deep map, and a finer one beside it in the classifier."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from models.decoders.base import DECODERS, Decoder, DecoderInfo, last_of_each_stride
from models.feature_maps import FeatureSpec

CHANNELS = 128
FINE = 8


@DECODERS.register("lraspp")
class LRASPP(Decoder):
    """Maps → [map [B, 128, h, w], E_8 [B, C, h, w]], both at stride 8.

    The deepest map goes through a 1×1 convolution, and is gated by one of its global average; the
    head classifies both results and adds. The publication averages over large strided windows, here
    over all of the map, as torchvision does. It dilates the backbone to stride 16
    (``output_stride``), which is not done here unless asked for.
    """

    info = DecoderInfo(
        "LR-ASPP",
        "Howard et al.: Searching for MobileNetV3, ICCV 2019; global average, backbone not dilated",
        strides=(FINE,),
    )

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        super().__init__(features)
        self.fine = last_of_each_stride(features)[FINE]
        self.fine_channels = features[self.fine].channels
        self.out_channels = CHANNELS
        deepest = features[-1].channels
        self.local = nn.Sequential(
            nn.Conv2d(deepest, CHANNELS, 1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU()
        )
        self.gate = nn.Conv2d(deepest, CHANNELS, 1, bias=False)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        deepest, fine = features[-1], features[self.fine]
        gate = self.gate(deepest.mean((2, 3), keepdim=True)).sigmoid()
        x = self.local(deepest) * gate
        x = F.interpolate(x, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return [x, fine]

    def head(self, channels: int) -> nn.Module:
        return _Head(self.fine_channels, channels)


class _Head(nn.Module):
    def __init__(self, fine_channels: int, channels: int) -> None:
        super().__init__()
        self.deep = nn.Conv2d(CHANNELS, channels, 1)
        self.fine = nn.Conv2d(fine_channels, channels, 1)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        deep, fine = inputs
        out: Tensor = self.deep(deep) + self.fine(fine)
        return out
