"""SeaFormer's light head: a fine map, weighted by what the coarser ones say of each place."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from models.decoders.base import DECODERS, Decoder, DecoderInfo, last_of_each_stride
from models.feature_maps import FeatureSpec

STRIDES = (8, 16, 32)
DROPOUT = 0.1


def _projection(inputs: int, outputs: int, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 1, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class _Fusion(nn.Module):
    """x [B, C, h, w], coarse map → [B, width, h, w]: x times a gate in 0…1 of the coarse map."""

    def __init__(self, channels: int, coarse_channels: int, width: int) -> None:
        super().__init__()
        self.local = _projection(channels, width)
        self.gate = _projection(coarse_channels, width)

    def forward(self, x: Tensor, coarse: Tensor) -> Tensor:
        gate = F.hardsigmoid(self.gate(coarse))
        size = x.shape[-2:]
        gate = F.interpolate(gate, size=size, mode="bilinear", align_corners=False)
        out: Tensor = self.local(x) * gate
        return out


@DECODERS.register("seaformer-head")
class SeaFormerHead(Decoder):
    """Maps → [B, 3/2 · width, h_8, w_8]; sizes as of SeaFormer-T (64, then 96 channels).

    The last map of stride 8 is weighted by that of stride 16, then by that of stride 32. SeaFormer
    itself has strides 8, 32 and 64 there.
    """

    info = DecoderInfo(
        "SeaFormer head",
        "Wan et al.: SeaFormer, ICLR 2023; as of its T, on strides 8, 16 and 32",
        strides=STRIDES,
    )

    def __init__(self, features: Sequence[FeatureSpec], width: int = 64) -> None:
        super().__init__(features)
        last = last_of_each_stride(features)
        self.indices = [last[stride] for stride in STRIDES]
        fine, middle, coarse = (features[i].channels for i in self.indices)
        self.out_channels = 3 * width // 2
        self.fusions = nn.ModuleList(
            [_Fusion(fine, middle, width), _Fusion(width, coarse, self.out_channels)]
        )
        self.mix = nn.Sequential(
            _projection(self.out_channels, self.out_channels, groups=self.out_channels),
            nn.ReLU(),
            nn.Dropout2d(DROPOUT),
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        x, *coarser = (features[i] for i in self.indices)
        for fusion, coarse in zip(self.fusions, coarser, strict=True):
            x = fusion(x, coarse)
        out: Tensor = self.mix(x)
        return out
