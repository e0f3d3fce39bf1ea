"""Decoders of segmentation-models-pytorch on our backbones' features, with its own settings.

The library dilates the backbone for PSPNet and both DeepLabs; here they read its plain maps, which
are coarser. Not here: PAN, whose pyramid needs maps of 8×8 at least, and MAnet, whose attention
takes memory with the fourth power of the image's side.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import segmentation_models_pytorch as smp
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.deeplabv3.decoder import (
    DeepLabV3Decoder,
    DeepLabV3PlusDecoder,
)
from segmentation_models_pytorch.decoders.dpt.decoder import FusionBlock
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from segmentation_models_pytorch.decoders.linknet.decoder import LinknetDecoder
from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder
from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn

from models.backbones import FeatureSpec
from models.decoders.base import DECODERS, Decoder, DecoderInfo, last_of_each_stride

PYRAMID = (2, 4, 8, 16, 32)
ATROUS_RATES = (12, 24, 36)
ASPP_DROPOUT = 0.5


def _info(title: str, source: str, **facts: Any) -> DecoderInfo:
    by = f"{source}, by segmentation-models-pytorch {smp.__version__}"
    return DecoderInfo(f"{title} (smp)", by, **facts)


class SMPDecoder(Decoder):
    """Feeds the last feature of each stride to ``self.net``, as the library's encoders do.

    A subclass needs stride 32.
    """

    net: nn.Module

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        super().__init__(features)
        last = last_of_each_stride(features)
        self.indices = [last.get(stride) for stride in PYRAMID]
        self.deepest = last[PYRAMID[-1]]
        self.net = self.build(
            [3] + [0 if i is None else features[i].channels for i in self.indices]
        )

    @abstractmethod
    def build(self, channels: Any) -> nn.Module:
        """The library's decoder. channels: of the image and strides 2 to 32; 0: no such map."""

    def forward(self, features: list[Tensor]) -> Tensor:
        deepest = features[self.deepest]
        batch, _, height, width = deepest.shape

        # no decoder reads the image, but some read its size
        maps = []
        for stride, index in zip((1, *PYRAMID), (None, *self.indices), strict=True):
            size = (height * PYRAMID[-1] // stride, width * PYRAMID[-1] // stride)
            x = deepest.new_empty(batch, 0, *size) if index is None else features[index]
            if x.shape[-2:] != size:  # Inception's maps are not H / stride
                x = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
            maps.append(x)
        out: Tensor = self.net(maps)
        return out


class SMPDeepest(Decoder):
    """Feeds the deepest feature alone to ``self.net``."""

    net: nn.Module

    def forward(self, features: list[Tensor]) -> Tensor:
        out: Tensor = self.net([features[-1]])
        return out


@DECODERS.register("smp-fpn")
class FPN(SMPDecoder):
    """Semantic FPN → [B, 128, H/4, W/4]."""

    info = _info("FPN", "Kirillov et al. 2019", strides=(4, 8, 16, 32), size_divisor=32)
    out_channels = 128

    def build(self, channels: Any) -> nn.Module:
        net: nn.Module = FPNDecoder(channels)
        return net


@DECODERS.register("smp-unet")
class Unet(SMPDecoder):
    """U-Net with 3×3 convolutions → [B, 16, H, W]."""

    info = _info("U-Net", "Ronneberger et al. 2015", strides=(4, 8, 16, 32), size_divisor=32)
    out_channels = 16

    def build(self, channels: Any) -> nn.Module:
        net: nn.Module = UnetDecoder(channels, (256, 128, 64, 32, self.out_channels))
        return net


@DECODERS.register("smp-linknet")
class Linknet(SMPDecoder):
    """LinkNet → [B, 32, H, W]."""

    # the library's 0.5 cannot do without stride 2
    info = _info(
        "LinkNet", "Chaurasia, Culurciello 2017", strides=(2, 4, 8, 16, 32), size_divisor=32
    )
    out_channels = 32

    def build(self, channels: Any) -> nn.Module:
        net: nn.Module = LinknetDecoder(channels, self.out_channels)
        return net


@DECODERS.register("smp-upernet")
class UPerNet(SMPDecoder):
    """UPerNet → [B, 256, H/4, W/4]."""

    info = _info(
        "UPerNet",
        "Xiao et al. 2018",
        strides=(4, 8, 16, 32),
        size_divisor=32,
        min_train_batch=2,  # BatchNorm on the global average
    )
    out_channels = 256

    def build(self, channels: Any) -> nn.Module:
        net: nn.Module = UPerNetDecoder(channels, decoder_channels=self.out_channels)
        return net


@DECODERS.register("smp-segformer")
class Segformer(SMPDecoder):
    """SegFormer's all-MLP decoder, on all available strides → [B, 256, H/4, W/4]."""

    info = _info("SegFormer", "Xie et al. 2021", strides=(4, 8, 16, 32), size_divisor=32)
    out_channels = 256

    def build(self, channels: Any) -> nn.Module:
        net: nn.Module = SegformerDecoder(channels, segmentation_channels=self.out_channels)
        return net


@DECODERS.register("smp-dpt")
class DPT(SMPDecoder):
    """DPT's fusion from coarse to fine → [B, 256, H/2, W/2].

    Its readout and its learned resampling of a transformer's maps are left out: the backbone's maps
    have the strides already, and a neck would be compared instead of a decoder.
    """

    info = _info(
        "DPT",
        "Ranftl et al. 2021, without its reassembling",
        strides=(4, 8, 16, 32),
        size_divisor=32,
    )
    out_channels = 256

    def build(self, channels: Any) -> nn.Module:
        return _Fusion(channels[2:], self.out_channels)


class _Fusion(nn.Module):
    """Maps of strides 4 to 32, each through a 3×3 convolution, fused from the coarsest on."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(
            nn.Conv2d(count, width, 3, padding=1, bias=False) for count in channels
        )
        self.fuse = nn.ModuleList(FusionBlock(width) for _ in channels)

    def forward(self, maps: list[Tensor]) -> Tensor:
        out: Tensor | None = None
        steps = zip(maps[2:], self.project, self.fuse, strict=True)
        for x, project, fuse in reversed(list(steps)):
            out = fuse(project(x), out)
        assert out is not None
        return out


@DECODERS.register("smp-deeplabv3plus")
class DeepLabV3Plus(SMPDecoder):
    """DeepLabV3+: atrous pyramid on stride 32, refined by stride 4 → [B, 256, H/4, W/4]."""

    info = _info(
        "DeepLabV3+",
        "Chen et al. 2018, backbone not dilated",
        strides=(4, 32),
        size_divisor=32,
        min_train_batch=2,  # BatchNorm on the global average
    )
    out_channels = 256

    def build(self, channels: Any) -> nn.Module:
        net: nn.Module = DeepLabV3PlusDecoder(
            channels, 5, self.out_channels, ATROUS_RATES, 16, True, ASPP_DROPOUT
        )
        # the library's factor 4 leads from stride 16 to stride 4
        net.up = nn.Upsample(scale_factor=8, mode="bilinear", align_corners=True)
        return net


@DECODERS.register("smp-deeplabv3")
class DeepLabV3(SMPDeepest):
    """DeepLabV3's atrous pyramid → [B, 256, h_L, w_L]."""

    info = _info(
        "DeepLabV3",
        "Chen et al. 2017, backbone not dilated",
        min_train_batch=2,  # BatchNorm on the global average
    )
    out_channels = 256

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        super().__init__(features)
        self.net = DeepLabV3Decoder(
            features[-1].channels, self.out_channels, ATROUS_RATES, False, ASPP_DROPOUT
        )


@DECODERS.register("smp-pspnet")
class PSPNet(SMPDeepest):
    """PSPNet's pooling pyramid → [B, 512, h_L, w_L]."""

    info = _info("PSPNet", "Zhao et al. 2017, backbone not dilated")
    out_channels = 512

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        super().__init__(features)
        self.net = PSPDecoder([features[-1].channels], out_channels=self.out_channels)
