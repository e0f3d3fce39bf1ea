"""Ctrl-C and SIGTERM: they end work at once, or where it can be saved first."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The user, or the system, wants the process to end.

    It is no Exception, so that nothing takes it for a failure of the work that it ends.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class _Wish:
    """What signals have asked for. deferring: whether work asks for it itself."""

    deferring = False
    number: int | None = None


_wish = _Wish()


def _handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    if _wish.deferring and _wish.number is None:
        _wish.number = number
    else:  # a second one does not wait
        raise Stopped(number)


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """In here Ctrl-C and SIGTERM raise ``Stopped``; elsewhere they do what they did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.signal(number, _handle) for number in SIGNALS}
    _wish.number = None
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _wish.number = None


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """In here a signal waits until ``stop`` is called, or until the end."""
    _wish.deferring = True
    try:
        yield
    finally:
        _wish.deferring = False
    stop()


def wanted() -> bool:
    """Whether a signal waits."""
    return _wish.number is not None


def stop() -> None:
    """Raises Stopped if a signal waits."""
    if _wish.number is not None:
        number, _wish.number = _wish.number, None
        raise Stopped(number)
