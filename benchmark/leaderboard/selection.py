"""Which results a report is about: filters by task, data set, backbone, decoder, device."""

import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from benchmark.results.result import Result
from common.errors import UsageError
from models.decoder_name import DecoderName

NAMES: Mapping[str, Callable[[Result], Collection[str]]] = {
    "task": lambda r: r.config.tasks,
    "dataset": lambda r: (r.config.dataset,),
    "backbone": lambda r: (r.config.backbone or "",),
    "decoder": lambda r: (DecoderName.parse(r.config.decoder).label,),
    "device": lambda r: (str(r.environment.get("device", "unknown")),),
}
"""Of a filter, the names that a result goes by."""


def matches(name: str, wanted: str, part: bool = False) -> bool:
    """Whether ``name`` is ``wanted``, fits its wildcards or, with ``part``, contains it."""
    name, wanted = name.casefold(), wanted.casefold()
    return fnmatch.fnmatchcase(name, wanted) or (part and wanted in name)


def select(results: Iterable[Result], filters: Mapping[str, Sequence[str]]) -> list[Result]:
    """The results that pass every filter, whose values are alternatives; an empty one passes all.

    Names may have wildcards; a decoder goes by its label (of a wiring from a file, the file's
    name), a device by any part of its name. Raises UsageError that names what there is if nothing
    passes.
    """
    found = list(results)
    for field, names in NAMES.items():
        wanted = filters.get(field, ())
        if not wanted:
            continue
        passed = [
            result
            for result in found
            if any(matches(n, w, field == "device") for n in names(result) for w in wanted)
        ]
        if not passed:
            there = sorted({name for result in found for name in names(result)})
            given = " ".join(f"--{field} {value}" for value in wanted)
            raise UsageError(f"{given}: no result: there are {', '.join(there)}")
        found = passed
    return found
