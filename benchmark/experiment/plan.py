"""From options to the list of runs: products, defaults of the data set, names checked."""

import functools
import itertools
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch

from benchmark.experiment.config import (
    FALLBACKS,
    FILLED_IN,
    NetworkConfig,
    ResolvedRun,
    ResolvedSearch,
    RunConfig,
    SearchConfig,
    make_config,
    option_name,
    split_tasks,
)
from benchmark.experiment.distributed import asked
from benchmark.experiment.initial import Initial
from common.errors import DataError, UsageError
from common.files import sha256_of
from common.limits import WEIGHTS, LimitError, check_size
from datasets.base import DATASETS, DatasetInfo
from datasets.hdf5 import check_packed_size, is_packed
from datasets.pipeline import description_of, info_at
from models.backbone_facts import for_size
from models.backbones import check_arguments, create_without_weights, input_statistics
from models.connected_decoder import ConnectedDecoder
from models.connectivity import Connectivity
from models.create import check_width, create_decoder, decoder_class
from models.decoder_name import DecoderName
from models.decoders.base import Decoder
from models.feature_maps import FeatureSpec, as_dilated
from models.weights import averaged_entry
from tasks.base import TASKS, Task

AXES = ("backbone", "decoder", "seed")
DEFAULT_DECODERS = ("sparsemask", "unet-connectivity", "fcn", "deeplabv3-light", "smp-fpn")


def info_of(config: NetworkConfig) -> DatasetInfo:
    """The facts of a configuration's data set."""
    return DATASETS.get(config.dataset).facts(config.description)


def make_task(config: NetworkConfig, name: str | None = None) -> Task:
    """The task of a run, or the one called ``name`` of a search, with the data set's facts."""
    name = name or config.task
    task = TASKS.get(name)
    info = info_of(config)
    if task.target not in info.tasks:
        wanted = name if name == task.target else f"{task.target}, which {name} needs"
        has = ", ".join(info.tasks)
        raise UsageError(f"data set {config.dataset} has no {wanted}: it has {has}")
    facts = info.tasks[task.target]
    return task(**facts, loss=config.loss if isinstance(config, RunConfig) else None)


def make_tasks(config: NetworkConfig) -> list[Task]:
    """The tasks that ``a+b`` joins, each once."""
    return [make_task(config, name) for name in dict.fromkeys(config.tasks)]


def targets_of(task: str) -> list[str]:
    """The targets that the tasks ``a+b`` joins are learned from. Raises UsageError for no task."""
    return [TASKS.get(name).target for name in split_tasks(task)]


