"""What an executor is: it takes jobs, and tells when each starts and ends."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmark.experiment.environment import Environment
from common.closing import Closing

PATIENCE = 20.0  # seconds that a worker is given to save its training and end
PACKAGES = ("benchmark", "common", "datasets", "models", "tasks")


@dataclass(frozen=True)
class Settings:
    """What all jobs of a sweep share.

    results: the folder, absolute. token: of the file in it by which a worker knows that it sees
    the driver's own folder. cwd: what paths of data and weights start at. runner: of Runner's
    fields, those that are as for the driver. git: commit and uncommitted_changes of the driver's
    code, which is what the workers run.
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

    name: unlike that of any other job, attempts included. configs: JSON of each RunConfig.
    near: the machine that it should be on, where one does matter.
    """

    kind: Literal["run", "time"]
    name: str
    configs: tuple[str, ...]
    settings: Settings
    near: str | None = None


@dataclass(frozen=True)
class Answer:
    """What a worker has made of a job.

    results: JSON of each. broken: the data could not be used. stop: why nothing can be written.
    shared: whether the results lie in the driver's folder. files: where they do not, the contents
    of the run's folder, by their names in it; what is too large is told in ``messages``.
    """

    results: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    broken: bool = False
    stop: str | None = None
    shared: bool = True
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Started:
    """A job has begun. where: the machine's name; pid: the process there."""

    job: Job
    where: str
    pid: int


@dataclass(frozen=True)
class Ended:
    """A job has ended: with an answer, or with its worker's death and what is known of that."""

    job: Job
    answer: Answer | None
    died: str = ""


class Executor(Closing):
    """Does jobs elsewhere. Opening raises UserError where nothing can be started; closing ends the
    workers, whatever they do.

    room: how many jobs it wants to have at once. lanes: how many of them run at once, None where
    nobody knows. threads: of each run that asks for none. same_files: whether workers see the
    files that the driver sees, by the same paths. elsewhere: whether the workers' machines
    are others, so that comparisons are timed by jobs; else the driver does it at the end.
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
        """What has happened; waits for about a second until something has."""
