"""The weighted sum of score maps of several sizes, for decoders with side outputs."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Map [B, C, h, w] at ``size``, bilinear from corner to corner."""
    if x.shape[-2:] == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


class WeightedSum(nn.Module):
    """Score maps [B, C, h_i, w_i] → Σ w_i · resized(map_i) [B, C, *size], plus a bias if asked.

    Every channel has weights of its own, so that C channels are fused as C single maps would be;
    all start at 1 / ``maps``, biases at 0.
    """

    def __init__(self, maps: int, channels: int, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(maps * channels, channels, 1, groups=channels, bias=bias)
        nn.init.constant_(self.conv.weight, 1 / maps)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        # a group of the convolution takes one channel of each map
        stacked = torch.stack([resized(x, size) for x in maps], dim=2).flatten(1, 2)
        out: Tensor = self.conv(stacked)
        return out
