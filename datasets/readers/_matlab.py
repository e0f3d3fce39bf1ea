"""Matrices of numbers from MATLAB files of version 5 to 7.2, also those in structs in a cell array.

``scipy.io.loadmat`` trusts the types that a file declares: one wrong bit in them ends the process.
Source: MathWorks, MAT-File Format.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common import limits
from common.errors import DataError
from datasets.decoding import AGAIN

LARGEST = 2**26  # bytes of all variables, unpacked
HEADER = 128
MATRIX, COMPRESSED = 14, 15
# classes of arrays
CELL, STRUCT = 1, 2
NUMERIC = range(6, 16)  # double, single, integers
NUMBERS = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4"},
    **{6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}


class Array(NamedTuple):
    """An array. kind: its class. shape: its first sides, at most three. parts: after its name."""

    kind: int
    shape: list[int]
    name: bytes
    parts: Iterator[tuple[int, memoryview]]


def read_numbers(path: Path, variable: str) -> NDArray[np.int64]:
    """The whole numbers of a matrix, [N], column by column.

    Raises DataError for a file that is missing, damaged or of another version, and for a variable
    that is missing or has other values.
    """
    with _opened(path, variable) as array:
        numbers = _numbers(variable, array)
        with np.errstate(all="ignore"):
            whole = numbers.astype(np.int64)
        if (whole != numbers).any():
            raise ValueError(f"{variable} has values that are no whole numbers")
        return whole.ravel("F")


def read_field(path: Path, variable: str, field: str) -> list[NDArray[Any]]:
    """The matrix ``variable{k}.field`` [rows, columns] for each k; other fields are not looked at.

    Types are those of the file, which keeps numbers as small as it can. Raises DataError as
    ``read_numbers`` does.
    """
    with _opened(path, variable) as cells:
        if cells.kind != CELL:
            raise ValueError(f"{variable} is no cell array")
        matrices = [
            _numbers(f"{variable}{{{k}}}.{field}", _field(f"{variable}{{{k}}}", body, field))
            for k, (_, body) in enumerate(cells.parts, 1)
        ]
        if len(matrices) != math.prod(cells.shape):
            raise ValueError(f"{variable} has {len(matrices)} cells for a shape of {cells.shape}")
        return matrices


@contextmanager
def _opened(path: Path, variable: str) -> Iterator[Array]:
    """The variable; any failure inside raises DataError."""
    try:
        data = limits.read_bytes(path, limits.MATLAB)
        if data[HEADER - 4 : HEADER] != b"\0\1IM":  # 7.3 has \0\2
            raise ValueError("it does not start as a MATLAB file of version 5")
        arrays = (_array(body) for body in _matrices(memoryview(data)[HEADER:]))
        match = next((array for array in arrays if array.name == variable.encode()), None)
        if match is None:
            raise ValueError(f"it has no {variable}")
        yield match
    except FileNotFoundError:
        raise DataError(f"{path}: file is missing: {AGAIN}") from None
    except (OSError, ValueError, LookupError, OverflowError, struct.error, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}): {AGAIN}") from error


def _matrices(data: memoryview) -> Iterator[memoryview]:
    """The content of each variable of the file, unpacked."""
    left = LARGEST
    for kind, body in _elements(data):
        if kind == COMPRESSED:
            stream = zlib.decompressobj()
            unpacked = stream.decompress(body, left)
            if not stream.eof:
                raise ValueError(f"a variable is cut or unpacks to more than {left} bytes")
            left = max(left - len(unpacked), 1)  # 0 would be without limit
            yield from (m for k, m in _elements(memoryview(unpacked)) if k == MATRIX)
        elif kind == MATRIX:
            yield body


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type and content of each element in ``data``."""
    while data:
        kind, size = struct.unpack_from("<II", data)
        start, end = 8, 8 + size + (0 if kind == COMPRESSED else -size % 8)
        if kind >> 16:  # up to four bytes are packed into the tag
            kind, size, start, end = kind & 0xFFFF, kind >> 16, 4, 8
        if start + size > min(end, len(data)):
            raise ValueError(f"an element of {size} bytes where {len(data) - start} are left")
        yield kind, data[start : start + size]
        data = data[end:]


def _array(body: memoryview) -> Array:
    """An array from its header; its parts are read later, one by one."""
    parts = _elements(body)
    head = [content for _, content in islice(parts, 3)]
    if len(head) < 3:
        raise ValueError("an array ends before its name")
    flags, shape, name = head
    kind = struct.unpack_from("<I", flags)[0] & 0xFF
    return Array(kind, np.frombuffer(shape[:12], "<u4").tolist(), bytes(name), parts)


def _field(name: str, body: memoryview, field: str) -> Array:
    """Raises ValueError unless it is one struct that has the field."""
    array = _array(body)
    if (array.kind, array.shape) != (STRUCT, [1, 1]):
        raise ValueError(f"{name} is no single struct")
    (_, length), (_, names) = islice(array.parts, 2)
    (step,) = struct.unpack("<I", length)
    starts = range(0, len(names), step)
    for start, (_, content) in zip(starts, array.parts, strict=False):
        if bytes(names[start : start + step]).partition(b"\0")[0] == field.encode():
            return _array(content)
    raise ValueError(f"{name} has no {field}")


def _numbers(name: str, array: Array) -> NDArray[Any]:
    """The values of a matrix as they are stored, [rows, columns]."""
    stored, values = next(array.parts, (0, b""))
    if array.kind not in NUMERIC or stored not in NUMBERS or len(array.shape) != 2:
        raise ValueError(f"{name} is no matrix of numbers")
    numbers = np.frombuffer(values, f"<{NUMBERS[stored]}")
    if math.prod(array.shape) != len(numbers):
        raise ValueError(f"{name} has {len(numbers)} values for a shape of {array.shape}")
    return numbers.reshape(array.shape, order="F")
