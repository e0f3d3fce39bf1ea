"""A trained network as one file for other programs: ONNX, torch.export or TorchScript.

A file holds the fused network with its normalisation, padding and resizing, and on request the
tasks' decisions. It is run after writing and compared with PyTorch on several shapes.
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

from benchmark.export.network import ExportableNetwork
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
    """Image sizes that a file takes.

    static: the only (height, width); None: any with sides of at least ``smallest`` pixels.
    """

    static: tuple[int, int] | None
    smallest: int

    def shapes(self, own: tuple[int, int]) -> list[Shape]:
        """Shapes (batch, height, width) to verify a file on. own: the network's (height, width)."""
        if self.static is not None:
            return [(batch, *self.static) for batch in (1, 2, 3, 5)]
        side = self.smallest
        shapes = [(1, side, side), (2, 97, 131), (3, 160, 96), (1, 203, 331)]
        return [(1, *own), *shapes] if min(own) >= side else shapes


def sizes_of(network: ExportableNetwork, form: str, static: tuple[int, int] | None) -> Sizes:
    """Image sizes of a file of ``form``: the backbone's only size, ``static``, or any."""
    # torch.export specialises on maps of one pixel; DSS halves the deepest map once more
    smallest = 3 * network.deepest if form == "pt2" else 32
    return Sizes(network.fixed_size or static, smallest)


def check_format(form: str) -> None:
    """Raises UsageError if a package that writes or runs files of ``form`` is not installed."""
    if form == "onnx":
        need("onnx", "onnxscript", "onnxruntime", extra="export", option="--format onnx")


@contextmanager
def quietly() -> Iterator[None]:
    """Silence the exporters' logs and warnings, none of which helps a user."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def write(
    network: ExportableNetwork, form: str, path: Path, sizes: Sizes, metadata: Mapping[str, str]
) -> None:
    """Write ``network`` as a file of ``form`` that holds the texts of ``metadata`` by name.

    Raises UsageError, with alternatives, if the exporter cannot take the network.
    """
    try:
        with quietly():
            WRITERS[form](network.eval(), path, sizes, metadata)
    except OSError:
        raise
    except Exception as error:  # exporters raise almost anything
        cause: Exception = error
        while isinstance(cause.__cause__, Exception):  # the outer ones only name an issue tracker
            cause = cause.__cause__
        raise cannot_export(form, sizes, first_line(cause)) from error


def cannot_export(form: str, sizes: Sizes, why: str) -> UsageError:
    """The error for a network that ``form`` cannot hold, with alternatives."""
    remedies = [f"--format {other}" for other in FORMATS if other != form]
    if sizes.static is None:
        remedies.insert(0, "--static (one image size)")
    if form == "onnx" and not at_least(2, 8):
        remedies.insert(0, f"a newer torch (2.8 or later, this is {torch.__version__})")
    return UsageError(
        f"--format {form}: cannot hold this network ({why}): use {', or '.join(remedies)}"
    )


def at_least(*version: int) -> bool:
    """Whether torch is of ``version`` or later."""
    return tuple(map(int, torch.__version__.split(".")[:2])) >= version


def _program(
    network: ExportableNetwork, static: tuple[int, int] | None
) -> torch.export.ExportedProgram:
    dynamic = torch.export.Dim.DYNAMIC
    axes = (0,) if static else (0, 2, 3)
    program = torch.export.export(
        network,
        (torch.rand(2, network.in_channels, *(static or EXAMPLE)),),
        dynamic_shapes=(dict.fromkeys(axes, dynamic),),
        strict=False,
    )
    for node in program.graph.nodes:  # paths of this machine
        node.meta.pop("stack_trace", None)
    return program


def _write_pt2(
    network: ExportableNetwork, path: Path, sizes: Sizes, metadata: Mapping[str, str]
) -> None:
    with path.open("wb") as file:
        torch.export.save(_program(network, sizes.static), file, extra_files=dict(metadata))


def _write_torchscript(
    network: ExportableNetwork, path: Path, sizes: Sizes, metadata: Mapping[str, str]
) -> None:
    example = torch.rand(2, network.in_channels, *(sizes.static or EXAMPLE))
    traced = torch.jit.trace(network, (example,), strict=False, check_trace=False)  # type: ignore[no-untyped-call]
    buffer = io.BytesIO()  # torch would write a file's name into it
    torch.jit.save(traced, buffer, _extra_files=dict(metadata))
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            if not entry.filename.endswith(".debug_pkl"):  # paths of this machine
                target.writestr(entry, source.read(entry))


def _write_onnx(
    network: ExportableNetwork, path: Path, sizes: Sizes, metadata: Mapping[str, str]
) -> None:
    import onnx

    from benchmark.export.onnx_files import drop_places, name_axes, set_metadata

    program = torch.onnx.export(
        _program(network, sizes.static),
        (),
        dynamo=True,
        external_data=False,
        input_names=["images"],
        output_names=network.outputs,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    name_axes(model)
    drop_places(model)
    set_metadata(model, metadata)
    onnx.save(model, str(path))


WRITERS = {"pt2": _write_pt2, "torchscript": _write_torchscript, "onnx": _write_onnx}


def load_exported(form: str, path: Path) -> Run:
    """Load a written file as a function: images → outputs by name."""
    if form == "onnx":
        from benchmark.export.onnx_files import OnnxNetwork

        return OnnxNetwork(path)
    if form == "pt2":
        with path.open("rb") as file:
            run: Run = torch.export.load(file).module()
        return run
    with quietly():
        return torch.jit.load(str(path))  # type: ignore[no-any-return,no-untyped-call]
