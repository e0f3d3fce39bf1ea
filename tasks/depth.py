"""Monocular depth: metres along the optical axis for each pixel."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from tasks.base import TASKS, Task
from tasks.losses import depth as losses
from tasks.losses.base import Term
from tasks.metrics.depth import DepthMetrics


@TASKS.register("depth")
class Depth(Task):
    """Logits [B, 1, H, W]; target: metres, 0 = no reading.

    log depth = log min + (log max − log min) · sigmoid(logit): every output lies in the data set's
    range, and equal steps of the logit are equal ratios of depth.
    """

    name = "depth"
    title = "Monocular depth"
    target = "depth"
    columns = ("abs_rel", "rmse", "silog", "delta1", "delta2", "delta3")
    ignore = 0
    default_loss = "silog+0.5*gradient"
    channels = 1

    def __init__(
        self, min_depth: float, max_depth: float, crop: str | None = None, loss: str | None = None
    ) -> None:
        super().__init__(loss)
        self.min_depth, self.max_depth, self.crop = min_depth, max_depth, crop

    def _log_depth(self, logits: Tensor) -> Tensor:
        low, high = math.log(self.min_depth), math.log(self.max_depth)
        return low + (high - low) * logits[:, 0].sigmoid()

    def _valid(self, target: Tensor) -> Tensor:
        return (target > self.min_depth) & (target < self.max_depth)

    def loss_terms(self) -> Mapping[str, Term]:
        return {
            "silog": lambda x, g: losses.silog(self._log_depth(x), g, self._valid(g)),
            "gradient": lambda x, g: losses.gradient_matching(
                self._log_depth(x), g, self._valid(g)
            ),
        }

    def activate(self, logits: Tensor, scale: float = 1.0) -> Tensor:
        """Log metres; what looks twice as large through the same lens is half as far away."""
        return self._log_depth(logits)[:, None] + math.log(scale)

    def decide(self, activated: Tensor) -> Tensor:
        return activated[:, 0].exp()

    def accumulator(self) -> DepthMetrics:
        return DepthMetrics(self.min_depth, self.max_depth, self.crop)

    def best_constant(self, targets: Iterable[Tensor]) -> float:
        """The constant of least mean |g − c| / g: the median of the depths weighted by 1 / g.

        As in the metric, every image counts the same, however many of its pixels are valid.
        """
        samples, weights = [], []
        for target in targets:
            values = target[self._valid(target)].double()
            values = values[:: max(1, values.numel() // 2000)]
            samples.append(values)
            weights.append(1 / (values * len(values)))
        depths, order = torch.cat(samples).sort()
        weight = torch.cat(weights)[order].cumsum(0)
        return float(depths[torch.searchsorted(weight, weight[-1] / 2)])
