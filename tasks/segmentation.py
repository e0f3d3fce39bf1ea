"""Semantic segmentation: a class for each pixel."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from common.drawing import RGB, Palette, Picture, class_colours, colour_classes, with_legend
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
    unit = "class index"
    formula = "argmax(logits, axis=1)"
    caption = (
        "Each class has the data set's colour for it. Black in the ground truth: "
        "not scored, or a class of that colour."
    )
    pipeline_tag = "image-segmentation"

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

    def draw(
        self,
        prediction: Tensor,
        truth: Tensor,  # noqa: ARG002
        palette: Palette = (),
    ) -> RGB:
        return colour_classes(prediction.numpy(), palette, self.ignore)

    def maps(
        self, image: Tensor, prediction: Tensor, palette: Palette = ()
    ) -> Mapping[str, Picture]:
        """The class map as a palette image, and over the image with a legend."""
        colours = class_colours(palette)
        indices = Image.fromarray(prediction.numpy().astype(np.uint8))
        indices.putpalette(colours.astype(np.uint8).tobytes())
        return {
            self.name: indices,
            f"{self.name}_overlay": self._overlay(image, prediction, colours),
        }

    def _overlay(self, image: Tensor, prediction: Tensor, colours: NDArray[Any]) -> Picture:
        photograph, classes = image.permute(1, 2, 0).numpy(), prediction.numpy()
        mixed = (0.45 * photograph + 0.55 * colours[classes]).astype(np.uint8)
        share = np.bincount(classes.ravel(), minlength=len(self.classes)) / classes.size
        present = [int(c) for c in np.argsort(-share, kind="stable") if share[c] > 0]
        rows = [
            (self.classes[c], f"{share[c]:.1%}", tuple(int(x) for x in colours[c])) for c in present
        ]
        return with_legend(mixed, rows)

    def constant(self, value: float, target: Tensor) -> Tensor:
        return torch.full(target.shape, int(value))

    def best_constant(self, targets: Iterable[Tensor]) -> float:
        """The most frequent class."""
        counts = torch.zeros(256, dtype=torch.long)
        for target in targets:
            counts += torch.bincount(target.flatten().long(), minlength=256)
        return float(counts[: len(self.classes)].argmax())
