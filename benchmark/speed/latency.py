"""Latency, measured alike for every decoder.

A timing is of ``model(images)`` in ``eval()`` and ``inference_mode``: normalisation, backbone,
decoder, head and resizing to the input size. Models to compare take turns in one process, because
on a shared machine only ratios hold.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from benchmark.experiment.environment import device_name
from benchmark.experiment.numerics import autocast
from benchmark.results.result import Speed
from benchmark.speed.disturbance import LIMIT, Watch
from models.predictor import DensePredictor, channels_of

Name = TypeVar("Name")
COMPILED_NETWORKS = 10_000
REPEATS = 2.0
STRETCH = 0.5
"""Seconds that are timed, or timed again, as a whole."""
PAUSE = 0.5
"""Seconds to wait for a disturbance to pass."""


@dataclass(frozen=True)
class Setup:
    """How a network runs: BatchNorm folded or not, compiled or not, memory format, AMP or not."""

    fused: bool = True
    compiled: bool = False
    channels_last: bool = True
    amp: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def prepared(self, model: DensePredictor) -> tuple[nn.Module, "Setup"]:
        """The network to run and its actual setup: not fused where that changes the outputs."""
        ready: nn.Module = model
        fused = self.fused
        if fused:
            try:
                ready = model.fuse()
            except RuntimeError:
                fused = False
        if self.compiled:
            # the limit is of all networks together: those past it (by default 8) run uncompiled
            torch._dynamo.config.cache_size_limit = COMPILED_NETWORKS
            torch._dynamo.config.accumulated_cache_size_limit = COMPILED_NETWORKS
            ready = torch.compile(ready, dynamic=False)  # type: ignore[assignment]
        return ready, replace(self, fused=fused)


PLAIN = Setup()


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one forward. fps: images per second, batch / median.

    disturbed: the share of the processors or the GPU that other work took meanwhile; 0 if a timing
    without it was possible, None if the system does not tell.
    """

    median_ms: float
    p5_ms: float
    p95_ms: float
    iqr_ms: float
    fps: float
    calls: int
    warmup_calls: int
    disturbed: float | None = None


def _summary(seconds: list[float], batch: int, warmup: int, disturbed: float | None) -> Latency:
    p5, p25, median, p75, p95 = np.percentile(np.array(seconds) * 1000, [5, 25, 50, 75, 95])
    return Latency(
        float(median),
        float(p5),
        float(p95),
        float(p75 - p25),
        1000 * batch / float(median),
        len(seconds),
        warmup,
        disturbed,
    )


def forward_call(
    model: nn.Module, size: tuple[int, int], device: str, batch: int = 1, setup: Setup = PLAIN
) -> Callable[[], Any]:
    """A function that runs ``model`` on random images [batch, C, *size] and returns its outputs.

    Moves the model to ``device`` and sets ``eval()``. Call the function in ``inference_mode``.
    """
    kind = torch.device(device)
    x = torch.rand(batch, channels_of(model), *size, generator=torch.Generator().manual_seed(0)).to(
        kind, memory_format=setup.memory_format
    )
    model.eval()
    model.to(kind, memory_format=setup.memory_format)  # type: ignore[call-overload]

    def call() -> Any:
        with autocast(setup.amp, device):
            return model(x)

    return call


@torch.inference_mode()
def first_call(
    model: nn.Module, size: tuple[int, int], device: str, batch: int, setup: Setup = PLAIN
) -> float:
    """Seconds of the first forward with compilation. Raises whatever the model raises."""
    call = forward_call(model, size, device, batch, setup)
    start = time.perf_counter()
    call()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@torch.inference_mode()
def time_models(
    models: Mapping[str, nn.Module],
    size: tuple[int, int],
    device: str = "cpu",
    batch: int | Mapping[str, int] = 1,
    setup: Setup | Mapping[str, Setup] = PLAIN,
    necks: bool = False,
    **protocol: Any,
) -> dict[str, Latency]:
    """Time ``models`` in turns on random images [batch, C, *size], as ``time_calls`` does.

    models: as ``Setup.prepared`` returns them. batch, setup: one for all, or each model's. necks:
    the neck of each model that has one takes turns too, as ``NAME/neck``. protocol: arguments of
    ``time_calls``.
    """
    batches = dict.fromkeys(models, batch) if isinstance(batch, int) else dict(batch)
    setups = dict.fromkeys(models, setup) if isinstance(setup, Setup) else dict(setup)
    calls = {
        name: forward_call(model, size, device, batches[name], setups[name])
        for name, model in models.items()
    }
    timed_as: dict[str, str] = {}
    kinds: dict[tuple[Any, ...], str] = {}  # equal necks on equal maps take equal time
    for name, model in models.items() if necks else ():
        if found := _neck_call(model, size, device, batches[name], setups[name]):
            kind, call = found
            own = f"{name}/neck"
            timed_as[own] = kinds.setdefault(kind, own)
            if timed_as[own] == own:
                calls[own], batches[own] = call, batches[name]
    latencies = time_calls(calls, torch.device(device), batches, **protocol)
    return latencies | {own: latencies[first] for own, first in timed_as.items()}