def run_key(config: RunConfig) -> str:
    """The key that names a resolved run."""
    info = info_of(config)
    return config.key(info.generic, info.revision)


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run, the key that names it, and the folder that holds its result."""

    config: ResolvedRun
    key: str
    folder: Path

    @classmethod
    def of(cls, config: ResolvedRun, results: Path) -> "PlannedRun":
        """The folder, in ``results``, is named for people and made unique by the key."""
        key = run_key(config)
        name = DecoderName.parse(config.decoder)
        decoder = name.label if name.file is None else f"connectivity-{name.label}"
        parts = (config.task, config.dataset, config.backbone, decoder, f"seed{config.seed}", key)
        return cls(config, key, results / "_".join(part.replace("/", "-") for part in parts))


def planned(configs: Iterable[ResolvedRun], results: Path) -> list[PlannedRun]:
    """Runs whose results are to lie in the folder ``results``."""
    return [PlannedRun.of(config, results) for config in configs]


def as_resolved(config: RunConfig) -> ResolvedRun:
    """The configuration of a result, which holds a value for every open field.

    Raises UsageError that names one which has none, as in a file that was edited.
    """
    return make_config(config.model_dump(), ResolvedRun)


@overload
def resolve(config: RunConfig) -> ResolvedRun: ...


@overload
def resolve(config: SearchConfig) -> ResolvedSearch: ...


def resolve(config: RunConfig | SearchConfig) -> ResolvedRun | ResolvedSearch:
    """``config`` with every open field filled from the data set, the weights and the fallbacks.

    Raises UsageError for unknown names and for arguments that the backbone does not take, DataError
    for a missing weights file.
    """
    described = description_of(config.dataset, config.data)
    config = config.model_copy(update={"description": described})
    make_tasks(config)
    initial = None if config.init is None else Initial.open(config.init)
    if initial is not None:
        config = initial.followed_by(config, info_of(config).channels)
    file = DecoderName.parse(config.decoder).file if isinstance(config, RunConfig) else None
    decoder = decoder_class(config.decoder) if isinstance(config, RunConfig) else None
    if initial is not None and config.width is None and _same_kind(initial.config, decoder):
        config = config.model_copy(update={"width": initial.config.width})
    if isinstance(config, RunConfig):
        check_width(config.decoder, config.width)
    defaults = {**FALLBACKS, **info_of(config).defaults}
    values: dict[str, Any] = {
        name: value
        for name, value in defaults.items()
        if name in type(config).model_fields and getattr(config, name) is None
    }
    if isinstance(config, RunConfig) and config.steps is not None:
        values |= {"epochs": 1, "validate_every": 1}  # one epoch of that length
    crop, size = values.get("crop_size"), config.image_size
    if crop is not None and size is not None and (crop[0] > size[0] or crop[1] > size[1]):
        del values["crop_size"]  # meant for the data set's own size
    if config.weights is not None:
        try:
            check_size(config.weights, WEIGHTS)
            values["weights_sha256"] = sha256_of(config.weights)
        except FileNotFoundError:
            raise DataError(f"{config.weights}: no such weights file: check --weights") from None
        except (OSError, LimitError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"{config.weights}: cannot be read ({reason})") from error
        if config.weights_key is None:  # what is taken is part of the configuration
            values["weights_key"] = _averaged_entry(config.weights, values["weights_sha256"])
    if initial is not None:
        values["init_sha256"] = sha256_of(initial.file)
    if file is not None:
        wired = Connectivity.load(file).to_json()
        values["wiring"] = {"strides": wired["encoder"]["strides"], "stages": wired["stages"]}
    check_arguments(config.backbone_args)
    size = config.image_size or values["image_size"]
    backbone = config.backbone or values["backbone"]
    channels = info_of(config).channels
    if config.backbone_args:
        full = decoder is not None and decoder.info.full_resolution
        arguments = json.dumps(config.backbone_args, sort_keys=True)
        features = _features(backbone, arguments, channels, full)
        if isinstance(config, RunConfig) and issubclass(decoder or Decoder, ConnectedDecoder):
            values["match_undilated"] = _differs(config.decoder, features, values.get("wiring"))
    values["backbone_args"] = for_size(backbone, config.backbone_args, size, channels)
    usual = input_statistics(backbone, config.weights, channels)
    for name, default in zip(("mean", "std"), usual, strict=True):
        numbers = getattr(config, name) or values.get(name) or default
        values[name] = _for_each(name, tuple(numbers), config.dataset, channels)
    values["processes"] = asked()
    if decoder is not None:
        values["decoder_revision"] = decoder.info.revision
    filled = {**config.model_dump(), **values}
    if isinstance(config, RunConfig):
        return make_config(filled, ResolvedRun)
    return make_config(filled, ResolvedSearch)


def _same_kind(run: RunConfig, decoder: type[Decoder] | None) -> bool:
    """Whether the decoder of ``run`` hands its width to ``decoder``; None: that of a search."""
    if run.width is None:
        return False
    theirs = decoder_class(run.decoder, run.decoder_revision)
    mine = ConnectedDecoder if decoder is None else decoder
    return theirs is mine or (
        issubclass(theirs, ConnectedDecoder) and issubclass(mine, ConnectedDecoder)
    )


@functools.lru_cache(maxsize=64)
def _features(name: str, arguments: str, channels: int, full: bool) -> tuple[FeatureSpec, ...]:
    """The maps of a backbone; full: with that at the image's own resolution.

    Raises UsageError for arguments, a JSON mapping, that it does not take.
    """
    return create_without_weights(name, json.loads(arguments), channels, full).features


def _differs(name: str, features: Sequence[FeatureSpec], wiring: Mapping[str, Any] | None) -> bool:
    """Whether a wired decoder has other connections by the strides that features have undilated."""
    if all(feature.undilated == feature.stride for feature in features):
        return False
    stages = []
    for matched in (features, as_dilated(features)):
        with torch.device("meta"):
            decoder = create_decoder(name, matched, wiring=wiring)
        assert isinstance(decoder, ConnectedDecoder)
        stages.append(decoder.connectivity.stages)
    return stages[0] != stages[1]


@functools.lru_cache(maxsize=32)
def _averaged_entry(file: Path, sha256: str) -> str | None:  # noqa: ARG001
    """``averaged_entry`` of a file of that content, which is read once for many runs."""
    return averaged_entry(file)


def default_decoders(values: Mapping[str, Any]) -> Sequence[str]:
    """The decoders of a run that names none: that of the run in ``init``, else several."""
    if values.get("init") is None:
        return DEFAULT_DECODERS
    return (Initial.open(Path(str(values["init"]))).config.decoder,)


def _for_each(
    name: str, numbers: tuple[float, ...], dataset: str, channels: int
) -> tuple[float, ...]:
    """``numbers`` for each of the images' channels; one number stands for all.

    Raises UsageError for another number of them.
    """
    if len(numbers) not in (1, channels):
        raise UsageError(
            f"--{name}: {len(numbers)} numbers, the images of {dataset} have {channels} channels: "
            f"write one number, or {channels} with commas between"
        )
    return numbers if len(numbers) == channels else numbers * channels


def check_packed(config: NetworkConfig) -> None:
    """Raises UsageError for a packed file of another size than the run's, before what is slow."""
    if config.data is None or not is_packed(config.data):
        return
    defaults = {**FALLBACKS, **info_at(config.dataset, config.data).defaults}
    size = config.image_size or defaults["image_size"]
    check_packed_size(config.data, config.dataset, size)


