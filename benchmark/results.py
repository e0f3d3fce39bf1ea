"""One JSON file a run: written atomically, read, checked."""

import gc
import math
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from benchmark.experiment.config import RunConfig
from common import limits
from common.errors import DataError
from common.files import write_atomic
from common.limits import LimitError, printable

FILE = "result.json"
FORMAT = 1
NAME = 300  # characters of a name or a path in a result; timm's longest name has 70
SHOWN = 120  # characters of what is wrong that are told
SMALL = min(limits.INTEGER, limits.NUMBER)


class TaskScores(BaseModel):
    """What a run scored in one task.

    metrics and intervals: the test split's (95 % bootstrap over images). columns: the metrics that
    a table shows, the ranking one first; higher_is_better: for each of them. constant: the best
    constant prediction's scores, the floor.
    """

    model_config = ConfigDict(extra="forbid")

    protocol: str = ""
    columns: list[str] = Field(default_factory=list)
    higher_is_better: dict[str, bool] = Field(default_factory=dict)
    units: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    constant: dict[str, Any] = Field(default_factory=dict)


class Result(TaskScores):
    """All that is needed to rank a run and to repeat it.

    Its own scores are those of the one task; with several, they are in ``tasks``, by name. speed is
    None until the run has been timed. resumed: steps at which an interrupted training was taken up
    again. at_once: images that went through the network together, where memory was short of a
    batch. folder: where it was read from, not written.
    """

    format: Literal[1] = 1
    key: str
    status: Literal["finished", "failed"]
    error: str | None = None
    config: RunConfig
    tasks: dict[str, TaskScores] = Field(default_factory=dict)
    params: dict[str, int] = Field(default_factory=dict)
    macs: dict[str, int] = Field(default_factory=dict)
    macs_exclude: str = ""
    speed: dict[str, Any] | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    history: list[dict[str, float]] = Field(default_factory=list)
    best_epoch: int = 0
    steps: int = 0
    resumed: list[int] = Field(default_factory=list)
    at_once: int | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    environment: dict[str, Any] = Field(default_factory=dict)
    command: str = ""
    folder: Path | None = Field(default=None, exclude=True)

    def by_task(self) -> "dict[str, Result]":
        """The result as each of its tasks sees it: with that task's scores as its own."""
        if not self.tasks:
            return {self.config.task: self}
        return {
            name: self.model_copy(update={f: getattr(scores, f) for f in TaskScores.model_fields})
            for name, scores in self.tasks.items()
        }


def folder_of(results: Path, config: RunConfig, key: str) -> Path:
    """The folder of a run, named for people and made unique by the key."""
    decoder = config.decoder
    if config.wiring is not None:  # a file's name will do
        decoder = f"connectivity-{Path(decoder.partition(':')[2]).stem}"
    parts = (config.task, config.dataset, config.backbone, decoder, f"seed{config.seed}")
    name = "_".join(str(part).replace("/", "-") for part in parts)
    return results / f"{name}_{key}"


def save(folder: Path, result: Result) -> None:
    """Write ``result`` into its folder."""
    write_atomic(folder / FILE, result.model_dump_json(indent=1) + "\n")


def load(folder: Path) -> Result | None:
    """The result in ``folder``; None where there is none, or (with a warning) an unreadable one."""
    try:
        return read(folder)
    except NoResultError:
        return None
    except ValueError as error:
        warnings.warn(f"{folder / FILE}: left out: {error}", stacklevel=2)
        return None


class NoResultError(ValueError):
    """The folder holds no result."""


