"""A trained network as one file for other programs: ONNX, torch.export or TorchScript.

What is exported is the fused network with its normalisation, padding and resizing, and on request
the tasks' decisions. A written file is run again and compared with PyTorch on several shapes.
"""

import copy
import io
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UsageError, first_line
from common.extras import need
from models.exportable import make_exportable
from models.predictor import DensePredictor
from tasks.base import Task

FORMATS = ("onnx", "pt2", "torchscript")
METADATA = "sparsemask.json"
"""The name under which a file holds its metadata, in every format."""
EXAMPLE = (96, 160)
TOLERANCE = 1e-4
"""Of the largest value of an output, the error that rounding explains."""
Shape = tuple[int, int, int]
Run = Callable[[Tensor], Mapping[str, Tensor]]


class Shipped(nn.Module):
    """Images [B, 3, H, W], RGB in 0…1 → logits [B, channels, H, W] by task, from ``model`` fused.

    postprocessing: predictions [B, H, W] in the task's unit instead; with ``both``, these and the
    logits as ``TASK/logits``.
    """

    def __init__(
        self,
        model: DensePredictor,
        tasks: Sequence[Task],
        postprocessing: bool = False,
        both: bool = False,
    ) -> None:
        super().__init__()
        try:
            self.net = model.fuse()
        except RuntimeError:  # folding changes the outputs
            self.net = copy.deepcopy(model).eval()
        self.net = self.net.cpu().to(memory_format=torch.contiguous_format)
        make_exportable(self.net)
        for parameter in self.net.parameters():
            parameter.requires_grad_(False)
        self.tasks = {task.name: task for task in tasks} if postprocessing else {}
        self.both = both
        decided = list(self.tasks) or list(model.heads)
        self.outputs = decided + ([f"{name}/logits" for name in decided] if both else [])
        self.divisor = model.size_divisor
        self.deepest = max(spec.stride for spec in model.backbone.features)
        self.fixed_size = model.backbone.fixed_size

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        # DensePredictor.forward without branches that depend on the size
        height, width = images.shape[-2:]
        x = (images - self.net.mean) / self.net.std
        if self.divisor > 1:
            rows, columns = (
                (side + self.divisor - 1) // self.divisor * self.divisor for side in (height, width)
            )
            x = F.pad(x, (0, columns - width, 0, rows - height))
        size = x.shape[-2:]
        logits = {
            name: F.interpolate(y, size=size, mode="bilinear", align_corners=True)
            for name, y in self.net.maps(x).items()
        }
        if self.divisor > 1:  # a slice would ask whether it is the whole
            top, left = (torch.arange(side, device=x.device) for side in (height, width))
            logits = {
                name: y.index_select(2, top).index_select(3, left) for name, y in logits.items()
            }
        if not self.tasks:
            return logits
        found = {name: task.predict(logits[name]) for name, task in self.tasks.items()}
        if self.both:
            found |= {f"{name}/logits": y for name, y in logits.items()}
        return found


@dataclass(frozen=True)
class Sizes:
    """What images a file takes. static: (height, width) of all, None: any from ``smallest`` up."""

    static: tuple[int, int] | None
    smallest: int

    def shapes(self, own: tuple[int, int]) -> list[Shape]:
        """Shapes (batch, height, width) that a file is verified on; own: the network's size."""
        if self.static is not None:
            return [(batch, *self.static) for batch in (1, 2, 3, 5)]
        side = self.smallest
        shapes = [(1, side, side), (2, 97, 131), (3, 160, 96), (1, 203, 331)]
        return [(1, *own), *shapes] if min(own) >= side else shapes


def sizes_of(shipped: Shipped, form: str, static: tuple[int, int] | None) -> Sizes:
    """Which images a file of ``form`` takes: the backbone's only size, ``static``, or any."""
    # torch.export tells maps of one pixel from larger ones, after one more halving too (DSS)
    smallest = 3 * shipped.deepest if form == "pt2" else 32
    return Sizes(shipped.fixed_size or static, smallest)


def check_format(form: str) -> None:
    """Raises UsageError if what writes or runs files of ``form`` is not installed."""
    if form == "onnx":
        need("onnx", "onnxscript", "onnxruntime", extra="export", option="--format onnx")


