"""A sweep's runs, one after another in this process; what fails is recorded, the others go on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmark.experiment.config import RunConfig
from benchmark.experiment.plan import run_key
from benchmark.results.layout import folder_of
from benchmark.results.result import Result
from benchmark.results.store import load
from benchmark.run.data import Data, comparable, shared_data
from benchmark.run.runner import Runner
from benchmark.sweep.file import Cache, unset_variables
from common.errors import DataError
from common.files import check_writable
from common.progress import Listener
from datasets.base import DATASETS
from datasets.pipeline import Split, open_splits

Opened = dict[tuple[Any, ...], dict[str, Split]]
Unusable = dict[tuple[Any, ...], Exception]


class Watch(Listener, Protocol):
    """Told of a sweep's progress, and by the Listener's methods of that of the current run."""

    def started(self, config: RunConfig, where: str = "") -> None:
        """A run begins, or begins again. where: on which machine, if it is not this process."""

    def ended(self, result: Result) -> None:
        """A run that began is finished or has failed; not yet timed."""


def stored(runs: Sequence[RunConfig], results: Path) -> Iterator[tuple[str, Result]]:
    """What the results folder holds of ``runs``, finished or failed, each with its key."""
    for config in runs:
        key = run_key(config)
        result = load(folder_of(results, config, key))
        if result is not None:
            yield key, result


def to_do(runs: Sequence[RunConfig], states: Mapping[str, str], cache: Cache) -> list[RunConfig]:
    """The runs that ``cache`` wants run. states: of stored results, by key.

    only-missing: those without a finished result. always: none. never: all.
    """
    if cache == "always":
        return []
    done = {key for key, state in states.items() if state == "finished" and cache != "never"}
    return [config for config in runs if run_key(config) not in done]


def open_data(runs: Sequence[RunConfig]) -> tuple[Opened, Unusable]:
    """The splits that ``runs`` need, opened but not read, and why others cannot be opened."""
    opened: Opened = {}
    unusable: Unusable = {}
    for config in runs:
        shared = shared_data(config)
        if shared in opened or shared in unusable:
            continue
        try:
            for name in unset_variables(config.data):
                raise DataError(
                    f"data of {config.dataset}: the environment variable {name} is not set: set "
                    f"it, or give --data {config.dataset}=PATH"
                )
            if config.data is None and not DATASETS.get(config.dataset).info.built_in:
                raise DataError(
                    f"{config.dataset}: where are its files? --data {config.dataset}=PATH, or "
                    f"data: {{{config.dataset}: PATH}} in the file"
                )
            assert config.image_size is not None
            opened[shared] = open_splits(
                config.dataset, config.data, config.task.split("+"), config.image_size,
                config.limit,
            )  # fmt: skip
        except Exception as error:  # a reader's defect stops its own data set only
            unusable[shared] = error
    return opened, unusable


@dataclass(frozen=True)
class Work:
    """What a sweep is to do: all its ``runs``, and which of them are ``pending``.

    found: the results of the others, by key. unusable: data that cannot be opened, and why.
    """

    runs: Sequence[RunConfig]
    pending: Sequence[RunConfig]
    found: Mapping[str, Result]
    unusable: Unusable
    runner: Runner
    watch: Watch


def execute(work: Work) -> list[Result]:
    """The results of all runs, after running the pending ones.

    Runs that cannot be are recorded first. Then come those of one comparison after another; each
    comparison is timed in turns as soon as it is complete. Raises UserError if results cannot be
    written.
    """
    done = settled(work)
    for group in comparable(work.runs):
        data: dict[tuple[Any, ...], Data] = {}
        broken: Unusable = {}
        for config in group:
            key, shared = run_key(config), shared_data(config)
            if key in done:
                continue
            work.watch.started(config)
            try:
                if shared in broken:
                    raise broken[shared]
                done[key] = work.runner.one(config, data)
            except Exception as error:  # of the data: its other runs would meet it too
                broken[shared] = error
                done[key] = work.runner.fail(config, error)
            work.watch.ended(done[key])
        work.runner.time(group, done)
    return [done[run_key(config)] for config in work.runs]


def settled(work: Work, devices: bool = True) -> dict[str, Result]:
    """The results that are there before anything runs: kept ones, and of what cannot be run.

    devices: whether the runs' devices are this machine's. Raises UserError if results cannot be
    written.
    """
    check_writable(work.runner.results)
    waiting = {run_key(config) for config in work.pending}
    done = {run_key(c): work.found[run_key(c)] for c in work.runs if run_key(c) not in waiting}
    reasons = _impossible(work.runner, work.pending, work.unusable, devices)
    for config in work.pending:
        if (key := run_key(config)) in reasons:
            work.watch.started(config)
            done[key] = work.runner.fail(config, reasons[key])
            work.watch.ended(done[key])
    return done


NUMBERS = {
    *("seed", "epochs", "lr", "decoder_lr_factor", "momentum", "weight_decay", "warmup"),
    *("clip_grad", "zoom", "flip", "rotate", "colour", "validate_every", "workers"),
}
"""Fields that do not decide whether a run is possible."""


def _impossible(
    runner: Runner, pending: Sequence[RunConfig], unusable: Unusable, devices: bool
) -> dict[str, Exception]:
    """Why runs cannot be, by key: their data, device, size or network. Alike ones are tried once.

    Many a sweep has a hundred runs of each network, and to build one takes a second.
    """
    answers: dict[str, Exception | None] = {}
    reasons: dict[str, Exception] = {}
    for config in pending:
        reason = unusable.get(shared_data(config))
        if reason is None:
            alike = config.model_dump_json(exclude=NUMBERS)
            if alike not in answers:
                here = config if devices else config.model_copy(update={"device": "cpu"})
                try:
                    answers[alike] = next(iter(runner.check([here]).values()), None)
                except Exception as error:  # a defect of one network
                    answers[alike] = error
            reason = answers[alike]
        if reason is not None:
            reasons[run_key(config)] = reason
    return reasons
