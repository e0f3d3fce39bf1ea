"""A sweep's runs through an executor: what dies is run again, what fails is recorded."""

import uuid
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from benchmark.experiment.config import RunConfig
from benchmark.experiment.environment import environment
from benchmark.experiment.plan import run_key
from benchmark.results.layout import FILE, folder_of
from benchmark.results.result import Result
from benchmark.results.store import load
from benchmark.run.data import comparable, shared_data
from benchmark.run.runner import Runner
from benchmark.sweep.execute import Unusable, Watch, Work, settled
from benchmark.sweep.executors.base import Answer, Ended, Executor, Job, Settings, Started
from benchmark.sweep.executors.work import token_file
from common.errors import DataError, UserError
from common.files import write_atomic

OWN = {"results", "overwrite", "listener", "threads", "skipped"}
"""Fields of Runner that are not the same for driver and workers."""


def execute_on(executor: Executor, work: Work, retries: int = 1) -> list[Result]:
    """``sweeping.execute`` with workers.

    A run whose worker dies is run again up to ``retries`` times, then recorded as failed; a result
    that was finished before the death counts. When nothing runs any more, one comparison after
    another is timed. Raises UserError if results cannot be written.
    """
    if not executor.same_files:  # the workers will try
        work = replace(work, unusable={})
    done = settled(work, devices=not executor.elsewhere)
    runs, runner = work.runs, work.runner
    settings = _settings(executor, runner)
    token = token_file(settings)
    write_atomic(token, "")
    try:
        with executor:
            course = _Course(executor, settings, runner, work.watch, done, retries)
            # a comparison's runs one after another, so that workers keep its data
            course.run([c for group in comparable(runs) for c in group if run_key(c) not in done])
            groups = [group for group in comparable(runs) if not course.time(group)]
        if executor.threads is not None:
            runner.threads = executor.threads
        for group in groups:
            runner.time(group, done)
    finally:
        token.unlink(missing_ok=True)
    return [done[run_key(config)] for config in runs]


def _settings(executor: Executor, runner: Runner) -> Settings:
    facts = environment("cpu")
    return Settings(
        results=str(runner.results.absolute()),
        token=uuid.uuid4().hex[:8],
        cwd=str(Path.cwd()),
        threads=executor.threads,
        runner={f.name: getattr(runner, f.name) for f in fields(runner) if f.name not in OWN},
        git={name: facts[name] for name in ("commit", "uncommitted_changes")},
    )


@dataclass
class _Course:
    """What is known while a sweep goes on.

    places: the machine of each run, by key. stamps: what each run's file was when it was submitted.
    broken: why data cannot be used. apart: whether workers do not see the results folder.
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
    apart: bool = False

    def run(self, configs: Sequence[RunConfig]) -> None:
        """Fill ``done`` with the results of ``configs``, each once."""
        queue = deque(configs)
        flying: dict[str, RunConfig] = {}
        while queue or flying:
            jobs: list[Job] = []
            while queue and len(flying) < self.executor.room:
                config = queue.popleft()
                broken = self.broken.get(shared_data(config))
                if broken is not None:
                    self._end(config, self.runner.fail(config, broken))
                    continue
                key = run_key(config)
                name = f"{key}-{self.settings.token}-{self.deaths[key]}"
                self.stamps[key] = _stamp(self._folder(config))
                jobs.append(Job("run", name, (config.model_dump_json(),), self.settings))
                flying[name] = config
            self.executor.submit(jobs)
            for event in self.executor.wait() if flying else ():
                if event.job.name not in flying:  # told late that it has begun
                    continue
                config = flying[event.job.name]
                if isinstance(event, Started):
                    self._begin(config, event.where)
                    continue
                del flying[event.job.name]
                result = self._result(config, event)
                if result is None:
                    queue.appendleft(config)
                else:
                    self._end(config, result)

    def time(self, group: Sequence[RunConfig]) -> bool:
        """Time a comparison by jobs of the executor, one for each kind of device; False: not here.

        A job is on the machine of one of its runs.
        """
        if not self.executor.elsewhere:
            return False
        kinds: dict[tuple[Any, ...], list[RunConfig]] = {}
        for config in group:
            result = self.done[run_key(config)]
            if result.status == "finished" and (result.speed is None or self.runner.retime):
                seen = result.environment
                kinds.setdefault((seen["device"], seen["threads"]), []).append(config)
        for number, configs in enumerate(kinds.values()):
            if self.apart:
                return False
            near = next((p for c in configs if (p := self.places.get(run_key(c)))), None)
            name = f"time-{run_key(configs[0])}-{self.settings.token}-{number}"
            texts = tuple(config.model_dump_json() for config in configs)
            self.executor.submit([Job("time", name, texts, self.settings, near)])
            ended = None
            while ended is None:
                ended = next((e for e in self.executor.wait() if isinstance(e, Ended)), None)
            if ended.answer is None:
                self.watch.message(f"not timed: {ended.died}")
            else:
                self._tell(ended.answer)
                for text in ended.answer.results:
                    result = Result.model_validate_json(text)
                    self.done[result.key] = result
        return not self.apart

    def _folder(self, config: RunConfig) -> Path:
        return folder_of(self.runner.results, config, run_key(config))

    def _begin(self, config: RunConfig, where: str) -> None:
        self.places[run_key(config)] = where
        self.watch.started(config, where)

    def _end(self, config: RunConfig, result: Result) -> None:
        if result.key not in self.places:  # nobody told that it has begun
            self._begin(config, "")
        self.done[result.key] = result
        self.watch.ended(result)

    def _tell(self, answer: Answer) -> None:
        for text in answer.messages:
            self.watch.message(text)
        if answer.stop is not None:
            raise UserError(answer.stop)
        self.apart = self.apart or not answer.shared

    def _result(self, config: RunConfig, ended: Ended) -> Result | None:
        """What became of a run; None if it is to be run again."""
        key, folder = run_key(config), self._folder(config)
        if ended.answer is None:
            made = load(folder) if _stamp(folder) != self.stamps[key] else None
            if made is not None and made.status == "finished":
                return made  # just before the death
            self.deaths[key] += 1
            if self.deaths[key] <= self.retries:
                again = f"run again ({self.deaths[key]} of {self.retries})"
                self.watch.message(f"{folder.name}: its worker died: {ended.died}: {again}")
                return None
            times = f", {self.deaths[key]} times" if self.retries else ""
            return self.runner.fail(config, UserError(f"its worker died{times}: {ended.died}"))
        self._tell(ended.answer)
        result = Result.model_validate_json(ended.answer.results[0])
        if ended.answer.broken:
            self.broken[shared_data(config)] = DataError(result.error)
        if not ended.answer.shared:
            for name, content in ended.answer.files.items():
                write_atomic(folder / name, content)
            Runner._record(folder, result)
        return result


def _stamp(folder: Path) -> tuple[int, int] | None:
    """What tells one result file from another that has taken its place."""
    try:
        status = (folder / FILE).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
