"""Semantic segmentation: a class for each pixel."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from tasks.base import TASKS, Task
from tasks.losses import segmentation as losses
from tasks.losses.base import Term
from tasks.metrics.segmentation import SegmentationMetrics


@TASKS.register("segmentation")
class Segmentation(Task):
    """Logits [B, classes, H, W]; target: class index, 255 = ignore."""

    name = "segmentation"
    title = "Semantic segmentation"
    target = "segmentation"
    columns = ("miou", "macc", "aacc")
    ignore = 255
    default_loss = "ce"

    def __init__(self, classes: Sequence[str], loss: str | None = None) -> None:
        super().__init__(loss)
        self.classes = tuple(classes)
        self.channels = len(self.classes)

    def loss_terms(self) -> Mapping[str, Term]:
        return {"ce": losses.cross_entropy, "lovasz": losses.lovasz, "dice": losses.dice}

    def presence_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return losses.presence(logits.float(), target, self.ignore)

    def activate(self, logits: Tensor, scale: float = 1.0) -> Tensor:  # noqa: ARG002
        return logits.softmax(1)

    def decide(self, activated: Tensor) -> Tensor:
        return activated.argmax(1)

    def predict(self, logits: Tensor) -> Tensor:
        """The same class without the softmax."""
        return logits.argmax(1)

    def accumulator(self) -> SegmentationMetrics:
        return SegmentationMetrics(self.classes, self.ignore)

    def constant(self, value: float, target: Tensor) -> Tensor:
        return torch.full(target.shape, int(value))

    def best_constant(self, targets: Iterable[Tensor]) -> float:
        """The most frequent class."""
        counts = torch.zeros(256, dtype=torch.long)
        for target in targets:
            counts += torch.bincount(target.flatten().long(), minlength=256)
        return float(counts[: len(self.classes)].argmax())
