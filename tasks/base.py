"""The interface of tasks: from logits to a loss, a prediction and a score."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from common.drawing import RGB, Palette, Picture, grey
from common.registry import Registry
from tasks.losses.base import Loss, Term
from tasks.metrics.base import Accumulator, MetricInfo


class Task(ABC):
    """One kind of dense prediction. Its settings are its only state.

    A subclass takes the data set's facts as keyword arguments (classes, depth range, crop) and
    ``loss``, the text of its training loss (None: ``default_loss``).

    target: the key of a sample's ground truth. main: the metric that ranks. columns: the metrics
    that a table shows, main first. ignore: the target value of pixels that are neither trained on
    nor scored. channels: of the logits. unit: of the prediction, and formula: how it follows from
    logits, both for exported files. caption: what the colours of ``draw`` mean. pipeline_tag: the
    task's name on model hubs, if they have one.

    A name has letters, digits and hyphens: it is part of file names, and ``+`` joins several.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    target: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    ignore: ClassVar[int]
    default_loss: ClassVar[str]
    unit: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    caption: ClassVar[str] = ""
    pipeline_tag: ClassVar[str] = ""
    channels: int

    def __init__(self, loss: str | None) -> None:
        self.loss_text = loss or self.default_loss
        self._loss = Loss(self.loss_text, self.loss_terms())

    @abstractmethod
    def loss_terms(self) -> Mapping[str, Term]:
        """The names that ``--loss`` may use."""

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Training loss, scalar. logits: [B, channels, H, W] float; target: [B, H, W]."""
        return self._loss(logits.float(), target)

    def presence_loss(self, logits: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002
        """Loss of a prediction about the whole image: which classes it holds.

        logits: [B, channels] float; target: [B, H, W]. 0 for a task without classes.
        """
        return logits.new_zeros(())

    @abstractmethod
    def activate(self, logits: Tensor, scale: float = 1.0) -> Tensor:
        """Logits [B, channels, H, W] → activations to average over views, same shape.

        scale: magnification of the view.
        """

    @abstractmethod
    def decide(self, activated: Tensor) -> Tensor:
        """Averaged activations [B, channels, H, W] → prediction [B, H, W]."""

    def predict(self, logits: Tensor) -> Tensor:
        """Logits [B, channels, H, W] → prediction [B, H, W] in the target's unit."""
        return self.decide(self.activate(logits))

    def predict_at(self, logits: Tensor, height: int, width: int) -> Tensor:
        """Prediction [H, W] of one image from its logits [channels, h, w], upsampled first."""
        batch = logits[None].float()
        if batch.shape[-2:] != (height, width):
            batch = F.interpolate(batch, (height, width), mode="bilinear", align_corners=False)
        return self.predict(batch)[0]

    def truth(self, target: Tensor) -> Tensor:
        """A sample's target [H, W] as this task's metrics take it."""
        return target

    @abstractmethod
    def accumulator(self) -> Accumulator:
        """A fresh accumulator of this task's metrics."""

    def validator(self) -> Accumulator:
        """An accumulator for validations, which may be coarser where the real one takes long."""
        return self.accumulator()

    @abstractmethod
    def best_constant(self, targets: Iterable[Tensor]) -> float:
        """The value that, predicted everywhere, does best on ``targets`` (maps [H, W])."""

    def constant(self, value: float, target: Tensor) -> Tensor:
        """The prediction [H, W] that has ``value`` everywhere."""
        return torch.full(target.shape, value)

    @abstractmethod
    def draw(self, prediction: Tensor, truth: Tensor, palette: Palette = ()) -> RGB:
        """A prediction [H, W] as RGB [H, W, 3], in the colours of its ground truth.

        palette: the data set's colours of classes.
        """

    @abstractmethod
    def maps(
        self, image: Tensor, prediction: Tensor, palette: Palette = ()
    ) -> Mapping[str, Picture]:
        """The files of a prediction [H, W] for an image uint8 [3, H, W], by suffix.

        ``NAME`` has the values; ``NAME_view`` or ``NAME_overlay``, if there is one, is for viewing.
        """

    @property
    def map_values(self) -> str:
        """What a value in the file NAME of ``maps`` means; "" for a class."""
        return ""

    def exact(self, prediction: Tensor) -> NDArray[np.float32] | None:  # noqa: ARG002
        """A prediction [H, W] in ``unit``; None where the file NAME of ``maps`` loses nothing."""
        return None

    def misfits(self, prediction: Tensor) -> str:  # noqa: ARG002
        """The values of a prediction [H, W] that ``maps`` had to change, counted; "" for none."""
        return ""

    @property
    def main(self) -> str:
        """Key of the ranking metric in a result, with its protocol."""
        return self.accumulator().key(self.columns[0])

    def metric_info(self, key: str) -> MetricInfo:
        """Declared metadata of a result's metric."""
        return type(self.accumulator()).info(key)


class PixelProbability(Task):
    """A task of one logit per pixel: the probability that the pixel is part of the target."""

    channels = 1
    unit = "probability"
    formula = "sigmoid(logits)"

    def activate(self, logits: Tensor, scale: float = 1.0) -> Tensor:  # noqa: ARG002
        return logits.sigmoid()

    def decide(self, activated: Tensor) -> Tensor:
        return activated[:, 0]

    def draw(
        self,
        prediction: Tensor,
        truth: Tensor,  # noqa: ARG002
        palette: Palette = (),  # noqa: ARG002
    ) -> RGB:
        """White is probability 1."""
        return grey(_bytes(prediction))

    def maps(
        self,
        image: Tensor,  # noqa: ARG002
        prediction: Tensor,
        palette: Palette = (),  # noqa: ARG002
    ) -> Mapping[str, Picture]:
        """8 bits, 255 = probability 1."""
        return {self.name: Image.fromarray(_bytes(prediction))}

    @property
    def map_values(self) -> str:
        return "8 bits, 255 = probability 1"

    def exact(self, prediction: Tensor) -> NDArray[np.float32]:
        """Probabilities."""
        probabilities: NDArray[np.float32] = prediction.float().numpy()
        return probabilities


def _bytes(probabilities: Tensor) -> NDArray[np.uint8]:
    values: NDArray[np.float32] = probabilities.numpy()
    return np.rint(255 * values).astype(np.uint8)


TASKS: Registry[type[Task]] = Registry("task", "tasks")
