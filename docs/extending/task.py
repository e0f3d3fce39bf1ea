"""A task: which pixels are within reach, learned from the depth that data sets have."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.base import TASKS, PixelProbability
from tasks.losses.base import Term
from tasks.metrics.base import MetricInfo, RowAccumulator, catalogue, planes

REACH = 2.0  # metres


class ReachMetrics(RowAccumulator):
    infos = catalogue(
        MetricInfo("wrong", "share of wrong pixels", "1", False, "mean over images", "ours")
    )

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Probability and metres, both [H, W]; an image without depth counts nowhere."""
        near, metres = planes(prediction, target)
        known = metres > 0
        if known.any():
            wrong = (near > 0.5) != (metres < REACH)
            self._append({"wrong": float(wrong[known].double().mean())})

    def counts(self) -> dict[str, int]:
        return {"images": self.images}

    def _settings(self) -> tuple[object, ...]:
        return ()


@TASKS.register("reach")
class Reach(PixelProbability):
    """Logits [B, 1, H, W]; target: metres, 0 = unknown. Prediction: a probability."""

    name = "reach"
    title = "Within reach"
    target = "depth"  # any data set that has it has this task
    columns = ("wrong",)
    ignore = 0
    default_loss = "bce"
    caption = "White is within reach."

    def __init__(self, loss: str | None = None, **depth: Any) -> None:
        """depth: what a data set declares of its depth: range and crop."""
        super().__init__(loss)
        self.depth = depth

    def loss_terms(self) -> Mapping[str, Term]:
        def bce(logits: Tensor, target: Tensor) -> Tensor:
            known, near = target > 0, (target < REACH).float()
            losses = F.binary_cross_entropy_with_logits(logits[:, 0], near, reduction="none")
            return (losses * known).sum() / known.sum().clamp(min=1)

        return {"bce": bce}

    def accumulator(self) -> ReachMetrics:
        return ReachMetrics()

    def best_constant(self, targets: Iterable[Tensor]) -> float:
        """1 where most pixels are within reach, else 0."""
        return float(torch.cat([(t[t > 0] < REACH) for t in targets]).float().mean() > 0.5)
