"""The options of a sweep file: names, possibly plural, and positions."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmark.experiment.config import FILLED_IN, PAIRS, RunConfig, split_tasks
from common.errors import UsageError
from common.registry import nearest
from datasets.base import DATASETS
from models.backbones import check_name
from models.decoder_name import DecoderName
from models.decoders.base import DECODERS
from tasks.base import TASKS

AXES = ("task", "dataset", "backbone", "decoder", "seed")
PLURALS = {f"{axis}s": axis for axis in AXES}
FIELDS = {PAIRS.get(name, name): name for name in RunConfig.model_fields if name not in FILLED_IN}
"""Name of an option in a file → field of a configuration."""


@dataclass(frozen=True)
class Option:
    """A value and its position, FILE:LINE and the key as written, or the command line's option."""

    value: Any
    where: str


Options = dict[str, Option]


def suggestion(name: str, names: Iterable[str]) -> str:
    """A hint for an unknown ``name``: the nearest of ``names``, or all of them."""
    close = nearest(name, names, 1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}"


def field_of(key: str, where: str) -> str:
    """The field for ``key``, an option with dashes or underscores or an axis in the plural.

    Raises UsageError, with ``where``, for an unknown option.
    """
    name = key.replace("-", "_")
    if name in PLURALS:
        return PLURALS[name]
    if name in FIELDS:
        return FIELDS[name]
    if name in RunConfig.model_fields and name not in FILLED_IN:
        return name
    known = [*PLURALS, *(name.replace("_", "-") for name in FIELDS)]
    close = nearest(key, known, 1)
    hint = f"did you mean {close[0]}?" if close else "see python cli.py run --help"
    raise UsageError(f"{where}: unknown option: {hint}")


def choices_of(axis: str, option: Option) -> list[Option]:
    """The values of one axis. Raises UsageError for an empty list, wrong types, unknown names."""
    values = option.value if isinstance(option.value, list) else [option.value]
    if not values:
        raise UsageError(f"{option.where}: is an empty list")
    for value in values:
        kind, word = (int, "seed") if axis == "seed" else (str, "name")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UsageError(f"{option.where}: {value!r} is no {word}")
        if axis != "seed":
            check_choice(axis, str(value), option.where)
    return [Option(value, option.where) for value in values]


def check_choice(axis: str, value: str, where: str) -> None:
    """Raise UsageError, with ``where``, unless ``value`` is a known name for ``axis``."""
    try:
        if axis == "task":
            for part in split_tasks(value):
                TASKS.get(part)
        elif axis == "dataset":
            DATASETS.get(value)
        elif axis == "backbone":
            check_name(value)
        elif axis == "decoder" and DecoderName.parse(value).file is None:
            DECODERS.get(value)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
