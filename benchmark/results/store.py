"""Results on disk, one JSON file for each run: save, read, collect."""

import gc
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmark.results.checks import checked, parsed
from benchmark.results.layout import FILE
from benchmark.results.result import Result
from common import limits
from common.errors import DataError
from common.files import write_atomic
from common.limits import LimitError


def save(folder: Path, result: Result) -> None:
    """Write ``result`` into ``folder`` atomically."""
    write_atomic(folder / FILE, result.model_dump_json(indent=1) + "\n")


def amend(folder: Path, result: Result) -> None:
    """Write a result that was there, with more in it: a training that has begun since is newer."""
    before = (folder / FILE).stat()
    save(folder, result)
    os.utime(folder / FILE, ns=(before.st_atime_ns, before.st_mtime_ns))


def load(folder: Path) -> Result | None:
    """The result in ``folder``; None if there is none, or, with a warning, an unreadable one."""
    try:
        return read(folder)
    except NoResultError:
        return None
    except ValueError as error:
        warnings.warn(f"{folder / FILE}: left out: {error}", stacklevel=2)
        return None


def is_finished(folder: Path) -> bool:
    """Whether ``folder`` holds the result of a finished run."""
    result = load(folder)
    return result is not None and result.status == "finished"


class NoResultError(ValueError):
    """The folder holds no result."""


def read(folder: Path) -> Result:
    """The result in ``folder``.

    Raises NoResultError where there is none, ValueError that says what is wrong with its file.
    """
    try:
        content = parsed(limits.read_bytes(folder / FILE, limits.RESULT))
    except (FileNotFoundError, NotADirectoryError):
        raise NoResultError(f"no {FILE}") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    except LimitError as error:
        raise ValueError(f"{error}: a result has some 10 kB") from None
    result = checked(content)
    result.folder = folder
    return result


def collect(
    results: Path,
    names: Sequence[str] | None = None,
    keep: Callable[[Result], Result] = lambda result: result,
) -> tuple[list[Result], list[str]]:
    """The results under ``results`` in order of folder names, and why others are left out.

    names: folders to read; default: all. keep: turns each result into the object to keep, see
    ``light.py``. Of several folders with results of one key, the one whose name ends with the key
    wins, or else the first. Raises DataError for a folder that cannot be listed.
    """
    with many_objects():
        return _collect(_folders(results, names), keep)


@contextmanager
def many_objects() -> Iterator[None]:
    """Disable the search for reference cycles, which takes longer the more objects there are."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _folders(results: Path, names: Sequence[str] | None = None) -> Iterator[Path]:
    """Folders under ``results`` in order of their names, with or without a result."""
    if names is None:
        try:
            names = sorted(e.name for e in os.scandir(results)) if results.is_dir() else []
        except OSError as error:
            raise DataError(f"{results}: cannot be listed ({error.strerror})") from error
    return (results / name for name in names)


def _collect(
    folders: Iterable[Path], keep: Callable[[Result], Result]
) -> tuple[list[Result], list[str]]:
    by_key: dict[str, Result] = {}
    problems: list[str] = []
    for folder in folders:
        try:
            result = read(folder)
        except NoResultError:
            continue
        except ValueError as error:
            problems.append(f"{folder / FILE}: left out: {error}")
            continue
        other = by_key.get(result.key)
        if other is None:
            by_key[result.key] = keep(result)
            continue
        assert other.folder is not None
        same = read(other.folder).model_dump() == result.model_dump()
        how = "the same as" if same else "another result of the run in"
        loser, winner = result.folder, other.folder
        if _is_named(result) and not _is_named(other):
            loser, winner = winner, loser
            by_key[result.key] = keep(result)
        problems.append(f"{loser}: left out: {how} {winner}")
    return sorted(by_key.values(), key=lambda r: r.folder.name if r.folder else ""), problems


def each(results: Path) -> Iterator[Result]:
    """The readable results under ``results``, one at a time to save memory."""
    for folder in _folders(results):
        with suppress(ValueError):  # reports name them
            yield read(folder)


def _is_named(result: Result) -> bool:
    return result.folder is not None and result.folder.name.endswith(f"_{result.key}")


def read_all(results: Path) -> Iterator[Result]:
    """The results of ``collect``, with a warning for each that is left out."""
    collected, problems = collect(results)
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    yield from collected
