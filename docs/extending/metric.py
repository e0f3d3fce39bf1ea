"""A metric: the error of the worst pixels of a depth map, and a task that is ranked by it."""

import numpy as np
from torch import Tensor

from tasks.base import TASKS
from tasks.depth import Depth
from tasks.metrics.base import MetricInfo, RowAccumulator, catalogue, planes
from tasks.metrics.depth import clamp_depth, valid_pixels


class TailMetrics(RowAccumulator):
    """Means over images of one number an image; intervals and `compare` follow from that."""

    infos = catalogue(
        MetricInfo(
            "rel95",
            "95th percentile of the relative error",
            unit="1",
            higher_is_better=False,
            aggregation="mean over images",
            source="docs/extending.md",
        )
    )

    def __init__(self, min_depth: float, max_depth: float) -> None:
        super().__init__()
        self.bounds = min_depth, max_depth

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Maps [H, W] in metres; an image without a valid pixel counts nowhere."""
        p, g = (plane.double().numpy() for plane in planes(prediction, target))
        valid = valid_pixels(g, *self.bounds)
        if valid.any():
            p, g = clamp_depth(p, *self.bounds)[valid], g[valid]
            self._append({"rel95": float(np.quantile(abs(p - g) / g, 0.95))})

    def counts(self) -> dict[str, int]:
        return {"images": self.images}

    def _settings(self) -> tuple[object, ...]:
        return self.bounds


@TASKS.register("depth-tail")
class DepthTail(Depth):
    """Depth, trained as ever and ranked by its worst pixels, those outside a crop among them."""

    name = "depth-tail"
    title = "Depth, worst pixels"
    columns = ("rel95",)

    def accumulator(self) -> TailMetrics:
        return TailMetrics(self.min_depth, self.max_depth)
