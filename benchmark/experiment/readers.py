"""Processes that read images, and what to do when one of them dies."""

import gc
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from benchmark.experiment import distributed
from common.errors import UserError, first_line
from common.progress import Listener
from common.stopping import begin_worker
from datasets.pipeline import collate_readable

Result = TypeVar("Result")
ATTEMPTS = 4


class Loader(DataLoader[Any]):
    """Batches of a ``Readable`` that ``workers`` processes read; ``options``: as torch's loader's.

    On Linux the processes are forked: Python 3.14 would have a fork server start them, and each
    would import torch again, seconds at the start of every pass that scores.

    A process that dies is noticed where its batch is waited for, within seconds. Torch would also
    raise in a signal handler of SIGCHLD, thus between any two instructions of the main thread:
    within a lock, which is then never released, or within what takes the dead loader down.
    """

    def __init__(self, data: Any, workers: int, **options: Any) -> None:
        super().__init__(
            data,
            num_workers=workers,
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            worker_init_fn=begin_worker,
            collate_fn=collate_readable,
            **options,
        )

    def __iter__(self) -> Any:
        if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
            return super().__iter__()  # torch sets no handler
        handler = signal.getsignal(signal.SIGCHLD)
        try:
            return super().__iter__()
        finally:
            signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)


def with_readers(
    attempt: Callable[[], Result], workers: int, listener: Listener, saves: bool = True
) -> Result:
    """Return ``attempt()``; repeat it if one of the ``workers`` that read images dies.

    saves: each attempt continues from the saved state; else it begins anew. Raises UserError after
    ``ATTEMPTS`` attempts.
    """
    for left in reversed(range(ATTEMPTS)):
        try:
            return attempt()
        except (RuntimeError, OSError, EOFError) as error:
            if not workers or not _of_a_death(error) or distributed.size() > 1:
                raise  # other processes would wait for this one
            why = f"a process that reads images died ({first_line(error)})"
            error.__traceback__ = None  # it holds the loader, which would raise the error again
        gc.collect()
        if not left:
            raise UserError(
                f"{why}, for the {ATTEMPTS}th time: memory may be short: use fewer --workers"
                + ("; the same command goes on from what is saved" if saves else "")
            )
        listener.message(f"{why}: " + ("going on from what is saved" if saves else "once more"))
    raise AssertionError("unreachable")


def _of_a_death(error: Exception) -> bool:
    """Whether ``error`` tells that a process that reads died: which one it is depends on where."""
    if isinstance(error, (ConnectionError, EOFError)):
        return True
    said = ("DataLoader worker (pid", "items of ancdata", "got end of file during message")
    return any(text in str(error) for text in said)  # of torch, of multiprocessing
