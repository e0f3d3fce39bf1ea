"""Augmentation of a training batch by kornia: zoom, crop, flip, rotation, colour.

One affine map per image warps the image and its targets. Targets are shifted so that 0, which
warping leaves outside the image, means "ignore"; a target whose values depend on magnification,
such as depth, is then adapted.
"""

from dataclasses import dataclass

import kornia
import torch
from kornia import augmentation as K
from torch import Tensor

from common.errors import UsageError
from datasets.base import TARGETS

_LAST = torch.tensor([[[0.0, 0.0, 1.0]]])


def check_crop(size: tuple[int, int], crop: tuple[int, int]) -> None:
    """Raises UsageError if the crop (height, width) is larger than the image."""
    if crop[0] > size[0] or crop[1] > size[1]:
        raise UsageError(
            f"--crop-size: {crop[0]}x{crop[1]} is larger than the image, {size[0]}x{size[1]}"
        )


@dataclass(frozen=True)
class Geometry:
    """Zoom, shift and flip of each image of a batch. matrix: [B, 2, 3], source → output pixels."""

    matrix: Tensor
    zoom: Tensor
    size: tuple[int, int]


class Augment:
    """Images [B, C, H, W] in 0…1 with targets [B, H, W] → the same, of ``crop`` size.

    Random numbers come from torch's global generator: seed it. zoom: range of the magnification;
    below 1 the surroundings are black and ignored. rotate: degrees; the image is turned about the
    crop's centre by a random multiple of it (HED: 22.5). colour: relative change of brightness,
    contrast and saturation. channels: of the images. Other than RGB have no saturation: an image's
    contrast and brightness change in all channels alike, brightness by a share of each channel's
    mean, since channels may fill a small part of 0…1.
    """

    def __init__(
        self,
        size: tuple[int, int],
        crop: tuple[int, int] | None = None,
        zoom: tuple[float, float] = (1.0, 1.0),
        flip: bool = True,
        colour: float = 0.0,
        rotate: float = 0.0,
        channels: int = 3,
    ) -> None:
        """Raises UsageError if the crop is larger than the image."""
        crop = crop or size
        check_crop(size, crop)
        self.size, self.crop, self.zoom, self.flip = size, crop, zoom, flip
        self.rotate = rotate
        self.strength, self.rgb = colour, channels == 3
        span = (1 - colour, 1 + colour)
        # kornia's brightness adds, its contrast multiplies: added black would hide dark scenes
        shift = (1 - colour / 4, 1 + colour / 4)
        self.colour = (
            K.ImageSequential(
                K.RandomBrightness(shift, p=0.8),
                K.RandomContrast(span, p=0.8),
                K.RandomSaturation(span, p=0.5),
            )
            if colour > 0 and self.rgb
            else None
        )

    def sample(self, count: int) -> Geometry:
        """Random geometry for ``count`` images."""
        (height, width), (h, w) = self.size, self.crop
        low, high = self.zoom
        zoom = low + (high - low) * torch.rand(count)
        # the crop's window in the zoomed image; where it is smaller, the image moves in the crop
        top = torch.rand(count) * (zoom * height - h)
        left = torch.rand(count) * (zoom * width - w)
        mirrored = (torch.rand(count) < 0.5) & self.flip
        matrix = torch.zeros(count, 2, 3)
        sign = torch.where(mirrored, -1.0, 1.0)
        # pixel centres lie at half-integers: x' + ½ = zoom · (x + ½) − left
        matrix[:, 0, 0] = sign * zoom
        matrix[:, 1, 1] = zoom
        shift = 0.5 * zoom - left - 0.5
        matrix[:, 0, 2] = torch.where(mirrored, w - 1 - shift, shift)
        matrix[:, 1, 2] = 0.5 * zoom - top - 0.5
        if self.rotate:
            matrix = self._rotation(count) @ torch.cat([matrix, _LAST.expand(count, 1, 3)], 1)
        return Geometry(matrix, zoom, (h, w))

    def _rotation(self, count: int) -> Tensor:
        """[count, 2, 3]: turns of the crop about its centre."""
        steps = torch.randint(max(round(360 / self.rotate), 1), (count,))
        angle = torch.deg2rad(steps * self.rotate)
        cos, sin = angle.cos(), angle.sin()
        x, y = (self.crop[1] - 1) / 2, (self.crop[0] - 1) / 2
        rows = (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y)
        return torch.stack([torch.stack(row, -1) for row in rows], 1)

    def warp(self, geometry: Geometry, images: Tensor) -> Tensor:
        """Images [B, C, H, W], bilinear, zero outside."""
        return _warp(geometry, images, "bilinear")

    def warp_target(self, geometry: Geometry, name: str, target: Tensor) -> Tensor:
        """Targets [B, H, W], nearest, the target's ignore value outside."""
        kind = TARGETS.get(name)()
        shifted = target.float() - kind.ignore  # 0, as outside the image, is now "ignore"
        moved = _warp(geometry, shifted[:, None], "nearest")[:, 0] + kind.ignore
        if not kind.dtype.is_floating_point:
            moved = moved.round()
        zoom = geometry.zoom.to(target.device)[:, None, None]
        return kind.zoomed(moved.to(target.dtype), zoom)

    def __call__(
        self, images: Tensor, targets: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        geometry = self.sample(len(images))
        moved = {name: self.warp_target(geometry, name, t) for name, t in targets.items()}
        images = self.warp(geometry, images)
        if self.colour is not None:
            images = self.colour(images).clamp(0, 1)
        elif self.strength > 0:
            images = self._jitter(images).clamp(0, 1)
        return images, moved

    def _jitter(self, images: Tensor) -> Tensor:
        """Random contrast and brightness of each image, alike in all of its channels."""
        change = (2 * torch.rand(2, len(images), 1, 1, 1) - 1).to(images.device)
        gain, shift = 1 + self.strength * change[0], self.strength / 2 * change[1]
        return images * gain + shift * images.mean((2, 3), keepdim=True)


def _warp(geometry: Geometry, x: Tensor, mode: str) -> Tensor:
    moved: Tensor = kornia.geometry.transform.warp_affine(
        x, geometry.matrix.to(x.device), geometry.size, mode=mode, align_corners=True
    )
    return moved
