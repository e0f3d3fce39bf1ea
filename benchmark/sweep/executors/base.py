"""The interface of executors: they take jobs and report when each starts and ends."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmark.experiment.environment import Environment
from common.closing import Closing

PATIENCE = 20.0  # seconds for a worker to save its training and end
PACKAGES = ("benchmark", "common", "datasets", "models", "tasks")


@dataclass(frozen=True)
class Settings:
    """Settings that all jobs of a sweep share.

    results: absolute path of the results folder. token: names a file in it; a worker that sees the
    file shares the driver's folder. cwd: base of relative paths of data and weights. runner: fields
    of Runner that are the same for driver and workers. git: commit and uncommitted_changes of the
    driver's code, which the workers run.
    """

    results: str
    token: str
    cwd: str
    threads: int | None
    runner: dict[str, Any] = field(default_factory=dict)
    git: Environment = field(default_factory=Environment)


@dataclass(frozen=True)
class Job:
    """One piece of work: a run, or the timing of finished runs in turns.

    name: unique among all jobs and attempts. configs: JSON of each RunConfig. near: the preferred
    machine, None if any will do.
    """

    kind: Literal["run", "time"]
    name: str
    configs: tuple[str, ...]
    settings: Settings
    near: str | None = None


@dataclass(frozen=True)
class Answer:
    """A worker's answer to a job.

    results: JSON of each Result. broken: whether the data cannot be used. stop: why results cannot
    be written, None if they can. shared: whether they are in the driver's folder; if not, ``files``
    has the contents of the run's folder by relative path, and ``messages`` lists omitted large
    files.
    """

    results: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    broken: bool = False
    stop: str | None = None
    shared: bool = True
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Started:
    """A job has started. where: name of the machine. pid: its process there."""

    job: Job
    where: str
    pid: int


@dataclass(frozen=True)
class Ended:
    """A job has ended: with an answer, or without one because its worker ``died`` of a reason."""

    job: Job
    answer: Answer | None
    died: str = ""


class Executor(Closing):
    """Executes jobs on workers. ``open`` raises UserError if it cannot start any; ``close`` ends
    the workers, whatever they do.

    room: how many jobs it accepts at once. lanes: how many of them run at once, None if unknown.
    threads: for runs that set none. same_files: whether workers see the driver's files by the same
    paths. elsewhere: whether workers are on other machines, where jobs time the comparisons; else
    the driver times them at the end.
    """

    room: int
    lanes: int | None
    threads: int | None
    same_files: bool
    elsewhere: bool

    @abstractmethod
    def submit(self, jobs: Sequence[Job]) -> None:
        """Take ``jobs`` and return at once."""

    @abstractmethod
    def wait(self) -> list[Started | Ended]:
        """New events; waits for about a second if there are none."""
