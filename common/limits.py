"""Limits on files that may come from elsewhere, and safe display of their text.

The limits are far above what this program writes and what data sets publish; comments give both.
"""

import io
import json
import re
import stat
from pathlib import Path
from typing import Any

MB = 2**20
RESULT = 64 * MB  # of a result.json or a search.json; the largest of ours have 10 kB and 1 MB
WIRING = 1 * MB  # a wiring of all connections of 100 features has 200 kB
REPLICATES = 32 * MB  # bootstrap.npz, also unpacked: up to 1,501 numbers for each of 5,000 metrics
PICTURE = 256 * 2**10  # a strip's WebP; the pixels alone of 192×192 have 110 kB
TEXT = 16 * MB  # a Markdown file to update
LIST = 64 * MB  # names, a line each: ImageNet's 1.3 million have 40 MB
LINE = 2048  # characters of a line in a list: KITTI's have 150
MATLAB = 128 * MB  # annotations of one image have 1 MB, also if they are not compressed
IMAGE = 1024 * MB  # an image file: PIXELS of three 16-bit channels have 600 MB
PIXELS = 100_000_000  # a camera's 100 megapixels; images of the data sets have up to 20
CHANNELS = 1024  # of an image; hyperspectral cameras have a few hundred
WIDTH = 65536  # channels of a decoder's maps; SparseMask's have 64
WEIGHTS = 32 * 1024 * MB  # the largest backbones of timm have 20 GB
YAML = 128 * 2**10  # PyYAML reads some 100 kB a second; the paper's whole sweep has 3 kB
YAML_NODES = 20_000  # keys and values, again for each alias
YAML_DEPTH = 20  # lists and mappings within each other; a sweep has 4
INTEGER = 2**63  # the largest number of parameters or MACs fits many times
NUMBER = 1e100  # the square of a larger one may overflow


class LimitError(ValueError):
    """A file that is too large or of the wrong kind. The message says what was seen."""


def size_text(count: float) -> str:
    """A number of bytes for people: ``64 MB``."""
    unit = "bytes"
    for larger in ("kB", "MB", "GB"):
        if count >= 1024:
            count, unit = count / 1024, larger
    return f"{count:.0f} {unit}" if count >= 10 or unit == "bytes" else f"{count:.1f} {unit}"


def check_size(path: Path, most: int) -> int:
    """The size of a file in bytes. Raises LimitError above ``most``, and for what is no file.

    A pipe would block, and a device has no end. Raises OSError where there is nothing.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(21, "Is a directory", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise LimitError("it is no file but a pipe or a device")
    if status.st_size > most:
        raise LimitError(f"it has {size_text(status.st_size)}, at most {size_text(most)} are read")
    return status.st_size


def read_bytes(path: Path, most: int) -> bytes:
    """All of a file of at most ``most`` bytes. Raises as ``check_size`` does."""
    size = check_size(path, most)
    with path.open("rb") as file:
        content = file.read(size + 1)
    if len(content) > size:
        raise LimitError("it grew while it was read")
    return content


class Capped(io.BufferedReader):
    """A file whose ``read`` allocates no more than the file has left.

    A pickle's text or a chunk of a PNG may claim 4 GB, and its reader asks for them.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self.size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


def parse_json(text: str | bytes) -> Any:
    """Parse JSON. Raises ValueError for other text and for nesting that is too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise LimitError("its lists and objects are nested too deep") from None


# Control characters could make a terminal do anything; those that change the direction of writing
# could make a name look like another. Halves of a surrogate pair cannot be written as UTF-8.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str, most: int = 0) -> str:
    """``text`` safe to show: line breaks become spaces, other unprintable characters ``�``.

    most: length to cut it to, with an ellipsis at the end; 0: no limit.
    """
    if most and len(text) > most:
        text = f"{text[: most - 1]}…"
    if text.isprintable():
        return text
    return _UNPRINTABLE.sub(lambda match: " " if match[0] in "\t\n\r" else "�", text)
