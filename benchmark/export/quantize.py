"""Static int8 of an ONNX file, calibrated on training images, and its scores."""

import math
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.experiment.config import ResolvedRun
from benchmark.export.formats import quietly
from benchmark.results.checkpoint import Checkpoint
from benchmark.scoring.evaluate import evaluate, metrics_of
from common.progress import Listener, Silent
from datasets.pipeline import Resized, open_split
from tasks.base import Task

WEIGHTED = ("Conv", "Gemm", "MatMul")
ACTIVATIONS = ("Relu", "Clip")
QUANTIZED = (*WEIGHTED, *ACTIVATIONS)
"""Operators in int8. With Relu and Clip, a convolution's range is that of its activation."""
TOLERANCE = 0.01
"""Relative loss of a ranking metric on the training images up to which no layer stays in float."""
IN_FLOAT = (0, 1, 2, 4, 8, 16)
"""Numbers of layers to try in float, until the loss is within the tolerance."""
PROBES = 4
"""Images that the error of one layer is measured on."""

Inputs = Mapping[str, np.ndarray[Any, Any]]
Scores = dict[str, dict[str, float]]


class _Reader:
    """Inputs one after another, as onnxruntime's calibration reads them."""

    def __init__(self, inputs: Iterator[Inputs]) -> None:
        self.inputs = inputs

    def get_next(self) -> Inputs | None:
        return next(self.inputs, None)


def _inputs(data: Resized, listener: Listener | None = None) -> Iterator[Inputs]:
    """The images of a split in batches of one."""
    listener = listener or Silent()
    listener.begin("calibrate", len(data))
    for index in range(len(data)):
        if (sample := data.get(index)) is not None:
            yield {"images": sample.image[None].float().div(255).numpy()}
        listener.step()


def quantize(
    checkpoint: Checkpoint, source: Path, target: Path, data: Resized, listener: Listener
) -> list[str]:
    """Write the ONNX file ``source`` in int8 as ``target``, as close to it as ``data`` can tell.

    data: training images, for the ranges and for the choice of layers that stay in float: those
    whose own int8 moves the outputs most, as many as bring the loss of the ranking metrics on these
    images within ``TOLERANCE``, or what loses least. Returns their names.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ready = _prepared(source, folder)
        exact = score(checkpoint, _network(source), data, listener)
        layers, order = _layers(ready), list[str]()
        tried: list[tuple[float, int]] = []
        for count in IN_FLOAT:
            if count == 1:
                probes = list(islice(_inputs(data), PROBES))
                order = _by_error(ready, layers, folder / "layer.onnx", probes, listener)
            if count > len(order):
                break
            path = folder / f"{count}.onnx"
            kept = [node for layer in order[:count] for node in layers[layer]]
            _write(ready, path, _inputs(data, listener), nodes_to_exclude=kept)
            found = score(checkpoint, _network(path), data, listener)
            tried.append((_loss(checkpoint.tasks, exact, found), count))
            if tried[-1][0] <= TOLERANCE:
                break
        _, count = min(tried)
        shutil.copyfile(folder / f"{count}.onnx", target)
        return order[:count]


def quantize_on(
    inputs: Iterable[Inputs], source: Path, target: Path, in_float: Collection[str] = ()
) -> None:
    """Write the ONNX file ``source`` in int8 as ``target``.

    inputs: arrays by the name of the file's input, which the ranges are taken from. in_float: names
    of layers, as ``quantize`` returns them, that stay in float.
    """
    with tempfile.TemporaryDirectory() as folder:
        ready = _prepared(source, Path(folder))
        layers = _layers(ready) if in_float else {}
        kept = [node for name in in_float for node in layers[name]]
        _write(ready, target, inputs, nodes_to_exclude=kept)


def worse_by(reference: float, value: float, higher_is_better: bool) -> float:
    """By which share of ``reference`` a metric is worse; below 0: better. NaN: cannot be told."""
    if value == reference:
        return 0.0
    lost = reference - value if higher_is_better else value - reference
    return lost / abs(reference) if reference else math.nan


def _loss(tasks: Sequence[Task], exact: Scores, found: Scores) -> float:
    """The largest loss of a task's ranking metric; what cannot be told counts as none."""
    losses = [0.0]
    for task in tasks:
        name, before = next(iter(exact[task.name].items()))
        higher = task.metric_info(name).higher_is_better
        loss = worse_by(before, found[task.name][name], higher)
        losses.append(0.0 if math.isnan(loss) else loss)
    return max(losses)


