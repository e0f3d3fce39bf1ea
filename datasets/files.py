"""Reading of published folders: lists, images, label, depth and mask files.

Whatever is wrong with a file ends in a DataError of one line: the file, what was seen, the remedy.
"""

import hashlib
import stat
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from common.errors import DataError, UsageError
from datasets.base import DatasetInfo, DenseDataset, Sample

IGNORE = 255
# Pillow's other readers are older code, and its EPS reader would start a program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".pnm", ".pbm"),
    *(".tif", ".tiff", ".webp"),
)
AGAIN = "copy or download it again"


def one_of(names: Iterable[str]) -> str:
    """``a, b or c``."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


# --- folders and lists ---------------------------------------------------------------------------


def check_choice(info: DatasetInfo, kind: str, name: str, names: Iterable[str]) -> None:
    """Raises UsageError that names the valid ones where ``name`` is none of ``names``."""
    if name not in (names := list(names)):
        raise UsageError(f"dataset {info.name} has no {kind} '{name}': choose {one_of(names)}")


def check_root(info: DatasetInfo, root: Path | None, layout: str) -> Path:
    """The folder given with ``--data``; ``layout`` tells what it holds.

    Raises UsageError without one, DataError where it is no folder.
    """
    source = f" (get it from {info.homepage})" if info.homepage else ""
    if root is None:
        raise UsageError(f"dataset {info.name} needs --data DIR, a folder with {layout}{source}")
    if not root.is_dir():
        seen = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root}: {seen}: --data must name a folder with {layout}{source}")
    return root


class Line(NamedTuple):
    """One entry of a list file and where it stands, ``data/train.txt:3``."""

    where: str
    text: str


def read_list(path: Path, remedy: str) -> list[Line]:
    """The lines that are not blank. Raises DataError if the list is missing, no text or empty."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: list is missing: {remedy}") from None
    except UnicodeDecodeError as error:
        seen = f"byte {error.object[error.start]:#04x} at {error.start} is not UTF-8"
        raise DataError(f"{path}: {seen}: save the list as UTF-8 text") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): {remedy}") from None
    entries = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines = [Line(f"{path}:{n}", entry.strip()) for n, entry in enumerate(entries, 1)]
    lines = [line for line in lines if line.text]
    if not lines:
        raise DataError(f"{path}: list is empty: {remedy}")
    return lines


def inside(root: Path, line: Line, entry: str) -> Path:
    """``root / entry``. Raises DataError where that leads out of ``root``."""
    path = Path(entry)
    if path.anchor or ".." in path.parts:
        raise DataError(f"{line.where}: {entry} leads out of {root}: write a path relative to it")
    return root / path


def check_file(path: Path, where: str, role: str) -> None:
    """Raises DataError unless ``path``, which ``where`` asks for, is a file and not empty."""
    remedy = f"add the file or remove it from the list ({where})"
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        seen = "is missing" if gone else f"cannot be reached ({_reason(error)})"
        raise DataError(f"{path}: {role} {seen}: {remedy}") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: {role} is not a file: {remedy}")
    if not status.st_size:
        raise DataError(f"{path}: {role} is empty (0 bytes): {AGAIN}, or see {where}")


