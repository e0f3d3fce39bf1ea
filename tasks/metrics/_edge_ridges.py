"""Thin lines of one map of probabilities: non-maximum suppression and thinning."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Codes = NDArray[np.uint8]
Function = TypeVar("Function", bound=Callable[..., object])

BORDER = 5
SLACK = 1.01
# east, then against the clock: bit k of a pixel's code says that its neighbour k is set
AROUND = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def compiled(function: Function) -> Function:
    """``function`` as machine code, kept for the next process where a folder can be written."""
    try:
        result: Function = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba finds no folder
        result = njit(nogil=True)(function)
    return result


def suppress(p: Floats) -> Floats:
    """Ridges of a map (H, W) of probabilities, elsewhere 0: non-maximum suppression.

    The map is smoothed, compared with itself one pixel to either side across the boundary, and
    faded out over the outermost 5 pixels. Source: Dollár and Zitnick 2015, Structured Edges.
    """
    edge = _smooth(p, 1)
    dy, dx = (_slope(_smooth(edge, 4), axis) for axis in (0, 1))
    dxx, dxy, dyy = _slope(dx, 1), _slope(dy, 1), _slope(dy, 0)
    # 1e-5 keeps the rounding of flat regions from choosing a direction
    across = np.arctan2(dyy * np.sign(-dxy), dxx + 1e-5)
    y, x = np.indices(p.shape)
    ridge = edge > 0
    for side in (-1, 1):
        beside = [
            np.clip(at + side * step, 0, max(size - 1.001, 0))
            for at, step, size in zip(
                (y, x), (np.sin(across), np.cos(across)), p.shape, strict=True
            )
        ]
        ridge &= edge * SLACK >= ndimage.map_coordinates(edge, beside, order=1, mode="nearest")
    return np.where(ridge, edge, 0) * _fade(p.shape[0])[:, None] * _fade(p.shape[1])


def _smooth(p: Floats, radius: int) -> Floats:
    """Triangle filter of 2·radius + 1 pixels a side; the border is mirrored."""
    box = np.ones(radius + 1) / (radius + 1)
    for axis in (0, 1):
        p = ndimage.correlate1d(p, np.convolve(box, box), axis=axis, mode="reflect")
    return p


def _slope(p: Floats, axis: int) -> Floats:
    return np.gradient(p, axis=axis) if p.shape[axis] > 1 else np.zeros_like(p)


def _fade(size: int) -> Floats:
    reach = min(BORDER, size // 2)
    inward = np.minimum(np.arange(size), np.arange(size)[::-1])
    return np.minimum(inward / reach, 1) if reach else np.ones(size)


def _thinning_tables() -> tuple[Mask, Mask]:
    """For each of 256 codes: whether the first and the second half of a pass remove the pixel.

    Source: Guo and Hall 1989, the algorithm that BSDS uses.
    """
    x = np.unpackbits(np.arange(256, dtype=np.uint8)[None], axis=0, bitorder="little").astype(bool)
    cardinal = range(0, 8, 2)
    crossings = sum(~x[k] & (x[k + 1] | x[(k + 2) % 8]) for k in cardinal)
    before = sum((x[k] | x[k + 1]).astype(int) for k in cardinal)
    after = sum((x[k + 1] | x[(k + 2) % 8]).astype(int) for k in cardinal)
    fewest = np.minimum(before, after)
    spare = (crossings == 1) & (fewest >= 2) & (fewest <= 3)
    return (
        spare & ~((x[1] | x[2] | ~x[7]) & x[0]),
        spare & ~((x[5] | x[6] | ~x[3]) & x[4]),
    )


HALVES = np.stack(_thinning_tables())


@compiled
def _flip(neighbours: NDArray[np.int32], codes: Codes, pixels: Ints) -> None:
    """Flip the bit of each of ``pixels`` in the codes of its ``neighbours`` [N, 8]."""
    for pixel in pixels:
        for k in range(8):
            codes[neighbours[pixel, k]] ^= np.uint8(1 << (k + 4) % 8)


@compiled
def _thin(neighbours: NDArray[np.int32], halves: Mask, alive: Mask, codes: Codes) -> None:
    """Thin the ``alive`` [N] pixels, in place. A half looks only where a code has changed since.

    ``waiting`` [2, N] are the pixels that each half has to look at, ``listed`` says who is there.
    """
    count = len(alive)
    waiting = np.empty((2, count), dtype=np.int32)
    sizes = np.zeros(2, dtype=np.int64)
    listed = np.zeros((2, count + 1), dtype=np.bool_)
    listed[:, count] = True  # the pixel that is never set
    for pixel in range(count):
        if alive[pixel]:
            for half in range(2):
                waiting[half, sizes[half]] = pixel
                sizes[half] += 1
                listed[half, pixel] = True
    gone = np.empty(count, dtype=np.int32)
    half = 0
    while sizes[0] + sizes[1] > 0:
        removed = 0
        for pixel in waiting[half, : sizes[half]]:
            listed[half, pixel] = False
            if alive[pixel] and halves[half, codes[pixel]]:
                gone[removed] = pixel
                removed += 1
        sizes[half] = 0
        for pixel in gone[:removed]:
            alive[pixel] = False
            for k in range(8):
                other = neighbours[pixel, k]
                codes[other] ^= np.uint8(1 << (k + 4) % 8)
                for each in range(2):
                    if not listed[each, other]:
                        listed[each, other] = True
                        waiting[each, sizes[each]] = other
                        sizes[each] += 1
        half = 1 - half


class PixelGraph:
    """Pixels that may be set, numbered in reading order, and their neighbours.

    ``neighbours`` [N, 8] holds numbers; N stands for a pixel that is never set.
    """

    def __init__(self, possible: Mask) -> None:
        self.rows, self.columns = np.nonzero(possible)
        self.count = len(self.rows)
        number = np.full((possible.shape[0] + 2, possible.shape[1] + 2), self.count, dtype=np.int32)
        number[self.rows + 1, self.columns + 1] = np.arange(self.count)
        self.neighbours = np.stack(
            [number[self.rows + 1 + dy, self.columns + 1 + dx] for dy, dx in AROUND], axis=1
        )

    def codes(self) -> Codes:
        """The codes, uint8 [N + 1], where no pixel is set."""
        return np.zeros(self.count + 1, dtype=np.uint8)

    def flip(self, codes: Codes, pixels: Ints) -> None:
        """Flip the bit of each of ``pixels`` in the codes of its neighbours."""
        _flip(self.neighbours, codes, pixels)

    def thin(self, alive: Mask, codes: Codes) -> None:
        """Thin the ``alive`` [N] pixels to lines of one pixel, in place."""
        _thin(self.neighbours, HALVES, alive, codes)


def thin(mask: Mask) -> Mask:
    """Morphological thinning of a mask (H, W) until nothing changes. Source: Guo and Hall 1989."""
    graph = PixelGraph(mask)
    alive, codes = np.ones(graph.count, dtype=bool), graph.codes()
    graph.flip(codes, np.arange(graph.count))
    graph.thin(alive, codes)
    result = np.zeros_like(mask)
    result[graph.rows[alive], graph.columns[alive]] = True
    return result
