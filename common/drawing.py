"""Maps as colour images, alike for ground truth and predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

RGB = NDArray[np.uint8]
Picture = Image.Image
Palette = Sequence[tuple[int, int, int]]
Row = tuple[str, str, tuple[int, ...]]
FALLBACK_PALETTE = "tab20"
HATCH, CALM_HATCH = (235, 150), (150, 110)
"""Two greys of pixels without ground truth; calm ones where few pixels may have any."""


def _shades(name: str, values: Any) -> NDArray[np.float64]:
    """The colours [..., 3] in 0…1 of matplotlib's map ``name`` at ``values``."""
    import matplotlib  # late: 0.2 s that most commands do not need

    shades: NDArray[np.float64] = matplotlib.colormaps[name](values)[..., :3]
    return shades


def class_colours(palette: Palette) -> NDArray[Any]:
    """[256, 3] in 0…255: the data set's colours, black beyond; without any, 20 that repeat."""
    if palette:
        return np.array([*palette, *[(0, 0, 0)] * (256 - len(palette))])
    return _shades(FALLBACK_PALETTE, np.arange(256) % 20) * 255


def hatched(
    picture: NDArray[Any], unknown: NDArray[np.bool_], greys: tuple[int, int] = HATCH
) -> RGB:
    """The picture [H, W, 3] with ``unknown`` pixels [H, W] hatched, unlike any class or value."""
    height, width = unknown.shape
    stripe = max(2, max(height, width) // 96)  # which a picture of 192 pixels still shows
    y, x = np.ogrid[:height, :width]
    stripes = np.where((x + y) // stripe % 2, *greys)
    return np.where(unknown[..., None], stripes[..., None], picture).astype(np.uint8)


def colour_classes(classes: NDArray[Any], palette: Palette, ignore: int) -> RGB:
    """Class indices [H, W] in their colours, as RGB [H, W, 3]; ``ignore`` is hatched."""
    return hatched(class_colours(palette)[classes], classes == ignore)


def depth_colours(log: Any, low: float, high: float) -> NDArray[np.float64]:
    """[..., 3] in 0…1 for the logarithms of depths: bright at ``low``, dark at ``high``."""
    return _shades("magma", 1 - (log - low) / max(high - low, 1e-6))


def known_range(metres: NDArray[Any]) -> tuple[float, float]:
    """Least and greatest depth of a map in metres, in which 0 is no reading."""
    known = metres[metres != 0]
    return (float(known.min()), float(known.max())) if known.size else (1.0, 1.0)


def colour_depth(metres: NDArray[Any], extent: tuple[float, float]) -> RGB:
    """Depths [H, W] as RGB [H, W, 3]: near is bright, over ``extent`` in metres; 0 is hatched."""
    known = metres != 0
    low, high = np.log(extent)
    picture = depth_colours(np.log(np.where(known, metres, 1.0)), low, high) * 255
    return hatched(picture, ~known, CALM_HATCH)


def grey(values: NDArray[Any]) -> RGB:
    """Values [H, W] in 0…255 as RGB [H, W, 3]."""
    return np.stack([values.astype(np.uint8)] * 3, axis=2)


def photograph(image: NDArray[Any]) -> RGB:
    """An image [C, H, W] as RGB [H, W, 3]: its first three channels, or the first one as grey.

    uint8 stays as it is. Other types, whose bands may be dark, are stretched so that 2 and 98 % of
    the shown values are black and white.
    """
    shown = image[:3] if len(image) >= 3 else image[:1]
    if shown.dtype != np.uint8:
        low, high = np.percentile(shown, (2, 98))
        shown = ((shown - low) * (255 / max(high - low, 1e-6))).clip(0, 255).astype(np.uint8)
    picture: RGB = np.ascontiguousarray(np.repeat(shown, 3 // len(shown), 0).transpose(1, 2, 0))
    return picture


def with_legend(picture: RGB, rows: Sequence[Row]) -> Picture:
    """The picture [H, W, 3] with a legend to its right: a name, a number and a colour a row."""
    import matplotlib

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    height, width = picture.shape[:2]
    size = int(np.clip(height / 24, 11, 28))
    line = size + size // 2
    font = ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), size)
    label = max(int(font.getlength(f"{name}  {number}")) for name, number, _ in rows)
    panel = label + 3 * size
    canvas = Image.new("RGB", (width + panel, max(height, line * len(rows) + size)), "white")
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for index, (name, number, colour) in enumerate(rows):
        x, y = width + size // 2, size // 2 + index * line
        draw.rectangle((x, y, x + size, y + size), fill=colour, outline="black")
        draw.text((x + size + size // 2, y - 1), f"{name}  {number}".rstrip(), "black", font)
    return canvas
