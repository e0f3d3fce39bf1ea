"""Sweep files and the runs that they describe; ``benchmark/sweep/execute.py`` runs them.

    results: runs                  # folder of the results
    cache: only-missing            # or always, never
    data: {camvid: "${CAMVID}"}    # data set → folder or packed file
    weights: {resnet18: r18.pth}   # backbone → file, in place of pretrained
    defaults: {seeds: [0, 1], epochs: 3}
    runs:                          # each block is a product
      - tasks: [segmentation, depth]
        datasets: scenes
        decoders: [fcn, hed]
        lr: 0.005                  # any option of run
    overrides:                     # for some of the runs of all blocks
      - when: {decoder: hed}
        set: {lr: 0.001}

Options take precedence in this order, the strongest first: ``--set``, overrides from the last to
the first, the block, ``defaults``, the defaults of ``run``.
"""

import itertools
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.experiment.config import FALLBACKS, ResolvedRun, RunConfig, option_name
from benchmark.experiment.plan import default_decoders, resolve, run_key, targets_of
from benchmark.results.light import Lightener
from benchmark.sweep.options import (
    AXES,
    Option,
    Options,
    check_choice,
    choices_of,
    field_of,
    suggestion,
)
from common.errors import UsageError, UserError
from common.limits import printable
from common.marked_yaml import MarkedYaml, Place, read_marked_yaml
from common.registry import nearest
from common.validation import message_of
from datasets.base import DATASETS
from datasets.pipeline import info_at

Cache = Literal["only-missing", "always", "never"]
BUILT_IN = Path(__file__).parent / "built_in"
MOST_RUNS = 100_000  # of a block; more would take minutes to plan and years to train


class Rule(BaseModel):
    """Options ``set`` for the runs that match ``when``."""

    model_config = ConfigDict(extra="forbid")

    when: dict[str, Any] = Field(min_length=1)
    set: dict[str, Any] = Field(min_length=1)


class SweepFile(BaseModel):
    """The keys of a sweep file."""

    model_config = ConfigDict(extra="forbid")

    results: Path = Path("runs")
    cache: Cache = "only-missing"
    data: dict[str, str] = Field(default_factory=dict)
    weights: dict[str, str] = Field(default_factory=dict)
    defaults: dict[str, Any] = Field(default_factory=dict)
    runs: list[dict[str, Any]] = Field(min_length=1)
    overrides: list[Rule] = Field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """Distinct resolved runs, and the skipped pairs of task and data set, which do not exist."""

    runs: list[ResolvedRun]
    skipped: list[str]


