"""What a long piece of work tells while it goes on. The command line shows it; others may not."""

from typing import Protocol


class Listener(Protocol):
    """Told of progress. Every method may be called often and must return at once."""

    def begin(self, title: str, steps: int) -> None:
        """A piece of work of ``steps`` steps begins; it replaces the one before."""

    def step(self, note: str = "") -> None:
        """One step is done; ``note`` is short: a loss, an image's name."""

    def message(self, text: str) -> None:
        """A line worth keeping on the screen."""

    def detail(self, text: str) -> None:
        """A line for those who asked for more."""


class Silent:
    """Tells nobody."""

    def begin(self, title: str, steps: int) -> None:
        pass

    def step(self, note: str = "") -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def detail(self, text: str) -> None:
        pass
