"""Ground truth that separates an object from the background."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.drawing import RGB, Palette, grey, hatched
from datasets.base import TARGETS, TargetKind, TargetStatistics


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


@TARGETS.register("saliency")
class Masks(TargetKind):
    """1 = object, 0 = background, 255 = ignore. Drawn white on dark grey."""

    ignore = 255
    dtype = torch.uint8
    statistics = MaskStatistics

    def draw(self, target: Tensor, palette: Palette = ()) -> RGB:  # noqa: ARG002
        values = target.numpy()
        return hatched(grey(np.where(values == 1, 255, 60)), values == self.ignore)
