"""Decoders of segmentation-models-pytorch, on our backbones' features."""

from collections.abc import Sequence
from typing import Any

import segmentation_models_pytorch as smp
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn

from models.backbones import FeatureSpec
from models.decoders.base import DECODERS, Decoder, DecoderInfo, last_of_each_stride

PYRAMID = (2, 4, 8, 16, 32)


class SMPDecoder(Decoder):
    """Feeds the last feature of each stride to ``self.net``, as the library's encoders do."""

    net: nn.Module

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        super().__init__(features)
        last = last_of_each_stride(features)
        self.indices = [last.get(stride) for stride in PYRAMID]
        self.channels = [3] + [0 if i is None else features[i].channels for i in self.indices]

    def forward(self, features: list[Tensor]) -> Tensor:
        finest = features[0]
        empty = finest.new_empty(  # the library's stand-in for the stride that a backbone lacks
            finest.shape[0], 0, 2 * finest.shape[2], 2 * finest.shape[3]
        )
        height, width = features[-1].shape[-2:]
        maps = []
        for stride, index in zip(PYRAMID, self.indices, strict=True):
            size = (height * PYRAMID[-1] // stride, width * PYRAMID[-1] // stride)
            x = empty if index is None else features[index]
            if index is not None and x.shape[-2:] != size:  # Inception's maps are not H / stride
                x = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
            maps.append(x)
        out: Tensor = self.net([empty, *maps])
        return out


@DECODERS.register("smp-fpn")
class FPN(SMPDecoder):
    """Semantic FPN → [B, 128, H/4, W/4], with the library's own settings."""

    info = DecoderInfo(
        "FPN (smp)",
        f"Kirillov et al. 2019, by segmentation-models-pytorch {smp.__version__}",
        strides=(4, 8, 16, 32),
        size_divisor=32,
    )

    def __init__(self, features: Sequence[FeatureSpec], width: int = 64) -> None:  # noqa: ARG002
        super().__init__(features)
        self.net = FPNDecoder(self.channels)
        self.out_channels = 128


@DECODERS.register("smp-unet")
class Unet(SMPDecoder):
    """U-Net with 3×3 convolutions → [B, 16, H, W], with the library's own settings."""

    info = DecoderInfo(
        "U-Net (smp)",
        f"Ronneberger et al. 2015, by segmentation-models-pytorch {smp.__version__}",
        strides=(4, 8, 16, 32),
        size_divisor=32,
    )

    def __init__(self, features: Sequence[FeatureSpec], width: int = 64) -> None:  # noqa: ARG002
        super().__init__(features)
        channels: Any = (256, 128, 64, 32, 16)
        self.net = UnetDecoder(self.channels, channels)
        self.out_channels = channels[-1]