def _neck_call(
    model: nn.Module, size: tuple[int, int], device: str, batch: int, setup: Setup
) -> tuple[tuple[Any, ...], Callable[[], Any]] | None:
    """What a model's neck is, and a function that runs it alone on the map that it gets there.

    None for a model without one.
    """
    whole = getattr(model, "_orig_mod", model)  # hooks of a compiled network are not called
    neck = whole.backbone.neck if isinstance(whole, DensePredictor) else None
    if neck is None:
        return None
    inputs: list[Any] = []
    hook = neck.register_forward_pre_hook(lambda _, given: inputs.extend(given))
    try:
        forward_call(whole, size, device, batch, setup)()
    finally:
        hook.remove()
    run = torch.compile(neck, dynamic=False) if setup.compiled else neck

    def call() -> Any:
        with autocast(setup.amp, device):
            return run(*inputs)

    given = inputs[0]
    kind = type(neck), tuple(given.shape), given.stride(), given.dtype, setup.compiled
    return kind, call


def time_calls(
    calls: Mapping[Name, Callable[[], object]],
    device: torch.device,
    batch: int | Mapping[Name, int] = 1,
    min_time: float = 2.0,
    min_calls: int = 20,
    warmup_time: float = 0.3,
    block: float = 0.1,
    repeats: float = REPEATS,
) -> dict[Name, Latency]:
    """Time ``calls``, each of which works on ``batch`` images, in turns.

    Each warms up for at least ``warmup_time`` seconds and three calls. Then blocks of about
    ``block`` seconds alternate (A B C, B C A, …) until each has ``min_time`` seconds and
    ``min_calls`` calls; the first call of a block does not count.

    A stretch of blocks in which other work took more than ``disturbance.LIMIT`` is timed again
    later, up to ``repeats`` times the time that all would take without. If the calls then have
    ``min_calls`` undisturbed ones each, these count; else all do, and are marked ``disturbed``.
    """

    def timed(call: Callable[[], object]) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    warmup: dict[Name, int] = {}
    for name, call in calls.items():
        spent, count = 0.0, 0
        while spent < warmup_time or count < 3:
            spent += timed(call)
            count += 1
        warmup[name] = count
    order = list(calls)

    def a_round(seconds: Mapping[Name, list[float]]) -> None:
        for name in order:
            timed(calls[name])
            spent = 0.0
            while spent < block:
                seconds[name].append(timed(calls[name]))
                spent += seconds[name][-1]
        order.append(order.pop(0))

    def enough(seconds: Mapping[Name, list[float]]) -> bool:
        return all(sum(s) >= min_time and len(s) >= min_calls for s in seconds.values())

    seconds, disturbed = _undisturbed(a_round, enough, list(calls), device, min_calls, repeats)
    batches = dict.fromkeys(calls, batch) if isinstance(batch, int) else batch
    return {
        name: _summary(s, batches[name], warmup[name], disturbed) for name, s in seconds.items()
    }


def _undisturbed(
    a_round: Callable[[Mapping[Name, list[float]]], None],
    enough: Callable[[Mapping[Name, list[float]]], bool],
    names: Sequence[Name],
    device: torch.device,
    min_calls: int,
    repeats: float,
) -> tuple[dict[Name, list[float]], float | None]:
    """Seconds of calls by name, until there are ``enough`` that nothing disturbed, or no time.

    a_round: adds to them. Also returns how much the returned ones were disturbed.
    """
    watch = Watch(device)
    quiet: dict[Name, list[float]] = {name: [] for name in names}
    loud: dict[Name, list[float]] = {name: [] for name in names}
    shares: list[tuple[float, float]] = []  # of each stretch, its seconds and what it lost
    began, end, paused = time.perf_counter(), math.inf, 0.0
    while not enough(quiet) and time.perf_counter() < end:
        stretch: dict[Name, list[float]] = {name: [] for name in names}
        while not (watch.age >= STRETCH or enough(_joined(quiet, stretch))):
            a_round(stretch)
        seconds, lost = watch.age, watch.lap()
        if lost is not None:
            shares.append((seconds, lost))
        calm = lost is None or lost < LIMIT
        if calm:
            quiet = _joined(quiet, stretch)
        else:
            loud = _joined(loud, stretch)
        now = time.perf_counter()
        if enough(_joined(quiet, loud)):
            end = min(end, began + repeats * (now - began - paused))
        if not calm:
            pause = min(PAUSE, max(0.0, end - now))
            time.sleep(pause)
            paused += pause
            watch.restart()
    if not shares:
        return quiet, None
    if all(len(s) >= min_calls for s in quiet.values()):
        return quiet, 0.0
    mean = sum(seconds * lost for seconds, lost in shares) / sum(seconds for seconds, _ in shares)
    return _joined(quiet, loud), float(f"{mean:.2g}")


def _joined(
    some: Mapping[Name, list[float]], others: Mapping[Name, list[float]]
) -> dict[Name, list[float]]:
    return {name: [*seconds, *others[name]] for name, seconds in some.items()}


def speed_record(
    latency: Latency,
    size: tuple[int, int],
    device: str,
    setup: Setup,
    interleaved_with: list[str],
    session: str,
    batch: int = 1,
    channels: int = 3,
) -> Speed:
    """A timing with its conditions. session: an id that all timings of one round share."""
    return {
        "median_ms": latency.median_ms,
        "p5_ms": latency.p5_ms,
        "p95_ms": latency.p95_ms,
        "iqr_ms": latency.iqr_ms,
        "fps": latency.fps,
        "calls": latency.calls,
        "warmup_calls": latency.warmup_calls,
        "disturbed": latency.disturbed,
        "batch": batch,
        "size": list(size),
        "channels": channels,
        "device": device,
        "hardware": device_name(device),
        "threads": torch.get_num_threads(),
        "memory_format": "channels_last" if setup.channels_last else "contiguous",
        "fused": setup.fused,
        "compiled": setup.compiled,
        "amp": setup.amp,
        "covers": "normalisation, backbone, decoder, head, resizing to the input size",
        "interleaved_with": interleaved_with,
        "session": session,
    }
