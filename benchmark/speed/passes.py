"""The passes of ``speed`` over rows: time in turns, post-processing, processes, memory, profile."""

import itertools
import statistics
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.experiment.environment import environment, processor_features
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
from benchmark.speed.rows import HEAD, SpeedOptions, SpeedRow, identity, network_of, pair, size_of
from benchmark.speed.runtimes import NOTHING, Preparation, unavailable
from common.errors import UserError, first_line, out_of_memory, reason
from common.memory import fitting, keep_freed_memory, keeps_freed_memory
from common.progress import Listener
from models.predictor import DensePredictor

POSTPROCESSING = 0.25
"""Time for post-processing, which varies less, as a share of the network's."""


@dataclass(frozen=True)
class Contender:
    """The network that a row times, as it runs, with its setup and batch."""

    model: nn.Module
    setup: Setup
    batch: int


def timings(
    rows: Sequence[SpeedRow],
    models: Mapping[str, DensePredictor],
    options: SpeedOptions,
    listener: Listener,
) -> tuple[list[SpeedRow], dict[int, Contender]]:
    """Time all rows of one size and batch in turns.

    models: by ``identity``. Returns ``latency``, ``first_call_s``, ``postprocessing_ms``,
    ``environment`` and ``isa`` of a row, with nulls and the reason in ``error`` where a row does
    not run; and the networks that ran, by the index of their row. With ``options.onnx`` each row's
    ONNX file takes turns too: ``onnx`` is its latency, or null with the reason in ``onnx_error``.
    ``once``: of a row whose runtime and precision were asked for.
    """
    facts, offered = environment(options.device), processor_features()
    contenders: dict[int, Contender] = {}
    parts: list[SpeedRow] = [
        {
            "error": row["error"],
            "latency": None,
            "first_call_s": None,
            "postprocessing_ms": None,
            "environment": facts,
            "isa": offered,
        }
        for row in rows
    ]
    if options.onnx:
        parts = [part | {"onnx": None, "onnx_error": None} for part in parts]
    if options.pairs is not None:
        parts = [part | {"once": NOTHING} for part in parts]
    groups = {(size_of(row), row["batch"]): None for row in rows}
    listener.begin("time in turns", len(groups))
    with Preparation(options.setup) as prepare:
        for size, batch in groups:
            group: dict[int, Contender] = {}
            for index, row in enumerate(rows):
                if (size_of(row), row["batch"]) != (size, batch) or row["error"]:
                    continue
                try:  # alone first: one that memory does not hold must not fail the others
                    group[index], part = _alone(row, models[identity(row)], prepare, options)
                    parts[index] |= part
                except Exception as error:  # exporters and runtimes may raise anything
                    parts[index]["error"] = reason(error)
            files: dict[int, nn.Module] = {}
            if options.onnx:
                files, errors = _onnx_files(rows, models, group, prepare)
                for index, text in errors.items():
                    parts[index]["onnx_error"] = text
            fitted, timed = _time_group(rows, group, files, size, options)
            contenders |= fitted
            for index, part in timed.items():
                parts[index] |= part
            listener.step()
    return parts, contenders


def _named(row: SpeedRow, options: SpeedOptions) -> str:
    """The row's network, and how it runs if there are several ways."""
    how = "" if options.pairs is None else f" in {row['runtime']} {row['precision']}"
    return pair(row) + how


def _alone(
    row: SpeedRow, model: DensePredictor, prepare: Preparation, options: SpeedOptions
) -> tuple[Contender, SpeedRow]:
    """A row's network as it runs, with the batch that memory holds, and what that took once."""
    how = row["runtime"], row["precision"]
    if options.pairs is not None and (why := unavailable(how, options.device)):
        raise UserError(why)
    one = prepare(identity(row), model, how, size_of(row), row["batch"])
    seconds, ran = fitting(
        lambda b: first_call(one.model, size_of(row), options.device, b, one.setup), row["batch"]
    )
    part: SpeedRow = {"first_call_s": seconds}
    if options.pairs is not None:
        compiles = row["runtime"] == "compiled"  # in its first call
        part["once"] = {**one.once, "load_s": seconds} if compiles else one.once
    return Contender(one.model, one.setup, ran), part


