"""Contents of published files: images, label maps, masks and depth maps.

Every fault of a file raises a DataError of one line: the file, what was seen, what to do.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from common import limits
from common.errors import DataError
from common.limits import Capped, LimitError, printable
from datasets.base import DenseDataset

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = 255
# Pillow's other readers are older code, and its EPS reader would start a program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
AGAIN = "copy or download it again"
ORIENTATION, LARGEST = "orientation", "largest"  # what ``decoded`` adds to a picture's info
TURNS: dict[int, Callable[[Tensor], Tensor]] = {
    1: lambda stored: stored,
    2: lambda stored: stored.flip(-1),
    3: lambda stored: stored.flip(-2, -1),
    4: lambda stored: stored.flip(-2),
    5: lambda stored: stored.transpose(-2, -1),
    6: lambda stored: stored.rot90(-1, (-2, -1)),
    7: lambda stored: stored.transpose(-2, -1).flip(-2, -1),
    8: lambda stored: stored.rot90(1, (-2, -1)),
}
"""From a picture as stored to the upright one, by EXIF orientation."""
_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""From the upright picture to the stored one."""


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
    """The picture as it is stored, not turned; any failure inside raises DataError.

    Its ``info`` has the EXIF ``ORIENTATION``, 1…8, and under ``LARGEST`` the value that Pillow
    scales to the largest one: 255 of 8 bits, less for files of fewer bits or levels.
    """
    try:
        limits.check_size(path, limits.IMAGE)
        with warnings.catch_warnings():
            # metadata does not matter here, and check_pixels replaces the warning of large images
            warnings.simplefilter("ignore")
            with Capped(path) as file, Image.open(file, formats=FORMATS) as picture:
                check_pixels(path, *picture.size)
                largest = _largest(picture)  # the next line may decode it, which loses this
                orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
                if orientation not in TURNS:
                    orientation = 1
                stored: Image.Image = picture
                if picture.format == "TIFF" and orientation > 1:  # Pillow turns these itself
                    picture.load()
                    stored = picture.transpose(_BACK[orientation])
                stored.info |= {ORIENTATION: orientation, LARGEST: largest}
                yield stored
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


def _largest(picture: Image.Image) -> int:
    """The value in the file that Pillow scales to its mode's largest one."""
    if picture.mode == "1":
        return 1
    tiles = getattr(picture, "tile", None)
    codec, arguments = (tiles[0][0], tiles[0][3]) if tiles else ("", "")
    if codec in ("ppm", "ppm_plain"):  # of any number of levels
        return int(arguments[1])
    raw = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    least = {"L;2": 3, "L;4": 15}.get(str(raw)[:3]) if picture.mode == "L" else None
    return least or (65535 if picture.mode.startswith("I") else 255)


def read_stored(path: Path) -> tuple[Tensor, int]:
    """As ``read_image``, but not turned; and its EXIF orientation, 1…8."""
    import torch

    with decoded(path) as picture:
        if picture.mode[0] in "IF":
            problem = f"more than 8 bits a pixel (mode {picture.mode})"
            raise DataError(f"{path}: {problem}: convert the image to 8-bit RGB")
        pixels = np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))
        orientation = picture.info[ORIENTATION]
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), orientation


def read_image(path: Path) -> Tensor:
    """uint8 [3, H, W], RGB, upright by its EXIF orientation.

    Grey and palette images are converted, transparency is dropped.
    """
    return upright(*read_stored(path))


