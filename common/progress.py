"""Progress of long work, which the command line shows and other callers may ignore."""

from typing import Protocol


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
