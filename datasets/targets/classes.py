"""Ground truth that gives a class to each pixel."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.drawing import RGB, Palette, colour_classes
from datasets.base import TARGETS, TargetKind, TargetStatistics


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
        doubts = [f"no pixel of {', '.join(never)}"] if never else []
        return doubts + ([f"{self.blank} maps without a known pixel"] if self.blank else [])

    def contradictions(self) -> list[str]:
        """Fewer than half of the classes."""
        count = len(self.classes) - len(self.summary()["never"])
        if 2 * count >= len(self.classes):
            return []
        return [f"pixels of only {count} of {len(self.classes)} classes"]


@TARGETS.register("segmentation")
class Classes(TargetKind):
    """Class index, 255 = ignore. Drawn in the data set's colours."""

    ignore = 255
    dtype = torch.uint8
    statistics = ClassStatistics

    def draw(self, target: Tensor, palette: Palette = ()) -> RGB:
        return colour_classes(target.numpy(), palette, self.ignore)
