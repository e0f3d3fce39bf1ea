"""Estimates of how long runs will take.

Source of an estimate: finished runs of the same network on this device, if there are any. Else each
distinct network and size trains three steps, the last two of which are timed, and a few images of
each data set are read and scored. Networks for which the budget leaves no time are scaled by
multiply-accumulates from a measured one: a rough estimate, since it ignores memory bandwidth.
"""

import functools
import json
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from benchmark.experiment.config import ResolvedRun, RunConfig
from benchmark.experiment.environment import device_name
from benchmark.experiment.network import UNTRAINED, build_model, check_device
from benchmark.experiment.plan import PlannedRun, make_tasks
from benchmark.results.result import Result
from benchmark.run.data import shared_data
from benchmark.scoring.evaluate import evaluate, metrics_of, score_constant
from benchmark.speed.count import count_macs
from benchmark.training.network_training import NetworkTraining, validation_key
from common.errors import UserError
from common.progress import Silent
from datasets.pipeline import CACHE_BYTES, Resized, Split
from models.predictor import DensePredictor

STEPS = 3
IMAGES = 8
TIMING = 4.5  # seconds to time a network in turns and measure its memory, with warm-up
Splits = Mapping[str, Split]


@dataclass(frozen=True)
class Estimate:
    """Seconds of a run, None if unknown, and the source of the estimate."""

    seconds: float | None
    source: str


UNKNOWN = Estimate(None, "unknown")


@dataclass
class _Rates:
    """Measurements. step, build (seconds), macs: by network; the others, per image, by scoring."""

    step: dict[Any, float] = field(default_factory=dict)
    build: dict[Any, float] = field(default_factory=dict)
    macs: dict[Any, int] = field(default_factory=dict)
    read: dict[Any, float] = field(default_factory=dict)
    cached: dict[Any, bool] = field(default_factory=dict)
    validated: dict[Any, float] = field(default_factory=dict)
    scored: dict[Any, float] = field(default_factory=dict)


def _surroundings(config: RunConfig) -> tuple[Any, ...]:
    """Key of networks that differ only in the decoder."""
    return (
        *(config.backbone, json.dumps(config.backbone_args, sort_keys=True)),
        *(config.image_size, config.crop_size, config.batch_size, config.optimizer),
        *(config.device, config.threads, config.amp, config.ema is None),
        *(config.task.count("+"), config.separate_decoders, len(config.mean or ())),
    )


def _network(config: RunConfig) -> tuple[Any, ...]:
    wiring = json.dumps(config.wiring, sort_keys=True) if config.wiring else config.decoder
    return ((wiring, config.width, config.match_undilated), *_surroundings(config))


def _scoring(config: RunConfig) -> tuple[Any, ...]:
    return (shared_data(config), config.backbone, config.device, config.threads, config.amp)


def _alike(config: RunConfig) -> tuple[Any, ...]:
    """Key of runs of the same speed: without seed, epochs and learning rates."""
    shared = (config.task, config.dataset, config.limit, config.workers, config.validate_every)
    return (_network(config), shared, config.steps, config.split)


def estimate(
    pending: Sequence[PlannedRun],
    finished: Iterable[Result],
    opened: Mapping[Any, Splits],
    budget: float = 20.0,
) -> dict[str, Estimate]:
    """Estimates for the runs of ``pending``, by key.

    finished: results to estimate from. opened: splits by ``shared_data``; runs without are unknown.
    budget: seconds to spend on measurements. The time to read a data set counts for its first run,
    the time to measure a network's speed for the first run of it.
    """
    if not pending:
        return {}
    known: dict[Any, list[_Spent]] = {}
    reading: dict[Any, list[float]] = {}
    for result in finished:
        if result.status == "finished" and result.config.epochs and _same_machine(result):
            if {"train", "total"} <= result.seconds.keys():
                known.setdefault(_alike(result.config), []).append(_Spent.of(result))
            if "data" in result.seconds:
                shared = shared_data(result.config)
                reading.setdefault(_read_alike(shared), []).append(result.seconds["data"])
    rates = _Rates()
    networks: dict[Any, ResolvedRun] = {}
    for run in pending:
        if (alike := _alike(run.config)) not in known and shared_data(run.config) in opened:
            networks.setdefault(alike, run.config)
    _measure(
        list(networks.values()),
        *(opened, rates, time.perf_counter() + budget),
    )
    estimates: dict[str, Estimate] = {}
    read: set[Any] = set()
    timed: set[Any] = set()
    for run in pending:
        config, shared = run.config, shared_data(run.config)
        splits = opened.get(shared)
        if splits is None:
            estimates[run.key] = UNKNOWN
            continue
        past = known.get(_alike(config))
        expected, timing = (
            _from_finished(config, past) if past else _from_rates(config, splits, rates)
        )
        network = (_network(config), config.task, config.dataset)
        if expected.seconds is not None and network not in timed:
            timed.add(network)
            expected = Estimate(expected.seconds + timing, expected.source)
        if expected.seconds is not None and shared not in read:
            read.add(shared)
            seconds = _reading(shared, splits, reading, rates, _scoring(config))
            expected = Estimate(expected.seconds + seconds, expected.source)
        estimates[run.key] = expected
    return estimates


