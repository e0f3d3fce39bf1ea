"""HED against its formula: side_s = conv1x1(map_s), fused = Σ_s h_s · up(side_s)."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.backbones import FeatureSpec
from models.decoders.base import DECODERS

SPECS = [FeatureSpec(c, s) for c, s in ((4, 2), (5, 2), (6, 4), (7, 8), (8, 8))]
LAST = (1, 2, 4)


def hed() -> Any:
    return DECODERS.get("hed")(SPECS)


def maps_of(height: int = 24, width: int = 16) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, s.channels, height // s.stride, width // s.stride) for s in SPECS]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_formula(channels: int) -> None:
    torch.manual_seed(1)
    decoder, maps = hed(), maps_of()
    head = decoder.head(channels)
    weights = torch.randn(channels, len(LAST))
    with torch.no_grad():
        head.fuse.conv.weight.copy_(weights.reshape(head.fuse.conv.weight.shape))
        sides = []
        for conv, index in zip(head.sides, LAST, strict=True):
            side = torch.einsum("oc,bchw->bohw", conv.weight[:, :, 0, 0], maps[index])
            sides.append(side + conv.bias[:, None, None])
        fused = torch.zeros(2, channels, 12, 8)
        for c in range(channels):
            for s, side in enumerate(sides):
                up = F.interpolate(side, (12, 8), mode="bilinear", align_corners=True)
                fused[:, c] += weights[c, s] * up[:, c]
        seen = head(decoder(maps))
        torch.testing.assert_close(head.eval()(decoder(maps)), fused)
    for expected, out in zip([fused, *sides], seen, strict=True):
        torch.testing.assert_close(out, expected)


def test_the_fusion_starts_as_the_mean() -> None:
    head = hed().head(1)
    maps = maps_of()
    with torch.no_grad():
        for conv in head.sides:
            conv.weight.zero_()
        for value, conv in zip((1.0, 2.0, 6.0), head.sides, strict=True):
            conv.bias.fill_(value)
        fused = head([maps[i] for i in LAST])[0]
    torch.testing.assert_close(fused, torch.full((2, 1, 12, 8), 3.0))
