"""Who follows the runs of a plan."""

from typing import Protocol

from benchmark.experiment.plan import PlannedRun
from benchmark.results.result import Result
from common.progress import Listener


class Watch(Listener, Protocol):
    """Follows a plan; the Listener's methods follow the current run."""

    def started(self, run: PlannedRun, where: str = "") -> None:
        """A run begins, or begins again. where: on which machine, if it is not this process."""

    def ended(self, result: Result) -> None:
        """A run that began is finished or has failed; not yet timed."""


class Failures:
    """Passes the progress on to ``listener``, with a message for each run that fails."""

    def __init__(self, listener: Listener) -> None:
        self.begin, self.step = listener.begin, listener.step
        self.message, self.detail = listener.message, listener.detail

    def started(self, run: PlannedRun, where: str = "") -> None: ...

    def ended(self, result: Result) -> None:
        if result.error is not None:
            self.message(f"failed: {result.config.decoder}: {result.error}")
