"""Listeners to the runs of a plan."""

from typing import Protocol

from benchmark.experiment.plan import PlannedRun
from benchmark.results.result import Result
from common.progress import Listener


class Watch(Listener, Protocol):
    """Listens to a plan; the methods of Listener are about the current run."""

    def started(self, run: PlannedRun, where: str = "") -> None:
        """A run starts or restarts. where: its machine, "" for this process."""

    def ended(self, result: Result) -> None:
        """A started run has finished or failed; it may not be timed yet."""


class Failures:
    """Forwards progress to ``listener``, with a message for each run that fails."""

    def __init__(self, listener: Listener) -> None:
        self.begin, self.step = listener.begin, listener.step
        self.message, self.detail = listener.message, listener.detail

    def started(self, run: PlannedRun, where: str = "") -> None: ...

    def ended(self, result: Result) -> None:
        if result.error is not None:
            self.message(f"failed: {result.config.decoder}: {result.error}")