def _onnx_files(
    rows: Sequence[SpeedRow],
    models: Mapping[str, DensePredictor],
    group: Mapping[int, Contender],
    prepare: Preparation,
) -> tuple[dict[int, nn.Module], dict[int, str]]:
    """Each row's network as an ONNX file of the row's size, run by onnxruntime; errors by row."""
    files: dict[int, nn.Module] = {}
    errors: dict[int, str] = {}
    for index, one in group.items():
        name, size = identity(rows[index]), size_of(rows[index])
        try:
            network = prepare(name, models[name], ("onnxruntime", "f32"), size, one.batch).model
            network(torch.rand(one.batch, rows[index]["in_channels"], *size))
        except Exception as error:  # exporters and onnxruntime may raise anything
            errors[index] = reason(error)
        else:
            files[index] = network
    return files, errors


def _time_group(
    rows: Sequence[SpeedRow],
    group: Mapping[int, Contender],
    files: Mapping[int, nn.Module],
    size: tuple[int, int],
    options: SpeedOptions,
) -> tuple[dict[int, Contender], dict[int, SpeedRow]]:
    """Time ``group`` and the ONNX ``files`` of its rows in turns.

    Returns the networks with the batch that memory held, and the part of each row.
    """
    device, min_time = options.device, options.min_time

    def together(most: int) -> tuple[dict[int, Contender], dict[str, Latency], dict[int, float]]:
        fitted = {
            i: replace(c, batch=min(c.batch, most)) for i, c in group.items()
        }  # side by side they need more memory than alone
        batches = {i: c.batch for i, c in fitted.items()}
        latencies = time_models(
            {str(i): c.model for i, c in fitted.items()}
            | {f"{i}/onnx": file for i, file in files.items()},
            size,
            device,
            {str(i): b for i, b in batches.items()} | {f"{i}/onnx": batches[i] for i in files},
            {str(i): c.setup for i, c in fitted.items()}
            | {f"{i}/onnx": Setup(channels_last=False) for i in files},
            necks=True,
            min_time=min_time,
        )
        after = _time_postprocessing(fitted, size, device, min_time * POSTPROCESSING)
        return fitted, latencies, after

    if not group:
        return {}, {}
    try:
        (fitted, latencies, after), _ = fitting(together, max(c.batch for c in group.values()))
    except Exception as error:
        if not out_of_memory(error):
            raise
        return {}, {index: {"error": reason(error)} for index in group}
    session = uuid.uuid4().hex[:8]
    parts: dict[int, SpeedRow] = {}
    for index, ran in fitted.items():
        others = sorted({_named(rows[i], options) for i in group if i != index})
        latency = latencies[str(index)]
        parts[index] = {
            "latency": speed_record(
                latency, size, device, ran.setup, others, session, ran.batch, options.in_channels
            ),
            "postprocessing_ms": after[index],
        }
        if "neck" in rows[index]:
            alone = latencies.get(f"{index}/neck")  # in a file it is no part of its own
            ms = None if alone is None else alone.median_ms
            parts[index]["neck"] = {**rows[index]["neck"], "ms": ms}
        if index in files:
            parts[index]["onnx"] = asdict(latencies[f"{index}/onnx"])
    return fitted, parts


@torch.inference_mode()
def _time_postprocessing(
    group: Mapping[int, Contender],
    size: tuple[int, int],
    device: str,
    min_time: float,
) -> dict[int, float]:
    """Median ms of the argmax over each network's logits [batch, classes, *size].

    Logits of equal shape, strides and type take equal time, so they are timed once.
    """
    kinds: dict[int, tuple[Any, ...]] = {}
    logits: dict[tuple[Any, ...], Tensor] = {}
    for index, one in group.items():
        out = forward_call(one.model, size, device, one.batch, one.setup)()[HEAD]
        kinds[index] = (tuple(out.shape), out.stride(), out.dtype)
        logits.setdefault(kinds[index], out)
    calls = {kind: lambda x=x: x.argmax(1) for kind, x in logits.items()}
    timed = time_calls(calls, torch.device(device), min_time=min_time)
    return {index: timed[kind].median_ms for index, kind in kinds.items()}


