"""Learned necks: from a single-scale backbone's last map to maps of several strides.

Resizing without parameters (``pyramid``) is what a backbone does without one.
"""

from collections.abc import Mapping

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from models.pyramid import STRIDES, resized

CHANNELS = 256
OWN_STRIDE = 16


class SimpleFeaturePyramid(nn.Module):
    """ViTDet's neck (Li et al., "Exploring Plain Vision Transformer Backbones", ECCV 2022).

    ``forward(x, size)``: a map [B, ``channels``, h, w] of an image of ``size`` (H, W) → maps
    [B, 256, ⌈H/s⌉, ⌈W/s⌉] of the strides s = 4, 8, 16 and 32. The paper's patches have 16 pixels;
    a map of others is resized to that stride first.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        twice = nn.ConvTranspose2d(channels, half, 2, stride=2)
        four_times = nn.Sequential(
            nn.ConvTranspose2d(channels, half, 2, stride=2),
            LayerNorm2d(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, stride=2),
        )
        # the paper's maps are even; of an odd one the last row and column stay
        halved = nn.MaxPool2d(2, ceil_mode=True)
        self.scales = nn.ModuleList([four_times, twice, nn.Identity(), halved])
        self.projections = nn.ModuleList(map(_projection, (quarter, half, channels, channels)))

    def forward(self, x: Tensor, size: tuple[int, int]) -> list[Tensor]:
        x = resized(x, _at(size, OWN_STRIDE))
        return [
            project(resized(scale(x), _at(size, stride)))
            for stride, scale, project in zip(STRIDES, self.scales, self.projections, strict=True)
        ]


def _projection(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, CHANNELS, 1, bias=False),
        LayerNorm2d(CHANNELS),
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
        LayerNorm2d(CHANNELS),
    )


def _at(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-size[0] // stride), -(-size[1] // stride)


NECKS: Mapping[str, type[SimpleFeaturePyramid]] = {"vitdet": SimpleFeaturePyramid}
"""By the name that ``--backbone-arg neck=`` takes."""
