"""Contents of published files: images, label maps, masks and depth maps.

Every fault of a file raises a DataError of one line: the file, what was seen, what to do.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from common import limits
from common.errors import DataError
from common.limits import Capped, LimitError, printable
from datasets.base import DatasetInfo

IGNORE = 255
# Pillow's other readers are older code, and its EPS reader would start a program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
AGAIN = "copy or download it again"
Palette = Sequence[tuple[int, int, int]]


def reason(error: Exception) -> str:
    """What went wrong, in one line."""
    known = getattr(error, "strerror", None) or (
        isinstance(error, OSError | LimitError) and str(error)
    )
    return printable(" ".join((known or f"{type(error).__name__}: {error}").split()), 300)


def _too_large(path: Path, size: str) -> DataError:
    problem = f"{size}more than {limits.PIXELS} pixels"
    return DataError(f"{path}: {problem}: reduce the image, or {AGAIN}")


def check_pixels(path: Path, width: int, height: int) -> None:
    """Raises DataError for an image of more than ``limits.PIXELS`` pixels."""
    if width * height > limits.PIXELS:
        raise _too_large(path, f"{width}×{height}, ")


@contextmanager
def decoded(path: Path) -> Iterator[Image.Image]:
    """The picture, upright by its EXIF orientation; any failure inside raises DataError."""
    try:
        limits.check_size(path, limits.IMAGE)
        with warnings.catch_warnings():
            # metadata does not matter here, and check_pixels replaces the warning of large images
            warnings.simplefilter("ignore")
            with Capped(path) as file, Image.open(file, formats=FORMATS) as picture:
                check_pixels(path, *picture.size)
                ImageOps.exif_transpose(picture, in_place=True)
                yield picture
    except DataError:
        raise
    except Image.DecompressionBombError:  # Pillow's own limit, at some 180 million
        raise _too_large(path, "") from None
    except FileNotFoundError:
        raise DataError(f"{path}: file is missing: {AGAIN}") from None
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        problem = "is empty (0 bytes)" if empty else "is not an image, or its start is damaged"
        raise DataError(f"{path}: {problem}: {AGAIN}") from None
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise DataError(f"{path}: cannot be read ({reason(error)}): {AGAIN}") from error


def read_image(path: Path) -> Tensor:
    """uint8 [3, H, W], RGB; grey and palette images are converted, transparency is dropped."""
    with decoded(path) as picture:
        if picture.mode[0] in "IF":
            problem = f"more than 8 bits a pixel (mode {picture.mode})"
            raise DataError(f"{path}: {problem}: convert the image to 8-bit RGB")
        pixels = np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_any_image(path: Path) -> Tensor:
    """As ``read_image``, and 16-bit grey images too, reduced to 8 bits.

    For a user's own photographs; 16-bit images of a data set may hold something else.
    """
    with decoded(path) as picture:
        if picture.mode.startswith("I"):
            deep = np.array(picture)
            if deep.min() < 0 or deep.max() > 65535:
                problem = f"values {deep.min()}…{deep.max()}"
                raise DataError(f"{path}: {problem}: convert the image to 8-bit RGB")
            grey = (deep.astype(np.int64) // 257).astype(np.uint8)
            return torch.from_numpy(grey)[None].expand(3, -1, -1).contiguous()
    return read_image(path)


def _runs(values: Iterable[int]) -> str:
    """``0…6, 9`` for the numbers 0 to 6 and 9."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1][1:] = [value]
        else:
            runs.append([value])
    return ", ".join("…".join(map(str, run)) for run in runs)


def _check_palette(path: Path, labels: np.ndarray, colours: list[int], palette: Palette) -> None:
    """Raises DataError if a label in the map has another colour than in ``palette``."""
    table = [tuple(colours[i : i + 3]) for i in range(0, len(colours), 3)]
    for index in np.unique(labels).tolist():
        colour = table[index] if index < len(table) else "none"
        if colour != palette[index]:
            raise DataError(
                f"{path}: colour {colour} of label {index} should be {palette[index]}: the palette "
                "was changed, and the labels may be too: take the original file, or save right "
                "labels as 8-bit grey"
            )


def voc_colour(index: int) -> tuple[int, int, int]:
    """VOC's colour of a label 0…255: bits 0, 3, 6 are red's highest, 1, 4, 7 green's, 2, 5 blue's.

    Source: VOCdevkit, VOClabelcolormap.m.
    """
    red, green, blue = (
        sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3))
        for channel in range(3)
    )
    return red, green, blue


