"""Processes that read images: what to do when one of them dies."""

import gc
from collections.abc import Callable
from typing import TypeVar

from benchmark.experiment import distributed
from common.errors import UserError, first_line
from common.progress import Listener

Result = TypeVar("Result")
ATTEMPTS = 4


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
        except (RuntimeError, ConnectionError, EOFError) as error:
            # which error comes first depends on where the worker died
            died = not isinstance(error, RuntimeError) or "DataLoader worker (pid" in str(error)
            if not workers or not died or distributed.size() > 1:
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
