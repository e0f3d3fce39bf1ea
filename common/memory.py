"""Reuse of freed memory by the C library, and what to do when memory is short."""

import ctypes
import gc
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from common.errors import out_of_memory

Done = TypeVar("Done")

# of <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4

_accepted: list[bool] = []  # whether the C library took each setting


def keep_freed_memory() -> bool:
    """Let large tensors of this process reuse memory that others have freed.

    By default glibc maps each large block anew and returns it when it is freed, so that every
    training step has the system clear all its activations page by page. With this setting the
    memory stays with the process until it ends. Returns whether the C library takes the setting:
    only glibc does.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 2**26}
    _accepted[:] = [bool(mallopt(option, value)) for option, value in settings.items()]
    return keeps_freed_memory()


def keeps_freed_memory() -> bool:
    """Whether ``keep_freed_memory`` has taken effect in this process."""
    return bool(_accepted) and all(_accepted)


def release_memory() -> None:
    """Return unused memory to the system, also what the C library holds: memory is short.

    Not every request can be met from what the library holds: oneDNN maps memory for its code.
    """
    import torch

    gc.collect()
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def fitting(run: Callable[[int], Done], count: int) -> tuple[Done, int]:
    """``run(count)`` and its count, halved until memory is enough. Raises what ``run(1)`` does."""
    while True:
        try:
            return run(count), count
        except Exception as error:
            if count == 1 or not out_of_memory(error):
                raise
        count //= 2
        release_memory()  # when the error, which holds the tensors, is gone
