"""Filters of results by task, data set, backbone, decoder and device."""

import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from benchmark.results.result import Result
from common.errors import UsageError
from models.decoder_name import DecoderName


def _datasets(result: Result) -> Collection[str]:
    """The data set's name, of described own data also with its own name: ``own (pipes)``."""
    name, described = result.config.dataset, result.config.description
    return (name,) if not described else (name, f"{name} ({described.get('name')})")


NAMES: Mapping[str, Callable[[Result], Collection[str]]] = {
    "task": lambda r: r.config.tasks,
    "dataset": _datasets,
    "backbone": lambda r: (r.config.backbone or "",),
    "decoder": lambda r: (DecoderName.parse(r.config.decoder).label,),
    "device": lambda r: (str(r.environment.get("device", "unknown")),),
}
"""Filter → the names of a result that it matches."""


def matches(name: str, pattern: str, part: bool = False) -> bool:
    """Whether ``name`` equals ``pattern``, fits its wildcards or, with ``part``, contains it."""
    name, pattern = name.casefold(), pattern.casefold()
    return fnmatch.fnmatchcase(name, pattern) or (part and pattern in name)


def select(results: Iterable[Result], filters: Mapping[str, Sequence[str]]) -> list[Result]:
    """The results that match every filter: one of its values, or anything if it is empty.

    Values may have wildcards. A decoder matches by its label (the file's name for a wiring file), a
    device by any part of its name. Raises UsageError, with the choices, if no result matches.
    """
    selected = list(results)
    for field, names in NAMES.items():
        patterns = filters.get(field, ())
        if not patterns:
            continue
        passed = [
            result
            for result in selected
            if any(
                matches(name, pattern, field == "device")
                for name in names(result)
                for pattern in patterns
            )
        ]
        if not passed:
            present = sorted({name for result in selected for name in names(result)})
            options = " ".join(f"--{field} {value}" for value in patterns)
            raise UsageError(f"{options}: no result: there are {', '.join(present)}")
        selected = passed
    return selected
