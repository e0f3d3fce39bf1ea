"""Numbers from MATLAB files of version 5 to 7.2.

``scipy.io.loadmat`` trusts the types that a file declares: one wrong bit in them ends the process.
Source: MathWorks, MAT-File Format.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from datasets.files import AGAIN

LARGEST = 2**26  # bytes of one unpacked variable
HEADER = 128
MATRIX, COMPRESSED = 14, 15
CLASSES = range(6, 16)  # of matrices: double, single, integers
NUMBERS = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4"},
    **{6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}


def read_numbers(path: Path, variable: str) -> NDArray[np.int64]:
    """The whole numbers of a matrix, [N], column by column.

    Raises DataError for a file that is missing, damaged or of another version, and for a variable
    that is missing or has other values.
    """
    try:
        data = path.read_bytes()
        if data[HEADER - 4 : HEADER] != b"\0\1IM":  # 7.3 has \0\2
            raise ValueError("it does not start as a MATLAB file of version 5")
        for matrix in _matrices(memoryview(data)[HEADER:]):
            flags, size, name, *values = _elements(matrix)
            if bytes(name[1]) == variable.encode():
                return _numbers(variable, flags[1], size[1], *values[0])
        raise ValueError(f"it has no {variable}")
    except FileNotFoundError:
        raise DataError(f"{path}: file is missing: {AGAIN}") from None
    except (OSError, ValueError, LookupError, OverflowError, struct.error, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}): {AGAIN}") from error


def _matrices(data: memoryview) -> Iterator[memoryview]:
    """What each variable of the file holds, unpacked."""
    for kind, body in _elements(data):
        if kind == COMPRESSED:
            stream = zlib.decompressobj()
            unpacked = stream.decompress(body, LARGEST)
            if not stream.eof:
                raise ValueError(f"a variable is cut or unpacks to more than {LARGEST} bytes")
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


def _numbers(
    variable: str, flags: memoryview, size: memoryview, kind: int, values: memoryview
) -> NDArray[np.int64]:
    """The values of a matrix, stored as ``kind``; [N]."""
    if struct.unpack_from("<I", flags)[0] & 0xFF not in CLASSES or kind not in NUMBERS:
        raise ValueError(f"{variable} is no matrix of numbers")
    numbers = np.frombuffer(values, f"<{NUMBERS[kind]}")
    shape = np.frombuffer(size, "<i4").tolist()
    if math.prod(shape) != len(numbers):
        raise ValueError(f"{variable} has {len(numbers)} values for a shape of {shape}")
    with np.errstate(all="ignore"):
        whole = numbers.astype(np.int64)
    if (whole != numbers).any():
        raise ValueError(f"{variable} has values that are no whole numbers")
    return whole