def plan(values: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> list[ResolvedRun]:
    """The resolved runs of ``values`` for every combination of ``axes``, in order, once each."""
    names = [name for name in AXES if axes.get(name)]
    runs: dict[str, ResolvedRun] = {}
    for choice in itertools.product(*(axes[name] for name in names)):
        asked_for = make_config({**values, **dict(zip(names, choice, strict=True))})
        if not runs:
            check_packed(asked_for)
        config = resolve(asked_for)
        runs.setdefault(run_key(config), config)
    return list(runs.values())


def command_of(config: NetworkConfig, command: str = "run") -> str:
    """The command that repeats a run or a search."""
    started = ["python"]
    if config.processes > 1:
        started = ["torchrun", "--nproc-per-node", str(config.processes)]
    parts = [*started, "cli.py", command]
    for name, value in config.model_dump(mode="json", exclude=set(FILLED_IN)).items():
        option = option_name(name)
        default = type(config).model_fields[name].get_default(call_default_factory=True)
        if isinstance(value, dict):
            for key, item in value.items():
                parts += [option, f"{key}={json.dumps(item)}"]
        elif name == "task":
            for task in split_tasks(value):
                parts += [option, task]
        elif value == (list(default) if isinstance(default, tuple) else default):
            if name in ("dataset", "decoder"):
                parts += [option, str(value)]
        elif value is None:
            parts += [option, "none"]
        elif isinstance(value, bool):
            parts.append(option if value else f"--no-{option[2:]}")
        elif isinstance(value, list):
            separator = "x" if name.endswith("_size") else ","
            parts += [option, separator.join(str(item) for item in value)]
        else:
            parts += [option, str(value)]
    return shlex.join(parts)
