"""Trained networks of one comparison, timed in turns: the very networks that were scored."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic_core import to_json

from benchmark.experiment.environment import device_name
from benchmark.experiment.network import spec_of, unfilled_model
from benchmark.experiment.plan import PlannedRun, make_tasks
from benchmark.results.checkpoint import checkpoint_file, load_checkpoint
from benchmark.results.result import PairScores, Result, Speed
from benchmark.results.runtimes import Pair, pair_of
from benchmark.results.store import amend
from benchmark.speed.latency import Setup, first_call, speed_record, time_models
from benchmark.speed.memory import fresh_process, peak_memory
from benchmark.speed.runtimes import NOTHING, Preparation, Ready, unavailable
from common.errors import UserError, reason
from common.progress import Listener
from models.predictor import DensePredictor

Way = tuple[str, str, tuple[str, ...]]
"""Runtime, precision, layers of int8 in float."""


@dataclass(frozen=True)
class _Network:
    """A network of the comparison, with the weights of the first of the runs that it is of."""

    model: DensePredictor
    runs: list[PlannedRun]
    results: list[Result]

    @property
    def first(self) -> PlannedRun:
        return self.runs[0]

    def ways(self, setup: Setup) -> dict[Way, None]:
        """Ways in which it was scored, but for ``setup``, in which it is timed in any case."""
        pairs = [pair for result in self.results for pair in result.pairs if pair.reason is None]
        plain = pair_of(self.first.config.device, setup.amp)
        return dict.fromkeys(_way(pair) for pair in pairs if pair.pair != plain)


@dataclass(frozen=True)
class _Contender:
    """A network as it runs. way: in which it was scored; None: as the board shows it."""

    network: _Network
    way: Way | None
    ready: Ready

    @property
    def shown(self) -> str:
        decoder = self.network.first.config.decoder
        return decoder if self.way is None else f"{decoder} in {self.way[0]} {self.way[1]}"


def _way(pair: PairScores) -> Way:
    return (*pair.pair, pair.kept_in_float)


def time_in_turns(
    finished: Sequence[PlannedRun],
    done: Mapping[str, Result],
    min_time: float,
    threads: int,
    listener: Listener,
) -> None:
    """Time the ``finished`` runs of a comparison and write it into ``done``, their results by key.

    Each takes turns as the board shows it and in the runtimes and precisions that it was scored in.
    min_time: seconds for each. Of runs that differ in their weights only, one is timed and named in
    ``weights_of`` of all. Runs of another machine or number of threads, and runs whose weights are
    not here, are left out with a message. Raises UserError for damaged weights.
    """
    first = finished[0].config
    size, device = first.image_size, first.device
    torch.set_num_threads(threads)
    here = device_name(device), torch.get_num_threads()
    networks = _networks(finished, done, here, listener)
    if not networks:
        return
    listener.begin("time in turns", 1 + len(networks))
    session = uuid.uuid4().hex[:8]
    start = time.perf_counter()
    with Preparation(Setup(), static=_static(networks)) as prepare:
        failed: dict[tuple[str, Way], str] = {}
        contenders = [
            contender
            for network in networks
            for contender in _contenders(network, Setup(amp=first.amp), prepare, failed)
        ]
        latencies = time_models(
            {str(place): one.ready.model for place, one in enumerate(contenders)},
            *(size, device),
            setup={str(place): one.ready.setup for place, one in enumerate(contenders)},
            necks=True,
            min_time=min_time,
        )
    listener.step()
    for (key, way), why in failed.items():
        name = next(one.first.config.decoder for one in networks if one.first.key == key)
        listener.message(f"{name}: not timed in {way[0]} {way[1]}: {why}")
    if share := max(one.disturbed or 0.0 for one in latencies.values()):
        listener.message(
            f"timed while other work took {share:.0%} of the processors: time again with --retime "
            "on an idle machine"
        )
    names = {one.shown for one in contenders}
    speeds: dict[tuple[str, Way | None], Speed] = {}
    for place, one in enumerate(contenders):
        run = one.network.first
        speed = speed_record(
            *(latencies[str(place)], size, device, one.ready.setup),
            *(sorted(names - {one.shown}), session),
            channels=run.config.channels,
        )
        speed["weights_of"] = run.key
        if one.way is None and (neck := latencies.get(f"{place}/neck")) is not None:
            speed["neck_ms"] = neck.median_ms
        speeds[run.key, one.way] = speed
    with fresh_process() as process:
        for one in contenders:
            if one.way is None:
                speed = speeds[one.network.first.key, None]
                config = one.network.first.config
                memory = peak_memory(
                    spec_of(config, make_tasks(config)),
                    *(size, 1, one.ready.setup, device),
                    process=process,
                )
                speed["peak_memory_mb"] = _megabytes(memory["forward_bytes"])
                speed["weights_mb"] = _megabytes(memory["weights_bytes"])
                speed["peak_memory_how"] = memory["error"] or memory["how"]
                _record(one.network, pair_of(device, first.amp), speeds, failed, start)
                listener.step()


def _record(
    network: _Network,
    plain: Pair,
    speeds: Mapping[tuple[str, Way | None], Speed],
    failed: Mapping[tuple[str, Way], str],
    start: float,
) -> None:
    """Write the ``speeds`` of a network into its results, or why there is none.

    plain: how the board shows it.
    """
    key = network.first.key
    for run, result in zip(network.runs, network.results, strict=True):
        result.speed = speeds[key, None]
        for pair in result.pairs:
            if pair.reason is None:
                way = None if pair.pair == plain else _way(pair)
                pair.speed = speeds.get((key, way), pair.speed)
                pair.untimed = failed.get((key, _way(pair)))
        result.seconds["time"] = time.perf_counter() - start
        amend(run.folder, result)


def _static(networks: Sequence[_Network]) -> bool:
    """Whether the scored files take images of one size, which the data's sizes decide."""
    pairs = [pair for one in networks for result in one.results for pair in result.pairs]
    return all(pair.static for pair in pairs)