@contextmanager
def quietly() -> Iterator[None]:
    """Without the exporters' chatter, of which nothing is for the user."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def write(
    shipped: Shipped, form: str, path: Path, sizes: Sizes, metadata: Mapping[str, str]
) -> None:
    """Write ``shipped`` as a file of ``form`` with texts of ``metadata`` by name.

    Raises UsageError that says what to use instead where the exporter cannot take the network.
    """
    try:
        with quietly():
            WRITERS[form](shipped.eval(), path, sizes, metadata)
    except OSError:
        raise
    except Exception as error:  # exporters raise almost anything
        cause: Exception = error
        while isinstance(cause.__cause__, Exception):  # the outer ones tell where to report it
            cause = cause.__cause__
        raise cannot_export(form, sizes, first_line(cause)) from error


def cannot_export(form: str, sizes: Sizes, why: str) -> UsageError:
    """The error for a network that ``form`` cannot hold, with what to try."""
    remedies = [f"--format {other}" for other in FORMATS if other != form]
    if sizes.static is None:
        remedies.insert(0, "--static (one image size)")
    if form == "onnx" and not at_least(2, 8):
        remedies.insert(0, f"a newer torch (2.8 or later, this is {torch.__version__})")
    return UsageError(
        f"--format {form}: cannot hold this network ({why}): use {', or '.join(remedies)}"
    )


def at_least(*wanted: int) -> bool:
    """Whether this torch is of version ``wanted`` or later."""
    return tuple(map(int, torch.__version__.split(".")[:2])) >= wanted


def _program(shipped: Shipped, static: tuple[int, int] | None) -> torch.export.ExportedProgram:
    dynamic = torch.export.Dim.DYNAMIC
    axes = (0,) if static else (0, 2, 3)
    program = torch.export.export(
        shipped,
        (torch.rand(2, 3, *(static or EXAMPLE)),),
        dynamic_shapes=(dict.fromkeys(axes, dynamic),),
        strict=False,
    )
    for node in program.graph.nodes:  # the places of files on this machine
        node.meta.pop("stack_trace", None)
    return program


def _write_pt2(shipped: Shipped, path: Path, sizes: Sizes, metadata: Mapping[str, str]) -> None:
    with path.open("wb") as file:
        torch.export.save(_program(shipped, sizes.static), file, extra_files=dict(metadata))


def _write_torchscript(
    shipped: Shipped, path: Path, sizes: Sizes, metadata: Mapping[str, str]
) -> None:
    example = torch.rand(2, 3, *(sizes.static or EXAMPLE))
    traced = torch.jit.trace(shipped, (example,), strict=False, check_trace=False)  # type: ignore[no-untyped-call]
    whole = io.BytesIO()  # a file's name would be written into it
    torch.jit.save(traced, whole, _extra_files=dict(metadata))
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            if not entry.filename.endswith(".debug_pkl"):  # the places of files on this machine
                target.writestr(entry, source.read(entry))


def _write_onnx(shipped: Shipped, path: Path, sizes: Sizes, metadata: Mapping[str, str]) -> None:
    import onnx

    from benchmark.onnx_files import drop_places, name_axes, set_metadata

    program = torch.onnx.export(
        _program(shipped, sizes.static),
        (),
        dynamo=True,
        external_data=False,
        input_names=["images"],
        output_names=shipped.outputs,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    name_axes(model)
    drop_places(model)
    set_metadata(model, metadata)
    onnx.save(model, str(path))


WRITERS = {"pt2": _write_pt2, "torchscript": _write_torchscript, "onnx": _write_onnx}


def opened(form: str, path: Path) -> Run:
    """A written file as a function: images → outputs by name."""
    if form == "onnx":
        from benchmark.onnx_files import OnnxNetwork

        return OnnxNetwork(path)
    if form == "pt2":
        with path.open("rb") as file:
            found: Run = torch.export.load(file).module()
        return found
    with quietly():
        return torch.jit.load(str(path))  # type: ignore[no-any-return,no-untyped-call]


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
