"""What one file of an unknown folder holds, and which kind of ground truth that is most likely."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datasets.decoding import decoded, read_array
from datasets.own.decode import ARRAYS, TIFFS, read_tiff

Kind = Literal["images", "segmentation", "depth", "saliency", "edges", "unknown"]
FEW_VALUES = 64
"""A map of classes has at most so many values; a photograph has more."""


@dataclass
class Content:
    """One opened file. size: height, width. values: those of bytes and integers, if they are few.

    numbers: a sample of the values of a deep file. extreme: the share of bytes that are nearly 0 or
    255. marked: the share above half, of it thin: lost when each object shrinks by a pixel.
    """

    size: tuple[int, int]
    channels: int
    dtype: str
    coloured: bool = False
    lossy: bool = False
    values: set[int] = field(default_factory=set)
    many: bool = False
    colours: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    numbers: NDArray[Any] | None = None
    extreme: float = 0.0
    marked: float = 0.0
    thin: float = 0.0


def kind_of(seen: Sequence[Content]) -> tuple[Kind, bool]:
    """What contents are most likely, and whether they can hardly be anything else."""
    values = set().union(*(content.values for content in seen))
    many = any(content.many for content in seen)
    if all(content.channels >= 3 for content in seen):
        deep = any(content.numbers is not None for content in seen)
        colours = set().union(*(content.colours for content in seen))
        if deep or many or len(colours) > FEW_VALUES or any(c.lossy for c in seen):
            return "images", True
        return ("segmentation", True) if any(c.coloured for c in seen) else _marks(seen, values)
    if any(content.coloured for content in seen):  # a palette
        return "segmentation", True
    if any(content.dtype not in ("uint8", "bool") for content in seen):
        whole = all("int" in content.dtype for content in seen)
        few = whole and not many and len(values) <= FEW_VALUES
        return ("segmentation", False) if few else ("depth", not whole)
    if many or len(values) > FEW_VALUES:
        return ("saliency", False) if _extreme(seen) > 0.9 else ("images", False)
    return _marks(seen, values)


def _extreme(seen: Sequence[Content]) -> float:
    """The mean share of pixels that are nearly black or white."""
    return sum(content.extreme for content in seen) / len(seen)


def unknown_grey(values: set[int]) -> int | None:
    """The grey of unknown pixels if ``values`` are a trimap's, 0, about 128 and 255; else None."""
    inner = values - {0, 255}
    grey = min(inner, default=0)
    return grey if len(values) == 3 and len(inner) == 1 and 64 <= grey <= 191 else None


def _marks(seen: Sequence[Content], values: set[int]) -> tuple[Kind, bool]:
    """Of maps with few values: classes, masks of objects, or thin boundaries."""
    inner = sorted(values - {0, 255})
    soft = len(inner) > 3 and inner[-1] - inner[0] >= 64 and 255 in values
    if unknown_grey(values) is not None or (soft and _extreme(seen) > 0.9):
        return "saliency", False
    if not values <= {0, 1, 255} or len(values) < 2:
        return "segmentation", len(values) > 2
    if any({1, 255} <= content.values for content in seen):
        return "segmentation", False
    marked = [content for content in seen if content.marked]
    thin = sum(content.thin for content in marked) / max(len(marked), 1)
    return ("edges", False) if thin > 0.9 else ("saliency", False)


def content_of(path: Path) -> Content:
    """Raises DataError for a file that cannot be read."""
    suffix = path.suffix.lower()
    if suffix in (*ARRAYS, *TIFFS):
        array = read_array(path) if suffix in ARRAYS else read_tiff(path, None)
        array = array.reshape(*array.shape[:2], -1)
        return _of_array(array)
    with decoded(path) as picture:
        lossy = picture.format in ("JPEG", "WEBP", "MPO")
        if picture.mode[0] in "IF":
            return _of_array(np.array(picture)[..., None])
        grey_palette = picture.mode == "P"
        rgb = np.array(picture.convert("RGB"))
        indices = np.array(picture) if grey_palette else None
    coloured = bool((rgb != rgb[..., :1]).any())
    content = _of_array(rgb if coloured else rgb[..., :1], lossy)
    content.coloured, content.lossy = coloured, lossy
    if coloured:
        codes = (rgb.reshape(-1, 3).astype(np.int64) << [16, 8, 0]).sum(1)
        found, counts = np.unique(codes, return_counts=True)
        if len(found) <= 4 * FEW_VALUES:
            content.colours = Counter(
                {(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255): int(n)
                 for c, n in zip(found, counts, strict=True)}
            )  # fmt: skip
        else:
            content.many = True
        if indices is not None:
            content.values, content.channels = set(np.unique(indices).tolist()), 1
            content.many = False
    return content


def _of_array(array: NDArray[Any], lossy: bool = False) -> Content:
    """lossy: few values are then many that were changed a little."""
    height, width, channels = array.shape
    content = Content((height, width), channels, str(array.dtype))
    if channels > 1:
        content.many = channels > 3 or array.dtype != np.uint8
        content.numbers = (
            array[:: max(1, height // 32), :: max(1, width // 32)] if content.many else None
        )
        return content
    values = array[..., 0]
    if array.dtype.kind == "f" or array.dtype.itemsize > 1:
        content.numbers = values[:: max(1, height // 64), :: max(1, width // 64)].ravel()
        if array.dtype.kind == "f":
            content.many = True
            return content
    found, counts = np.unique(values, return_counts=True)
    content.many = len(found) > FEW_VALUES or (lossy and len(found) > 2)
    if not content.many:
        content.values = set(found.tolist())
    top = max(int(found[-1]), 1)
    marks = values > top / 2
    content.marked = float(marks.mean())
    if array.dtype == np.uint8:  # a mask with soft edges is nearly all 0 and 255
        content.extreme = float(counts[(found < 16) | (found > 239)].sum() / counts.sum())
    if marks.any():
        inner = marks[1:-1, 1:-1] & marks[:-2, 1:-1] & marks[2:, 1:-1]
        inner &= marks[1:-1, :-2] & marks[1:-1, 2:]
        content.thin = 1 - float(inner.sum() / marks.sum())
    return content
