"""The passes of ``speed`` over rows: time in turns, post-processing, processes, memory, profile."""

import itertools
import statistics
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from benchmark.experiment.environment import environment
from benchmark.experiment.network import NetworkSpec
from benchmark.speed.fresh import FreshProcess
from benchmark.speed.latency import (
    Latency,
    Setup,
    first_call,
    forward_call,
    speed_record,
    time_calls,
    time_models,
)
from benchmark.speed.memory import fresh_process, peak_memory
from benchmark.speed.profile import measured_peaks, profile
from common.errors import UserError, first_line, out_of_memory, reason
from common.memory import fitting, keep_freed_memory, keeps_freed_memory
from common.progress import Listener
from models.predictor import DensePredictor

HEAD = "classes"
POSTPROCESSING = 0.25
"""Of the time that a network gets, the share for its post-processing, which varies less."""
SpeedRow = dict[str, Any]
Timed = TypeVar("Timed")


@dataclass(frozen=True)
class Contender:
    """What a row times: the network as it is run, how, and how many images at once."""

    model: nn.Module
    setup: Setup
    batch: int


def pair(row: SpeedRow) -> str:
    return f"{row['backbone']} + {row['decoder']}"


def time_rows(
    rows: Sequence[SpeedRow],
    models: Mapping[str, DensePredictor],
    device: str,
    min_time: float,
    setup: Setup,
    listener: Listener,
    onnx: bool = False,
) -> dict[int, Contender]:
    """Time all rows of one size and batch in turns. Returns what ran, by the row's index.

    Gives every row ``latency``, a speed record, ``first_call_s``, ``postprocessing_ms`` and
    ``environment``; null where there is none, and then ``error`` says why. models: by ``pair``.
    onnx: each row's ONNX file takes its turns too, and gives ``onnx``, its latency, or null and
    ``onnx_error``.
    """
    facts = environment(device)
    ready: dict[str, tuple[nn.Module, Setup]] = {}
    contenders: dict[int, Contender] = {}
    for row in rows:
        row.update(latency=None, first_call_s=None, postprocessing_ms=None, environment=facts)
        if onnx:
            row.update(onnx=None, onnx_error=None)
    groups = {(tuple(row["image_size"]), row["batch"]): None for row in rows}
    listener.begin("time in turns", len(groups))
    for size, batch in groups:
        group: dict[int, Contender] = {}
        for index, row in enumerate(rows):
            if (tuple(row["image_size"]), row["batch"]) != (size, batch) or row["error"]:
                continue
            try:  # alone first: what does not fit into memory must not take the others along
                if pair(row) not in ready:
                    ready[pair(row)] = setup.prepared(models[pair(row)])
                model, as_run = ready[pair(row)]
                row["first_call_s"], ran = fitting(
                    lambda b, m=model, s=size: first_call(m, s, device, b, setup),  # type: ignore[misc]
                    batch,
                )
                group[index] = Contender(model, as_run, ran)
            except Exception as error:
                row["error"] = reason(error)
        files = _onnx_files(rows, models, group) if onnx else {}
        contenders |= _time_group(rows, group, files, size, device, min_time, setup)
        listener.step()
    return contenders


def _onnx_files(
    rows: Sequence[SpeedRow], models: Mapping[str, DensePredictor], group: Mapping[int, Contender]
) -> dict[int, nn.Module]:
    """The network of each row as an ONNX file of the row's size, run by onnxruntime.

    Says in a row's ``onnx_error`` why there is none.
    """
    from benchmark.export.formats import sizes_of, write
    from benchmark.export.network import ExportableNetwork
    from benchmark.export.onnx_files import OnnxNetwork

    found: dict[int, nn.Module] = {}
    with tempfile.TemporaryDirectory() as folder:
        for index, one in group.items():
            row, path = rows[index], Path(folder) / f"{index}.onnx"
            try:
                shipped = ExportableNetwork(models[pair(row)], [])
                write(
                    shipped, "onnx", path, sizes_of(shipped, "onnx", tuple(row["image_size"])), {}
                )
                found[index] = OnnxNetwork(path)
                found[index](torch.rand(one.batch, 3, *row["image_size"]))
            except Exception as error:  # what does not run may raise anything
                row["onnx_error"] = reason(error)
                found.pop(index, None)
    return found


def _time_group(
    rows: Sequence[SpeedRow],
    group: dict[int, Contender],
    files: Mapping[int, nn.Module],
    size: tuple[int, int],
    device: str,
    min_time: float,
    setup: Setup,
) -> dict[int, Contender]:
    """Time ``group``, and ``files`` of its rows, in turns; returns it with the batches that ran."""

    def together(most: int) -> tuple[dict[int, Contender], dict[str, Latency], dict[int, float]]:
        fitted = {
            i: Contender(c.model, c.setup, min(c.batch, most)) for i, c in group.items()
        }  # side by side they need more memory than alone
        batches = {i: c.batch for i, c in fitted.items()}
        latencies = time_models(
            {str(i): c.model for i, c in fitted.items()}
            | {f"{i}/onnx": file for i, file in files.items()},
            size,
            device,
            {str(i): b for i, b in batches.items()} | {f"{i}/onnx": batches[i] for i in files},
            setup,
            min_time=min_time,
        )
        after = _time_postprocessing(fitted, size, device, setup, min_time * POSTPROCESSING)
        return fitted, latencies, after

    if not group:
        return {}
    try:
        (fitted, latencies, after), _ = fitting(together, max(c.batch for c in group.values()))
    except Exception as error:
        if not out_of_memory(error):
            raise
        for index in group:
            rows[index]["error"] = reason(error)
        return {}
    session = uuid.uuid4().hex[:8]
    for index in group:
        others = sorted({pair(rows[i]) for i in group if i != index})
        ran = fitted[index]
        rows[index]["latency"] = speed_record(
            latencies[str(index)], size, device, ran.setup, others, session, ran.batch
        )
        if index in files:
            rows[index]["onnx"] = asdict(latencies[f"{index}/onnx"])
        rows[index]["postprocessing_ms"] = after[index]
    return fitted


