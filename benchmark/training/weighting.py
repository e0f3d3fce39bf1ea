"""Weighted sum of the losses of several tasks."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

TEMPERATURE = 2.0
MOST = 10.0
"""Largest growth of a loss from epoch to epoch that counts for ``dwa``."""


class Weighting(nn.Module):
    """Losses by task → one loss.

    - ``fixed``: Σ weight · loss, weights 1 by default
    - ``uncertainty``: Σ weight · (exp(−s) · loss + s/2), each s = log σ² learned, from 0 on
      (Kendall, Gal and Cipolla, CVPR 2018)
    - ``dwa``: a task whose loss fell less over the last two epochs weighs more; the weights add up
      to the number of tasks (Liu, Johns and Davison, CVPR 2019)
    """

    def __init__(self, kind: str, tasks: Sequence[str], task_weights: Mapping[str, float]) -> None:
        super().__init__()
        self.kind = kind
        self.task_weights = {task: task_weights.get(task, 1.0) for task in tasks}
        self.past: list[Mapping[str, float]] = []
        self.log_variance = nn.Parameter(
            torch.zeros(len(tasks)), requires_grad=kind == "uncertainty"
        )

    def weights(self) -> dict[str, float]:
        """The current factor of each task's loss."""
        if self.kind == "uncertainty":
            learned = torch.exp(-self.log_variance.detach()).tolist()
            pairs = zip(self.task_weights.items(), learned, strict=True)
            return {task: weight * factor for (task, weight), factor in pairs}
        if self.kind == "dwa" and len(self.past) > 1:
            before, last = self.past[-2:]
            # a loss of 0 means no label of the task in that epoch
            ratios = {t: last[t] / before[t] if before[t] > 0 else 1.0 for t in self.task_weights}
            exps = {t: math.exp(min(r, MOST) / TEMPERATURE) for t, r in ratios.items()}
            scale = len(exps) / sum(exps.values())
            return {task: self.task_weights[task] * scale * exp for task, exp in exps.items()}
        return dict(self.task_weights)

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        if self.kind == "uncertainty":
            pairs = zip(self.task_weights.items(), self.log_variance, strict=True)
            parts = [w * (torch.exp(-s) * losses[task] + s / 2) for (task, w), s in pairs]
        else:
            parts = [weight * losses[task] for task, weight in self.weights().items()]
        return torch.stack(parts).sum()

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Record the epoch's mean loss of each task."""
        self.past.append(dict(means))