def fingerprint(root: Path, paths: Iterable[Path]) -> str:
    """16 hexadecimal digits over names relative to ``root``, sizes in bytes, and their order.

    Contents are not read: an edit that keeps a file's size keeps the digest.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DataError(f"{path}: cannot be reached ({_reason(error)}): {AGAIN}") from None
        name = path.relative_to(root).as_posix()
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


# --- contents ------------------------------------------------------------------------------------


def _reason(error: Exception) -> str:
    known = getattr(error, "strerror", None) or (isinstance(error, OSError) and str(error))
    return " ".join((known or f"{type(error).__name__}: {error}").split())


@contextmanager
def _decoded(path: Path) -> Iterator[Image.Image]:
    """The picture, upright by its EXIF orientation; all that fails inside becomes a DataError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata and the like: the pixels are what counts
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as picture:
                ImageOps.exif_transpose(picture, in_place=True)
                yield picture
    except DataError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"more than {Image.MAX_IMAGE_PIXELS} pixels"
        raise DataError(f"{path}: {limit}: reduce the image, or {AGAIN}") from None
    except FileNotFoundError:
        raise DataError(f"{path}: file is missing: {AGAIN}") from None
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        seen = "is empty (0 bytes)" if empty else "is not an image, or its start is damaged"
        raise DataError(f"{path}: {seen}: {AGAIN}") from None
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise DataError(f"{path}: cannot be read ({_reason(error)}): {AGAIN}") from error


def read_image(path: Path) -> Tensor:
    """uint8 [3, H, W], RGB; grey and palette images are converted, transparency is dropped."""
    with _decoded(path) as picture:
        if picture.mode[0] in "IF":
            seen = f"more than 8 bits a pixel (mode {picture.mode})"
            raise DataError(f"{path}: {seen}: convert the image to 8-bit RGB")
        pixels = np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_labels(path: Path, classes: int, void: Iterable[int] = ()) -> Tensor:
    """uint8 [H, W] class index below ``classes``; the values ``void`` and 255 become 255.

    Of a palette image the indices count, not the colours. Raises DataError on any other value.
    """
    with _decoded(path) as picture:
        if picture.mode not in ("L", "P"):
            seen = f"mode {picture.mode} is no map of class indices"
            raise DataError(f"{path}: {seen}: write an 8-bit grey or palette image")
        labels = np.array(picture)
    void = sorted({*void, IGNORE})
    indices = np.full(256, -1, np.int16)
    indices[:classes] = np.arange(classes)
    indices[void] = IGNORE
    mapped = indices[labels]
    if mapped.min() < 0:
        expected = f"0…{classes - 1} and {', '.join(map(str, void))}"
        remedy = f"map it to a class, or to {IGNORE} to ignore it"
        raise DataError(f"{path}: label {labels[mapped < 0][0]} is outside {expected}: {remedy}")
    return torch.from_numpy(mapped.astype(np.uint8))


def read_mask(path: Path) -> Tensor:
    """uint8 [H, W]: 1 where the grey or 1-bit image is above 128, else 0.

    Raises DataError on colours, and on a mask whose values stay between 1 and 128.
    """
    remedy = "write an 8-bit grey image, 0 = background, 255 = object"
    with _decoded(path) as picture:
        if picture.mode not in ("1", "L"):
            raise DataError(f"{path}: mode {picture.mode} is no mask: {remedy}")
        grey = np.array(picture.convert("L"))
    if 0 < (top := int(grey.max())) <= 128:
        raise DataError(f"{path}: largest value is {top}, nothing is above 128: {remedy}")
    return torch.from_numpy((grey > 128).astype(np.uint8))


def read_depth(path: Path, per_metre: float, invalid: int, limits: tuple[float, float]) -> Tensor:
    """float32 [H, W] metres of a 16-bit image in 1/``per_metre`` metre; 0 = no reading.

    0 and ``invalid`` in the file are no reading. Raises DataError on another bit depth, or if no
    reading is within ``limits`` (metres): nothing could be learnt or measured on such a frame.
    """
    with _decoded(path) as picture:
        if not picture.mode.startswith("I"):
            seen = f"8 bits a channel (mode {picture.mode}) where 16-bit depth is expected"
            raise DataError(f"{path}: {seen}: take the original depth file, not a picture of it")
        raw = np.array(picture)
    if raw.min() < 0 or raw.max() > 65535:
        seen = f"values {raw.min()}…{raw.max()} where 16-bit depth is expected"
        raise DataError(f"{path}: {seen}: take the original depth file")
    depth = np.where(raw == invalid, 0, raw).astype(np.float32) / np.float32(per_metre)
    if not ((depth >= limits[0]) & (depth <= limits[1])).any():
        seen = f"no pixel has a depth within {limits[0]:g}…{limits[1]:g} m"
        raise DataError(f"{path}: {seen}: remove the frame from the list")
    return torch.from_numpy(depth)


