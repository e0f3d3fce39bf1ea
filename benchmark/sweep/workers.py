"""Runs on an executor's workers: a run whose worker dies is repeated, failures are recorded."""

import uuid
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmark.experiment.environment import Environment, environment
from benchmark.experiment.plan import PlannedRun
from benchmark.results.layout import FILE
from benchmark.results.result import Result
from benchmark.results.store import load
from benchmark.run.data import shared_data
from benchmark.run.runner import Runner
from benchmark.sweep.executors.base import Answer, Ended, Executor, Job, Settings, Started
from benchmark.sweep.executors.work import token_file
from benchmark.sweep.prepare import Unusable
from benchmark.sweep.watch import Watch
from common.errors import DataError, UserError
from common.files import write_atomic

OWN = {"results", "listener", "threads"}
"""Fields of Runner that differ between driver and workers."""


def run_on(
    executor: Executor,
    groups: Sequence[list[PlannedRun]],
    runner: Runner,
    watch: Watch,
    done: dict[str, Result],
    retries: int,
) -> list[list[PlannedRun]]:
    """Run ``groups``, comparisons, on workers and add their results to ``done``.

    A run whose worker dies is repeated up to ``retries`` times, then recorded as failed, unless its
    result was finished before. Returns the comparisons that remain to be timed here. Raises
    UserError if results cannot be written.
    """
    settings = _settings(executor, runner)
    token = token_file(settings)
    write_atomic(token, "")
    try:
        with executor:
            course = _Course(executor, settings, runner, watch, done, retries)
            # a comparison's runs one after another, so that workers keep its data
            course.run([run for group in groups for run in group if run.key not in done])
            left = [group for group in groups if not course.time(group)]
        if executor.threads is not None:
            runner.threads = executor.threads
        return left
    finally:
        token.unlink(missing_ok=True)


def _settings(executor: Executor, runner: Runner) -> Settings:
    facts = environment("cpu")
    return Settings(
        results=str(runner.results.absolute()),
        token=uuid.uuid4().hex[:8],
        cwd=str(Path.cwd()),
        threads=executor.threads,
        runner={f.name: getattr(runner, f.name) for f in fields(runner) if f.name not in OWN},
        git=Environment(commit=facts["commit"], uncommitted_changes=facts["uncommitted_changes"]),
    )


@dataclass
class _Course:
    """The state of a sweep in progress.

    deaths, places: workers' deaths and machine by run key. stamps: ``_stamp`` of each run's folder
    at its submission. broken: errors by data that cannot be used. unshared: whether workers do not
    see the results folder.
    """

    executor: Executor
    settings: Settings
    runner: Runner
    watch: Watch
    done: dict[str, Result]
    retries: int
    deaths: Counter[str] = field(default_factory=Counter)
    places: dict[str, str] = field(default_factory=dict)
    stamps: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    broken: Unusable = field(default_factory=dict)
    unshared: bool = False

    def run(self, runs: Sequence[PlannedRun]) -> None:
        """Add a result for each of ``runs`` to ``done``."""
        queue = deque(runs)
        flying: dict[str, PlannedRun] = {}
        while queue or flying:
            jobs: list[Job] = []
            while queue and len(flying) < self.executor.room:
                run = queue.popleft()
                broken = self.broken.get(shared_data(run.config))
                if broken is not None:
                    self._end(run, self.runner.fail(run, broken))
                    continue
                name = f"{run.key}-{self.settings.token}-{self.deaths[run.key]}"
                self.stamps[run.key] = _stamp(run.folder)
                jobs.append(Job("run", name, (run.config.model_dump_json(),), self.settings))
                flying[name] = run
            self.executor.submit(jobs)
            for event in self.executor.wait() if flying else ():
                if event.job.name not in flying:  # a late start of a job that has ended
                    continue
                run = flying[event.job.name]
                if isinstance(event, Started):
                    self._begin(run, event.where)
                    continue
                del flying[event.job.name]
                result = self._result(run, event)
                if result is None:
                    queue.appendleft(run)
                else:
                    self._end(run, result)

    def time(self, group: Sequence[PlannedRun]) -> bool:
        """Time a comparison with jobs of the executor, one for each kind of device.

        A job runs on the machine of one of its runs. Returns False if the driver has to time it.
        """
        if not self.executor.elsewhere:
            return False
        kinds: dict[tuple[Any, ...], list[PlannedRun]] = {}
        for run in group:
            result = self.done[run.key]
            if result.status == "finished":
                kinds.setdefault(result.machine, []).append(run)
        for number, runs in enumerate(kinds.values()):
            if not any(self.runner.lacks(self.done[run.key]) for run in runs):
                continue  # else all, in turns
            if self.unshared:
                return False
            near = next((p for run in runs if (p := self.places.get(run.key))), None)
            name = f"time-{runs[0].key}-{self.settings.token}-{number}"
            texts = tuple(run.config.model_dump_json() for run in runs)
            self.executor.submit([Job("time", name, texts, self.settings, near)])
            ended = None
            while ended is None:
                ended = next((e for e in self.executor.wait() if isinstance(e, Ended)), None)
            if ended.answer is None:
                self.watch.message(f"not timed: {ended.died}")
            else:
                self._report(ended.answer)
                for text in ended.answer.results:
                    result = Result.model_validate_json(text)
                    self.done[result.key] = result
        return not self.unshared

    def _begin(self, run: PlannedRun, where: str) -> None:
        self.places[run.key] = where
        self.watch.started(run, where)

    def _end(self, run: PlannedRun, result: Result) -> None:
        if run.key not in self.places:  # no Started event has arrived
            self._begin(run, "")
        self.done[run.key] = result
        self.watch.ended(result)

    def _report(self, answer: Answer) -> None:
        for text in answer.messages:
            self.watch.message(text)
        if answer.stop is not None:
            raise UserError(answer.stop)
        self.unshared = self.unshared or not answer.shared

    def _result(self, run: PlannedRun, ended: Ended) -> Result | None:
        """The result of a run whose job has ended; None if the run is to be repeated."""
        key, folder = run.key, run.folder
        if ended.answer is None:
            written = load(folder) if _stamp(folder) != self.stamps[key] else None
            if written is not None and written.status == "finished":
                return written  # written just before the death
            self.deaths[key] += 1
            if self.deaths[key] <= self.retries:
                again = f"run again ({self.deaths[key]} of {self.retries})"
                self.watch.message(f"{folder.name}: its worker died: {ended.died}: {again}")
                return None
            times = f", {self.deaths[key]} times" if self.retries else ""
            return self.runner.fail(run, UserError(f"its worker died{times}: {ended.died}"))
        self._report(ended.answer)
        result = Result.model_validate_json(ended.answer.results[0])
        if ended.answer.broken:
            self.broken[shared_data(run.config)] = DataError(result.error)
        if not ended.answer.shared:
            for name, content in ended.answer.files.items():
                write_atomic(folder / name, content)
            self.runner.record(folder, result)
        return result


def _stamp(folder: Path) -> tuple[int, int] | None:
    """Time and inode of a run's result file, which change when it is replaced; None without one."""
    try:
        status = (folder / FILE).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
