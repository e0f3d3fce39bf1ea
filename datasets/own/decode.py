"""Contents of a user's files: numbers of any depth, masks, boundaries, images of any bands."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common import limits
from common.annotators import MOST, pack
from common.errors import DataError
from datasets.decoding import (
    AGAIN,
    IGNORE,
    LARGEST,
    check_depth,
    check_pixels,
    decoded,
    opaque,
    read_array,
    reason,
)
from datasets.labels import LabelError, read_labels
from datasets.own.description import Bands, Depth, Edges, Saliency, Segmentation

if TYPE_CHECKING:
    from torch import Tensor

ARRAYS = (".npy",)
TIFFS = (".tif", ".tiff")
DECLARE = "where RGB or grey is expected: declare them, bands: {names: […]} in dataset.yaml"
MEND = "of dataset.yaml: mend bands.names, or bands.also for bands in further files"
UNITS = {1.0: "metres", 0.1: "decimetres", 0.01: "centimetres", 0.001: "millimetres",
         1 / 256: "1/256 m", 1 / 5000: "1/5000 m", 1e-4: "0.1 mm"}  # fmt: skip
"""Usual units of depth files."""


# --- numbers -------------------------------------------------------------------------------------


def read_tiff(path: Path, bands: int | None = 1) -> NDArray[Any]:
    """The numbers of a TIFF file's first image, [H, W, C], of its own type.

    bands: the number of channels that is expected; None: any. Raises DataError.
    """
    import tifffile  # late: 0.1 s

    try:
        limits.check_size(path, limits.IMAGE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with tifffile.TiffFile(path) as file:
                len(file.pages)  # this ends for a damaged file too, as the series need not
                series = file.series[0]
                axes, shape = series.axes, series.shape
                if _interleaved(series, bands):
                    axes = "YXS"
                sides = dict(zip(axes, shape, strict=True))
                others = [axis for axis in axes if axis not in "YX" and sides[axis] > 1]
                if not {"Y", "X"} <= set(axes) or len(others) > 1:
                    raise ValueError(f"axes {axes} of shape {shape}")
                check_pixels(path, sides["X"], sides["Y"])
                if np.prod(shape, dtype=float) > limits.PIXELS * 8:
                    raise ValueError(f"shape {shape} is too large")
                # damaged tags make an array of another shape than the one that they claim
                array = series.asarray().reshape(shape)
                if not array.size or array.dtype.kind not in "buif":
                    raise ValueError(f"{array.dtype} of shape {shape}")
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: file is missing: {AGAIN}") from None
    except Exception as error:  # a damaged file makes the reader raise almost anything
        text = reason(error)
        remedy = "pip install imagecodecs, or save it without" if "imagecodecs" in text else AGAIN
        raise DataError(f"{path}: cannot be read ({text}): {remedy}") from error
    order = [axes.index("Y"), axes.index("X")]
    rest = [axis for axis in range(array.ndim) if axis not in order]
    array = array.transpose(*order, *rest)
    return np.ascontiguousarray(array.reshape(*array.shape[:2], -1))


def _interleaved(series: Any, bands: int | None) -> bool:
    """Whether pages are rows of an array [H, W, C], as ``tifffile.imwrite(path, array)`` writes it.

    bands: the number that is expected of all files of the image, if it is known.
    """
    shape = series.shape
    if series.axes != "QYX" or shape[0] == bands:
        return False
    return bool(shape[2] == bands or shape[2] < min(shape[:2]))


def read_numbers(path: Path) -> NDArray[Any]:
    """One number for each pixel, [H, W], of an array file, a TIFF or a grey image.

    Raises DataError for colours and for what cannot be read.
    """
    if path.suffix.lower() in ARRAYS:
        array = read_array(path)
    elif path.suffix.lower() in TIFFS:
        array = read_tiff(path)
    else:
        with decoded(path) as picture:
            if picture.mode == "P":  # what optimisers make of few greys
                grey = np.array(picture.convert("L"))
                if (np.array(picture.convert("RGB")) != grey[..., None]).any():
                    raise DataError(f"{path}: a palette of colours is no map of numbers: {AGAIN}")
                return grey
            if picture.info[LARGEST] < 255:
                problem = f"{picture.info[LARGEST] + 1} levels, which decoders spread over 256"
                raise DataError(f"{path}: {problem}: write 8- or 16-bit grey")
            if picture.mode != "L" and picture.mode[0] not in "IF":
                problem = f"mode {picture.mode} is no map of numbers"
                raise DataError(f"{path}: {problem}: write grey PNG, TIFF or .npy")
            array = np.array(picture)
    if array.ndim == 3 and array.shape[2] != 1:
        problem = f"{array.shape[2]} numbers a pixel where one is expected"
        raise DataError(f"{path}: {problem}: write grey PNG, TIFF or .npy")
    return array.reshape(array.shape[:2])


# --- ground truth --------------------------------------------------------------------------------


def read_depth_map(path: Path, target: Depth) -> Tensor:
    """float32 [H, W] metres; 0 = no reading. Raises DataError if none is in the range."""
    import torch

    raw = read_numbers(path).astype(np.float64)
    valid = np.isfinite(raw) & (raw != 0)
    for value in target.invalid:
        valid &= raw != value
    if target.metres_per_unit is not None:
        if (lowest := raw[valid].min(initial=0)) < 0:
            remedy = f"name it in invalid: [{lowest:g}] if it stands for no reading"
            raise DataError(f"{path}: depth {lowest:g} is negative: {remedy}")
        per_metre = 1 / target.metres_per_unit
        depth = np.where(valid, raw / per_metre, 0)
    else:
        assert target.focal_times_baseline is not None
        per_metre = 1.0
        disparity = target.disparity_scale * raw + target.disparity_offset
        valid &= disparity > 0
        depth = np.where(valid, target.focal_times_baseline / np.where(valid, disparity, 1), 0)
    metres = depth.astype(np.float32)
    low, high = target.range
    if not ((metres >= low) & (metres <= high)).any() and target.metres_per_unit is not None:
        for unit in units(raw[valid], target.range):
            problem = f"no pixel has a depth within {low:g}…{high:g} m"
            raise DataError(
                f"{path}: {problem} if stored in {_unit(target.metres_per_unit)}: with "
                f"metres_per_unit: {unit:.6g} ({UNITS[unit]}) there are some"
            )
    check_depth(path, metres, per_metre, target.range)
    return torch.from_numpy(metres)


def units(raw: NDArray[np.float64], within: tuple[float, float]) -> list[float]:
    """The usual units, in metres, in which the median of ``raw`` lies ``within`` this range."""
    if not raw.size:
        return []
    middle = float(np.median(raw))
    return [unit for unit in UNITS if within[0] <= middle * unit <= within[1]]


def _unit(metres: float) -> str:
    return next((name for unit, name in UNITS.items() if unit == metres), f"{metres:g} m")


def read_grey(path: Path) -> NDArray[np.uint8]:
    """uint8 [H, W] of a grey image, which may be saved in colour. Raises DataError on colours."""
    remedy = "write an 8-bit grey image"
    with decoded(path) as picture:
        if picture.mode[0] in "IF":
            problem = f"mode {picture.mode} has more than 8 bits"
            raise DataError(f"{path}: {problem}: {remedy}")
        if not opaque(picture):
            raise DataError(f"{path}: is transparent in places: {remedy}")
        grey = np.array(picture.convert("L"))
        if picture.mode not in ("1", "L", "LA"):
            colours = np.array(picture.convert("RGB"))
            if (colours != grey[..., None]).any():
                raise DataError(f"{path}: mode {picture.mode} with colours: {remedy}")
    return grey


def _above(path: Path, grey: NDArray[np.uint8], threshold: int) -> NDArray[np.bool_]:
    """The pixels above ``threshold``. Raises DataError where only values that mean it are below."""
    if 0 < (top := int(grey.max())) <= threshold:
        remedy = f"write threshold: 0 if {top} is the object, or map it to 255"
        raise DataError(f"{path}: largest value is {top}, nothing is above {threshold}: {remedy}")
    return grey > threshold


def read_object_mask(path: Path, target: Saliency) -> Tensor:
    """uint8 [H, W]: 1 = object, 0 = background, 255 = ignored."""
    import torch

    grey = read_grey(path)
    ignored = np.isin(grey, target.ignore)
    mask = _above(path, np.where(ignored, 0, grey), target.threshold).astype(np.uint8)
    mask[ignored] = IGNORE
    return torch.from_numpy(mask)


def read_marks(paths: Sequence[Path], target: Edges) -> Tensor:
    """The boundaries of every annotator's file, packed by ``common.annotators``."""
    import torch

    maps = [_above(path, read_grey(path), target.threshold) for path in paths]
    for path, marks in zip(paths, maps, strict=True):
        if marks.shape != maps[0].shape:
            (h, w), (fh, fw) = marks.shape, maps[0].shape
            raise DataError(f"{path}: {w}×{h} pixels but {paths[0]} has {fw}×{fh}")
    if len(maps) > MOST:
        raise DataError(f"{paths[0]}: {len(maps)} annotators, at most {MOST} are read")
    return pack(torch.from_numpy(np.stack(maps)))


