"""EfficientViT's segmentation head: three strides summed at stride 8, then inverted residuals."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from models.decoders.base import DECODERS, Decoder, DecoderInfo, last_of_each_stride
from models.feature_maps import FeatureSpec

STRIDES = (8, 16, 32)
EXPANSION = 4
BLOCKS = 3


def _convolution(
    inputs: int, outputs: int, size: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(
        convolution, nn.BatchNorm2d(outputs), nn.Hardswish() if act else nn.Identity()
    )


class _Block(nn.Module):
    """x + inverted residual of ``x``: 1×1 to four times the channels, 3×3 depthwise, 1×1 back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inside = EXPANSION * channels
        self.layers = nn.Sequential(
            _convolution(channels, inside),
            _convolution(inside, inside, size=3, groups=inside),
            _convolution(inside, channels, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return out


@DECODERS.register("efficientvit-head")
class EfficientViTHead(Decoder):
    """Maps → [B, 4 · width, h_8, w_8]; sizes as of EfficientViT-B1 (width 64, three blocks).

    The last map of each of the strides 8, 16 and 32 goes through a 1×1 convolution, the coarser
    ones upsampled (bicubic, as published).
    """

    info = DecoderInfo(
        "EfficientViT head",
        "Cai et al.: EfficientViT: Multi-Scale Linear Attention, ICCV 2023; as of its B1",
        strides=STRIDES,
    )

    def __init__(self, features: Sequence[FeatureSpec], width: int = 64) -> None:
        super().__init__(features)
        last = last_of_each_stride(features)
        self.indices = [last[stride] for stride in STRIDES]
        self.inputs = nn.ModuleList(
            _convolution(features[i].channels, width, act=False) for i in self.indices
        )
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(BLOCKS)))
        self.out_channels = EXPANSION * width
        self.expand = _convolution(width, self.out_channels)

    def forward(self, features: list[Tensor]) -> Tensor:
        first, *others = (
            layer(features[i]) for i, layer in zip(self.indices, self.inputs, strict=True)
        )
        size = first.shape[-2:]
        for x in others:
            first = first + F.interpolate(x, size=size, mode="bicubic", align_corners=False)
        out: Tensor = self.expand(self.blocks(first))
        return out
