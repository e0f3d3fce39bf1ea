"""Saliency: six measures of a grey map against a mask, with the values of PySODMetrics.

Degenerate images follow PySODMetrics 1.6 too. With an empty mask every F-measure is 0, S is one
minus the mean prediction and E the share of pixels below the threshold; with a full mask S is the
mean prediction and E the share of pixels at or above the threshold. E divides by pixels − 1 and so
may exceed 1 by that much. Two values differ, where those of PySODMetrics are of no use: a quadrant
without pixels adds nothing to S (there: NaN, for a centroid in the last row or column), and in an
image of one pixel E divides by 1 (there: 2^-52).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from common.errors import UserError
from tasks.metrics.base import Ints, MetricInfo, RowAccumulator, catalogue, planes
from tasks.metrics.resampling import Floats

Mask = NDArray[np.bool_]

EPS = float(np.finfo(np.float64).eps)
BETA_SQUARED = 0.3
ALPHA = 0.5
ABOVE_128 = 128.5 / 255
ROUNDING = 1e-3
FIXED = 2.0**40

PERAZZI = "Perazzi et al. 2012, MAE"
ACHANTA = "Achanta et al. 2009, β² = 0.3"
MARGOLIN = "Margolin et al. 2014, β² = 1"
STRUCTURE = "Fan et al. 2017, S-measure, α = 0.5"
ALIGNMENT = "Fan et al. 2018, E-measure"
MEAN = "per image, then mean over images"
CURVE = "256-threshold curve averaged over images, then its "


def binarise(target: torch.Tensor) -> Mask:
    """Mask (H, W) of ground truth: bool, uint8 0…255 (above 128) or real 0…1 (above 128/255).

    Raises ValueError for other types, values out of range, and a uint8 map of 0 and 1, which
    would be taken as empty.
    """
    values = target.cpu()
    if values.dtype == torch.bool:
        return values.numpy()
    low, high = (float(value) for value in values.aminmax())
    if values.dtype == torch.uint8 and high != 1:
        return values.numpy() > 128
    if values.is_floating_point() and low >= 0 and high <= 1:
        return values.double().numpy() > ABOVE_128
    raise ValueError(
        f"ground truth: {values.dtype} from {low:g} to {high:g}: "
        "expected bool, uint8 of 0 and 255, or real numbers from 0 to 1"
    )


def normalise(prediction: torch.Tensor) -> Floats:
    """Prediction (H, W), bool, uint8 or real 0…1, as float64 stretched to 0…1 unless constant.

    Real numbers keep their precision: they are not rounded to 8 bits first. Raises ValueError for
    other types and values out of range, UserError for NaN.
    """
    values = prediction.cpu()
    if values.dtype not in (torch.bool, torch.uint8) and not values.is_floating_point():
        raise ValueError(f"prediction: expected bool, uint8 or real numbers, got {values.dtype}")
    scale = 255 if values.dtype == torch.uint8 else 1
    p: Floats = values.double().numpy() / scale
    low, high = float(p.min()), float(p.max())
    if math.isnan(low):
        raise UserError("prediction: NaN in the saliency map: the network diverged in training")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise ValueError(f"prediction: {low:g} to {high:g} is outside 0…1: apply the sigmoid first")
    return (p - low) / (high - low) if high > low else np.clip(p, 0, 1)


def threshold_counts(p: Floats, mask: Mask) -> tuple[Ints, Ints]:
    """True and false positives, each (256,), of p ≥ 255/255, …, 0/255 on the map cut to 8 bits."""
    levels = (p * 255).astype(np.uint8)
    histogram = np.bincount(levels.ravel() + 256 * mask.ravel(), minlength=512)
    false, true = histogram.reshape(2, 256)[:, ::-1].cumsum(axis=1)
    return true, false


def f_measure(true: Ints, false: Ints, positives: int) -> Floats:
    """F with β² = 0.3 of true and false positives, any shape; 0 without a true positive.

    Source: Achanta et al. 2009.
    """
    # (1+β²)PR / (β²P+R) with P = true/(true+false), R = true/positives
    whole = BETA_SQUARED * positives + true + false
    score = np.zeros(np.shape(true))
    np.divide((1 + BETA_SQUARED) * true, whole, out=score, where=true > 0)
    return score


def e_measure(true: Ints, false: Ints, positives: int, size: int) -> Floats:
    """Enhanced alignment of binary maps given by true and false positives, any shape.

    ``positives`` of ``size`` pixels are ground truth. Source: Fan et al. 2018.
    """
    predicted = true + false
    if positives in (0, size):
        aligned = (predicted if positives else size - predicted).astype(np.float64)
    else:
        aligned = np.zeros(np.shape(true))
        mean_p, mean_g = predicted / size, positives / size
        missed = positives - true
        cells = ((1, 1, true), (1, 0, false), (0, 1, missed), (0, 0, size - predicted - missed))
        for p, g, pixels in cells:
            bias_p, bias_g = p - mean_p, g - mean_g
            alignment = 2 * bias_p * bias_g / (bias_p**2 + bias_g**2 + EPS)
            aligned += pixels * (1 + alignment) ** 2 / 4
    return aligned / max(size - 1, 1)


def s_measure(p: Floats, mask: Mask) -> float:
    """Structure measure, α = 0.5, of a normalised map and a mask (H, W). Source: Fan et al. 2017.

    The mean of an object term (contrast and evenness inside and outside of the mask) and a region
    term (similarity in the four quadrants about the mask's centroid), not below 0.
    """
    positives = int(np.count_nonzero(mask))
    if positives == 0:
        return 1 - float(p.mean())
    if positives == mask.size:
        return float(p.mean())
    share = positives / mask.size
    objects = share * _evenness(p[mask]) + (1 - share) * _evenness(1 - p[~mask])
    regions = 0.0
    for quadrant in _quadrants(mask, positives):
        part = mask[quadrant]
        if part.size:
            regions += part.size / mask.size * _similarity(p[quadrant], part)
    return max(0.0, ALPHA * objects + (1 - ALPHA) * regions)


def _evenness(values: Floats) -> float:
    mean = float(values.mean())
    deviation = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + deviation + EPS)


def _quadrants(mask: Mask, positives: int) -> list[tuple[slice, slice]]:
    """The four parts about the centroid, whose own row and column are in the first."""
    cuts = [
        round(float(mask.sum(axis=1 - axis) @ np.arange(mask.shape[axis])) / positives) + 1
        for axis in (0, 1)
    ]
    rows, columns = ((slice(None, cut), slice(cut, None)) for cut in cuts)
    return [(row, column) for row in rows for column in columns]


def _similarity(p: Floats, mask: Mask) -> float:
    """SSIM of one quadrant without stabilising constants; 1 where both parts vanish."""
    x, y = float(p.mean()), float(mask.mean())
    dx, dy = (p - x).ravel(), (mask - y).ravel()
    freedom = p.size - 1 + EPS
    above = 4 * x * y * float(dx @ dy) / freedom
    below = (x**2 + y**2) * float(dx @ dx + dy @ dy) / freedom
    if above == 0:
        return 1.0 if below == 0 else 0.0
    return above / (below + EPS)


def weighted_f(p: Floats, mask: Mask) -> float:
    """Weighted F-measure, β² = 1, of a normalised map and a mask (H, W); 0 for an empty mask.

    Errors are smoothed over 7×7 (σ = 5) inside the mask and weigh more far outside of it.
    Source: Margolin et al. 2014.
    """
    if not mask.any():
        return 0.0
    error = np.abs(p - mask)
    outside = np.nonzero(~mask)
    nearest: Ints = ndimage.distance_transform_edt(
        ~mask, return_distances=False, return_indices=True
    )
    nearest = nearest[:, outside[0], outside[1]]
    spread = error.copy()
    spread[outside] = error[nearest[0], nearest[1]]
    smooth: Floats = ndimage.gaussian_filter(spread, sigma=5, radius=3, mode="constant")
    inside = np.minimum(error, smooth)[mask]
    distance = np.hypot(outside[0] - nearest[0], outside[1] - nearest[1])
    false = float((error[outside] * (2 - np.exp(math.log(0.5) / 5 * distance))).sum())
    true = inside.size - float(inside.sum())
    recall, precision = true / inside.size, true / (true + false + EPS)
    return 2 * recall * precision / (recall + precision + EPS)


@dataclass(frozen=True)
class SaliencyScore:
    """One image: measures to average over images, and curves (256,) to average before maxima."""

    values: dict[str, float]
    f_curve: Floats
    e_curve: Floats


def score_saliency(p: Floats, mask: Mask) -> SaliencyScore:
    """Score one normalised map against one mask, both (H, W)."""
    positives = int(np.count_nonzero(mask))
    true, false = threshold_counts(p, mask)
    f_curve = f_measure(true, false, positives)
    e_curve = e_measure(true, false, positives, mask.size)
    binary = p >= min(2 * float(p.mean()), 1)
    adaptive_true = np.asarray(np.count_nonzero(binary & mask))
    adaptive_false = np.asarray(np.count_nonzero(binary)) - adaptive_true
    values = {
        "mae": float(np.abs(p - mask).mean()),
        "meanf": float(f_curve.mean()),
        "adpf": float(f_measure(adaptive_true, adaptive_false, positives)),
        "wf": weighted_f(p, mask),
        "smeasure": s_measure(p, mask),
        "meane": float(e_curve.mean()),
        "adpe": float(e_measure(adaptive_true, adaptive_false, positives, mask.size)),
    }
    return SaliencyScore(values, f_curve, e_curve)


class SaliencyMetrics(RowAccumulator):
    """MAE, F, weighted F, S and E measures, all 0…1, of a split.

    ``update`` takes a prediction as ``normalise`` and ground truth as ``binarise`` describe them,
    on any device. ``maxf`` and ``maxe`` are maxima of curves averaged over the images: they have
    no value per image. ``keep_curves`` keeps 4 kB per image so that they can be resampled.
    """

    infos: ClassVar[Mapping[str, MetricInfo]] = catalogue(
        MetricInfo("mae", "mean absolute error", "1", False, MEAN, PERAZZI),
        MetricInfo("maxf", "maximum F-measure", "1", True, CURVE + "maximum", ACHANTA),
        MetricInfo("meanf", "mean F-measure", "1", True, CURVE + "mean", ACHANTA),
        MetricInfo("adpf", "adaptive F-measure", "1", True, MEAN, ACHANTA),
        MetricInfo("wf", "weighted F-measure", "1", True, MEAN, MARGOLIN),
        MetricInfo("smeasure", "structure measure", "1", True, MEAN, STRUCTURE),
        MetricInfo("maxe", "maximum E-measure", "1", True, CURVE + "maximum", ALIGNMENT),
        MetricInfo("meane", "mean E-measure", "1", True, CURVE + "mean", ALIGNMENT),
        MetricInfo("adpe", "adaptive E-measure", "1", True, MEAN, ALIGNMENT),
    )

    def __init__(self, keep_curves: bool = False) -> None:
        super().__init__()
        self.keep_curves = keep_curves
        self._curves: list[Ints] = []
        self._curve_sum = np.zeros((2, 256), dtype=np.int64)
        self._special = {"empty_ground_truth": 0, "full_ground_truth": 0, "constant_prediction": 0}

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        prediction, target = planes(prediction, target)
        p, mask = normalise(prediction), binarise(target)
        score = score_saliency(p, mask)
        self._append(score.values)
        # Whole numbers of 2^-40: no order of adding or merging changes their sum.
        curves = np.rint(np.stack([score.f_curve, score.e_curve]) * FIXED).astype(np.int64)
        self._curve_sum += curves
        if self.keep_curves:
            self._curves.append(curves)
        self._special["empty_ground_truth"] += not mask.any()
        self._special["full_ground_truth"] += bool(mask.all())
        self._special["constant_prediction"] += bool(p.min() == p.max())

    def compute(self) -> dict[str, float]:
        result = super().compute()
        result["maxf"], result["maxe"] = (
            float(curve.max()) / FIXED / self.images for curve in self._curve_sum
        )
        return {name: result[name] for name in self.infos}

    def counts(self) -> dict[str, int]:
        return {"images": self.images, **self._special}

    def merge(self, other: Self) -> None:
        super().merge(other)
        self._curves += other._curves
        self._curve_sum = self._curve_sum + other._curve_sum
        for kind, count in other._special.items():
            self._special[kind] += count

    def resample(self, weights: Ints | Floats) -> dict[str, Floats]:
        result = super().resample(weights)
        if self.keep_curves:
            curves = np.array(self._curves).reshape(self.images, 512) / FIXED
            means = (weights @ curves).reshape(-1, 2, 256) / weights.sum(axis=1)[:, None, None]
            result["maxf"], result["maxe"] = means.max(axis=2).T
        return result

    def _settings(self) -> tuple[object, ...]:
        return (self.keep_curves,)
