"""What a split's ground truth looks like, counted map by map: one class for each kind of target."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from common.annotators import annotators, share


class TargetStatistics(ABC):
    """Counts over the maps of one split, in memory that does not grow with it.

    facts: the data set's own about this task. ``problem`` tells what is wrong with a single map;
    ``summary`` and ``doubts`` are about all of them.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self.maps = 0

    @abstractmethod
    def add(self, target: Tensor) -> str | None:
        """Count a map [H, W]; returns what is wrong with it, if anything."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Numbers, and tables of numbers, by what they are called."""

    @abstractmethod
    def doubts(self) -> list[str]:
        """What may be right, but looks as if it were not."""


class ClassStatistics(TargetStatistics):
    """Class indices: each class' share of the pixels that are not ignored."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        super().__init__(facts)
        self.classes = tuple(facts["classes"])
        self.counts = np.zeros(256, np.int64)
        self.blank = 0

    def add(self, target: Tensor) -> str | None:
        counts = np.bincount(target.numpy().ravel(), minlength=256)
        self.maps += 1
        self.blank += int(counts[:255].sum() == 0)
        self.counts += counts
        outside = np.flatnonzero(counts[len(self.classes) : 255])
        if outside.size:
            label = len(self.classes) + int(outside[0])
            return f"label {label} is outside 0…{len(self.classes) - 1} and 255"
        return None

    def summary(self) -> dict[str, Any]:
        known = self.counts[: len(self.classes)]
        shares = known / max(int(known.sum()), 1)
        return {
            "share of known pixels": dict(zip(self.classes, shares.tolist(), strict=True)),
            "never": [name for name, n in zip(self.classes, known, strict=True) if not n],
            "ignored share": float(self.counts[255] / max(int(self.counts.sum()), 1)),
            "maps without a known pixel": self.blank,
        }

    def doubts(self) -> list[str]:
        never = self.summary()["never"]
        found = [f"no pixel of {', '.join(never)}"] if never else []
        return found + ([f"{self.blank} maps without a known pixel"] if self.blank else [])


class DepthStatistics(TargetStatistics):
    """Metres, 0 = no reading. The median comes from bins of 1 %."""

    BINS, LOW, HIGH = 2300, 1e-5, 1e5

    def __init__(self, facts: Mapping[str, Any]) -> None:
        super().__init__(facts)
        self.bins = np.zeros(self.BINS, np.int64)
        self.pixels = self.outside = 0
        self.low, self.high = math.inf, 0.0

    def add(self, target: Tensor) -> str | None:
        depth = target.numpy()
        if not (np.isfinite(depth).all() and (depth >= 0).all()):
            return "depths that are negative or no number"
        self.maps += 1
        self.pixels += depth.size
        if not (known := depth[depth > 0]).size:
            return "no pixel has a reading"
        self.low, self.high = min(self.low, float(known.min())), max(self.high, float(known.max()))
        low, high = self.facts["min_depth"], self.facts["max_depth"]
        self.outside += int(((known < low) | (known > high)).sum())
        edges = np.log(known / self.LOW) * (self.BINS / math.log(self.HIGH / self.LOW))
        self.bins += np.bincount(edges.astype(int).clip(0, self.BINS - 1), minlength=self.BINS)
        return None

    def summary(self) -> dict[str, Any]:
        readings = int(self.bins.sum())
        return {
            "nearest m": self.low if readings else 0.0,
            "median m": self._median(),
            "farthest m": self.high,
            "share without reading": 1 - readings / max(self.pixels, 1),
            "share of readings out of range": self.outside / max(readings, 1),
        }

    def _median(self) -> float:
        readings = int(self.bins.sum())
        if not readings:
            return 0.0
        middle = int(np.searchsorted(self.bins.cumsum(), readings / 2)) + 0.5
        return self.LOW * math.exp(middle * math.log(self.HIGH / self.LOW) / self.BINS)

    def doubts(self) -> list[str]:
        """Sensors see about the range that the data set declares, and most of a picture."""
        low, high = self.facts["min_depth"], self.facts["max_depth"]
        facts, found = self.summary(), []
        declared = f"where {low:g}…{high:g} m are declared"
        if self.maps and not 2 * low <= facts["median m"] <= 0.8 * high:
            found.append(f"median depth {facts['median m']:.3g} m {declared}: check the unit")
        if facts["share of readings out of range"] > 0.1:
            found.append(f"{facts['share of readings out of range']:.0%} out of range {declared}")
        if facts["share without reading"] > 0.5:
            found.append(f"{facts['share without reading']:.0%} of the pixels have no reading")
        return found


class MaskStatistics(TargetStatistics):
    """1 = object, 0 = background, 255 = ignored."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        super().__init__(facts)
        self.counts = np.zeros(256, np.int64)
        self.empty = self.full = 0

    def add(self, target: Tensor) -> str | None:
        counts = np.bincount(target.numpy().ravel(), minlength=256)
        self.maps += 1
        self.counts += counts
        self.empty += int(counts[1] == 0)
        self.full += int(counts[0] == 0 and counts[1] > 0)
        return "values other than 0, 1 and 255" if counts[2:255].any() else None

    def summary(self) -> dict[str, Any]:
        return {
            "object share": float(self.counts[1] / max(int(self.counts[:2].sum()), 1)),
            "ignored share": float(self.counts[255] / max(int(self.counts.sum()), 1)),
            "empty masks": self.empty,
            "full masks": self.full,
        }

    def doubts(self) -> list[str]:
        kinds = {"without an object": self.empty, "that are all object": self.full}
        return [f"{count} masks {kind}" for kind, count in kinds.items() if count]


class EdgeStatistics(TargetStatistics):
    """Several annotators' boundaries in one map, see ``common.annotators``."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        super().__init__(facts)
        self.marked = 0.0
        self.known = self.pixels = self.empty = 0
        self.least, self.most = 0, 0

    def add(self, target: Tensor) -> str | None:
        if not (count := annotators(target)):
            return "no pixel that an annotator has looked at"
        marks = share(target)
        self.least = min(self.least, count) if self.maps else count
        self.most = max(self.most, count)
        self.maps += 1
        self.pixels += marks.numel()
        self.known += int((marks >= 0).sum())
        self.marked += float(marks.clamp(min=0).double().sum())
        self.empty += int(marks.max() <= 0)
        return None

    def summary(self) -> dict[str, Any]:
        return {
            "boundary share": self.marked / max(self.known, 1),
            "ignored share": 1 - self.known / max(self.pixels, 1),
            "fewest annotators": self.least,
            "most annotators": self.most,
            "maps without a boundary": self.empty,
        }

    def doubts(self) -> list[str]:
        return [f"{self.empty} maps without a boundary"] if self.empty else []


STATISTICS: Mapping[str, type[TargetStatistics]] = {
    "segmentation": ClassStatistics,
    "depth": DepthStatistics,
    "saliency": MaskStatistics,
    "edges": EdgeStatistics,
}
