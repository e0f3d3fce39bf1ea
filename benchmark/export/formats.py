"""A trained network as one file for other programs: ONNX, torch.export or TorchScript.

What is exported is the fused network with its normalisation, padding and resizing, and on request
the tasks' decisions. A written file is run again and compared with PyTorch on several shapes.
"""

import io
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmark.export.network import Shipped
from common.errors import UsageError, first_line
from common.extras import need

FORMATS = ("onnx", "pt2", "torchscript")
METADATA = "sparsemask.json"
"""The name under which a file holds its metadata, in every format."""
EXAMPLE = (96, 160)
Shape = tuple[int, int, int]
Run = Callable[[Tensor], Mapping[str, Tensor]]


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

    from benchmark.export.onnx_files import drop_places, name_axes, set_metadata

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
        from benchmark.export.onnx_files import OnnxNetwork

        return OnnxNetwork(path)
    if form == "pt2":
        with path.open("rb") as file:
            found: Run = torch.export.load(file).module()
        return found
    with quietly():
        return torch.jit.load(str(path))  # type: ignore[no-any-return,no-untyped-call]