def read_classes(path: Path, target: Segmentation) -> Tensor:
    """uint8 [H, W] class index, 255 = ignored.

    A file in colours is read by its colours where there is a palette, any other by its values. Of
    grey files with a palette, the reading that fits is taken. Raises DataError for a value or
    colour that is no class, and for a file that fits both ways.
    """
    import torch

    if not target.palette or path.suffix.lower() in ARRAYS:
        return _by_value(path, target)
    with decoded(path) as picture:
        grey, deep = picture.mode in ("1", "L"), picture.mode[0] in "IF"
        colours = None if deep else np.array(picture.convert("RGB"))
    if colours is None:
        return _by_value(path, target)
    if not grey:
        return torch.from_numpy(_by_colour(path, colours, target))
    readings = []
    for read in (lambda: _by_value(path, target), lambda: _by_colour(path, colours, target)):
        with contextlib.suppress(DataError):
            readings.append(torch.as_tensor(read()))
    if not readings:
        return _by_value(path, target)  # raises its reason
    if not torch.equal(readings[0], readings[-1]):
        remedy = "write classes by value, {0: …, 255: …}, or leave palette out"
        raise DataError(f"{path}: its greys are values and colours of the palette alike: {remedy}")
    return readings[0]


def check_palette(path: Path, known: dict[int, tuple[int, int, int, str]]) -> None:
    """Raises DataError if a palette image has another colour for a value than files before it.

    known: colour and file by value, to which those of this file are added. Without a declared
    palette values count, and a program that saves few colours may number them anew in each file.
    """
    if path.suffix.lower() in ARRAYS:
        return
    with decoded(path) as picture:
        if picture.mode != "P":
            return
        colours = np.reshape(picture.getpalette() or [], (-1, 3)).tolist()
        values = np.unique(np.array(picture)).tolist()
    table = {value: colours[value] if value < len(colours) else [0, 0, 0] for value in values}
    if all(red == green == blue for red, green, blue in table.values()):
        return  # its greys count, see read_labels
    for value, (red, green, blue) in table.items():
        earlier = known.setdefault(value, (red, green, blue, str(path)))
        if earlier[:3] != (red, green, blue):
            raise DataError(
                f"{path}: value {value} has the colour {[red, green, blue]}, in {earlier[3]} "
                f"{list(earlier[:3])}: write palette, the colour of each class, into dataset.yaml"
            )