def _same_machine(result: Result) -> bool:
    threads = result.config.threads or torch.get_num_threads()
    return result.machine == (_here(result.config.device), threads)


@functools.lru_cache(maxsize=64)
def _here(device: str) -> str | None:
    try:
        return device_name(device)
    except (RuntimeError, AssertionError):  # this machine lacks the CUDA device
        return None


def _read_alike(shared: tuple[Any, ...]) -> tuple[Any, ...]:
    task, dataset, _, *others = shared  # without the path
    return (task, dataset, *others)


@dataclass(frozen=True)
class _Spent:
    """Seconds of a finished run with ``epochs`` epochs."""

    epochs: int
    train: float
    total: float
    timing: float

    @classmethod
    def of(cls, result: Result) -> "_Spent":
        spent = result.seconds
        timing = min(spent.get("time", TIMING), TIMING)
        return cls(result.config.epochs or 1, spent["train"], spent["total"], timing)


def _from_finished(config: ResolvedRun, past: Sequence[_Spent]) -> tuple[Estimate, float]:
    """Median of past runs, with training scaled by epochs; and seconds to time the network."""

    def seconds(spent: _Spent) -> float:
        longer = spent.train * (config.epochs / spent.epochs - 1)
        return spent.total + longer

    timing = statistics.median(spent.timing for spent in past)
    return Estimate(statistics.median(map(seconds, past)), "as finished runs"), timing