def _contenders(
    network: _Network, setup: Setup, prepare: Preparation, failed: dict[tuple[str, Way], str]
) -> Iterator[_Contender]:
    """The network as the board shows it, and in each way that it was scored in and runs here.

    failed: takes the reasons why it does not run in others.
    """
    config = network.first.config
    yield _Contender(network, None, Ready(*setup.prepared(network.model), NOTHING))
    for runtime, precision, in_float in network.ways(setup):
        pair = runtime, precision
        try:
            if why := unavailable(pair, config.device):
                raise UserError(why)
            ready = prepare(network.first.key, network.model, pair, config.image_size, 1, in_float)
            # alone first: one that fails must not fail the others
            first_call(ready.model, config.image_size, config.device, 1, ready.setup)
        except Exception as error:  # exporters and runtimes may raise anything
            failed[network.first.key, (*pair, in_float)] = reason(error)
        else:
            yield _Contender(network, (*pair, in_float), ready)


def _networks(
    finished: Sequence[PlannedRun],
    done: Mapping[str, Result],
    here: tuple[str, int],
    listener: Listener,
) -> list[_Network]:
    """The distinct networks of the ``finished`` runs. here: this device and its threads."""
    networks: dict[bytes, _Network] = {}
    for run in finished:
        config, folder = run.config, run.folder
        if not checkpoint_file(folder, config.score).is_file():
            listener.message(f"not timed: {folder}: its checkpoint is not there")
        elif (there := done[run.key].machine) != here:
            # a board is of one machine, accuracy and latency alike
            listener.message(
                f"not timed: {folder}: its run was on {there[0]}, {there[1]} threads, this is "
                f"{here[0]}, {here[1]}: use speed --json here, and recommend --speed"
            )
        else:
            tasks = make_tasks(config)
            kind = to_json(spec_of(config, tasks))
            if kind not in networks:
                model = unfilled_model(config, tasks)
                load_checkpoint(folder, config.score, model)
                networks[kind] = _Network(model, [], [])
            networks[kind].runs.append(run)
            networks[kind].results.append(done[run.key])
    return list(networks.values())


def _megabytes(count: int | None) -> float | None:
    return None if count is None else count / 1e6
