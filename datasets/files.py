"""Reading of published folders: lists and the files that they name; ``decoding`` reads these.

Every fault of a file raises a DataError of one line: the file, what was seen, what to do.
"""

import hashlib
import stat
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from common import limits
from common.errors import DataError, UsageError
from common.limits import LimitError, printable
from datasets.base import DatasetInfo

# also from here, for readers that import all they need from one module
from datasets.decoding import AGAIN as AGAIN
from datasets.decoding import IGNORE as IGNORE
from datasets.decoding import DepthSet as DepthSet
from datasets.decoding import check_depth as check_depth
from datasets.decoding import check_pixels as check_pixels
from datasets.decoding import read_any_image as read_any_image
from datasets.decoding import read_depth as read_depth
from datasets.decoding import read_image as read_image
from datasets.decoding import read_mask as read_mask
from datasets.decoding import reason as reason
from datasets.decoding import warn_of_unit as warn_of_unit
from datasets.labels import read_labels as read_labels
from datasets.labels import voc_colour as voc_colour

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".pnm", ".pbm"),
    *(".tif", ".tiff", ".webp"),
)
ANOTHER = "this is not the published set: for data of your own take --dataset own"


def one_of(names: Iterable[str]) -> str:
    """``a, b or c``."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


# --- folders and lists ---------------------------------------------------------------------------


def check_choice(info: DatasetInfo, kind: str, name: str, names: Iterable[str]) -> None:
    """Raises UsageError that lists ``names`` unless ``name`` is one of them."""
    if name not in (names := list(names)):
        raise UsageError(f"dataset {info.name} has no {kind} '{name}': choose {one_of(names)}")


def check_root(info: DatasetInfo, root: Path | None, layout: str) -> Path:
    """The folder of ``--data``. layout: what it must hold, for errors.

    Raises UsageError if it is missing, DataError if it is no folder.
    """
    source = f" (get it from {info.homepage})" if info.homepage else ""
    if root is None:
        raise UsageError(f"dataset {info.name} needs --data DIR, a folder with {layout}{source}")
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root}: {problem}: --data must name a folder with {layout}{source}")
    return root


def far_off(info: DatasetInfo, split: str, count: int) -> bool:
    """Whether ``count`` is not the published size of ``split`` by more than a factor of two."""
    published = info.splits.get(split) if info.published else None
    return published is not None and not published <= 2 * count <= 4 * published


def warn_of_count(info: DatasetInfo, root: Path, split: str, count: int) -> None:
    """Warns, with both numbers, if ``count`` is not the published size of ``split``."""
    if info.splits[split] not in (None, count):
        size = f"{count} samples in '{split}'"
        text = f"{root}: {size} where {info.title} has {info.splits[split]}"
        if far_off(info, split, count):
            text += f": {ANOTHER}"
        warnings.warn(text, stacklevel=3)


def exists(path: Path) -> bool:
    """Whether a path exists; False for one that is too long for the system."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


class Line(NamedTuple):
    """One entry of a list file and its place, ``data/train.txt:3``."""

    where: str
    text: str


def read_list(path: Path, remedy: str) -> list[Line]:
    """The lines of a list that are not blank.

    Raises DataError if the list is missing, no text, empty or too large, or has too long a line.
    """
    try:
        text = limits.read_bytes(path, limits.LIST).decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: list is missing: {remedy}") from None
    except UnicodeDecodeError as error:
        problem = f"byte {error.object[error.start]:#04x} at {error.start} is not UTF-8"
        raise DataError(f"{path}: {problem}: save the list as UTF-8 text") from None
    except (OSError, LimitError) as error:
        raise DataError(f"{path}: cannot be read ({reason(error)}): {remedy}") from None
    entries = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines = [Line(f"{path}:{n}", entry.strip()) for n, entry in enumerate(entries, 1)]
    lines = [line for line in lines if line.text]
    if not lines:
        raise DataError(f"{path}: list is empty: {remedy}")
    for line in lines:
        if len(line.text) > limits.LINE or "\0" in line.text:
            has = f"{len(line.text)} characters" if len(line.text) > limits.LINE else "a zero byte"
            raise DataError(f"{line.where}: the line has {has}: {remedy}")
    return lines


def inside(root: Path, line: Line, entry: str) -> Path:
    """``root / entry``. Raises DataError if that leads out of ``root``."""
    path = Path(entry)
    if path.anchor or ".." in path.parts:
        shown = printable(entry, 200)
        raise DataError(f"{line.where}: {shown} leads out of {root}: write a path relative to it")
    return root / path


def check_file(path: Path, where: str, role: str) -> None:
    """Raises DataError unless ``path`` is a file with content. where: what refers to it."""
    remedy = f"add the file or remove what asks for it ({where})"
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        problem = "is missing" if gone else f"cannot be reached ({reason(error)})"
        raise DataError(f"{path}: {role} {problem}: {remedy}") from None
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
            raise DataError(f"{path}: cannot be reached ({reason(error)}): {AGAIN}") from None
        name = path.relative_to(root).as_posix()
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