def memories(
    rows: Sequence[SpeedRow],
    contenders: Mapping[int, Contender],
    options: SpeedOptions,
    listener: Listener,
) -> list[SpeedRow]:
    """``memory`` of each row, as ``peak_memory`` returns it; null for a row that did not run."""
    parts: list[SpeedRow] = [{"memory": None} for _ in rows]
    listener.begin("peak memory", len(contenders))
    with fresh_process() as process:
        for index, one in contenders.items():
            row = rows[index]
            parts[index]["memory"] = peak_memory(
                *(network_of(row), size_of(row), one.batch, one.setup, options.device),
                process=process,
            )
            listener.step(pair(row))
    return parts


def isolated(
    rows: Sequence[SpeedRow],
    contenders: Mapping[int, Contender],
    options: SpeedOptions,
    listener: Listener,
) -> list[SpeedRow]:
    """Time each row that ran by itself in ``options.processes`` fresh processes, rows in turns.

    Returns ``isolated`` of each row, or null with the reason in ``isolated_error``.
    """
    timed: dict[int, list[tuple[float, float | None]]] = {index: [] for index in contenders}
    parts: list[SpeedRow] = [{"isolated": None, "isolated_error": None} for _ in rows]
    listener.begin("time in fresh processes", len(contenders) * options.processes)
    for _, (index, one) in itertools.product(range(options.processes), contenders.items()):
        row = rows[index]
        if parts[index]["isolated_error"] is None:
            try:
                with FreshProcess() as process:  # a new server, not a new fork: addresses vary too
                    timed[index].append(
                        process.call(
                            _time_alone,
                            network=asdict(network_of(row)),
                            size=row["image_size"],
                            batch=one.batch,
                            setup=asdict(one.setup),
                            device=options.device,
                            threads=torch.get_num_threads(),
                            keep_freed=keeps_freed_memory(),
                            min_time=options.min_time,
                        )
                    )
            except UserError as error:
                parts[index]["isolated_error"] = first_line(error)
        listener.step(pair(row))
    for index, latencies in timed.items():
        times = [milliseconds for milliseconds, _ in latencies]
        shares = [share for _, share in latencies if share is not None]
        if parts[index]["isolated_error"] is None:
            parts[index]["isolated"] = {
                "processes": options.processes,
                "medians_ms": times,
                "median_ms": statistics.median(times),
                "min_ms": min(times),
                "max_ms": max(times),
                "disturbed": max(shares, default=None),
            }
    return parts


def _time_alone(
    network: Mapping[str, Any],
    size: list[int],
    batch: int,
    setup: Mapping[str, Any],
    device: str,
    threads: int,
    keep_freed: bool,
    min_time: float,
) -> tuple[float, float | None]:
    """Median ms of one network, as ``time_models`` times it, in this process; its ``disturbed``."""
    if keep_freed:
        keep_freed_memory()
    torch.set_num_threads(threads)
    ready, as_run = Setup(**setup).prepared(NetworkSpec(**network).build())
    timed = time_models(
        {"alone": ready}, (size[0], size[1]), device, batch, as_run, min_time=min_time
    )
    return timed["alone"].median_ms, timed["alone"].disturbed


def profiles(
    rows: Sequence[SpeedRow],
    contenders: Mapping[int, Contender],
    options: SpeedOptions,
    listener: Listener,
) -> list[SpeedRow]:
    """``profile`` of each row, as ``profile.profile`` returns it; null for one that did not run."""
    parts: list[SpeedRow] = [{"profile": None} for _ in rows]
    listener.begin("profile", len(contenders) + 1)
    peaks = {
        amp: measured_peaks(options.device, amp)
        for amp in {one.setup.amp for one in contenders.values()}
    }
    listener.step("peaks")
    for index, one in contenders.items():
        assert isinstance(one.model, DensePredictor)
        parts[index]["profile"] = profile(
            *(one.model, size_of(rows[index]), options.device, one.batch, one.setup),
            *(peaks[one.setup.amp], options.min_time),
        )
        listener.step(pair(rows[index]))
    return parts
