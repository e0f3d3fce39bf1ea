"""Ground truth that gives a depth in metres to each pixel."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.drawing import RGB, Palette, colour_depth, known_range
from datasets.base import TARGETS, TargetKind, TargetStatistics


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
        """Depths unlike the declared range, and too few readings."""
        low, high = self.facts["min_depth"], self.facts["max_depth"]
        facts, doubts = self.summary(), []
        declared = f"where {low:g}…{high:g} m are declared"
        if self.maps and not 2 * low <= facts["median m"] <= 0.8 * high:
            doubts.append(f"median depth {facts['median m']:.3g} m {declared}: check the unit")
        if facts["share of readings out of range"] > 0.1:
            doubts.append(f"{facts['share of readings out of range']:.0%} out of range {declared}")
        if facts["share without reading"] > 0.5:
            doubts.append(f"{facts['share without reading']:.0%} of the pixels have no reading")
        return doubts


@TARGETS.register("depth")
class Metres(TargetKind):
    """Metres along the optical axis, 0 = no reading. Drawn over each map's own range."""

    ignore = 0
    dtype = torch.float32
    statistics = DepthStatistics

    def zoomed(self, target: Tensor, zoom: Tensor) -> Tensor:
        """What looks twice as large through the same lens is half as far away."""
        return target / zoom

    def draw(self, target: Tensor, palette: Palette = ()) -> RGB:  # noqa: ARG002
        metres = target.numpy()
        return colour_depth(metres, known_range(metres))
