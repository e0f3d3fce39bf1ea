"""Parsing and checks of results, so that reports can rely on their fields."""

import math
from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from benchmark.results.result import FORMAT, Result
from common import limits
from common.limits import LimitError, printable
from common.validation import message_of

NAME = 300  # characters of a name or a path in a result; timm's longest name has 70


SHOWN = 120  # characters of a wrong value that a message shows


SMALL = min(limits.INTEGER, limits.NUMBER)


RULES = {"edges": ("largest-pairing", "least-distance")}
"""Each task's rules of scoring, oldest first; a protocol that names none is of the first."""


def parsed(text: bytes) -> Any:
    """Parse JSON with pydantic-core (3x faster than ``json``). Raises ValueError if it is none."""
    try:
        return from_json(text)
    except ValueError:
        try:
            limits.parse_json(text)
            raise  # only ``json`` reads halves of surrogate pairs
        except LimitError:
            raise
        except ValueError as error:  # not JSON, or not UTF-8
            raise ValueError(f"no whole JSON ({' '.join(str(error).split())})") from error


def checked(content: Any) -> Result:
    """``content`` as a Result. Raises ValueError that says what is wrong with it."""
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
        message = printable(message_of(first), SHOWN)
        raise ValueError(f"{where}: {message}" if where else message) from error
    _check(result)
    for scores in (result, *result.tasks.values()):
        scores.protocol = _with_rules(scores.protocol)
    if result.status == "finished":
        _check_finished(result)
    elif result.error is None:
        result.error = "no reason given"
    return result


def _with_rules(protocol: str) -> str:
    """``protocol`` with the name of its rules of scoring."""
    parts = protocol.split("/")
    rules = RULES.get(parts[1], ()) if len(parts) > 1 else ()
    return protocol if not rules or parts[-1] in rules else f"{protocol}/{rules[0]}"


def _check(result: Result) -> None:
    """Raises ValueError for values of the open fields that reports cannot show."""
    config, environment = result.config, result.environment
    described = config.description or {}
    _typed("description", described, {"name": str})
    for name, text in (
        *(("key", result.key), ("task", config.task), ("dataset", config.dataset)),
        *(("backbone", config.backbone or ""), ("decoder", config.decoder)),
        ("description: name", described.get("name") or ""),
    ):
        if len(text) > NAME:
            raise ValueError(f"{name}: has {len(text)} characters, at most {NAME} are read")
    _typed("environment", environment, {"device": str, "threads": int, "versions": dict})
    _no_null("environment", environment, "versions")
    for split in ("train", "test"):
        if not isinstance(result.data.get(split, {}), dict):
            raise ValueError(f"data: {split} is no object")
    types = dict.fromkeys(("median_ms", "fps", "peak_memory_mb", "neck_ms", "disturbed"), float)
    for speed in (result.speed, *(pair.speed for pair in result.pairs)):
        _typed("speed", speed or {}, {**types, "session": str})
    numbers: list[tuple[str, Collection[float]]] = [
        ("params", result.params.values()),
        ("macs", result.macs.values()),
        ("deployed", result.deployed.values()),
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
    for pair in result.pairs:
        for name in ("runtime", "precision"):
            if len(getattr(pair, name)) > NAME:
                raise ValueError(f"pairs: a {name} is longer than {NAME} characters")
        for scores in pair.tasks.values():
            numbers.append(("pairs", scores.metrics.values()))
            numbers += [("pairs", ends) for ends in scores.intervals.values()]
        for cost in pair.costs.values():
            shown = (cost.reference, cost.value, cost.difference, cost.worse or 0.0)
            numbers += [("pairs", shown), ("pairs", cost.interval or ())]
    if not _small(chain.from_iterable(values for _, values in numbers)):
        for field, values in numbers:
            _bounded(field, values)


def _typed(field: str, values: Mapping[str, Any], types: Mapping[str, type]) -> None:
    """Raises ValueError for a value other than null that is too large or of another type."""
    numbers: list[float] = []
    for name, kind in types.items():
        value = values.get(name)
        if value is None:
            continue
        types_of = (int, float) if kind is float else kind
        if isinstance(value, bool) or not isinstance(value, types_of):
            raise ValueError(f"{field}: {printable(name, NAME)} is {_shown(value)}")
        if isinstance(value, int | float):
            numbers.append(value)
    if numbers:
        _bounded(field, numbers)


def _no_null(field: str, values: Mapping[str, Any], name: str) -> None:
    if name in values and values[name] is None:
        raise ValueError(f"{field}: {name} is null")


def _shown(value: Any) -> str:
    return printable(f"{type(value).__name__} {value}", SHOWN)


def _bounded(field: str, numbers: Collection[float]) -> None:
    """Raises ValueError for a number too large to sum and to square."""
    if _small(numbers):
        return
    for value in numbers:
        most = limits.INTEGER if isinstance(value, int) else limits.NUMBER
        if abs(value) > most:
            raise ValueError(f"{field}: a number above {most:g}")


def _small(numbers: Iterable[float]) -> bool:
    """Whether the sum of absolute values is small, as nearly always; False if one is NaN."""
    try:
        return sum(map(abs, numbers)) <= SMALL
    except OverflowError:  # an integer beyond the range of a double
        return False


def _check_finished(result: Result) -> None:
    """Raises ValueError for a finished result that lacks a value which a leaderboard reads."""

    def need(field: str, values: Mapping[str, Any], names: Iterable[str]) -> None:
        for name in names:
            if values.get(name) is None:
                raise ValueError(f"{field}: no {printable(name, NAME)}")
            if isinstance(values[name], float) and not math.isfinite(values[name]):
                raise ValueError(f"{field}: {printable(name, NAME)} is {values[name]}")

    need("environment", result.environment, ("device", "threads"))
    need("seconds", result.seconds, ("total",))
    for speed in (result.speed, *(pair.speed for pair in result.pairs)):
        if speed is not None:
            need("speed", speed, ("median_ms", "fps", "session"))
    for task, view in result.by_task().items():
        if not view.columns:
            raise ValueError(f"no scores of {task}")
        need("metrics", view.metrics, view.columns)
        need("higher_is_better", view.higher_is_better, view.columns)
        need("constant", view.constant.get("metrics", {}), view.columns)
        for pair in result.pairs:
            if task in pair.tasks:
                need("pairs", pair.tasks[task].metrics, view.columns)