@torch.inference_mode()
def _time_postprocessing(
    group: Mapping[int, Contender],
    size: tuple[int, int],
    device: str,
    setup: Setup,
    min_time: float,
) -> dict[int, float]:
    """Median ms of the argmax over each one's logits [batch, classes, *size].

    Equal shapes, formats and types take equal time, and are timed once.
    """
    kinds: dict[int, tuple[Any, ...]] = {}
    logits: dict[tuple[Any, ...], Tensor] = {}
    for index, one in group.items():
        out = forward_call(one.model, size, device, one.batch, setup)()[HEAD]
        kinds[index] = (tuple(out.shape), out.stride(), out.dtype)
        logits.setdefault(kinds[index], out)
    calls = {kind: lambda x=x: x.argmax(1) for kind, x in logits.items()}
    timed = time_calls(calls, torch.device(device), min_time=min_time)
    return {index: timed[kind].median_ms for index, kind in kinds.items()}


def network_of(row: SpeedRow, arguments: Mapping[str, Any]) -> NetworkSpec:
    return NetworkSpec(row["backbone"], row["decoder"], {HEAD: row["classes"]}, dict(arguments))


def remember_memory(
    rows: Sequence[SpeedRow],
    contenders: Mapping[int, Contender],
    arguments: Mapping[str, Any],
    device: str,
    listener: Listener,
) -> None:
    """Give every row that ran ``memory``, as ``peak_memory`` returns it; null to the others."""
    listener.begin("peak memory", len(contenders))
    with fresh_process() as process:
        for index, row in enumerate(rows):
            row["memory"] = None
            if index in contenders:
                one = contenders[index]
                row["memory"] = peak_memory(
                    network_of(row, arguments), tuple(row["image_size"]), one.batch, one.setup,
                    device, process=process,
                )  # fmt: skip
                listener.step(pair(row))


def isolate_rows(
    rows: Sequence[SpeedRow],
    contenders: Mapping[int, Contender],
    arguments: Mapping[str, Any],
    device: str,
    min_time: float,
    processes: int,
    listener: Listener,
) -> None:
    """Time every row that ran alone in ``processes`` fresh processes, the rows in turns.

    Gives it ``isolated``: processes, medians_ms of each, their median_ms, min_ms and max_ms; or
    null and in ``isolated_error`` the reason.
    """
    medians: dict[int, list[float]] = {index: [] for index in contenders}
    failed: dict[int, str] = {}
    listener.begin("time in fresh processes", len(contenders) * processes)
    for _, (index, one) in itertools.product(range(processes), contenders.items()):
        row = rows[index]
        if index not in failed:
            try:
                with FreshProcess() as process:  # not a fork of the last: addresses vary too
                    medians[index].append(
                        process.call(
                            _time_alone,
                            network=asdict(network_of(row, arguments)),
                            size=row["image_size"],
                            batch=one.batch,
                            setup=asdict(one.setup),
                            device=device,
                            threads=torch.get_num_threads(),
                            keep_freed=keeps_freed_memory(),
                            min_time=min_time,
                        )
                    )
            except UserError as error:
                failed[index] = first_line(error)
        listener.step(pair(row))
    for index, row in enumerate(rows):
        row["isolated"], row["isolated_error"] = None, failed.get(index)
        if medians.get(index) and index not in failed:
            found = medians[index]
            row["isolated"] = {
                "processes": processes,
                "medians_ms": found,
                "median_ms": statistics.median(found),
                "min_ms": min(found),
                "max_ms": max(found),
            }


def _time_alone(
    network: Mapping[str, Any],
    size: list[int],
    batch: int,
    setup: Mapping[str, Any],
    device: str,
    threads: int,
    keep_freed: bool,
    min_time: float,
) -> float:
    """Median ms of one network, as ``time_models`` times it, in this process."""
    if keep_freed:
        keep_freed_memory()
    torch.set_num_threads(threads)
    ready, as_run = Setup(**setup).prepared(NetworkSpec(**network).build())
    timed = time_models(
        {"alone": ready}, (size[0], size[1]), device, batch, as_run, min_time=min_time
    )
    return timed["alone"].median_ms


def profile_rows(
    rows: Sequence[SpeedRow],
    contenders: Mapping[int, Contender],
    device: str,
    min_time: float,
    listener: Listener,
) -> None:
    """Give every row that ran ``profile``, as ``profiling.profile`` returns it; null to others."""
    listener.begin("profile", len(contenders) + 1)
    peaks = {
        amp: measured_peaks(device, amp) for amp in {one.setup.amp for one in contenders.values()}
    }
    listener.step("peaks")
    for index, row in enumerate(rows):
        row["profile"] = None
        if index in contenders:
            one = contenders[index]
            assert isinstance(one.model, DensePredictor)
            row["profile"] = profile(
                one.model, tuple(row["image_size"]), device, one.batch, one.setup,
                peaks[one.setup.amp], min_time,
            )  # fmt: skip
            listener.step(pair(row))