def read(folder: Path) -> Result:
    """The result in ``folder``.

    Raises NoResultError where there is none, ValueError that says what its file is instead.
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


def parsed(text: bytes) -> Any:
    """What JSON says, three times as fast as ``json`` tells it, whose errors it has.

    Raises ValueError for what is none.
    """
    try:
        return from_json(text)
    except ValueError:
        try:
            limits.parse_json(text)
            raise  # what only ``json`` reads: halves of surrogate pairs
        except LimitError:
            raise
        except ValueError as error:  # of JSON, or of text that is not UTF-8
            raise ValueError(f"no whole JSON ({' '.join(str(error).split())})") from error


def checked(content: Any) -> Result:
    """The result that ``content`` is. Raises ValueError that says what it is instead."""
    if not isinstance(content, dict) or "format" not in content or "config" not in content:
        raise ValueError("JSON, but not the result of a run")
    if content["format"] != FORMAT:
        seen = printable(str(content["format"]), SHOWN)
        raise ValueError(f"format {seen}, this version reads {FORMAT}")
    try:
        result = Result.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = printable(".".join(map(str, first["loc"])), SHOWN)
        message = printable(first["msg"].removeprefix("Value error, "), SHOWN)
        raise ValueError(f"{where}: {message}" if where else message) from error
    _check(result)
    if result.status == "finished":
        _check_finished(result)
    elif result.error is None:
        result.error = "no reason given"
    return result


def _check(result: Result) -> None:
    """Raises ValueError for what reports could not show: the open fields may hold anything."""
    config, environment = result.config, result.environment
    for name, text in (
        *(("key", result.key), ("task", config.task), ("dataset", config.dataset)),
        *(("backbone", config.backbone or ""), ("decoder", config.decoder)),
    ):
        if len(text) > NAME:
            raise ValueError(f"{name}: has {len(text)} characters, at most {NAME} are read")
    _typed("environment", environment, {"device": str, "threads": int, "versions": dict})
    _no_null("environment", environment, "versions")
    for split in ("train", "test"):
        if not isinstance(result.data.get(split, {}), dict):
            raise ValueError(f"data: {split} is no object")
    speed = result.speed or {}
    types = dict.fromkeys(("median_ms", "fps", "peak_memory_mb"), float)
    _typed("speed", speed, {**types, "session": str})
    numbers: list[tuple[str, Collection[float]]] = [
        ("params", result.params.values()),
        ("macs", result.macs.values()),
        ("seconds", result.seconds.values()),
        *(("history", epoch.values()) for epoch in result.history),
    ]
    for view in (result, *result.tasks.values()):
        _typed("constant", view.constant, {"metrics": dict})
        _no_null("constant", view.constant, "metrics")
        best = view.constant.get("metrics", {})
        _typed("constant", best, dict.fromkeys(best, float))
        numbers.append(("metrics", view.metrics.values()))
        numbers += [("intervals", ends) for ends in view.intervals.values()]
        numbers.append(("counts", view.counts.values()))
    if not _small(chain.from_iterable(values for _, values in numbers)):
        for field, values in numbers:
            _bounded(field, values)


def _typed(field: str, values: Mapping[str, Any], types: Mapping[str, type]) -> None:
    """Raises ValueError for a value that is there, not null, and of another type or too large."""
    numbers: list[float] = []
    for name, kind in types.items():
        value = values.get(name)
        if value is None:
            continue
        wanted = (int, float) if kind is float else kind
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise ValueError(f"{field}: {printable(name, NAME)} is {_said(value)}")
        if isinstance(value, int | float):
            numbers.append(value)
    if numbers:
        _bounded(field, numbers)


def _no_null(field: str, values: Mapping[str, Any], name: str) -> None:
    if name in values and values[name] is None:
        raise ValueError(f"{field}: {name} is null")


def _said(value: Any) -> str:
    return printable(f"{type(value).__name__} {value}", SHOWN)


def _bounded(field: str, numbers: Collection[float]) -> None:
    """Raises ValueError for a number that is too large to be summed and squared."""
    if _small(numbers):
        return
    for value in numbers:
        most = limits.INTEGER if isinstance(value, int) else limits.NUMBER
        if abs(value) > most:
            raise ValueError(f"{field}: a number above {most:g}")


def _small(numbers: Iterable[float]) -> bool:
    """Whether all are small for certain, as nearly always; not where one is no number."""
    try:
        return sum(map(abs, numbers)) <= SMALL
    except OverflowError:  # an integer that is no double
        return False


def _check_finished(result: Result) -> None:
    """Raises ValueError for a finished result without what a leaderboard reads."""

    def need(field: str, values: Mapping[str, Any], names: Iterable[str]) -> None:
        for name in names:
            if values.get(name) is None:
                raise ValueError(f"{field}: no {printable(name, NAME)}")
            if isinstance(values[name], float) and not math.isfinite(values[name]):
                raise ValueError(f"{field}: {printable(name, NAME)} is {values[name]}")

    need("environment", result.environment, ("device", "threads"))
    need("seconds", result.seconds, ("total",))
    if result.speed is not None:
        need("speed", result.speed, ("median_ms", "fps", "session"))
    for task, view in result.by_task().items():
        if not view.columns:
            raise ValueError(f"no scores of {task}")
        need("metrics", view.metrics, view.columns)
        need("higher_is_better", view.higher_is_better, view.columns)
        need("constant", view.constant.get("metrics", {}), view.columns)


def collect(
    results: Path,
    names: Sequence[str] | None = None,
    keep: Callable[[Result], Result] = lambda result: result,
) -> tuple[list[Result], list[str]]:
    """The results under ``results`` in order of folder names, and why others were left out.

    names: of the folders to look into, without it all. keep: makes of each what is kept, see
    ``light.py``. Of several folders that hold a run of the same key, the one that is named by the
    key is kept, or the first. Raises DataError for a folder that cannot be listed.
    """
    with many_objects():
        return _collect(_folders(results, names), keep)


@contextmanager
def many_objects() -> Iterator[None]:
    """In here nothing looks for cycles, which takes the longer the more objects there are."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _folders(results: Path, names: Sequence[str] | None = None) -> Iterator[Path]:
    """Folders under ``results`` in order of their names; not all need hold a result."""
    if names is None:
        try:
            names = sorted(e.name for e in os.scandir(results)) if results.is_dir() else []
        except OSError as error:
            raise DataError(f"{results}: cannot be listed ({error.strerror})") from error
    return (results / name for name in names)


def _collect(
    folders: Iterable[Path], keep: Callable[[Result], Result]
) -> tuple[list[Result], list[str]]:
    found: dict[str, Result] = {}
    problems: list[str] = []
    for folder in folders:
        try:
            result = read(folder)
        except NoResultError:
            continue
        except ValueError as error:
            problems.append(f"{folder / FILE}: left out: {error}")
            continue
        other = found.get(result.key)
        if other is None:
            found[result.key] = keep(result)
            continue
        assert other.folder is not None
        same = read(other.folder).model_dump() == result.model_dump()
        how = "the same as" if same else "another result of the run in"
        left, kept = result.folder, other.folder
        if _is_named(result) and not _is_named(other):
            left, kept = kept, left
            found[result.key] = keep(result)
        problems.append(f"{left}: left out: {how} {kept}")
    return sorted(found.values(), key=lambda r: r.folder.name if r.folder else ""), problems


def each(results: Path) -> Iterator[Result]:
    """The readable results under ``results``, one at a time, so that none need be kept."""
    for folder in _folders(results):
        with suppress(ValueError):  # told where results are shown
            yield read(folder)


def _is_named(result: Result) -> bool:
    return result.folder is not None and result.folder.name.endswith(f"_{result.key}")


def read_all(results: Path) -> Iterator[Result]:
    """``collect``, with a warning for each that is left out."""
    found, problems = collect(results)
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    yield from found
