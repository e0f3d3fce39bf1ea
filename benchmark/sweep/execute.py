"""Execution of a plan, the runs of `run` or `sweep`, in this process or on workers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from benchmark.experiment import distributed
from benchmark.experiment.plan import PlannedRun
from benchmark.results.layout import FILE, tidy
from benchmark.results.result import Result
from benchmark.run.data import Data, comparable, shared_data
from benchmark.run.runner import Runner
from benchmark.sweep.executors.base import Executor
from benchmark.sweep.prepare import Unusable
from benchmark.sweep.watch import Watch
from benchmark.sweep.workers import run_on
from common.files import check_writable


@dataclass(frozen=True)
class Work:
    """A plan: all ``runs``, the ``pending`` ones, and who executes and watches them.

    kept: results of the runs that are not pending, by key. unusable: errors by data that cannot be
    opened. on_data_error: ``record`` the error as the result of each run on the data, or ``stop``
    at once; ``stop`` also ends a plan none of whose runs is possible.
    """

    runs: Sequence[PlannedRun]
    pending: Sequence[PlannedRun]
    kept: Mapping[str, Result]
    unusable: Unusable
    runner: Runner
    watch: Watch
    on_data_error: Literal["record", "stop"] = "record"


def execute(work: Work, executor: Executor | None = None, retries: int = 1) -> list[Result]:
    """Run the pending runs; the results of all runs, in their order.

    Impossible runs are recorded as failed first. The others run comparison by comparison; a
    complete comparison is scored as it ships and timed in turns while nothing else runs here.
    executor: executes runs on workers; a run whose worker dies is repeated up to ``retries`` times.
    Raises UserError if results cannot be written.
    """
    if executor is not None and not executor.same_files:  # the workers may have the data
        work = replace(work, unusable={})
    done = settled(work, devices=executor is None or not executor.elsewhere)
    groups = comparable(work.runs)
    if executor is not None:
        groups = run_on(executor, groups, work.runner, work.watch, done, retries)
    for group in groups:
        _run_here(group, work, done)
        if distributed.lead():
            work.runner.complete(group, done)
    return [done[run.key] for run in work.runs]


def _run_here(group: Sequence[PlannedRun], work: Work, done: dict[str, Result]) -> None:
    """Add the results of one comparison, whose runs share their data, to ``done``."""
    data: dict[tuple[Any, ...], Data] = {}
    broken: Unusable = {}
    for run in group:
        if run.key in done:
            continue
        shared = shared_data(run.config)
        work.watch.started(run)
        try:
            if shared in broken:
                raise broken[shared]
            done[run.key] = work.runner.one(run, data)
        except Exception as error:  # of the data: its other runs would fail too
            if work.on_data_error == "stop":
                raise
            broken[shared] = error
            done[run.key] = work.runner.fail(run, error)
        work.watch.ended(done[run.key])


def settled(work: Work, devices: bool = True) -> dict[str, Result]:
    """Results by key before any run: kept ones, and failures of impossible runs.

    devices: whether runs use this machine's devices. Raises UserError if results cannot be written,
    and the first reason if a plan stops because none of its runs is possible.
    """
    if distributed.lead():
        check_writable(work.runner.results)
    waiting = {run.key for run in work.pending}
    done: dict[str, Result] = {}
    for run in work.runs:
        if run.key not in waiting:
            done[run.key] = work.kept[run.key]
            if distributed.lead():
                tidy(run.folder / FILE)
    reasons = _impossible(work, devices)
    if work.on_data_error == "stop" and 0 < len(reasons) == len(work.pending):
        raise next(iter(reasons.values()))
    for run in work.pending:
        if run.key in reasons:
            work.watch.started(run)
            done[run.key] = work.runner.fail(run, reasons[run.key])
            work.watch.ended(done[run.key])
    return done


NUMBERS = {
    *("seed", "epochs", "lr", "decoder_lr_factor", "momentum", "weight_decay", "warmup"),
    *("clip_grad", "zoom", "flip", "rotate", "colour", "validate_every", "workers"),
}
"""Fields that do not affect whether a run is possible."""


def _impossible(work: Work, devices: bool) -> dict[str, Exception]:
    """Reasons why runs are impossible (data, device, size or network), by key.

    Each distinct network is built once: that takes about a second, and sweeps repeat networks.
    """
    answers: dict[str, Exception | None] = {}
    reasons: dict[str, Exception] = {}
    for run in work.pending:
        config = run.config
        reason = work.unusable.get(shared_data(config))
        if reason is None:
            alike = config.model_dump_json(exclude=NUMBERS)
            if alike not in answers:
                here = config if devices else config.model_copy(update={"device": "cpu"})
                answers[alike] = None
                try:
                    work.runner.check(here)
                except Exception as error:  # the user's, or a defect of one network
                    answers[alike] = error
            reason = answers[alike]
        if reason is not None:
            reasons[run.key] = reason
    return reasons
