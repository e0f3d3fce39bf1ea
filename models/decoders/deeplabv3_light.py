"""DeepLab-V3 (light): the deepest map beside its global average, without atrous branches."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones import FeatureSpec
from models.decoders.base import DECODERS, Decoder, DecoderInfo

BRANCH_CHANNELS = 256


@DECODERS.register("deeplabv3-light")
class DeepLabV3Light(Decoder):
    """Maps → [B, 512, h_L, w_L]: conv1x1(E_L) ‖ conv1x1(global average of E_L)."""

    info = DecoderInfo(
        "DeepLab-V3 (light)",
        "Chen et al. 2017; light as in MobileNetV2's and SparseMask's tables",
        counts_classifier=True,
    )

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        super().__init__(features)
        channels = features[-1].channels
        self.local = nn.Sequential(
            nn.Conv2d(channels, BRANCH_CHANNELS, 1, bias=False), nn.BatchNorm2d(BRANCH_CHANNELS)
        )
        # a bias in place of BatchNorm: a batch of one has one value a channel here
        self.pooled = nn.Conv2d(channels, BRANCH_CHANNELS, 1)
        self.out_channels = 2 * BRANCH_CHANNELS

    def forward(self, features: list[Tensor]) -> Tensor:
        deepest = features[-1]
        local = self.local(deepest)
        pooled = self.pooled(deepest.mean((2, 3), keepdim=True))
        return F.relu(torch.cat([local, pooled.expand_as(local)], dim=1))
