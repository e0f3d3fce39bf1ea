"""An exported file beside PyTorch on several shapes."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from benchmark.export.formats import Run, Shape
from models.predictor import DensePredictor
from tasks.base import Task

TOLERANCE = 1e-4
"""Of the largest value of an output, the error that rounding explains."""


@dataclass(frozen=True)
class Check:
    """A file beside PyTorch on images of ``shape``: the largest absolute error, and whether it is
    no more than rounding."""

    shape: Shape
    error: float
    passed: bool


def own_rounding(model: DensePredictor, shape: Shape) -> float:
    """How far 32 bits are from 64 in the network's logits of random images, at most."""
    images = torch.rand(shape[0], 3, *shape[1:], generator=torch.Generator().manual_seed(0))
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
    """``run`` beside ``reference`` on random images of each shape.

    Of a class map the error is by how much the network's own logits prefer its class, so that ties
    which rounding decides are none. Raises ValueError for outputs of other names or shapes.
    """
    reference = reference.cpu().eval()
    for index, shape in enumerate(shapes):
        random = torch.Generator().manual_seed(index)
        images = torch.rand(shape[0], 3, *shape[1:], generator=random)
        with torch.no_grad():
            logits, outputs = reference(images), run(images)
        worst, passed = 0.0, True
        for task in tasks:
            if task.name not in outputs:
                raise ValueError(f"no output {task.name}: only {', '.join(outputs)}")
            found, expected = outputs[task.name], logits[task.name]
            if postprocessing:
                expected = task.predict(expected)
            if found.shape != expected.shape:
                raise ValueError(
                    f"{task.name} has shape {tuple(found.shape)}, not {tuple(expected.shape)}"
                )
            if not expected.is_floating_point():
                expected = logits[task.name].amax(1)
                found = logits[task.name].gather(1, found[:, None].long())[:, 0]
            error = float((found - expected).abs().max())
            limit = TOLERANCE * float(expected.abs().max()) + 1e-6
            worst, passed = max(worst, error), passed and error <= limit
        yield Check(shape, worst, passed)