def _by_colour(path: Path, colours: NDArray[np.uint8], target: Segmentation) -> NDArray[np.uint8]:
    """Class indices of colours [H, W, 3]."""
    codes = (colours.astype(np.int64) << [16, 8, 0]).sum(-1)
    known = [*target.palette, *target.ignore_colours]
    indices = [*range(len(target.palette)), *[IGNORE] * len(target.ignore_colours)]
    keys = np.array([(r << 16) + (g << 8) + b for r, g, b in known])
    order = np.argsort(keys)
    place = np.searchsorted(keys[order], codes).clip(max=len(keys) - 1)
    unknown = keys[order][place] != codes
    if unknown.any():
        colour = colours[unknown][0].tolist()
        raise DataError(
            f"{path}: the colour {colour} of {unknown.sum()} pixels is none of the palette: add "
            "it to palette or ignore_colours"
        )
    classes: NDArray[np.uint8] = np.array(indices, np.uint8)[order][place]
    return classes


def _by_value(path: Path, target: Segmentation) -> Tensor:
    import torch

    if path.suffix.lower() not in ARRAYS:
        return read_labels(path, target.values, {*target.ignore} - {*target.values})
    values = read_numbers(path)
    if values.dtype.kind == "f":
        raise DataError(f"{path}: {values.dtype} numbers are no class indices: write integers")
    classes = np.full(values.shape, -1, np.int16)
    for index, value in enumerate(target.values):
        classes[values == value] = index
    ignored = {*target.ignore, IGNORE} - set(target.values)
    classes[np.isin(values, list(ignored))] = IGNORE
    if (classes < 0).any():
        raise LabelError.of(path, values[classes < 0], target.values, ignored)
    return torch.from_numpy(classes.astype(np.uint8))


