"""Ctrl-C and SIGTERM end work at once, or at a point where it can be saved first.

Worker processes ignore Ctrl-C and end with the process that started them.
"""

import contextlib
import os
import signal
import sys
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
"""Seconds in which a signal counts as a repeat: torchrun sends its processes each signal again."""


class _State:
    """The waiting signal: number and time. deferring: depth of ``deferred`` blocks."""

    deferring = 0
    number: int | None = None
    since = 0.0


_state = _State()


def _handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    now = time.monotonic()
    if _state.deferring and _state.number is None:
        _state.number, _state.since = number, now
    elif not _state.deferring or now - _state.since >= PATIENCE:  # a second one does not wait
        _state.number = None
        raise Stopped(number)


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """Within the block Ctrl-C and SIGTERM raise ``Stopped``; then the old handlers are back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.signal(number, _handle) for number in SIGNALS}
    _state.number = None
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _state.number = None


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within the block a signal waits until ``stop`` is called or the outermost block ends."""
    _state.deferring += 1
    try:
        yield
    finally:
        _state.deferring -= 1
    if not _state.deferring:
        stop()


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Within the block, inside one ``deferred``, signals end the work at once, a waiting one too.

    Inside several they go on waiting: the outer block acts for other processes too.
    """
    if _state.deferring != 1:
        yield
        return
    _state.deferring = 0
    try:
        stop()
        yield
    finally:
        _state.deferring = 1


def pending() -> bool:
    """Whether a signal waits."""
    return _state.number is not None


def stop(also: bool = False) -> None:
    """Raises Stopped if a signal waits. also: raise without one, as another process stops."""
    number, _state.number = _state.number, None
    if number is not None or also:
        raise Stopped(number or signal.SIGTERM)


def begin_worker(worker: int = 0) -> None:  # noqa: ARG001
    """Prepare a process of a pool or a loader: it ends with its parent, and not by Ctrl-C.

    Ctrl-C reaches all processes of a terminal, and the parent decides when they end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """Let this process end at once when its parent ends, however: kill -9 lets nobody say goodbye.

    The parent has started it with multiprocessing, or holds the other end of the pipe that is its
    standard input and writes nothing there. Linux has a signal for this (PR_SET_PDEATHSIG), but
    sends it when the thread ends that started the process.
    """
    from multiprocessing import parent_process

    parent = parent_process()
    lifeline = sys.stdin.fileno() if parent is None else parent.sentinel
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: int) -> None:
    from multiprocessing.connection import wait

    wait([lifeline])
    os._exit(1)
