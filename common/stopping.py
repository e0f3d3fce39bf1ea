"""Ctrl-C and SIGTERM: they end work at once, or where it can be saved first."""

import contextlib
import signal
import threading
import time
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


PATIENCE = 1.0
"""Seconds in which a signal counts as the same: torchrun hands on what its processes have had."""


class _Wish:
    """What signals have asked for. deferring: how many pieces of work ask for it themselves."""

    deferring = 0
    number: int | None = None
    since = 0.0


_wish = _Wish()


def _handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    now = time.monotonic()
    if _wish.deferring and _wish.number is None:
        _wish.number, _wish.since = number, now
    elif not _wish.deferring or now - _wish.since >= PATIENCE:  # a second one does not wait
        _wish.number = None
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
    """In here a signal waits until ``stop`` is called, or until the outermost one's end."""
    _wish.deferring += 1
    try:
        yield
    finally:
        _wish.deferring -= 1
    if not _wish.deferring:
        stop()


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """In here, within one ``deferred``, a signal ends the work at once, one that waits too.

    Within several it goes on waiting: the outer one has other processes to think of.
    """
    if _wish.deferring != 1:
        yield
        return
    _wish.deferring = 0
    try:
        stop()
        yield
    finally:
        _wish.deferring = 1


def wanted() -> bool:
    """Whether a signal waits."""
    return _wish.number is not None


def stop(also: bool = False) -> None:
    """Raises Stopped if a signal waits. also: if none does, because another process is to stop."""
    number, _wish.number = _wish.number, None
    if number is not None or also:
        raise Stopped(number or signal.SIGTERM)


def heed_no_interrupt(worker: int) -> None:  # noqa: ARG001
    """Ctrl-C reaches every process of a terminal: those that read images end with their owner."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
