"""Runtimes and precisions to time a network in, each as it would be deployed."""

import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typing_extensions import TypedDict

from benchmark.experiment.environment import processor_features
from benchmark.results.runtimes import FILES, PRECISIONS, RUNTIMES, Pair
from benchmark.speed.latency import Setup
from common.closing import Closing
from common.errors import UsageError
from models.predictor import DensePredictor

CALIBRATION = 4
"""Random images that int8's ranges are taken from where only time counts."""
BF16 = {"avx512_bf16", "amx_bf16", "bf16"}


class Once(TypedDict):
    """What a row costs before its first call; null where it does not apply.

    export_s: seconds to write the file, with its quantisation. load_s: to read and compile it.
    file_bytes: its size.
    """

    export_s: float | None
    load_s: float | None
    file_bytes: int | None


NOTHING = Once(export_s=None, load_s=None, file_bytes=None)


def pairs_of(runtimes: Sequence[str], precisions: Sequence[str]) -> list[Pair]:
    """Every runtime with every precision, in order; "all" stands for all of them.

    Raises UsageError if there is no such thing on any machine.
    """
    some = RUNTIMES if "all" in runtimes else tuple(dict.fromkeys(runtimes)) or RUNTIMES[:1]
    types = PRECISIONS if "all" in precisions else tuple(dict.fromkeys(precisions)) or ("f32",)
    if types == ("int8",) and not set(some) & set(FILES):
        raise UsageError("--precision int8: add --runtime onnxruntime or openvino")
    return [(runtime, precision) for runtime in some for precision in types]


def unavailable(pair: Pair, device: str) -> str | None:
    """Why ``pair`` cannot run on this machine; None if it can."""
    runtime, precision = pair
    if torch.device(device).type != "cpu" and pair not in (("eager", "f32"), ("compiled", "f32")):
        return (
            f"{runtime} {precision} is of the CPU: use --device cpu (speed takes --compile and "
            "--amp on CUDA)"
        )
    lacking = f"this processor ({platform.machine()}) has no bf16"
    if runtime not in FILES:
        if precision == "int8":
            return f"{runtime} has no int8: use --runtime onnxruntime or openvino"
        offered = set(processor_features())
        return lacking if precision == "bf16" and offered and not offered & BF16 else None
    extra = "export" if runtime == "onnxruntime" else "openvino"
    for package in dict.fromkeys(("onnx", "onnxscript", "onnxruntime", runtime)):
        if find_spec(package) is None:
            return f"{runtime} needs {package}: pip install -e '.[{extra}]'"
    if precision == "bf16":
        if runtime == "onnxruntime":
            return "onnxruntime has no convolution in bf16 on the CPU: use --runtime openvino"
        from benchmark.export.onnx_files import openvino_offers

        return None if "BF16" in openvino_offers() else lacking
    return None


@dataclass(frozen=True)
class Ready:
    """A network as it runs, how its input comes, and what it has cost so far."""

    model: nn.Module
    setup: Setup
    once: Once


class Preparation(Closing):
    """Prepares networks for runtimes; files lie in a temporary folder until it is closed.

    setup: of networks that PyTorch runs. quantize: writes an ONNX file in int8 as another; None:
    with ranges of noise, which a latency does not depend on. static: files take images of one size.
    What cannot be exported is not tried again.
    """

    def __init__(
        self,
        setup: Setup,
        quantize: Callable[[Path, Path], object] | None = None,
        static: bool = True,
    ) -> None:
        self.setup, self.quantize, self.static = setup, quantize, static
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # one may be open
        self.ready: dict[tuple[Any, ...], Ready] = {}
        self.files: dict[tuple[Any, ...], tuple[Path, float]] = {}
        self.failures: dict[tuple[Any, ...], Exception] = {}

    def close(self) -> None:
        self.ready.clear()
        self.folder.cleanup()

    def __call__(
        self,
        name: str,
        model: DensePredictor,
        pair: Pair,
        size: tuple[int, int],
        batch: int,
        in_float: tuple[str, ...] = (),
    ) -> Ready:
        """``model`` for images [batch, C, *size]. name: its identity.

        in_float: layers of int8 that stay in float where ``quantize`` is None. Raises whatever an
        exporter or runtime raises for what it does not take.
        """
        runtime, precision = pair
        if runtime not in FILES:
            place: tuple[Any, ...] = (name, pair)
            if place not in self.ready:
                compiled = runtime == "compiled"
                setup = replace(self.setup, compiled=compiled, amp=precision in ("bf16", "f16"))
                self.ready[place] = Ready(*setup.prepared(model), NOTHING)
            return self.ready[place]
        place = (name, pair, size, batch, in_float)
        if place not in self.ready:
            path, seconds = self._file(name, model, size, in_float if precision == "int8" else None)
            start = time.perf_counter()
            network = _loaded(path, runtime, precision, (batch, model.in_channels, *size))
            once = Once(
                export_s=seconds,
                load_s=time.perf_counter() - start,
                file_bytes=path.stat().st_size,
            )
            self.ready[place] = Ready(network, Setup(channels_last=False), once)
        return self.ready[place]

    def _file(
        self,
        name: str,
        model: DensePredictor,
        size: tuple[int, int],
        in_float: tuple[str, ...] | None,
    ) -> tuple[Path, float]:
        """The ONNX file, in int8 unless ``in_float`` is None, and the seconds that it took."""
        place = (name, size, in_float)
        if place in self.failures:
            raise self.failures[place]
        if place not in self.files:
            try:
                self.files[place] = self._written(name, model, size, in_float)
            except Exception as error:
                self.failures[place] = error
                raise
        return self.files[place]

    def _written(
        self,
        name: str,
        model: DensePredictor,
        size: tuple[int, int],
        in_float: tuple[str, ...] | None,
    ) -> tuple[Path, float]:
        from benchmark.export.formats import sizes_of, write
        from benchmark.export.network import ExportableNetwork
        from benchmark.export.quantize import quantize_on

        source, spent = (None, 0.0) if in_float is None else self._file(name, model, size, None)
        path = Path(self.folder.name) / f"{len(self.files)}.onnx"
        start = time.perf_counter()
        if source is None:
            shipped = ExportableNetwork(model, [])
            given = size if self.static else None
            write(shipped, "onnx", path, sizes_of(shipped, "onnx", given), {})
        elif self.quantize is not None:
            self.quantize(source, path)
        else:
            quantize_on(_noise(model.in_channels, size), source, path, in_float or ())
        return path, spent + time.perf_counter() - start


def _noise(channels: int, size: tuple[int, int]) -> Iterator[Mapping[str, Any]]:
    random = torch.Generator().manual_seed(0)
    for _ in range(CALIBRATION):
        yield {"images": torch.rand(1, channels, *size, generator=random).numpy()}


def _loaded(path: Path, runtime: str, precision: str, shape: Sequence[int]) -> nn.Module:
    from benchmark.export.onnx_files import OnnxNetwork, OpenVinoNetwork

    if runtime == "onnxruntime":
        return OnnxNetwork(path)
    return OpenVinoNetwork(path, "bf16" if precision == "bf16" else "f32", shape)
