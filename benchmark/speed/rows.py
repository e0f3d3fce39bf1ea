"""Rows of ``speed``, each a network, an image size and a batch; options of the measurement."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from typing_extensions import TypedDict

from benchmark.experiment.environment import Environment
from benchmark.experiment.network import NetworkSpec, check_device
from benchmark.results.result import Speed
from benchmark.results.runtimes import Pair
from benchmark.speed.latency import PLAIN, Setup
from benchmark.speed.memory import Memory
from benchmark.speed.profile import Profile
from benchmark.speed.runtimes import Once
from common.errors import UsageError
from common.extras import need

HEAD = "classes"


@dataclass(frozen=True)
class SpeedOptions:
    """What to measure of each network, and how.

    classes: channels of the head. in_channels: of the images. arguments: of timm.create_model.
    width: of the decoders; None for their own. timed: if False, nothing runs. min_time: seconds of
    calls for each network. memory: measure peak memory too. processes: number of fresh processes to
    repeat each timing in. profiled: time the parts of each network too. onnx: time each network's
    ONNX file too. pairs: runtimes and precisions, each of which is a row; None for the one that
    ``setup`` says. With pairs, memory is not measured: of a file it cannot be told.
    """

    classes: int = 21
    in_channels: int = 3
    arguments: Mapping[str, Any] = field(default_factory=dict)
    width: int | None = None
    timed: bool = True
    device: str = "cpu"
    batches: Sequence[int] = (1,)
    min_time: float = 2.0
    setup: Setup = PLAIN
    memory: bool = False
    processes: int = 0
    profiled: bool = False
    onnx: bool = False
    pairs: Sequence[Pair] | None = None

    def check(self) -> None:
        """Raises UsageError for options that exclude each other and for a missing device."""
        if not self.timed and (self.profiled or self.processes or self.onnx):
            option = "--profile" if self.profiled else "--isolate" if self.processes else "--onnx"
            raise UsageError(f"{option}: with --no-time nothing is run; leave one of them out")
        if self.profiled and self.setup.compiled:
            raise UsageError("--profile: a compiled network has no parts; leave out --compile")
        if self.pairs is not None:
            self._check_pairs()
        if self.onnx:
            if torch.device(self.device).type != "cpu" or self.setup.amp:
                raise UsageError("--onnx: runs on the CPU in float32: leave out --device and --amp")
            need("onnx", "onnxscript", "onnxruntime", extra="export", option="--onnx")
        if self.timed:
            check_device(self.device)

    def _check_pairs(self) -> None:
        if not self.timed:
            raise UsageError("--runtime: with --no-time nothing is run; leave one of them out")
        for option, given in (
            *(("--compile", self.setup.compiled), ("--amp", self.setup.amp)),
            *(("--onnx", self.onnx), ("--profile", self.profiled), ("--isolate", self.processes)),
        ):
            if given:
                raise UsageError(
                    f"{option}: is not for rows of several runtimes: leave out --runtime and "
                    "--precision, or it"
                )


class Isolated(TypedDict):
    """Medians of a network alone in fresh processes, and the median and range of these.

    disturbed: the largest share that other work took, see ``Latency``.
    """

    processes: int
    medians_ms: list[float]
    median_ms: float
    min_ms: float
    max_ms: float
    disturbed: float | None


class Neck(TypedDict):
    """The backbone's neck alone.

    params, macs: as in the row. ms: median of a batch, in turns with the networks; null if not run.
    """

    params: int
    macs: int
    ms: float | None


class SpeedRow(TypedDict, total=False):
    """A row, or the part of it that one pass measures; keys of other measurements are missing.

    runtime, precision: of ``runtimes``. isa: what the processor offers, see ``processor_features``.
    once: see ``Once``.
    width: of the decoder, if it was asked for. params: of backbone, decoder and head, and
    ``decoder_conv_weights`` as the paper counts them. macs: of one image. Both have a part ``neck``
    too if the backbone has one. deployed: params and macs of a backbone, without its neck, that is
    re-parameterised before it is timed, if they are others. neck: missing without one. latency: of
    a batch; its own ``batch`` is smaller than the row's where memory was short. first_call_s: with
    compilation. postprocessing_ms: of the argmax. onnx: the latency of the ONNX file. error,
    onnx_error, isolated_error: the reason for nulls.
    """

    backbone: str
    backbone_args: dict[str, Any]
    decoder: str
    width: int
    runtime: str
    precision: str
    isa: list[str]
    once: Once
    image_size: list[int]
    batch: int
    classes: int
    in_channels: int
    params: dict[str, int] | None
    macs: dict[str, int] | None
    deployed: dict[str, int]
    neck: Neck
    macs_exclude: str
    error: str | None
    latency: Speed | None
    first_call_s: float | None
    postprocessing_ms: float | None
    environment: Environment
    onnx: dict[str, float | None] | None
    onnx_error: str | None
    isolated: Isolated | None
    isolated_error: str | None
    profile: Profile | None
    memory: Memory | None


def pair(row: SpeedRow) -> str:
    """The row's network, as messages name it."""
    return f"{row['backbone']} + {row['decoder']}"


def identity(row: SpeedRow) -> str:
    """What tells the row's network from those of other rows of one table."""
    return f"{pair(row)} {json.dumps(row['backbone_args'], sort_keys=True)}"


def size_of(row: SpeedRow) -> tuple[int, int]:
    """The row's image size: height, width."""
    height, width = row["image_size"]
    return height, width


def network_of(row: SpeedRow) -> NetworkSpec:
    """The row's network, as another process can build it."""
    return NetworkSpec(
        row["backbone"], row["decoder"], {HEAD: row["classes"]}, row["backbone_args"],
        in_channels=row.get("in_channels", 3), width=row.get("width"),
    )  # fmt: skip
