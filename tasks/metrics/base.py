"""What every metric family shares: declared metadata, and an accumulator fed image by image."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import DataError
from tasks.metrics.resampling import Floats, image_weights, interval

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class MetricInfo:
    """What a metric's number means.

    ``unit`` is "1" for a pure number; ``aggregation`` says over what the mean (or the ratio) is
    taken; ``source`` is the publication or the convention that defines it.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool
    aggregation: str
    source: str


def catalogue(*infos: MetricInfo) -> dict[str, MetricInfo]:
    """The ``infos`` by name."""
    return {info.name: info for info in infos}


def plane(tensor: torch.Tensor, what: str) -> torch.Tensor:
    """The one (H, W) map of a tensor of shape (H, W) or (1, H, W), detached.

    Raises ValueError, naming ``what``, for another shape and for a map without pixels.
    """
    single = tensor[0] if tensor.ndim == 3 and tensor.shape[0] == 1 else tensor
    if single.ndim != 2 or single.numel() == 0:
        shape = tuple(tensor.shape)
        raise ValueError(f"{what}: expected one map (H, W) or (1, H, W), got shape {shape}")
    return single.detach()


def planes(prediction: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Prediction and ground truth of one image as (H, W) maps on the CPU.

    Raises ValueError unless they have the same size: resizing is up to the task, not the metric.
    """
    maps = plane(prediction, "prediction"), plane(target, "ground truth")
    if maps[0].shape != maps[1].shape:
        size, expected = tuple(maps[0].shape), tuple(maps[1].shape)
        raise ValueError(
            f"prediction of size {size}, ground truth of size {expected}: "
            "resize the prediction to the ground truth before it is scored"
        )
    return maps[0].cpu(), maps[1].cpu()


class Accumulator(ABC):
    """Scores of a split, image by image, from one worker or merged from several.

    ``infos`` declares every metric; ``iou`` there stands for each ``iou/<class>``. ``protocol``
    names the choices that change the numbers ("" if there are none), ``rules`` the way they are
    computed where it has changed: scores of other rules never share a board.
    """

    infos: ClassVar[Mapping[str, MetricInfo]]
    protocol: str = ""
    rules: ClassVar[str] = ""

    @classmethod
    def info(cls, key: str) -> MetricInfo:
        """Metadata of a key of a result, as in "rmse", "rmse@nyu_eigen" or "iou/Sky".

        Raises KeyError if the metric is not declared.
        """
        return replace(cls.infos[key.partition("@")[0].partition("/")[0]], name=key)

    def key(self, name: str) -> str:
        """``name`` with the protocol that its number depends on: "rmse@nyu_eigen"."""
        return f"{name}@{self.protocol}" if self.protocol else name

    @property
    @abstractmethod
    def images(self) -> int:
        """Number of images scored."""

    @abstractmethod
    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        """Score one image whose prediction is at the ground truth's size: (H, W) or (1, H, W)."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Metrics of the split; all finite. Raises DataError if there is nothing to score."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Numbers of scored items (``images`` first) and of those left out, by reason."""

    @abstractmethod
    def per_image(self) -> dict[str, list[float]]:
        """One value per scored image for each metric that is a mean over images."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Add the scores of ``other``; the order of merging does not change a metric.

        Raises ValueError if ``other`` has other settings.
        """

    def adopt(self, other: "Self") -> None:
        """Replace all scores by those of ``other``.

        Raises ValueError if ``other`` has other settings.
        """
        self._require_same(other)
        self.__dict__ = dict(other.__dict__)

    @abstractmethod
    def resample(self, weights: Ints | Floats) -> dict[str, Floats]:
        """Metrics of other splits of the scored images.

        ``weights``, shape (splits, images): how often each image is in each split, not always a
        whole number. Returns arrays
        of shape (splits,), NaN where a split has nothing to score. A row of ones gives
        ``compute()``. Metrics that need the images themselves are left out. Raises DataError if no
        image was scored.
        """

    @abstractmethod
    def _settings(self) -> tuple[object, ...]:
        """Settings that must be equal in two accumulators to be merged."""

    def replicates(self, seed: int = 0) -> dict[str, Floats]:
        """Replicates of the metrics, as ``tasks.metrics.resampling`` lays them out.

        Raises DataError if there is nothing to score.
        """
        self.require_images()
        return self.resample(image_weights(self.images, seed))

    def intervals(self, level: float = 0.95, seed: int = 0) -> dict[str, tuple[float, float]]:
        """Intervals of the metrics over the choice of images.

        They show how far one run's number depends on that choice, which is not its spread over
        seeds. Raises DataError if there is nothing to score.
        """
        found = {name: interval(values, level) for name, values in self.replicates(seed).items()}
        return {name: ends for name, ends in found.items() if ends is not None}

    def require_images(self) -> None:
        """Raises DataError, with what was left out, if no image was scored."""
        if self.images == 0:
            left_out = ", ".join(
                f"{name} {count}" for name, count in self.counts().items() if count
            )
            raise DataError(f"{type(self).__name__}: nothing to score ({left_out or 'no image'})")

    def _require_same(self, other: "Accumulator") -> None:
        if type(other) is not type(self) or other._settings() != self._settings():
            raise ValueError(
                f"{type(self).__name__}{self._settings()} cannot take in "
                f"{type(other).__name__}{other._settings()}"
            )


class RowAccumulator(Accumulator):
    """An accumulator whose metrics are means over images of one value per image."""

    def __init__(self) -> None:
        self._rows: dict[str, list[float]] = {}
        self._images = 0

    @property
    def images(self) -> int:
        return self._images

    def _append(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self._rows.setdefault(name, []).append(value)
        self._images += 1

    def compute(self) -> dict[str, float]:
        self.require_images()
        # fsum rounds once: the mean does not depend on the order in which workers are merged.
        return {name: math.fsum(rows) / len(rows) for name, rows in self._rows.items()}

    def per_image(self) -> dict[str, list[float]]:
        return {name: list(rows) for name, rows in self._rows.items()}

    def merge(self, other: Self) -> None:
        self._require_same(other)
        for name, rows in other._rows.items():
            self._rows.setdefault(name, []).extend(rows)
        self._images += other._images

    def resample(self, weights: Ints | Floats) -> dict[str, Floats]:
        self.require_images()
        totals = weights.sum(axis=1)
        return {name: weights @ np.array(rows) / totals for name, rows in self._rows.items()}
