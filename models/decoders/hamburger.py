"""Hamburger, SegNeXt's head: global context as a low-rank approximation of the deep maps."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.decoders.base import DECODERS, Decoder, DecoderInfo, last_of_each_stride
from models.feature_maps import FeatureSpec

STRIDES = (8, 16, 32)
CHANNELS = 256
RANK = 16
"""Of SegNeXt's settings; Geng et al. have 64."""
STEPS = {True: 6, False: 7}
"""Multiplicative updates in training and in evaluation."""
GROUPS = 32
DROPOUT = 0.1
EPSILON = 1e-6


class LowRank(nn.Module):
    """x ≥ 0 [B, C, h, w] → its approximation by RANK bases, of the same shape.

    Non-negative matrix factorisation by multiplicative updates. The gradient passes the last update
    of the coefficients only (Geng et al., section 3). The publication draws the first bases anew in
    each forward; here they are drawn once, so that an image has one result.
    """

    bases: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        bases = torch.rand(
            channels, RANK, generator=torch.Generator("cpu").manual_seed(0), device="cpu"
        )
        self.register_buffer("bases", F.normalize(bases, dim=0))

    def forward(self, image: Tensor) -> Tensor:
        # products of many small numbers: half precision would not do
        x = image.flatten(2).to(torch.promote_types(image.dtype, torch.float32))
        device = image.device.type
        if image.is_meta or not torch.is_autocast_enabled(device):
            # without the context, which the meta device lacks and torch.export cannot save
            return self._approximate(x).to(image.dtype).view_as(image)
        with torch.autocast(device, enabled=False):
            return self._approximate(x).to(image.dtype).view_as(image)

    def _approximate(self, x: Tensor) -> Tensor:
        """x [B, C, N] → bases @ shares, of the same shape."""
        with torch.no_grad():
            bases = self.bases.to(x.dtype)  # each image has its own from the first update on
            shares = (x.mT @ bases).softmax(-1)
            for _ in range(STEPS[self.training]):
                shares = shares * (x.mT @ bases) / (shares @ (bases.mT @ bases) + EPSILON)
                bases = bases * (x @ shares) / (bases @ (shares.mT @ shares) + EPSILON)
        shares = shares * (x.mT @ bases) / (shares @ (bases.mT @ bases) + EPSILON)
        return bases @ shares.mT


def _normalised(inputs: int, relu: bool) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, CHANNELS, 1, bias=False), nn.GroupNorm(GROUPS, CHANNELS)]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


@DECODERS.register("hamburger")
class Hamburger(Decoder):
    """Maps → [B, 256, h_8, w_8]: the last maps of strides 8, 16 and 32, joined, and their context.

    Light, as SegNeXt has it.
    """

    info = DecoderInfo(
        "Hamburger (light)",
        "Geng et al.: Is Attention Better Than Matrix Decomposition?, ICLR 2021; as in SegNeXt",
        strides=STRIDES,
    )

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        super().__init__(features)
        last = last_of_each_stride(features)
        self.indices = [last[stride] for stride in STRIDES]
        self.out_channels = CHANNELS
        self.squeeze = _normalised(sum(features[i].channels for i in self.indices), relu=True)
        self.lower = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), nn.ReLU())
        self.low_rank = LowRank(CHANNELS)
        self.upper = _normalised(CHANNELS, relu=False)
        self.align = _normalised(CHANNELS, relu=True)
        self.dropout = nn.Dropout2d(DROPOUT)

    def forward(self, features: list[Tensor]) -> Tensor:
        size = features[self.indices[0]].shape[-2:]
        maps = [
            F.interpolate(features[i], size=size, mode="bilinear", align_corners=False)
            for i in self.indices
        ]
        x = self.squeeze(torch.cat(maps, dim=1))
        x = F.relu(x + self.upper(self.low_rank(self.lower(x))))
        out: Tensor = self.dropout(self.align(x))
        return out