def read_any_image(path: Path) -> Tensor:
    """As ``read_image``, and 16-bit grey images too, reduced to 8 bits.

    For a user's own photographs; 16-bit images of a data set may hold something else.
    """
    import torch

    with decoded(path) as picture:
        if picture.mode.startswith("I"):
            deep = np.array(picture)
            if deep.min() < 0 or deep.max() > 65535:
                problem = f"values {deep.min()}…{deep.max()}"
                raise DataError(f"{path}: {problem}: convert the image to 8-bit RGB")
            grey = torch.from_numpy((deep.astype(np.int64) // 257).astype(np.uint8))
            return upright(grey, picture.info[ORIENTATION]).expand(3, -1, -1).contiguous()
    return read_image(path)


def upright(stored: Tensor, orientation: int) -> Tensor:
    """A picture [..., H, W] turned and mirrored as its EXIF ``orientation``, 1…8, asks for."""
    return TURNS[orientation](stored).contiguous() if orientation > 1 else stored


def same_proportions(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether a picture of size ``one``, (height, width), scaled to ``other`` fits to a pixel.

    With one side alike, both must be: else something was cut off.
    """
    (h, w), (oh, ow) = one, other
    if h == oh or w == ow:
        return (h, w) == (oh, ow)
    return abs(h * ow - w * oh) <= max(w, ow)


def orient(
    path: Path,
    stored: Tensor,
    orientation: int,
    targets: Sequence[tuple[Path, str, Tensor]],
    scaled: bool = False,
) -> tuple[Tensor, str | None]:
    """The image as its targets were drawn: as it is stored, or upright.

    stored, orientation: as ``read_stored`` gives them. targets: file, name and map [H, W] of each,
    as stored. Where the targets fit both, the image stays as it is stored; then what is doubtful
    is returned too. scaled: targets may have other sizes of the same proportions, to a pixel.
    Raises DataError where the targets fit neither.
    """
    fits = same_proportions if scaled else operator.eq
    turned = upright(stored, orientation)
    misfits = [
        [target for target in targets if not fits(target[2].shape[-2:], image.shape[-2:])]
        for image in (stored, turned)
    ]
    if not misfits[0]:
        if orientation == 1 or misfits[1]:
            return stored, None
        return stored, (
            f"EXIF orientation {orientation}, and its {targets[0][1]} fits it turned or not: both "
            "are taken as stored: look at data preview, turn the image's pixels or drop the tag"
        )
    if not misfits[1]:
        return turned, None
    file, role, target = misfits[0][0]
    (h, w), (th, tw) = stored.shape[-2:], target.shape[-2:]
    tag = f" and EXIF orientation {orientation}" if orientation > 1 else ""
    problem = f"{role} of {tw}×{th} pixels but its image {path} has {w}×{h}{tag}"
    remedy = "cut both alike" if scaled else "take both from the same source"
    raise DataError(f"{file}: {problem}: {remedy}")


def read_array(path: Path) -> NDArray[Any]:
    """The numbers of an array file, [H, W] or [H, W, C], of its own type.

    Mapped, not loaded: a damaged header then cannot ask for more than the file has. Raises
    DataError.
    """
    try:
        limits.check_size(path, limits.IMAGE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with path.open("rb") as file:
                start = file.read(8)
                # later versions may claim a header of 4 GB
                if start[:6] == b"\x93NUMPY" and start[6:] != b"\1\0":
                    raise ValueError("it is no array file of version 1")
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: file is missing: {AGAIN}") from None
    except Exception as error:  # a damaged header makes NumPy raise almost anything
        raise DataError(f"{path}: cannot be read ({reason(error)}): {AGAIN}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
        raise DataError(f"{path}: holds no array of numbers: {AGAIN}")
    if array.ndim not in (2, 3) or not array.size:
        problem = f"shape {array.shape} where [H, W] or [H, W, bands] is expected"
        raise DataError(f"{path}: {problem}: {AGAIN}")
    check_pixels(path, array.shape[1], array.shape[0])
    return np.asarray(array)


def whole_numbers(path: Path, picture: Image.Image) -> NDArray[np.int64]:
    """The values [H, W] of a picture of more than 8 bits, as they are in the file.

    Raises DataError if they need more than 16 bits.
    """
    values = np.array(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        problem = f"values {values.min()}…{values.max()} where 16 bits are expected"
        raise DataError(f"{path}: {problem}: take the original file")
    if picture.format == "PPM":  # Pillow scales them to 65535
        values = np.rint(values * (picture.info[LARGEST] / 65535)).astype(np.int64)
    return values


def opaque(picture: Image.Image) -> bool:
    """Whether a picture has no alpha, or one that is 255 everywhere."""
    return "A" not in picture.getbands() or picture.getchannel("A").getextrema() == (255, 255)


def read_mask(path: Path, graded: bool = False) -> Tensor:
    """uint8 [H, W]: 1 where the grey or 1-bit image is above 128, else 0.

    graded: grey is the share of viewers who chose a pixel, so that none may reach 128. Raises
    DataError on colours, on an alpha that is not the same everywhere, and on a mask whose largest
    value is 1…128 unless it is graded.
    """
    import torch

    remedy = "write an 8-bit grey image, 0 = background, 255 = object"
    with decoded(path) as picture:
        grey = np.array(picture.convert("L"))
        # a grey image may be saved in colour
        if picture.mode not in ("1", "L") and not (
            picture.mode in ("P", "RGB", "LA", "RGBA")
            and (np.array(picture.convert("RGB")) == grey[..., None]).all()
        ):
            raise DataError(f"{path}: mode {picture.mode} is no mask: {remedy}")
        if picture.mode in ("LA", "RGBA"):
            low, high = picture.getchannel("A").getextrema()
            if low != high:
                problem = f"alpha of {low}…{high} may be the mask, or the grey may"
                raise DataError(f"{path}: {problem}: {remedy}")
    if 0 < (top := int(grey.max())) <= 128 and not graded:
        raise DataError(f"{path}: largest value is {top}, nothing is above 128: {remedy}")
    return torch.from_numpy((grey > 128).astype(np.uint8))


def read_depth(path: Path, per_metre: float, invalid: int, limits: tuple[float, float]) -> Tensor:
    """float32 [H, W] metres of a 16-bit image in 1/``per_metre`` metre; 0 = no reading.

    0 and ``invalid`` in the file are no reading. Raises DataError on another bit depth, and as
    ``check_depth`` does.
    """
    import torch

    with decoded(path) as picture:
        if not picture.mode.startswith("I"):
            problem = f"8 bits a channel (mode {picture.mode}) where 16-bit depth is expected"
            raise DataError(f"{path}: {problem}: take the original depth file, not a picture of it")
        raw = whole_numbers(path, picture)
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


def doubt_of_unit(depth: Tensor, per_metre: float, limits: tuple[float, float]) -> str | None:
    """Why ``depth``, as in ``check_depth``, looks as if in another unit; None if it does not.

    Suspicious: whole numbers that all stay below 100, as metres would, and a median of more than
    three times the upper limit.
    """
    known = depth[depth > 0]
    if not known.numel():
        return None
    low, median, top = (float(v) for v in (known.min(), known.median(), known.max()))
    if not (per_metre > 1 and top * per_metre < 100) and median <= 3 * limits[1]:
        return None
    problem = f"depths of {low:g}…{top:g} m, median {median:g} m"
    return f"{problem}, if stored as {_unit(per_metre)}: check the unit of the files"


def warn_of_unit(
    where: object, depth: Tensor, per_metre: float, limits: tuple[float, float]
) -> bool:
    """Warn of ``doubt_of_unit``; whether there is one."""
    if (problem := doubt_of_unit(depth, per_metre, limits)) is not None:
        warnings.warn(f"{where}: {problem}", stacklevel=2)
    return problem is not None


class DepthSet(DenseDataset):
    """Mixin of depth data sets: the declared range, and doubts about the unit."""

    @property
    def limits(self) -> tuple[float, float]:
        """The declared range in metres."""
        facts = self.info.tasks["depth"]
        return facts["min_depth"], facts["max_depth"]

    def check_unit(self, where: object, depth: Tensor, per_metre: float) -> Tensor:
        """``depth`` unchanged; notes if it looks as if stored in another unit."""
        if (problem := doubt_of_unit(depth, per_metre, self.limits)) is not None:
            self.doubt("unit", where, problem)
        return depth
