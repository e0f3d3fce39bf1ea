"""Depth: errors per image, then averaged over images (the BTS and ZoeDepth convention)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import UsageError
from common.registry import unknown_name
from tasks.metrics.base import Ints, MetricInfo, RowAccumulator, catalogue, planes
from tasks.metrics.resampling import Floats

EIGEN = "Eigen et al. 2014"
BTS = "Lee et al. 2019 (BTS)"
ZOE = "Bhat et al. 2023 (ZoeDepth)"
SFM = "Zhou et al. 2017 (SfMLearner)"
MEAN = "per image, then mean over images"


@dataclass(frozen=True)
class Crop:
    """The part of the ground truth's grid that is scored.

    ``rows`` and ``columns`` are first and past-the-last pixel of an image of ``size``, or, where
    ``size`` is None, shares of the height and width (the product is cut to whole pixels).
    """

    rows: tuple[float, float]
    columns: tuple[float, float]
    size: tuple[int, int] | None = None

    def window(self, height: int, width: int) -> tuple[slice, slice]:
        """Row and column slices. Raises ValueError for an image of another size than ``size``."""
        if self.size is not None and self.size != (height, width):
            raise ValueError(
                f"the crop is defined on {self.size[0]}×{self.size[1]} pixels, "
                f"the ground truth has {height}×{width}: score it at its published size"
            )
        scale = (1, 1) if self.size else (height, width)
        (top, bottom), (left, right) = self.rows, self.columns
        return (
            slice(int(top * scale[0]), int(bottom * scale[0])),
            slice(int(left * scale[1]), int(right * scale[1])),
        )


CROPS: Mapping[str, Crop] = MappingProxyType(
    {
        "nyu_eigen": Crop((45, 471), (41, 601), size=(480, 640)),
        "kitti_garg": Crop((0.40810811, 0.99189189), (0.03594771, 0.96405229)),
        "kitti_eigen": Crop((0.3324324, 0.91351351), (0.0359477, 0.96405229)),
    }
)


def valid_pixels(target: Floats, min_depth: float, max_depth: float) -> NDArray[np.bool_]:
    """Where ground truth in metres lies strictly between the bounds; never at NaN."""
    return (target > min_depth) & (target < max_depth)


def clamp_depth(prediction: Floats, min_depth: float, max_depth: float) -> Floats:
    """Prediction within the bounds: infinity becomes ``max_depth``, NaN ``min_depth``."""
    return np.clip(np.nan_to_num(prediction, nan=min_depth, posinf=max_depth), min_depth, max_depth)


def median_scale(prediction: Floats, target: Floats) -> float | None:
    """Median of the ground truth over that of the finite predictions, both of shape (pixels,).

    None where the predictions have no positive median. Source: Zhou et al. 2017 (SfMLearner).
    """
    finite = prediction[np.isfinite(prediction)]
    median = float(np.median(finite)) if finite.size else 0.0
    return float(np.median(target)) / median if median > 0 else None


def depth_errors(prediction: Floats, target: Floats) -> dict[str, float]:
    """Errors of paired positive depths in metres, shape (pixels,), at least one.

    With p predicted, g true and d = ln p − ln g; ``silog`` is 100 times the standard deviation of
    d; ``delta1…3`` are the shares of max(g/p, p/g) < 1.25^k. Sources: Eigen et al. 2014,
    Lee et al. 2019 (BTS), Bhat et al. 2023 (ZoeDepth).
    """
    difference = prediction - target
    log = np.log(prediction) - np.log(target)
    ratio = np.maximum(target / prediction, prediction / target)
    return {
        "abs_rel": float(np.mean(np.abs(difference) / target)),
        "sq_rel": float(np.mean(difference**2 / target)),
        "rmse": float(np.sqrt(np.mean(difference**2))),
        "rmse_log": float(np.sqrt(np.mean(log**2))),
        "log10": float(np.mean(np.abs(log)) / np.log(10)),
        "silog": float(100 * np.std(log)),
        **{f"delta{k}": float(np.mean(ratio < 1.25**k)) for k in (1, 2, 3)},
    }


@dataclass(frozen=True)
class DepthScore:
    """One image: its errors, numbers of pixels scored or not, and the scale of its prediction.

    ``pixels_not_finite`` of the scored predictions were NaN or infinite; ``scale`` is None without
    median scaling, and where it is not possible.
    """

    errors: dict[str, float]
    pixels: int
    pixels_outside_crop: int
    pixels_not_finite: int
    scale: float | None


def score_depth(
    prediction: Floats,
    target: Floats,
    min_depth: float,
    max_depth: float,
    crop: Crop | None = None,
    median_scaling: bool = False,
) -> DepthScore:
    """Score one image: two (H, W) maps in metres on the ground truth's grid.

    Crop, valid pixels, median scaling, clamp, errors, in this order. Without a valid pixel
    ``errors`` is empty. Raises ValueError for a size that the crop is not defined on.
    """
    window = crop.window(*target.shape) if crop else (slice(None), slice(None))
    p, g = prediction[window], target[window]
    outside = target.size - g.size
    valid = valid_pixels(g, min_depth, max_depth)
    p, g = p[valid], g[valid]
    if g.size == 0:
        return DepthScore({}, 0, outside, 0, None)
    not_finite = int(np.count_nonzero(~np.isfinite(p)))
    scale = median_scale(p, g) if median_scaling else None
    scaled = clamp_depth(p if scale is None else p * scale, min_depth, max_depth)
    return DepthScore(depth_errors(scaled, g), g.size, outside, not_finite, scale)


class DepthMetrics(RowAccumulator):
    """The depth errors of a split; images without a valid pixel are left out and counted.

    ``min_depth`` and ``max_depth`` in metres bound the valid ground truth (strictly) and clamp the
    prediction: 1e-3…10 for NYU, 1e-3…80 for KITTI. ``crop`` is one of ``CROPS`` or None.
    ``median_scaling`` is for predictions without a unit: ``scale_spread`` is then how much the
    images' scales differ, and an image whose predictions have no positive median is scored
    unscaled and counted. ``update`` takes maps in metres of any real dtype and device.
    """

    infos: ClassVar[Mapping[str, MetricInfo]] = catalogue(
        MetricInfo("abs_rel", "absolute relative error", "1", False, MEAN, EIGEN),
        MetricInfo("sq_rel", "squared relative error", "m", False, MEAN, EIGEN),
        MetricInfo("rmse", "root mean squared error", "m", False, MEAN, EIGEN),
        MetricInfo("rmse_log", "RMSE of ln depth", "1", False, MEAN, EIGEN),
        MetricInfo("log10", "mean absolute log10 error", "1", False, MEAN, BTS),
        MetricInfo("silog", "scale-invariant log error ×100", "1", False, MEAN, ZOE),
        MetricInfo("delta1", "share within a factor 1.25", "1", True, MEAN, EIGEN),
        MetricInfo("delta2", "share within a factor 1.25²", "1", True, MEAN, EIGEN),
        MetricInfo("delta3", "share within a factor 1.25³", "1", True, MEAN, EIGEN),
        MetricInfo(
            "rmse_pooled", "RMSE over pooled pixels", "m", False, "all pixels of the split", EIGEN
        ),
        MetricInfo(
            "scale_spread",
            "spread of the median scaling",
            "1",
            False,
            "standard deviation over images of scale / median scale",
            SFM,
        ),
    )

    def __init__(
        self,
        min_depth: float,
        max_depth: float,
        crop: str | None = None,
        median_scaling: bool = False,
    ) -> None:
        """Raises UsageError for bounds out of order and an unknown crop."""
        super().__init__()
        if not 0 < min_depth < max_depth < math.inf:
            raise UsageError(
                f"depth bounds {min_depth}…{max_depth} m: both must be positive and in order"
            )
        if crop is not None and crop not in CROPS:
            raise unknown_name("depth crop", crop, CROPS, ", ".join(CROPS))
        self.min_depth, self.max_depth = min_depth, max_depth
        self.crop, self.median_scaling = crop, median_scaling
        self.protocol = "+".join(filter(None, (crop, "median" if median_scaling else None)))
        self._pixels: list[int] = []
        self._scales: list[float] = []
        self._left_out = {"images_without_valid_pixels": 0, "pixels_invalid": 0}
        self._left_out |= {"pixels_outside_crop": 0, "pixels_not_finite": 0}
        if median_scaling:
            self._left_out["images_unscaled"] = 0

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        p, g = (plane.double().numpy() for plane in planes(prediction, target))
        crop = CROPS[self.crop] if self.crop else None
        score = score_depth(p, g, self.min_depth, self.max_depth, crop, self.median_scaling)
        self._left_out["pixels_outside_crop"] += score.pixels_outside_crop
        self._left_out["pixels_invalid"] += g.size - score.pixels_outside_crop - score.pixels
        if not score.errors:
            self._left_out["images_without_valid_pixels"] += 1
            return
        self._append(score.errors)
        self._pixels.append(score.pixels)
        self._left_out["pixels_not_finite"] += score.pixels_not_finite
        if score.scale is not None:
            self._scales.append(score.scale)
        elif self.median_scaling:
            self._left_out["images_unscaled"] += 1

    @property
    def scales(self) -> list[float]:
        """The factors of the images that median scaling has scaled."""
        return list(self._scales)

    def compute(self) -> dict[str, float]:
        result = super().compute()
        squares = (n * rmse**2 for n, rmse in zip(self._pixels, self._rows["rmse"], strict=True))
        result["rmse_pooled"] = math.sqrt(math.fsum(squares) / sum(self._pixels))
        if self._scales:
            scales = np.sort(self._scales)
            result["scale_spread"] = float(np.std(scales / np.median(scales)))
        return result

    def counts(self) -> dict[str, int]:
        return {"images": self.images, "pixels": sum(self._pixels), **self._left_out}

    def merge(self, other: Self) -> None:
        super().merge(other)
        self._pixels += other._pixels
        self._scales += other._scales
        for reason, count in other._left_out.items():
            self._left_out[reason] += count

    def resample(self, weights: Ints | Floats) -> dict[str, Floats]:
        result = super().resample(weights)
        pixels = np.array(self._pixels, dtype=np.float64)
        squares = weights @ (pixels * np.square(self._rows["rmse"]))
        return result | {"rmse_pooled": np.sqrt(squares / (weights @ pixels))}

    def _settings(self) -> tuple[object, ...]:
        return self.min_depth, self.max_depth, self.crop, self.median_scaling
