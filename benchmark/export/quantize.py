"""Static int8 of an ONNX file, calibrated on training images, and its scores."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from benchmark.experiment.config import ResolvedRun
from benchmark.export.formats import quietly
from benchmark.results.checkpoint import Checkpoint
from benchmark.scoring.evaluate import evaluate, metrics_of
from common.progress import Listener
from datasets.pipeline import Resized, open_split
from tasks.base import Task

QUANTIZED = ("Conv", "Gemm", "MatMul", "Relu", "Clip")
"""Operators in int8. With Relu and Clip, a convolution's range is that of its activation."""


Inputs = Mapping[str, np.ndarray[Any, Any]]


class _Reader:
    """Inputs one after another, as onnxruntime's calibration reads them."""

    def __init__(self, inputs: Iterator[Inputs]) -> None:
        self.inputs = inputs

    def get_next(self) -> Inputs | None:
        return next(self.inputs, None)


def _inputs(data: Resized, listener: Listener) -> Iterator[Inputs]:
    """The images of a split in batches of one."""
    listener.begin("calibrate", len(data))
    for index in range(len(data)):
        yield {"images": data[index].image[None].float().div(255).numpy()}
        listener.step()


def quantize(source: Path, target: Path, data: Resized, listener: Listener) -> None:
    """Write the ONNX file ``source`` in int8 as ``target``; calibrate ranges on ``data``."""
    quantize_on(_inputs(data, listener), source, target)


def quantize_on(inputs: Iterator[Inputs], source: Path, target: Path) -> None:
    """As ``quantize``, with ranges from ``inputs``: arrays by the name of the file's input."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with quietly(), tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        quant_pre_process(source, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            target,
            _Reader(inputs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def open_data(config: ResolvedRun, tasks: Sequence[Task], split: str, limit: int | None) -> Resized:
    """A split of the run's data: images at the run's size, targets at their own."""
    targets = [task.target for task in tasks]
    part = open_split(config.dataset, config.data, targets, config.image_size, split, limit)
    return Resized(part, config.image_size, targets, targets=False)


class _Logits(nn.Module):
    """Renames a network's outputs ``TASK/logits`` to TASK, as the evaluation expects."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs: Mapping[str, Tensor] = self.net(images)
        logits = {n.removesuffix("/logits"): y for n, y in outputs.items() if n.endswith("/logits")}
        return logits or dict(outputs)


def score(
    checkpoint: Checkpoint, net: nn.Module, data: Resized, listener: Listener
) -> dict[str, dict[str, float]]:
    """Scores, by task and metric, that tables show of ``net``, which returns logits."""
    config = checkpoint.config.model_copy(update={"device": "cpu", "amp": False})
    accumulators = {task: task.accumulator() for task in checkpoint.tasks}
    evaluate(config, _Logits(net), accumulators, data, listener)
    scores = {}
    for task, accumulator in accumulators.items():
        metrics = metrics_of(accumulator)
        columns = [accumulator.key(name) for name in task.columns]
        scores[task.name] = {name: metrics[name] for name in columns}
    return scores
