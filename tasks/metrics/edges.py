"""Boundaries: counts per image and threshold under the BSDS protocol, and scores from them.

Degenerate images follow the BSDS code: without a mark, every predicted pixel is a false one;
without a predicted pixel, every mark is missed. A ratio of nothing is 0. One value differs, where
that code gives NaN: the recall at a precision that no threshold reaches is 0.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
import torch

from common.annotators import IGNORE, unpack
from common.errors import UsageError, UserError
from tasks.metrics.base import Accumulator, Ints, MetricInfo, catalogue, planes
from tasks.metrics.resampling import Floats

BSDS = "Martin et al. 2004, Arbeláez et al. 2011 (BSDS)"
DOLLAR = "Dollár and Zitnick 2015 (Structured Edges)"
TOLERANCE = 0.0075
THRESHOLDS = 99
BETWEEN = 100  # points from one threshold to the next, both ends included
RECALLS = 101
LEAST_RECALL = 1e-3
ROUNDING = 1e-3


def probabilities(prediction: torch.Tensor) -> Floats:
    """Prediction (H, W), real 0…1, as float64.

    Raises ValueError for other types and values out of range, UserError for NaN.
    """
    if not prediction.is_floating_point():
        raise ValueError(f"prediction: expected real numbers, got {prediction.dtype}")
    p: Floats = prediction.double().numpy()
    low, high = float(p.min()), float(p.max())
    if math.isnan(low):
        raise UserError("prediction: NaN in the edge map: the network diverged in training")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise ValueError(f"prediction: {low:g} to {high:g} is outside 0…1: apply the sigmoid first")
    return np.clip(p, 0, 1)


def recall_precision(counts: Floats | Ints) -> tuple[Floats, Floats]:
    """Both, from counts [..., 4] in the order of ``boundary_counts``; 0 for a ratio of nothing."""
    shares = counts[..., ::2] / np.maximum(counts[..., 1::2], 1)
    return shares[..., 0], shares[..., 1]


def f_measure(recall: Floats, precision: Floats) -> Floats:
    """Harmonic mean, any shape; 0 where both are."""
    both = recall + precision
    score: Floats = 2 * recall * precision / np.where(both > 0, both, 1)
    return score


def optimal_f(recall: Floats, precision: Floats) -> Floats:
    """Best F [S] over one threshold for all images, of curves [S, T] over rising thresholds.

    Between neighbouring thresholds both are interpolated at ``BETWEEN`` points. Source: BSDS.
    """
    best: Floats = f_measure(recall, precision).max(axis=1)
    for share in np.linspace(0, 1, BETWEEN)[1:-1]:
        between = (share * c[:, 1:] + (1 - share) * c[:, :-1] for c in (recall, precision))
        best = np.maximum(best, f_measure(*between).max(axis=1, initial=0))
    return best


def _curve(recall: Floats, precision: Floats) -> tuple[Floats, Floats]:
    """Recall, rising, and precision: of thresholds with one recall, the lowest counts."""
    levels, first = np.unique(recall, return_index=True)
    return levels, precision[first]


def average_precision(recall: Floats, precision: Floats) -> float:
    """Sum of the precision [T] at recall 0, 0.01, …, 1, over 100; outside of the curve it is 0.

    The divisor, for 101 values, is that of the published code. Source: Dollár and Zitnick 2015.
    """
    recall, precision = _curve(recall, precision)
    if len(recall) < 2:
        return 0.0
    at = np.linspace(0, 1, RECALLS)
    return float(np.interp(at, recall, precision, left=0, right=0).sum()) / 100


def recall_at_half(recall: Floats, precision: Floats) -> float:
    """Recall where the precision [T] is 0.5, or the least there is; 0 if 0.5 is not reached.

    Points of less than 0.001 recall do not count; of those with one precision, the highest recall
    does. Source: Dollár and Zitnick 2015.
    """
    recall, precision = (values[::-1] for values in _curve(recall, precision))
    enough = recall >= LEAST_RECALL
    levels, first = np.unique(precision[enough], return_index=True)
    if len(levels) == 0 or levels[-1] < 0.5:
        return 0.0
    return float(np.interp(max(0.5, levels[0]), levels, recall[enough][first]))


def split_scores(rows: Ints, weights: Ints | Floats) -> dict[str, Floats]:
    """Scores [S] of splits in which each image with ``rows`` [I, T, 4] is ``weights`` [S, I] times.

    NaN for a split without an image.
    """
    recall, precision = recall_precision(np.tensordot(weights, rows, axes=1))
    best = f_measure(*recall_precision(rows)).argmax(axis=1)
    chosen = rows[np.arange(len(rows)), best]
    curves = list(zip(recall, precision, strict=True))
    scores = {
        "ods": optimal_f(recall, precision),
        "ois": f_measure(*recall_precision(weights @ chosen)),
        "ap": np.array([average_precision(*curve) for curve in curves]),
        "r50": np.array([recall_at_half(*curve) for curve in curves]),
    }
    empty = weights.sum(axis=1) == 0
    return {name: np.where(empty, np.nan, values) for name, values in scores.items()}


class EdgeMetrics(Accumulator):
    """ODS, OIS, AP and R50, all 0…1, of a split.

    ``update`` takes a map of probabilities 0…1, real, and the annotators' marks as
    ``common.annotators.pack`` writes them, on any device. The map is reduced to its ridges first.
    Ignored pixels are neither marked nor predicted; an image of ignored pixels only is counted and
    not scored. ``tolerance``, in image diagonals, is how far a pixel may lie from its mark: 0.0075
    on BSDS, 0.011 on NYUD. ``thresholds`` n stands for 1/(n+1), …, n/(n+1).
    99 × 4 whole numbers are stored for each image.
    """

    rules = "least-distance"

    infos: ClassVar[Mapping[str, MetricInfo]] = catalogue(
        MetricInfo("ods", "F at the best threshold", "1", True, "counts over the split", BSDS),
        MetricInfo(
            "ois", "F at each image's best threshold", "1", True, "counts over the split", BSDS
        ),
        MetricInfo("ap", "average precision", "1", True, "counts over the split", DOLLAR),
        MetricInfo("r50", "recall at precision 0.5", "1", True, "counts over the split", DOLLAR),
    )

    def __init__(self, tolerance: float = TOLERANCE, thresholds: int = THRESHOLDS) -> None:
        """Raises UsageError for a value out of range."""
        if not 0 < tolerance < 1:
            raise UsageError(f"edge tolerance {tolerance}: expected a share of the image diagonal")
        if thresholds < 1:
            raise UsageError(f"{thresholds} edge thresholds: expected at least one")
        self.tolerance, self.thresholds = tolerance, thresholds
        differs = (
            f"tolerance{tolerance:g}" if tolerance != TOLERANCE else None,
            f"{thresholds}thresholds" if thresholds != THRESHOLDS else None,
        )
        self.protocol = "+".join(filter(None, differs))
        self._levels = np.arange(1, thresholds + 1) / (thresholds + 1)
        self._rows: list[Ints] = []
        self._left_out = {"images_without_annotators": 0, "pixels_ignored": 0}

    @property
    def images(self) -> int:
        return len(self._rows)

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        prediction, target = planes(prediction, target)
        p = probabilities(prediction)
        if target.dtype != torch.int32:
            raise ValueError(f"ground truth: expected marks packed as int32, got {target.dtype}")
        ignored = (target == IGNORE).numpy()
        if ignored.all():
            self._left_out["images_without_annotators"] += 1
            return
        self._left_out["pixels_ignored"] += int(np.count_nonzero(ignored))
        # Numba takes a second to import, which other commands need not wait for
        from tasks.metrics._edge_matching import score_boundaries

        marks = unpack(target).numpy()
        self._rows.append(score_boundaries(p, marks, ignored, self._levels, self.tolerance))

    def _counted(self) -> Ints:
        """The counts of all images [I, T, 4], in the order of ``update``."""
        return np.array(self._rows, dtype=np.int64).reshape(-1, self.thresholds, 4)

    def compute(self) -> dict[str, float]:
        self.require_images()
        result = split_scores(self._counted(), np.ones((1, self.images), dtype=np.int64))
        return {name: float(values[0]) for name, values in result.items()}

    def counts(self) -> dict[str, int]:
        lowest = self._counted()[:, 0]
        return {
            "images": self.images,
            **self._left_out,
            "images_without_boundary": int(np.count_nonzero(lowest[:, 1] == 0)),
            "images_without_prediction": int(np.count_nonzero(lowest[:, 3] == 0)),
        }

    def per_image(self) -> dict[str, list[float]]:
        """Empty: all four are ratios of sums over the split."""
        return {}

    def merge(self, other: Self) -> None:
        self._require_same(other)
        self._rows += other._rows
        for reason, count in other._left_out.items():
            self._left_out[reason] += count

    def resample(self, weights: Ints | Floats) -> dict[str, Floats]:
        self.require_images()
        return split_scores(self._counted(), weights)

    def _settings(self) -> tuple[object, ...]:
        return self.tolerance, self.thresholds
