"""Semantic segmentation: IoU and accuracies from pixel counts over the whole split.

Everything follows from three counts per class: pixels in both maps (I), in the prediction (P) and
in the ground truth (G). They are kept per image, so that a split can be resampled exactly.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from common.errors import DataError
from tasks.metrics.base import Accumulator, Ints, MetricInfo, catalogue, plane
from tasks.metrics.resampling import Floats

VOC = "Everingham et al. 2010 (PASCAL VOC)"
FCN = "Long et al. 2015 (FCN)"
BOUNDARY = (
    "Cheng et al. 2021 (Boundary IoU), accumulated per class over the split: "
    "our convention for semantic maps"
)


def confusion_matrix(
    prediction: torch.Tensor, target: torch.Tensor, num_classes: int, ignore_index: int = 255
) -> torch.Tensor:
    """Pixels by (ground truth class, predicted class); ignored ground truth is dropped first.

    Maps of classes of one shape and any integer dtype, on one device. Returns an int64 tensor
    (num_classes, num_classes) there. Raises DataError for a ground truth label that is neither a
    class nor ``ignore_index``; ValueError for maps of other shapes or types, and for a predicted
    class out of range. Source: Long et al. 2015 (FCN).
    """
    if prediction.shape != target.shape:
        size, expected = tuple(prediction.shape), tuple(target.shape)
        raise ValueError(
            f"prediction of size {size}, ground truth of size {expected}: "
            "upsample the logits to the ground truth, then take the argmax"
        )
    for what, labels in (("prediction", prediction), ("ground truth", target)):
        if labels.is_floating_point() or labels.is_complex():
            raise ValueError(f"{what}: expected a map of integer classes, got {labels.dtype}")
    true = target.to(torch.int64)
    labelled = true != ignore_index
    true, predicted = true[labelled], prediction.to(torch.int64)[labelled]
    if wrong := _outside(true, num_classes):
        raise DataError(
            f"ground truth: label {wrong[0]} is outside 0…{num_classes - 1} and {ignore_index}"
        )
    if wrong := _outside(predicted, num_classes):
        raise ValueError(f"prediction: class {wrong[0]} is outside 0…{num_classes - 1}")
    pairs = torch.bincount(true * num_classes + predicted, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def _outside(labels: torch.Tensor, num_classes: int) -> list[int]:
    """The lowest and the highest of the labels, if they are no class."""
    extremes = [int(value) for value in labels.aminmax()] if labels.numel() else []
    return [label for label in extremes if not 0 <= label < num_classes]


def class_counts(confusion: torch.Tensor) -> Ints:
    """I, P and G per class, shape (3, classes), of a confusion matrix (classes, classes)."""
    both = confusion.diagonal()
    counts: Ints = torch.stack([both, confusion.sum(0), confusion.sum(1)]).cpu().numpy()
    return counts


def boundary_width(height: int, width: int, ratio: float = 0.02) -> int:
    """Width in pixels of the boundary band: 2 % of the diagonal, at least 1."""
    return max(1, round(ratio * float(np.hypot(height, width))))


def boundary_counts(
    prediction: torch.Tensor, target: torch.Tensor, num_classes: int, ignore_index: int = 255
) -> Ints:
    """I, P and G per class, shape (3, classes), of the boundary bands of two (H, W) class maps.

    A class' boundary is its mask less the mask eroded ``boundary_width`` times by 3×3, where all
    that lies outside the image counts as not the class. Ignored pixels are taken out of both maps
    before the erosion. The maps must have passed ``confusion_matrix``.
    Source: Cheng et al. 2021 (Boundary IoU).
    """
    true = target.cpu().numpy().astype(np.int32)
    ignored = true == ignore_index
    # One filter serves all classes: a pixel survives its own class' erosion exactly where the
    # (2d+1)² window around it holds a single label.
    bands = [
        _boundary(np.where(ignored, -1, labels), boundary_width(*true.shape))
        for labels in (prediction.cpu().numpy().astype(np.int32), true)
    ]
    both = bands[0][bands[0] == bands[1]]
    return np.stack(
        [np.bincount(band[band >= 0], minlength=num_classes) for band in (both, *bands)]
    ).astype(np.int64)


def _boundary(labels: NDArray[np.int32], width: int) -> NDArray[np.int32]:
    size = 2 * width + 1
    low = ndimage.minimum_filter(labels, size=size, mode="constant", cval=-1)
    high = ndimage.maximum_filter(labels, size=size, mode="constant", cval=-1)
    return np.where(low != high, labels, -1)


def overlap(counts: Ints | Floats) -> Floats:
    """IoU = I / (P + G − I) per class of counts (…, 3, classes), as (…, classes).

    NaN for a class that occurs in neither map. Source: Everingham et al. 2010 (PASCAL VOC).
    """
    both, predicted, true = np.moveaxis(np.asarray(counts, dtype=np.float64), -2, 0)
    return _ratio(both, predicted + true - both)


def scores(counts: Ints | Floats) -> dict[str, Floats]:
    """mIoU, mAcc and aAcc, each of shape (…), of counts (…, 3, classes); NaN without any pixel.

    mIoU is the mean over the classes that occur in prediction or ground truth, mAcc over those
    that occur in the ground truth.
    """
    both, _, true = np.moveaxis(np.asarray(counts, dtype=np.float64), -2, 0)
    return {
        "miou": _mean(overlap(counts)),
        "macc": _mean(_ratio(both, true)),
        "aacc": _ratio(both.sum(-1), true.sum(-1)),
    }


def _ratio(part: Floats, whole: Floats) -> Floats:
    nothing = np.full(np.shape(whole), np.nan)
    result: Floats = np.divide(part, whole, out=nothing, where=whole > 0)
    return result


def _mean(values: Floats) -> Floats:
    scored = np.isfinite(values)
    return _ratio(np.where(scored, values, 0.0).sum(-1), scored.sum(-1).astype(np.float64))


class SegmentationMetrics(Accumulator):
    """mIoU, mAcc, aAcc and IoU per class, 0…1, over a split; with ``boundary`` the boundary IoU.

    ``classes``: the names of labels 0, 1, …; ``ignore_index``: the label that is not scored.
    ``update`` takes two maps of classes of any integer dtype, on any device; it raises what
    ``confusion_matrix`` raises. A class in neither prediction nor ground truth of the split is
    left out of the means and has no ``iou/<class>``; ``counts()`` says how many were scored.
    """

    infos: ClassVar[Mapping[str, MetricInfo]] = catalogue(
        MetricInfo("miou", "mean IoU", "1", True, "split counts, then mean over classes", VOC),
        MetricInfo("macc", "mean class accuracy", "1", True, "split counts, then classes", FCN),
        MetricInfo("aacc", "pixel accuracy", "1", True, "all pixels of the split", FCN),
        MetricInfo("iou", "IoU of one class", "1", True, "split counts", VOC),
        MetricInfo(
            "boundary_iou", "boundary IoU", "1", True, "split counts, then classes", BOUNDARY
        ),
    )

    def __init__(
        self, classes: Sequence[str], ignore_index: int = 255, boundary: bool = False
    ) -> None:
        """Raises ValueError for no or repeated class names and an ``ignore_index`` that is one."""
        if not classes or len(set(classes)) != len(classes):
            raise ValueError(f"classes must be distinct names, at least one: {list(classes)}")
        if 0 <= ignore_index < len(classes):
            raise ValueError(f"ignore_index {ignore_index} is the class '{classes[ignore_index]}'")
        self.classes = tuple(classes)
        self.ignore_index = ignore_index
        self.boundary = boundary
        self._counts: list[Ints] = []
        self._boundary_counts: list[Ints] = []
        self._images_excluded = 0
        self._pixels_ignored = 0

    @property
    def images(self) -> int:
        return len(self._counts)

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        prediction, target = plane(prediction, "prediction"), plane(target, "ground truth")
        prediction = prediction.to(target.device)
        matrix = confusion_matrix(prediction, target, len(self.classes), self.ignore_index)
        counts = class_counts(matrix)
        labelled = int(counts[2].sum())
        self._pixels_ignored += target.numel() - labelled
        if labelled == 0:
            self._images_excluded += 1
            return
        self._counts.append(counts)
        if self.boundary:
            self._boundary_counts.append(
                boundary_counts(prediction, target, len(self.classes), self.ignore_index)
            )

    def image_counts(self) -> Ints:
        """I, P and G per scored image and class, shape (images, 3, classes)."""
        return _stack(self._counts, len(self.classes))

    def boundary_image_counts(self) -> Ints:
        """The same within the boundary bands; without ``boundary``, of no image."""
        return _stack(self._boundary_counts, len(self.classes))

    def compute(self) -> dict[str, float]:
        self.require_images()
        return {
            name: float(values[0])
            for name, values in self.resample(np.ones((1, self.images), dtype=np.int64)).items()
            if np.isfinite(values[0])
        }

    def counts(self) -> dict[str, int]:
        both, predicted, true = self.image_counts().sum(0)
        return {
            "images": self.images,
            "images_without_labels": self._images_excluded,
            "pixels": int(true.sum()),
            "pixels_ignored": self._pixels_ignored,
            "classes_scored": int(np.count_nonzero(predicted + true - both)),
            "classes_in_ground_truth": int(np.count_nonzero(true)),
        }

    def per_image(self) -> dict[str, list[float]]:
        """Empty: no metric here is a mean over images. See ``image_counts``."""
        return {}

    def merge(self, other: Self) -> None:
        self._require_same(other)
        self._counts += other._counts
        self._boundary_counts += other._boundary_counts
        self._images_excluded += other._images_excluded
        self._pixels_ignored += other._pixels_ignored

    def resample(self, weights: Ints | Floats) -> dict[str, Floats]:
        self.require_images()
        counts = _totals(weights, self.image_counts())
        classes = overlap(counts)
        result = scores(counts)
        if self.boundary:
            result["boundary_iou"] = _mean(overlap(_totals(weights, self.boundary_image_counts())))
        return result | {f"iou/{name}": classes[:, c] for c, name in enumerate(self.classes)}

    def _settings(self) -> tuple[object, ...]:
        return self.classes, self.ignore_index, self.boundary


def _stack(counts: list[Ints], num_classes: int) -> Ints:
    return np.array(counts, dtype=np.int64).reshape(-1, 3, num_classes)


def _totals(weights: Ints | Floats, counts: Ints) -> Floats:
    """Counts (splits, 3, classes) of splits; float64 sums of pixels are exact up to 2^53."""
    rows = counts.reshape(len(counts), -1).astype(np.float64)
    flat = weights.astype(np.float64, copy=False) @ rows
    return flat.reshape(len(weights), *counts.shape[1:])