# --- images --------------------------------------------------------------------------------------


def _channels(path: Path, bands: int) -> NDArray[Any]:
    """All channels of an image, [H, W, C], of the file's own type. Raises DataError.

    bands: the number that is expected of all files of the image.
    """
    suffix = path.suffix.lower()
    if suffix in ARRAYS:
        array = read_array(path)
        return array.reshape(*array.shape[:2], -1)
    if suffix in TIFFS:
        return read_tiff(path, bands)
    with decoded(path) as picture:
        if picture.mode[0] not in "IF" and ";16" in str(getattr(picture, "tile", "")):
            problem = "16 bits a channel in colour, which are read as 8"
            raise DataError(f"{path}: {problem}: save it as TIFF or .npy")
        if picture.mode == "1":
            picture = picture.convert("L")
        elif picture.mode in ("P", "PA"):
            picture = picture.convert("RGB")
        array = np.array(picture)
    return array.reshape(*array.shape[:2], -1)


def check_rgb(path: Path, remedy: str = DECLARE) -> None:
    """Raises DataError, with ``remedy``, for a TIFF of more bands than grey or RGB and an alpha.

    Pillow refuses five bands as no image, and drops a fourth that is not declared as alpha.
    """
    if path.suffix.lower() not in TIFFS:
        return
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            len(file.pages)  # this ends for a damaged file too, as the series need not
            page = file.pages.first
            count, extra = page.samplesperpixel, tuple(page.extrasamples)
            pages = len(file.series[0].pages) if file.series else 1
            if file.series and _interleaved(file.series[0], None):
                pages, count, extra = 1, file.series[0].shape[2], (0,)
    except Exception:  # what cannot be read, Pillow's reader reports
        return
    if pages > 1 or any(kind == 0 for kind in extra):
        has = f"{pages} pages" if pages > 1 else f"{count} bands"
        raise DataError(f"{path}: {has} {remedy}")


def read_bands(paths: Sequence[Path], bands: Bands, remedy: str = MEND) -> Tensor:
    """The bands of an image's files, [C, H, W] in 0…255.

    uint8 where all files are and no ``max`` scales them; else float32. Raises DataError for another
    number of bands, with ``remedy``, and for numbers that are not finite.
    """
    import torch

    arrays = [_channels(path, len(bands.names)) for path in paths]
    for path, array in zip(paths, arrays, strict=True):
        if array.shape[:2] != arrays[0].shape[:2]:
            (h, w), (fh, fw) = array.shape[:2], arrays[0].shape[:2]
            raise DataError(f"{path}: {w}×{h} pixels but {paths[0]} has {fw}×{fh}")
    count = sum(array.shape[2] for array in arrays)
    if count != len(bands.names):
        has = " + ".join(str(array.shape[2]) for array in arrays)
        names = ", ".join(bands.names)
        seen = f"{has} band{'' if has == '1' else 's'}, not the {len(bands.names)} ({names})"
        raise DataError(f"{paths[0]}: {seen} {remedy}")
    if all(array.dtype == np.uint8 for array in arrays) and set(bands.max) <= {255.0}:
        return torch.from_numpy(np.concatenate(arrays, 2)).permute(2, 0, 1).contiguous()
    tops = bands.max * len(bands.names) if len(bands.max) == 1 else bands.max
    if not tops:
        tops = tuple(top for p, a in zip(paths, arrays, strict=True) for top in _tops(p, a))
    values = np.concatenate([array.astype(np.float32) for array in arrays], 2)
    if not np.isfinite(values).all():
        band = bands.names[int(np.argwhere(~np.isfinite(values))[0][2])]
        raise DataError(f"{paths[0]}: band {band} has values that are no number: fill them in")
    scaled = values * (255 / np.array(tops, np.float32))
    return torch.from_numpy(scaled).permute(2, 0, 1).contiguous()


def _tops(path: Path, array: NDArray[Any]) -> tuple[float, ...]:
    """The value of each band that becomes 1: the largest of its type."""
    if array.dtype.kind not in "bu":
        remedy = "write bands.max, the value that becomes 1"
        raise DataError(f"{path}: {array.dtype} numbers have no largest value: {remedy}")
    top: float = 1.0 if array.dtype.kind == "b" else np.iinfo(array.dtype).max * 1.0
    count: int = array.shape[2]
    return (top,) * count
