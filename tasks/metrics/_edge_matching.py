"""Boundaries of one image: thin lines from a map of probabilities, paired with annotators' marks.

Nothing here needs torch: worker processes import this file alone and start quickly.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Codes = NDArray[np.uint8]

BORDER = 5
SLACK = 1.01
# east, then against the clock: bit k of a pixel's code says that its neighbour k is set
AROUND = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


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


HALVES = _thinning_tables()


class PixelGraph:
    """Pixels that may be set, numbered in reading order, and their neighbours.

    ``neighbours`` [8, N] holds numbers; N stands for a pixel that is never set.
    """

    def __init__(self, possible: Mask) -> None:
        self.rows, self.columns = np.nonzero(possible)
        self.count = len(self.rows)
        number = np.full((possible.shape[0] + 2, possible.shape[1] + 2), self.count)
        number[self.rows + 1, self.columns + 1] = np.arange(self.count)
        self.neighbours = np.stack(
            [number[self.rows + 1 + dy, self.columns + 1 + dx] for dy, dx in AROUND]
        )

    def codes(self) -> Codes:
        """The codes, uint8 [N + 1], where no pixel is set."""
        return np.zeros(self.count + 1, dtype=np.uint8)

    def flip(self, codes: Codes, pixels: Ints) -> None:
        """Flip the bit of each of ``pixels`` in the codes of its neighbours."""
        for k, beside in enumerate(self.neighbours[:, pixels]):
            codes[beside] ^= 1 << (k + 4) % 8

    def thin(self, alive: Mask, codes: Codes) -> None:
        """Thin the ``alive`` [N] pixels to lines of one pixel, in place."""
        changed = True
        while changed:
            changed = False
            for removes in HALVES:
                gone = np.flatnonzero(alive & removes[codes[:-1]])
                alive[gone] = False
                self.flip(codes, gone)
                changed |= gone.size > 0


def thin(mask: Mask) -> Mask:
    """Morphological thinning of a mask (H, W) until nothing changes. Source: Guo and Hall 1989."""
    graph = PixelGraph(mask)
    alive, codes = np.ones(graph.count, dtype=bool), graph.codes()
    graph.flip(codes, np.arange(graph.count))
    graph.thin(alive, codes)
    result = np.zeros_like(mask)
    result[graph.rows[alive], graph.columns[alive]] = True
    return result


@dataclass(frozen=True)
class Pairs:
    """Which pixels of a graph may be paired with which of one annotator's marks.

    ``pixels`` [P] are those with a mark in reach, the nearest to one first; ``degrees`` [P] is
    their number of marks, ``marks`` [Σ degrees] the marks, as numbers below ``total``.
    """

    pixels: Ints
    degrees: Ints
    marks: NDArray[np.int32]
    total: int

    @classmethod
    def within(cls, reach: float, graph: PixelGraph, marks: Mask) -> "Pairs":
        """All pairs of at most ``reach`` pixels distance; ``marks`` is (H, W)."""
        most = math.floor(reach)
        offsets = np.argwhere(np.ones((2 * most + 1, 2 * most + 1))) - most
        squares = (offsets**2).sum(axis=1)
        order = np.argsort(squares, kind="stable")[: np.count_nonzero(squares <= reach**2)]
        number = np.full((marks.shape[0] + 2 * most, marks.shape[1] + 2 * most), -1, dtype=np.int32)
        total = int(np.count_nonzero(marks))
        number[np.nonzero(np.pad(marks, most))] = np.arange(total)
        width = number.shape[1]
        centre = (graph.rows + most) * width + graph.columns + most
        near = number.ravel()[centre[:, None] + offsets[order] @ [width, 1]]
        in_reach = near >= 0
        pixels = np.flatnonzero(in_reach.any(axis=1))
        nearest = squares[order][in_reach[pixels].argmax(axis=1)]
        pixels = pixels[np.argsort(nearest, kind="stable")]
        in_reach = in_reach[pixels]
        return cls(pixels, in_reach.sum(axis=1), near[pixels][in_reach], total)

    def match(self, alive: Mask) -> Ints:
        """The ``alive`` [N] pixels of a largest one-to-one pairing.

        A pixel near a mark comes before one farther off, as in the BSDS matcher, which seeks the
        pairing of least distance among the largest ones.
        """
        here = alive[self.pixels]
        pixels = self.pixels[here]
        count = len(pixels)
        if count == 0:
            return pixels
        # One unit flows from the source over a pixel and a mark to the sink. SciPy's
        # maximum_bipartite_matching searches dead ends again and again and may take seconds.
        marks = self.marks[np.repeat(here, self.degrees)]
        last = count + self.total + 1
        heads = np.concatenate(
            [np.arange(1, count + 1), marks + (count + 1), np.full(self.total, last)]
        )
        out = np.concatenate([[0, count], self.degrees[here], np.ones(self.total, int), [0]])
        ends = out.cumsum(dtype=np.int32)
        capacity = np.ones(len(heads), dtype=np.int32)
        network = csr_array((capacity, heads.astype(np.int32), ends), shape=(last + 1, last + 1))
        flow: NDArray[np.int32] = maximum_flow(network, 0, last, method="dinic").flow.data
        return pixels[flow[:count] > 0]


def boundary_counts(ridges: Floats, marks: Mask, thresholds: Floats, tolerance: float) -> Ints:
    """Counts [T, 4] of one image at each of the rising ``thresholds`` [T].

    ``ridges`` (H, W) are as ``suppress`` leaves them, ``marks`` [A, H, W] are of one annotator or
    more. A row holds: marks matched and marks, both summed over annotators; pixels matched to any
    annotator and pixels, of the thinned ridges. The distance of a pair is at most ``tolerance``
    times the diagonal. Source: Martin et al. 2004, Arbeláez et al. 2011 (BSDS).
    """
    graph = PixelGraph(ridges >= thresholds[0])
    values = ridges[graph.rows, graph.columns]
    reach = tolerance * math.hypot(*ridges.shape)
    annotators = [Pairs.within(reach, graph, each) for each in marks]
    total = sum(each.total for each in annotators)
    result = np.zeros((len(thresholds), 4), dtype=np.int64)
    result[:, 1] = total
    codes, above = graph.codes(), np.zeros(graph.count, dtype=bool)
    for step in reversed(range(len(thresholds))):
        fresh = np.flatnonzero(~above & (values >= thresholds[step]))
        if fresh.size == 0:
            result[step] = result[min(step + 1, len(thresholds) - 1)]
            continue
        above[fresh] = True
        graph.flip(codes, fresh)
        alive = above.copy()
        graph.thin(alive, codes.copy())
        matched = np.concatenate([each.match(alive) for each in annotators])
        predicted = np.count_nonzero(alive)
        result[step] = len(matched), total, len(np.unique(matched)), predicted
    return result


def score_boundaries(
    p: Floats, marks: Mask, ignored: Mask, thresholds: Floats, tolerance: float
) -> Ints:
    """``boundary_counts`` of a map (H, W) of probabilities; nothing is predicted where ignored."""
    return boundary_counts(np.where(ignored, 0, suppress(p)), marks, thresholds, tolerance)