def _from_rates(config: ResolvedRun, splits: Splits, rates: _Rates) -> tuple[Estimate, float]:
    """Measured seconds × counts of steps and images; and seconds to time the network."""
    network, scoring = _network(config), _scoring(config)
    step, source = rates.step.get(network), "measured"
    if step is None:
        step, source = _scaled(config, rates), "scaled by MACs"
    if step is None or scoring not in rates.scored:
        return UNKNOWN, 0.0
    images = len(splits["train"])
    batch = min(config.batch_size, images)
    if not rates.cached[scoring]:
        reading = batch * rates.read[scoring]
        step = max(step, reading / config.workers) if config.workers else step + reading
    only_scored = config.epochs == 1 and config.split == "val"
    validations = 0 if only_scored else -(-config.epochs // config.validate_every)
    seconds = (
        step * (config.steps or config.epochs * (images // batch))
        + validations * len(splits["val"]) * rates.validated[scoring]
        + len(splits["test"]) * rates.scored[scoring]
        + rates.build.get(network, 0.5)
    )
    timing = rates.build.get(network, 0.5) + max(TIMING, 20 * step / (3 * batch))
    return Estimate(seconds, source), timing


def _scaled(config: ResolvedRun, rates: _Rates) -> float | None:
    """Seconds a step, scaled by MACs from a measured network that differs only in the decoder."""
    around = _surroundings(config)
    relatives = [network for network in rates.step if network[1:] == around]
    if not relatives:
        return None
    try:
        macs = _macs(_unloaded(config))
    except UserError:
        return None
    nearest = min(relatives, key=lambda network: abs(rates.macs[network] - macs))
    return rates.step[nearest] * macs / rates.macs[nearest]


def _reading(
    shared: tuple[Any, ...],
    splits: Splits,
    known: Mapping[Any, Sequence[float]],
    rates: _Rates,
    scoring: Any,
) -> float:
    past = known.get(_read_alike(shared))
    if past:
        return statistics.median(past)
    return sum(map(len, splits.values())) * rates.read.get(scoring, 0.0)


def _unloaded(config: ResolvedRun) -> ResolvedRun:
    """The configuration without weights, which may be missing and do not change the speed."""
    return config.model_copy(update=UNTRAINED)


def _macs(config: ResolvedRun, model: DensePredictor | None = None) -> int:
    model = model or build_model(config, make_tasks(config))
    return sum(count_macs(model, config.image_size).values())


def _measure(
    runs: Sequence[ResolvedRun], opened: Mapping[Any, Splits], rates: _Rates, end: float
) -> None:
    """Fill ``rates`` until the time ``end``, first from runs that are least like measured ones."""
    threads = torch.get_num_threads()

    def novelty(config: ResolvedRun) -> int:
        relatives = {network[1:] for network in rates.step}
        new = (
            _scoring(config) not in rates.scored,
            _surroundings(config) not in relatives,
            _network(config) not in rates.step,
        )
        return 4 * new[0] + 2 * new[1] + new[2]

    left = list(runs)
    while left and time.perf_counter() < end:
        config = max(left, key=novelty)
        if not novelty(config):
            break
        left.remove(config)
        torch.set_num_threads(config.threads or threads)
        try:
            check_device(config.device)
            _measure_one(_unloaded(config), opened[shared_data(config)], rates)
        except Exception:  # the run itself reports it
            continue
    torch.set_num_threads(threads)


def _few(split: Split, count: int) -> Split:
    return Split(split.data, split.indices[:count], split.name)


def _measure_one(config: ResolvedRun, splits: Splits, rates: _Rates) -> None:
    """Read a few images, train ``STEPS`` steps on them with the loop of a run, and score."""
    network, scoring = _network(config), _scoring(config)
    tasks = make_tasks(config)
    targets = [task.target for task in tasks]
    start = time.perf_counter()
    few = {"train": config.batch_size, "val": IMAGES, "test": IMAGES}
    parts = {
        name: Resized(_few(splits[name], count), config.image_size, targets, name == "train")
        for name, count in few.items()
    }
    samples = [part[index] for part in parts.values() for index in range(len(part))]
    for task in tasks:
        score_constant(task, parts["train"], parts["test"], Silent())
    read = (time.perf_counter() - start) / len(samples)
    sample = parts["train"][0]
    size = sum(t.numel() * t.element_size() for t in (sample.image, *sample.targets.values()))

    start = time.perf_counter()
    model = build_model(config, tasks)
    macs = _macs(config, model)
    build = time.perf_counter() - start
    moments: list[float] = []
    spent = {"val": 0.0, "test": 0.0}

    class Clock(Silent):
        def step(self, note: str = "") -> None:  # noqa: ARG002
            moments.append(time.perf_counter())

    def score(net: nn.Module, split: str) -> dict[str, float]:
        begin = time.perf_counter()
        fresh = {t: t.validator() if split == "val" else t.accumulator() for t in tasks}
        evaluate(config, net, fresh, parts[split])
        numbers = {
            validation_key(tasks, task, name): value
            for task, accumulator in fresh.items()
            for name, value in metrics_of(accumulator).items()
        }
        spent[split] = (time.perf_counter() - begin) / len(parts[split])
        return numbers

    def nothing(*_: Any) -> None: ...

    # a learning rate at which no network diverges
    changes = {"epochs": STEPS, "steps": None, "validate_every": STEPS, "workers": 0, "lr": 1e-9}
    short = config.model_copy(update=changes)
    NetworkTraining(
        short, model, tasks, parts["train"], lambda net: score(net, "val"), nothing
    ).fit(nothing, Clock())
    score(model, "test")
    rates.step[network] = (moments[-1] - moments[0]) / (STEPS - 1)
    rates.build[network], rates.macs[network] = build, macs
    rates.read[scoring], rates.cached[scoring] = read, size * len(splits["train"]) <= CACHE_BYTES
    rates.validated[scoring], rates.scored[scoring] = spent["val"], spent["test"]
