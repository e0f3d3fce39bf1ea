"""Errors that a user can cause and mend.

The command line prints their message as one line and exits with ``exit_code``; every other
exception is a defect of ours and keeps its traceback.
"""


class UserError(Exception):
    """A failure that the user can mend. The message says what, where and how to mend it."""

    exit_code = 1


class UsageError(UserError):
    """A wrong option, name or configuration: nothing was started."""

    exit_code = 2


class DataError(UserError):
    """A file of a data set or of weights that is missing, unreadable or wrong."""


def first_line(error: Exception) -> str:
    """The first line of an error's message; from a loader's worker, that of the original error."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if len(lines) > 1 and lines[0].startswith("Caught "):
        return lines[-1].partition("Error: ")[2] or lines[-1]
    return lines[0]


def reason(error: Exception) -> str:
    """Why something failed, in a line: the message of a UserError; of others their type too."""
    text = first_line(error)
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


_NO_MEMORY = (
    *("out of memory", "allocate memory", "not enough memory"),  # torch's allocators
    *("alloc_failed", "alloc failed"),  # cuBLAS and cuDNN
    *("could not create a primitive", "could not create a memory object"),  # oneDNN
)


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the machine or the GPU had no memory left.

    oneDNN's messages may have other causes, which less use of memory does not mend.
    """
    text = str(error).lower()
    matches = any(words in text for words in _NO_MEMORY)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and matches)