# --- image and target pairs ----------------------------------------------------------------------


class Pair(NamedTuple):
    """The files of one sample; ``where`` is the list line that asks for them."""

    image: Path
    target: Path
    name: str
    where: str


class PairedFiles(DenseDataset):
    """A split made of one image file and one target file a sample, for one task.

    layout: what the folder holds, target: what a target file is called; both for errors.
    """

    layout: ClassVar[str]
    target: ClassVar[str]

    def __init__(
        self, root: Path | None, split: str, task: str, missing: list[DataError] | None = None
    ) -> None:
        """Open ``split``: reads the list and looks for every file, without opening any image.

        missing: takes the error of each file instead of raising the first; its pair is left out.
        Raises UsageError without ``root``, or on an unknown split or task; DataError on a missing
        folder, list or file. Warns where a published count differs.
        """
        check_choice(self.info, "task", task, self.info.tasks)
        check_choice(self.info, "split", split, self.info.splits)
        self.root = check_root(self.info, root, self.layout)
        check_choice(self.info, "split", split, self.available_splits(root))
        self.split, self.task, self.missing = split, task, missing
        self.pairs = [pair for pair in self.find(split) if self._is_there(pair)]
        published = self.info.splits[split]
        if published not in (None, len(self.pairs)):
            seen = f"{len(self.pairs)} samples in '{split}'"
            warnings.warn(
                f"{self.root}: {seen} where {self.info.title} has {published}", stacklevel=2
            )

    @classmethod
    def survey(
        cls, root: Path | None, split: str, task: str, **facts: Any
    ) -> tuple[DenseDataset, list[DataError]]:
        missing: list[DataError] = []
        return cls(root, split, task, missing, **facts), missing

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """What is wrong with one pair: raised, or kept where all is asked for."""
        try:
            yield
        except DataError as error:
            if self.missing is None:
                raise
            self.missing.append(error)

    def _is_there(self, pair: Pair) -> bool:
        before = len(self.missing or ())
        for path, role in ((pair.image, "image"), (pair.target, self.target)):
            with self._noted():
                check_file(path, pair.where, role)
        return len(self.missing or ()) == before

    def listed(self, lines: Iterable[Line], pair: Callable[[Line], Pair]) -> list[Pair]:
        """The ``pair`` of each line, for ``find``: one bad line does not hide the others."""
        pairs = []
        for line in lines:
            with self._noted():
                pairs.append(pair(line))
        return pairs

    @abstractmethod
    def find(self, split: str) -> list[Pair]:
        """The pairs of ``split``, at least one, in the order of its list."""

    @abstractmethod
    def read_target(self, path: Path) -> Tensor:
        """The ground truth [H, W] in the encoding of Sample."""

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Raises DataError that names the file which is damaged or wrong."""
        pair = self.pairs[index]
        image, target = read_image(pair.image), self.read_target(pair.target)
        if image.shape[1:] != target.shape:
            (h, w), (th, tw) = image.shape[1:], target.shape
            seen = f"{self.target} of {tw}×{th} pixels but its image {pair.image} has {w}×{h}"
            raise DataError(f"{pair.target}: {seen}: take both from the same source")
        return Sample(image, {self.task: target}, pair.name)

    def faults(self, index: int) -> list[DataError]:
        pair, found = self.pairs[index], []
        for read, path in ((read_image, pair.image), (self.read_target, pair.target)):
            try:
                read(path)
            except DataError as error:
                found.append(error)
        return found

    def fingerprint(self) -> str:
        return fingerprint(self.root, (path for pair in self.pairs for path in pair[:2]))