def _prepared(source: Path, folder: Path) -> Path:
    """``source`` with its operators merged, as onnxruntime's quantisation takes it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready = folder / "ready.onnx"
    with quietly():
        quant_pre_process(source, ready, skip_symbolic_shape=True)
    return ready


def _write(ready: Path, target: Path, inputs: Iterable[Inputs], **which: Any) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with quietly():
        quantize_static(
            ready,
            target,
            _Reader(iter(inputs)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            **which,
        )


def _layers(ready: Path) -> dict[str, list[str]]:
    """The nodes of each layer, a weighted one and the activations of its output, by its name."""
    import onnx

    graph = onnx.load(str(ready)).graph
    weights = {tensor.name for tensor in graph.initializer}
    layers = {}
    for node in graph.node:
        own = [name for name in node.input if name in weights]
        if node.op_type in WEIGHTED and own:
            after = [
                other.name
                for other in graph.node
                if other.op_type in ACTIVATIONS and node.output[0] in other.input
            ]
            name = own[0].removeprefix("net.").removesuffix(".weight")
            layers[name if name not in layers else node.name] = [node.name, *after]
    return layers


def _by_error(
    ready: Path,
    layers: Mapping[str, Sequence[str]],
    scratch: Path,
    inputs: Sequence[Inputs],
    listener: Listener,
) -> list[str]:
    """Names of ``layers``, the one first whose int8 alone moves the outputs most."""
    exact = _outputs(ready, inputs)
    listener.begin("int8, layer by layer", len(layers))
    errors = {}
    for name, nodes in layers.items():
        _write(ready, scratch, inputs, nodes_to_quantize=list(nodes))
        moved = _outputs(scratch, inputs)
        errors[name] = sum(
            float(np.square(new - old).mean() / max(np.square(old).mean(), 1e-30))
            for new, old in zip(moved, exact, strict=True)
        )
        listener.step()
    return sorted(errors, key=lambda name: -errors[name])


def _outputs(path: Path, inputs: Sequence[Inputs]) -> list[np.ndarray[Any, Any]]:
    """The logits of each of ``inputs``."""
    net = _Logits(_network(path))
    return [
        output.numpy() for one in inputs for output in net(torch.from_numpy(one["images"])).values()
    ]


def _network(path: Path) -> nn.Module:
    from benchmark.export.onnx_files import OnnxNetwork

    return OnnxNetwork(path)


def open_data(config: ResolvedRun, tasks: Sequence[Task], split: str, limit: int | None) -> Resized:
    """A split of the run's data: images at the run's size, targets at their own."""
    targets = [task.target for task in tasks]
    part = open_split(config.dataset, config.data, targets, config.image_size, split, limit)
    skips = config.on_bad_sample == "skip"
    return Resized(part, config.image_size, targets, targets=False, skips=skips)


class _Logits(nn.Module):
    """Renames a network's outputs ``TASK/logits`` to TASK, as the evaluation expects."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs: Mapping[str, Tensor] = self.net(images)
        logits = {n.removesuffix("/logits"): y for n, y in outputs.items() if n.endswith("/logits")}
        return logits or dict(outputs)


def score(checkpoint: Checkpoint, net: nn.Module, data: Resized, listener: Listener) -> Scores:
    """Scores of ``net``, which returns logits: those that tables show, the ranking one first."""
    config = checkpoint.config.model_copy(update={"device": "cpu", "amp": False})
    accumulators = {task: task.accumulator() for task in checkpoint.tasks}
    evaluate(config, _Logits(net), accumulators, data, listener)
    scores = {}
    for task, accumulator in accumulators.items():
        metrics = metrics_of(accumulator)
        columns = [accumulator.key(name) for name in task.columns]
        scores[task.name] = {name: metrics[name] for name in columns}
    return scores
