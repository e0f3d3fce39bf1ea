"""Progress of long work, which the command line shows and other callers may ignore."""

import time
from collections.abc import Callable
from typing import Protocol

FIRST, EVERY = 10.0, 60.0
"""Seconds of a piece of work before its first line without a terminal, and between two lines."""


class Listener(Protocol):
    """Receives progress. Every method may be called often and must return at once."""

    def begin(self, title: str, steps: int) -> None:
        """A piece of work of ``steps`` steps begins; it replaces the one before."""

    def step(self, note: str = "") -> None:
        """One step is done; ``note`` is short: a loss, an image's name."""

    def message(self, text: str) -> None:
        """A line worth keeping on the screen."""

    def detail(self, text: str) -> None:
        """A line for those who asked for more."""


class Silent:
    """Ignores progress."""

    def begin(self, title: str, steps: int) -> None:
        pass

    def step(self, note: str = "") -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def detail(self, text: str) -> None:
        pass


class Lines:
    """Progress without a terminal: a line for what takes long, then one a minute.

    prefix: begins these lines, as the name of the run that they are about.
    """

    def __init__(self, say: Callable[[str], None], verbose: bool = False) -> None:
        self.say, self.verbose, self.prefix = say, verbose, ""
        self.title, self.steps, self.done = "", 0, 0
        self.last = time.monotonic()
        self.due = self.last + EVERY

    def begin(self, title: str, steps: int) -> None:
        self.title, self.steps, self.done = title, steps, 0
        self.due = min(time.monotonic() + FIRST, self.last + EVERY)
        self._line("")

    def step(self, note: str = "") -> None:
        self.done += 1
        if self.done < self.steps:
            self._line(note)

    def _line(self, note: str) -> None:
        now = time.monotonic()
        if now >= self.due:
            about = f" ({note})" if note else ""
            self.say(f"{self.prefix}{self.title}: {self.done} of {self.steps}{about}")
            self.last, self.due = now, now + EVERY

    def message(self, text: str) -> None:
        self.say(text)

    def detail(self, text: str) -> None:
        if self.verbose:
            self.say(text)