@dataclass(frozen=True)
class Sweep:
    """A sweep file's content, and its source with the lines of its keys."""

    content: SweepFile
    source: MarkedYaml

    def options(self, mapping: Mapping[str, Any], place: Place) -> Options:
        """The options of a mapping at ``place`` in the file, by field.

        Raises UsageError for unknown and repeated options.
        """
        options: Options = {}
        for key, value in mapping.items():
            where = f"{self.source.where((*place, key))}: {key}"
            name = field_of(key, where)
            if name in options:
                raise UsageError(f"{where}: is given twice, as {name} and {name}s: keep one")
            if key == "task" and isinstance(value, list):
                raise UsageError(
                    f"{where}: write tasks: [a, b] for a network of each, task: a+b for one of both"
                )
            options[name] = Option(value, where)
        return options

    def plan(
        self,
        data: Mapping[str, str] | None = None,
        weights: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Plan:
        """All runs of the file.

        data, weights: paths of the command line, which replace the file's. settings: options for
        all runs (``--set``). Raises UsageError that names line, key and value, DataError for a
        missing weights or wiring file.
        """
        places = {
            "data": _places(self, "data", self.content.data, data or {}),
            "weights": _places(self, "weights", self.content.weights, weights or {}),
        }
        given = {"data": data or {}, "weights": weights or {}}
        rules = [_Rule(self, index, rule) for index, rule in enumerate(self.content.overrides)]
        extra = {
            field_of(k, f"--set {k}"): Option(v, f"--set {k}") for k, v in (settings or {}).items()
        }
        for name, option in extra.items():
            if name in AXES:
                raise UsageError(
                    f"{option.where}: the runs are a product over it: change it in the file"
                )
        defaults = self.options(self.content.defaults, ("defaults",))
        runs: dict[str, ResolvedRun] = {}
        light = Lightener()
        skipped: list[str] = []
        for index, block in enumerate(self.content.runs):
            options = {**defaults, **self.options(block, ("runs", index))}
            where = self.source.where(("runs", index))
            folder = partial(_place, "data", {**options, **extra}, places, given)
            for chosen in _products(options, where, skipped, folder):
                for rule in rules:
                    rule.apply(chosen)
                chosen.update(extra)
                _locate(chosen, places, given)
                config = _configured(chosen, where)
                runs.setdefault(run_key(config), light.config(config))
        for rule in rules:
            rule.check_used(list(runs.values()))
        _check_places(list(runs.values()), data or {}, weights or {})
        return Plan(list(runs.values()), list(dict.fromkeys(skipped)))


def read_sweep(name: str) -> Sweep:
    """The sweep file at the path ``name``, or the built-in one of that name.

    Raises UsageError that names the line, the key and the nearest valid key.
    """
    built_in = {path.stem: path for path in sorted(BUILT_IN.glob("*.yaml"))}
    path = Path(name)
    if not path.is_file():
        if name not in built_in:
            close = nearest(name, built_in, 1)
            hint = f"did you mean {close[0]}?" if close else f"built in: {', '.join(built_in)}"
            raise UsageError(f"{name}: no such sweep file ({hint})")
        path = built_in[name]
    source = read_marked_yaml(path)
    if not isinstance(source.content, dict):
        raise UsageError(f"{path}:1: expected 'key: value' lines, among them runs")
    try:
        return Sweep(SweepFile.model_validate(source.content), source)
    except ValidationError as error:
        # a misspelt required key gives two errors: report the misspelling
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        loc = tuple(part for part in first["loc"] if part != "[key]")
        key = next((part for part in reversed(loc) if isinstance(part, str)), loc[-1])
        where = f"{source.where(loc)}: {key}"
        if first["type"] == "extra_forbidden":
            known = (Rule if loc[0] == "overrides" else SweepFile).model_fields
            raise UsageError(f"{where}: unknown key: {suggestion(str(key), known)}") from None
        if first["type"] == "missing":
            raise UsageError(f"{where}: is missing") from None
        if first["type"] == "too_short":
            raise UsageError(f"{where}: is empty") from None
        got = printable(repr(first["input"]), 200)
        raise UsageError(f"{where}: {message_of(first)} (got {got})") from None


def _offered(dataset: Option, folder: Option | None) -> Collection[str]:
    """The targets of a data set; if the files in ``folder`` say what it has, those.

    Raises UserError where these cannot be read.
    """
    kind = DATASETS.get(dataset.value)
    if not kind.described or folder is None:
        return kind.info.tasks
    for name in unset_variables(_expanded(folder.value)):
        raise UsageError(
            f"{folder.where}: the environment variable {name} is not set: set it, or give --data "
            f"{dataset.value}=PATH"
        )
    try:
        return info_at(dataset.value, Path(_expanded(folder.value))).tasks
    except UserError as error:
        raise type(error)(f"{folder.where}: {error}") from None


def _products(
    options: Options, where: str, skipped: list[str], folder: Callable[[str], Option | None]
) -> Iterator[Options]:
    """The options of every run of a block at ``where``, FILE:LINE.

    folder: gives that of a data set. Adds pairs of task and data set that do not exist to
    ``skipped``. Raises UsageError if the block has no other pair or too many runs.
    """
    axes = {
        axis: choices_of(axis, options[axis])
        for axis in AXES
        if axis in options and options[axis].value is not None
    }
    init = {name: option.value for name, option in options.items() if name == "init"}
    axes.setdefault("decoder", [Option(name, where) for name in default_decoders(init)])
    for axis in ("task", "dataset"):
        axes.setdefault(axis, [Option(RunConfig.model_fields[axis].default, where)])
    count = math.prod(len(choices) for choices in axes.values())
    if count > MOST_RUNS:
        raise UsageError(f"{where}: stands for {count} runs, at most {MOST_RUNS} are planned")
    rest = {name: option for name, option in options.items() if name not in AXES}
    pairs, missing = [], []
    for task, dataset in itertools.product(axes.pop("task"), axes.pop("dataset")):
        offered = _offered(dataset, folder(dataset.value))
        lacking = [target for target in targets_of(task.value) if target not in offered]
        if lacking:
            missing.append(f"{dataset.value} has no {' and no '.join(lacking)}")
        else:
            pairs.append({"task": task, "dataset": dataset})
    if not pairs:
        raise UsageError(f"{where}: nothing to run: {'; '.join(dict.fromkeys(missing))}")
    skipped += missing
    for pair in pairs:
        for choice in itertools.product(*axes.values()):
            yield {**rest, **pair, **dict(zip(axes, choice, strict=True))}


def _backbone(chosen: Options) -> Option:
    """The backbone of a run: its option, or the data set's default."""
    if "backbone" in chosen:
        return chosen["backbone"]
    dataset = chosen["dataset"]
    defaults = DATASETS.get(dataset.value).info.defaults
    return Option(defaults.get("backbone", FALLBACKS["backbone"]), dataset.where)


class _Rule:
    """An override, and the values of ``when`` that matched a run."""

    def __init__(self, sweep: Sweep, index: int, rule: Rule) -> None:
        place: Place = ("overrides", index)
        self.when = sweep.options(rule.when, (*place, "when"))
        self.values = sweep.options(rule.set, (*place, "set"))
        self.matched: set[tuple[str, Any]] = set()
        for name, option in self.when.items():
            if name not in AXES:
                raise UsageError(f"{option.where}: when takes {', '.join(AXES)}")
        for name, option in self.values.items():
            if name in AXES:
                raise UsageError(f"{option.where}: the runs are a product over it: write it there")
        self.accepted = {name: choices_of(name, option) for name, option in self.when.items()}

    def apply(self, chosen: Options) -> None:
        choices = {axis: chosen[axis].value for axis in AXES if axis in chosen}
        choices = {"seed": 0, "backbone": _backbone(chosen).value, **choices}
        if all(choices[a] in [o.value for o in options] for a, options in self.accepted.items()):
            self.matched |= {(axis, choices[axis]) for axis in self.accepted}
            chosen.update(self.values)

    def check_used(self, runs: Sequence[RunConfig]) -> None:
        """Raise UsageError for a value of ``when`` that no run has."""
        for axis, options in self.accepted.items():
            for option in options:
                if (axis, option.value) not in self.matched:
                    names = dict.fromkeys(str(getattr(run, axis)) for run in runs)
                    hint = suggestion(str(option.value), names)
                    raise UsageError(f"{option.where}: {option.value}: no run is meant: {hint}")


def _places(
    sweep: Sweep, key: str, file: Mapping[str, str], command_line: Mapping[str, str]
) -> dict[str, Option]:
    """Paths by data set or backbone, from the file or, stronger, the command line."""
    axis = {"data": "dataset", "weights": "backbone"}[key]
    places = {}
    for name, text in file.items():
        where = f"{sweep.source.where((key, name))}: {key}: {name}"
        places[name] = Option(text, where)
    places |= {name: Option(text, f"--{key} {name}") for name, text in command_line.items()}
    for name, option in places.items():
        check_choice(axis, name, option.where)
    return places


def _check_places(
    runs: Sequence[RunConfig], data: Mapping[str, str], weights: Mapping[str, str]
) -> None:
    """Raise UsageError for a path on the command line that no run needs."""
    for key, axis, given in (("data", "dataset", data), ("weights", "backbone", weights)):
        names = dict.fromkeys(str(getattr(run, axis)) for run in runs)
        for name in given:
            if name not in names:
                raise UsageError(f"--{key} {name}: no run has it: {suggestion(name, names)}")


def unset_variables(path: Any) -> list[str]:
    """Names of the unset environment variables in a path."""
    return [n for n in re.findall(r"\$\{(\w+)\}", str(path)) if not os.environ.get(n)]


def _expanded(text: Any) -> Any:
    """``text`` with each ``${NAME}`` replaced by the environment variable, if it is set."""
    if not isinstance(text, str):
        return text
    return re.sub(r"\$\{(\w+)\}", lambda m: os.environ.get(m[1]) or m[0], text)


Places = Mapping[str, Mapping[str, Option]]
Given = Mapping[str, Mapping[str, str]]


def _place(kind: str, chosen: Options, places: Places, given: Given, name: str) -> Option | None:
    """The path of ``name``'s data or weights: the command line's, the run's own, the file's."""
    if name in places[kind] and (kind not in chosen or name in given[kind]):
        return places[kind][name]
    return chosen.get(kind)


def _locate(chosen: Options, places: Places, given: Given) -> None:
    """Set the paths of a run's data and weights in ``chosen``; the command line's win."""
    backbone = _backbone(chosen).value
    for kind, name in (("data", chosen["dataset"].value), ("weights", backbone)):
        place = _place(kind, chosen, places, given, name)
        if place is not None and place is not chosen.get(kind):
            chosen[kind] = place
            if kind == "weights":
                chosen.pop("pretrained", None)
    for name in ("data", "weights"):
        if name in chosen:
            chosen[name] = Option(_expanded(chosen[name].value), chosen[name].where)
    if "weights" in chosen and (unset := unset_variables(chosen["weights"].value)):
        raise UsageError(
            f"{chosen['weights'].where}: the environment variable {unset[0]} is not set: "
            f"set it, or give --weights {backbone}=FILE"
        )


def _configured(chosen: Options, block: str) -> ResolvedRun:
    """The resolved run of these options. Raises UsageError that names the line and the key."""
    values = {name: option.value for name, option in chosen.items() if option.value is not None}
    try:
        return resolve(RunConfig(**values))
    except ValidationError as error:
        first = error.errors()[0]
        message = message_of(first)
        if first["loc"]:
            option = chosen[str(first["loc"][0])]
            raise UsageError(
                f"{option.where}: {message} (got {printable(repr(first['input']), 200)})"
            ) from None
        for name, option in chosen.items():
            if message.startswith(f"{option_name(name)}: "):
                reason = message.removeprefix(f"{option_name(name)}: ")
                raise UsageError(f"{option.where}: {reason}") from None
        raise UsageError(f"{block}: {message}") from None
    except UserError as error:
        raise type(error)(f"{block}: {error}") from None
