"""A job on a worker, the same for all executors."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark.experiment.config import ResolvedRun
from benchmark.experiment.plan import PlannedRun, planned
from benchmark.results.layout import FILE
from benchmark.results.store import save
from benchmark.run.data import Data, shared_data
from benchmark.run.runner import Runner
from benchmark.sweep.executors.base import Answer, Job, Settings
from benchmark.sweep.prepare import stored
from common.errors import UserError
from common.memory import keep_freed_memory
from common.progress import Silent

SMALL = 64_000_000
"""Most bytes of a run's folder that a worker sends if it does not share the driver's."""

_data: dict[tuple[Any, ...], Data] = {}


class _Recorder(Silent):
    """Records the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def token_file(settings: Settings) -> Path:
    """The file by which a worker recognises the driver's results folder."""
    return Path(settings.results) / f".sweep-{settings.token}"


def perform(job: Job) -> Answer:
    """Perform ``job``; the answer holds its results or errors."""
    keep_freed_memory()
    listener = _Recorder()
    settings = job.settings
    with suppress(OSError):
        os.chdir(settings.cwd)
    shared = token_file(settings).is_file()
    if job.kind == "time" and not shared:
        return Answer(shared=False)  # the networks to time are not here
    folder = Path(settings.results) if shared else Path(tempfile.mkdtemp(prefix="sweep-"))
    runner = Runner(folder, listener=listener, **settings.runner)
    if settings.threads is not None:
        runner.threads = settings.threads
    runs = planned(map(ResolvedRun.model_validate_json, job.configs), folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="timm|kornia|torch")
        warnings.showwarning = lambda message, *_, **__: listener.message(f"warning: {message}")
        try:
            if job.kind == "time":
                return _time(runs, runner, listener)
            return _run(runs[0], runner, listener, settings, shared)
        except UserError as error:  # of the results folder: the next run would fail too
            return Answer((), tuple(listener.messages), stop=str(error))


def _time(runs: Sequence[PlannedRun], runner: Runner, listener: _Recorder) -> Answer:
    done = dict(stored(runs))
    runner.complete([run for run in runs if run.key in done], done)
    return Answer(tuple(r.model_dump_json() for r in done.values()), tuple(listener.messages))


def _run(
    run: PlannedRun, runner: Runner, listener: _Recorder, settings: Settings, shared: bool
) -> Answer:
    """Train and score a run; its data stay open for the next run."""
    if shared_data(run.config) not in _data:
        _data.clear()
    broken = False
    try:
        result = runner.one(run, _data)
    except Exception as error:  # of the data, as in a sweep of one process
        broken = True
        result = runner.fail(run, error)
    if result.environment and not result.environment.get("commit"):
        result.environment |= settings.git  # the code came from the driver, without its history
        if result.status == "finished":
            save(run.folder, result)
    files = {} if shared else _take_files(run.folder, listener)
    return Answer(
        (result.model_dump_json(),), tuple(listener.messages), broken, shared=shared, files=files
    )


def _take_files(folder: Path, listener: _Recorder) -> dict[str, bytes]:
    """Contents of a run's files but its result, by relative path; then remove the folder.

    Files beyond ``SMALL`` bytes, the largest ones, stay there; a message names them.
    """
    files: dict[str, bytes] = {}
    left, size = [], 0
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name != FILE]
    for path in sorted(paths, key=lambda p: (p.stat().st_size, p)):
        size += path.stat().st_size
        if size > SMALL:
            left.append(path.name)
        else:
            files[path.relative_to(folder).as_posix()] = path.read_bytes()
    if left:
        listener.message(
            f"{', '.join(left)}: too large to send, left in {os.uname().nodename}:{folder}"
        )
    else:
        shutil.rmtree(folder.parent, ignore_errors=True)
    return files
