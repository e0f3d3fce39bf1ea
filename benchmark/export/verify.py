"""Compare an exported file with PyTorch on several shapes."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.export.formats import Run, Shape
from models.predictor import DensePredictor
from tasks.base import Task

TOLERANCE = 1e-4
"""Error that rounding explains, as a share of the output's largest value."""


@dataclass(frozen=True)
class Check:
    """Comparison of a file with PyTorch on random images of ``shape`` (batch, height, width).

    error: the largest absolute difference. passed: it is no more than rounding.
    """

    shape: Shape
    error: float
    passed: bool


def _images(model: DensePredictor, shape: Shape, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(shape[0], model.in_channels, *shape[1:], generator=random)


def own_rounding(model: DensePredictor, shape: Shape) -> float:
    """Largest difference of the logits in float32 from those in float64, on random images."""
    images = _images(model, shape, 0)
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(images.double())
        return max(float((y - exact[name]).abs().max()) for name, y in model(images).items())


def checks(
    reference: DensePredictor,
    tasks: Sequence[Task],
    run: Run,
    shapes: Sequence[Shape],
    postprocessing: bool = False,
) -> Iterator[Check]:
    """Compare ``run`` with ``reference`` on random images of each shape.

    The error of a class map is the reference's largest logit minus its logit of the file's class,
    so that a tie is no error. Raises ValueError for outputs of other names or shapes.
    """
    reference = reference.cpu().eval()
    for index, shape in enumerate(shapes):
        images = _images(reference, shape, index)
        with torch.no_grad():
            logits, outputs = reference(images), run(images)
        worst, passed = 0.0, True
        for task in tasks:
            if task.name not in outputs:
                raise ValueError(f"no output {task.name}: only {', '.join(outputs)}")
            output, expected = outputs[task.name], logits[task.name]
            if postprocessing:
                expected = task.predict(expected)
            if output.shape != expected.shape:
                raise ValueError(
                    f"{task.name} has shape {tuple(output.shape)}, not {tuple(expected.shape)}"
                )
            if not expected.is_floating_point():
                expected = logits[task.name].amax(1)
                output = logits[task.name].gather(1, output[:, None].long())[:, 0]
            error = float((output - expected).abs().max())
            limit = TOLERANCE * float(expected.abs().max()) + 1e-6
            worst, passed = max(worst, error), passed and error <= limit
        yield Check(shape, worst, passed)