def read_labels(
    path: Path, ids: Sequence[int], void: Iterable[int] = (), palette: Palette = ()
) -> Tensor:
    """uint8 [H, W] class index: the value ``ids[i]`` becomes i, ``void`` and 255 become 255.

    Palette images are read by index, not by colour; with ``palette``, 256 published colours, their
    colours must be these. Raises DataError on any other value or palette.
    """
    with decoded(path) as picture:
        if picture.mode not in ("L", "P"):
            problem = f"mode {picture.mode} is no map of class indices"
            remedy = "take the original file, or " if palette else ""
            raise DataError(f"{path}: {problem}: {remedy}write an 8-bit grey or palette image")
        labels = np.array(picture)
        colours = picture.getpalette()
    if palette and colours is not None:
        _check_palette(path, labels, colours, palette)
    void = {*void, IGNORE}
    indices = np.full(256, -1, np.int16)
    indices[list(ids)] = np.arange(len(ids))
    indices[list(void)] = IGNORE
    mapped = indices[labels]
    if mapped.min() < 0:
        expected = f"{_runs(ids)} and {_runs(void)}"
        remedy = f"map it to a class, or to {IGNORE} to ignore it"
        raise DataError(f"{path}: label {labels[mapped < 0][0]} is outside {expected}: {remedy}")
    return torch.from_numpy(mapped.astype(np.uint8))


def read_mask(path: Path, graded: bool = False) -> Tensor:
    """uint8 [H, W]: 1 where the grey or 1-bit image is above 128, else 0.

    graded: grey is the share of viewers who chose a pixel, so that none may reach 128. Raises
    DataError on colours, and on a mask whose largest value is 1…128 unless it is graded.
    """
    remedy = "write an 8-bit grey image, 0 = background, 255 = object"
    with decoded(path) as picture:
        grey = np.array(picture.convert("L"))
        # a grey image may be saved in colour
        if picture.mode not in ("1", "L") and not (
            picture.mode in ("P", "RGB")
            and (np.array(picture.convert("RGB")) == grey[..., None]).all()
        ):
            raise DataError(f"{path}: mode {picture.mode} is no mask: {remedy}")
    if 0 < (top := int(grey.max())) <= 128 and not graded:
        raise DataError(f"{path}: largest value is {top}, nothing is above 128: {remedy}")
    return torch.from_numpy((grey > 128).astype(np.uint8))


def read_depth(path: Path, per_metre: float, invalid: int, limits: tuple[float, float]) -> Tensor:
    """float32 [H, W] metres of a 16-bit image in 1/``per_metre`` metre; 0 = no reading.

    0 and ``invalid`` in the file are no reading. Raises DataError on another bit depth, and as
    ``check_depth`` does.
    """
    with decoded(path) as picture:
        if not picture.mode.startswith("I"):
            problem = f"8 bits a channel (mode {picture.mode}) where 16-bit depth is expected"
            raise DataError(f"{path}: {problem}: take the original depth file, not a picture of it")
        raw = np.array(picture)
    if raw.min() < 0 or raw.max() > 65535:
        problem = f"values {raw.min()}…{raw.max()} where 16-bit depth is expected"
        raise DataError(f"{path}: {problem}: take the original depth file")
    depth = np.where(raw == invalid, 0, raw).astype(np.float32) / np.float32(per_metre)
    check_depth(path, depth, per_metre, limits)
    return torch.from_numpy(depth)


def _unit(per_metre: float) -> str:
    known = {1.0: "metres", 1000.0: "millimetres"}
    return known.get(per_metre, f"1/{per_metre:g} m")


def check_depth(
    where: object, depth: NDArray[np.floating], per_metre: float, limits: tuple[float, float]
) -> None:
    """Raises DataError if no pixel is within ``limits`` (metres): such a frame is of no use.

    depth: metres, 0 = no reading, stored as multiples of 1/``per_metre`` metre.
    """
    if ((depth >= limits[0]) & (depth <= limits[1])).any():
        return
    problem = f"no pixel has a depth within {limits[0]:g}…{limits[1]:g} m"
    if (known := depth[depth > 0]).size:
        problem += f" but {known.min():g}…{known.max():g} m, read as {_unit(per_metre)}"
    raise DataError(f"{where}: {problem}: remove the frame from the list or mend its unit")


def warn_of_unit(
    where: object, depth: Tensor, per_metre: float, limits: tuple[float, float]
) -> bool:
    """Warn if ``depth``, as in ``check_depth``, looks as if in another unit; whether it does.

    Suspicious: whole numbers that all stay below 100, as metres would, and a median of more than
    three times the upper limit.
    """
    known = depth[depth > 0]
    if not known.numel():
        return False
    low, median, top = (float(v) for v in (known.min(), known.median(), known.max()))
    if not (per_metre > 1 and top * per_metre < 100) and median <= 3 * limits[1]:
        return False
    problem = f"depths of {low:g}…{top:g} m, median {median:g} m"
    warnings.warn(
        f"{where}: {problem}, if stored as {_unit(per_metre)}: check the unit of the files",
        stacklevel=2,
    )
    return True


class DepthSet:
    """Mixin of depth data sets: the declared range, and one warning of a wrong unit."""

    info: ClassVar[DatasetInfo]
    warned = False

    @property
    def limits(self) -> tuple[float, float]:
        """The declared range in metres."""
        facts = self.info.tasks["depth"]
        return facts["min_depth"], facts["max_depth"]

    def check_unit(self, where: object, depth: Tensor, per_metre: float) -> Tensor:
        """``depth`` unchanged; warns of the first one that looks as if stored in another unit."""
        self.warned = self.warned or warn_of_unit(where, depth, per_metre, self.limits)
        return depth
