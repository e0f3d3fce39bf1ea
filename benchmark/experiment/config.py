"""RunConfig: everything that determines a result. Its hash names the run.

Imports nothing heavy, so that the command line can build its options from the fields.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, overload

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from common.errors import DataError, UsageError
from common.limited_yaml import WRONG, LimitedLoader, check_json, read_yaml_text
from common.limits import CHANNELS, PIXELS, WIDTH, printable
from common.registry import nearest
from common.validation import message_of, size_of

Size = tuple[int, int]
Channels = Annotated[tuple[float, ...], Field(min_length=1, max_length=CHANNELS)]
Config = TypeVar("Config", bound="NetworkConfig")
MOST_SEED = 2**62
"""Torch takes seeds of 64 bits; those of further processes are larger by some millions."""


def split_tasks(task: str) -> list[str]:
    """The names of the tasks that ``a+b`` joins."""
    return task.split("+")


class NetworkConfig(BaseModel):
    """The data, the network's backbone and how it is trained: what a run and a search share.

    A field that is None here and has a value in the data set's ``defaults`` takes that value, then
    the value in ``FALLBACKS``; ``benchmark.experiment.plan.resolve`` does so before a run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    task: str = Field("depth", description="What to predict.")
    dataset: str = Field("scenes", description="Data set; see `list datasets`.")
    data: Path | None = Field(None, description="Folder of the data set, or its packed FILE.h5.")
    description: dict[str, Any] | None = Field(
        None, description="Filled in from the data's own description."
    )
    limit: int | None = Field(None, ge=1, description="Use only the first N images of each split.")

    backbone: str | None = Field(None, description="timm model with at least four strides.")
    backbone_args: dict[str, Any] = Field(
        default_factory=dict, description="KEY=VALUE passed to timm.create_model."
    )
    weights: Path | None = Field(None, description="Backbone weights: .safetensors or .pth.")
    weights_sha256: str | None = Field(None, description="Filled in from the weights file.")
    weights_key: str | None = Field(
        None,
        description="Entry or prefix of that file, as in state_dict; default: averaged weights "
        "(EMA) if it has some.",
    )
    pretrained: bool = Field(False, description="Download timm's own weights.")
    init: Path | None = Field(
        None, description="Begin with the network of another run: its folder, or a file in it."
    )
    init_sha256: str | None = Field(None, description="Filled in from that run's weights.")
    mean: Channels | None = Field(
        None, description="Input mean in 0…1: one number, or one for each channel (R,G,B)."
    )
    std: Channels | None = Field(None, description="Input standard deviation, likewise.")
    width: int | None = Field(
        None, ge=1, le=WIDTH,
        description="Channels of the decoder's own maps, where it has a choice; default: its own.",
    )  # fmt: skip

    seed: int = Field(
        0, ge=0, le=MOST_SEED, description="Seed of initialisation, order and augmentation."
    )
    image_size: Size | None = Field(None, description="Images are resized to HxW.")
    crop_size: Size | None = Field(
        None, description="Training crops, HxW; default: the data set's, else none."
    )
    zoom: tuple[float, float] | None = Field(None, description="Random zoom in training: LOW,HIGH.")
    flip: bool = Field(True, description="Random left-right flip in training.")
    rotate: float | None = Field(
        None, ge=0, le=180, description="Random rotation by multiples of this angle; 0: off."
    )
    colour: float | None = Field(None, ge=0, le=1, description="Strength of colour jitter, 0…1.")

    batch_size: int | None = Field(None, ge=1, description="Images in a training step.")
    optimizer: Literal["sgd", "adamw"] | None = Field(None, description="Optimiser.")
    lr: float | None = Field(None, gt=0, description="Learning rate of the backbone.")
    decoder_lr_factor: float | None = Field(
        None, gt=0, description="Learning rate of decoder, neck and heads, as a multiple of --lr."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    weight_decay: float | None = Field(None, ge=0, description="Weight decay.")
    schedule: Literal["poly", "cosine"] | None = Field(
        None, description="Decay of the learning rate."
    )
    warmup: float | None = Field(
        None, ge=0, lt=1, description="Share of the steps that warm up linearly."
    )
    clip_grad: float | None = Field(None, ge=0, description="Clip the gradient's norm; 0: off.")
    amp: bool = Field(False, description="Mixed precision in training and scoring.")
    sync_bn: bool = Field(False, description="BatchNorm over the batch of all processes.")
    processes: int = Field(1, ge=1, description="Filled in under torchrun.")
    device: str = Field("cpu", description="cpu, cuda or cuda:N.")
    workers: int = Field(0, ge=0, le=512, description="Processes that read images.")
    on_bad_sample: Literal["stop", "skip"] = Field(
        "stop", description="What a sample that cannot be read does; skipped ones are counted."
    )
    threads: int | None = Field(None, ge=1, le=4096, description="CPU threads; default: all cores.")

    @property
    def tasks(self) -> list[str]:
        """The names that ``task`` joins by ``+``."""
        return split_tasks(self.task)

    def settings(self) -> dict[str, Any]:
        """All fields as JSON, without those of ``LATER`` at their default."""
        content = self.model_dump(mode="json")
        fields = type(self).model_fields
        late = {name for name in LATER if name in fields and content[name] == fields[name].default}
        return {name: value for name, value in content.items() if name not in late}

    @property
    def scored_description(self) -> str:
        """The parts of ``description`` that decide a score, as one text; "" without any."""
        if self.description is None:
            return ""
        parts = {name: x for name, x in self.description.items() if name not in UNSCORED}
        return json.dumps(parts, sort_keys=True, ensure_ascii=False)

    @field_validator("image_size", "crop_size", mode="before")
    @classmethod
    def _parse_size(cls, value: Any) -> Any:
        return size_of(value)

    @field_validator("zoom", "mean", "std", "ramp", mode="before", check_fields=False)
    @classmethod
    def _parse_numbers(cls, value: Any) -> Any:
        """Numbers with commas between."""
        numbers = value.split(",") if isinstance(value, str) else value
        return [numbers] if isinstance(numbers, int | float) else numbers

    @field_validator("backbone_args")
    @classmethod
    def _check_arguments(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for key, value in arguments.items():
            try:
                check_json(value)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
        return arguments

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("image_size", "crop_size"):
            size = getattr(self, name)
            option = f"--{name.replace('_', '-')}"
            if size is not None and min(size) < 32:
                raise ValueError(f"{option}: {size[0]}x{size[1]} is smaller than 32x32")
            if size is not None and size[0] * size[1] > PIXELS:
                raise ValueError(f"{option}: {size[0]}x{size[1]} has more than {PIXELS} pixels")
        if self.zoom is not None and not 0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"--zoom: {self.zoom[0]},{self.zoom[1]} is not 0 < LOW ≤ HIGH")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError("--std: must be positive")
        if self.weights is not None and self.pretrained:
            raise ValueError("--pretrained: give it or --weights, not both")
        if self.init is not None and (self.weights is not None or self.pretrained):
            other = "--pretrained" if self.pretrained else "--weights"
            raise ValueError(f"--init: has a backbone of its own: give it or {other}, not both")
        if self.weights_key is not None and self.weights is None:
            raise ValueError("--weights-key: names a part of a file: give it with --weights")
        return self


class RunConfig(NetworkConfig):
    """One run: a network, the data that it is trained and scored on, and how.

    ``task`` may join several tasks by ``+``: one network with a head for each.
    """

    decoder: str = Field(
        "sparsemask", description="Decoder, see `list decoders`; or connectivity:FILE.json."
    )
    wiring: dict[str, Any] | None = Field(None, description="Filled in from the FILE.json.")
    decoder_revision: int = Field(
        1, ge=1, description="Filled in: which of the networks that the decoder's name has had."
    )
    match_undilated: bool = Field(
        False,
        description="Filled in: a wiring is matched by the strides that a dilated backbone has "
        "undilated, which gives it other connections than the dilated ones do.",
    )
    epochs: int | None = Field(None, ge=1, description="Passes over the training split.")
    steps: int | None = Field(
        None, ge=1, description="Training steps, in place of --epochs: less or more than a pass."
    )
    split: Literal["test", "val"] = Field(
        "test",
        description="Split that is scored at the end; val keeps test unseen while you choose.",
    )
    ema: float | None = Field(
        None, gt=0, lt=1, description="Decay of averaged weights; default: off."
    )
    loss: str | None = Field(None, description="Sum of terms, as in ce+0.5*dice.")
    loss_weighting: Literal["fixed", "uncertainty", "dwa"] = Field(
        "fixed", description="How the losses of several tasks are weighed."
    )
    task_weights: dict[str, float] = Field(
        default_factory=dict, description="TASK=FACTOR on that task's loss."
    )
    separate_decoders: bool = Field(False, description="A decoder for each task, not a shared one.")
    score: Literal["last", "best"] = Field(
        "last", description="Score the last epoch's weights or the best validated ones."
    )
    validate_every: int | None = Field(None, ge=1, description="Epochs between validations.")

    @model_validator(mode="after")
    def _check_tasks(self) -> Self:
        tasks = self.tasks
        if len(set(tasks)) < len(tasks):
            raise ValueError(f"--task: {self.task} names a task twice")
        for name in ("epochs", "validate_every"):
            if self.steps is not None and getattr(self, name) not in (None, 1):
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option}: {getattr(self, name)}: give it or --steps, not both")
        if self.split == "val" and self.score == "best":
            raise ValueError(
                "--split val: flatters --score best, whose epoch is chosen on val: leave one out"
            )
        joint = self.loss_weighting != "fixed" or self.task_weights or self.separate_decoders
        if len(tasks) == 1 and joint:
            raise ValueError(
                "--loss-weighting, --task-weight, --separate-decoders: for several --task only"
            )
        if len(tasks) > 1 and self.loss is not None:
            raise ValueError(f"--loss: {self.loss}: give it with one --task, not {len(tasks)}")
        for task, factor in self.task_weights.items():
            if task not in tasks:
                raise ValueError(f"--task-weight: {task} is none of the tasks {', '.join(tasks)}")
            if not 0 < factor < math.inf:
                raise ValueError(f"--task-weight: {task}={factor:g} is not above 0")
        return self

    @property
    def length(self) -> str:
        """How long it is trained: ``8`` epochs, or ``50 steps``."""
        return str(self.epochs) if self.steps is None else f"{self.steps} steps"

    def key(self, data_is_identity: bool, revision: int = 1) -> str:
        """Ten hexadecimal digits over everything that determines the result.

        Where a file lies does not: weights and wirings count by content, and the data folder only
        if the data set is the user's own (``data_is_identity``). revision: of its reader.
        """
        content = self.model_dump(
            mode="json", exclude=NOT_IDENTITY | set(() if data_is_identity else ("data",))
        )
        if data_is_identity and self.data is not None:
            content["data"] = str(self.data.expanduser().resolve())
        content["revision"] = revision
        for name in SINCE:  # keys of runs without them stay
            if name in content and content[name] == type(self).model_fields[name].default:
                del content[name]
        if self.wiring is None:
            del content["wiring"]
        else:
            del content["decoder"]
        if self.description is not None:
            content["description"] = self.scored_description
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:10]


class SearchConfig(NetworkConfig):
    """One search for a wiring. ``task`` may join several tasks by ``+``: one wiring for all.

    Learning rates, ramp and iterations that decide within minutes: ``docs/paper-search.md``.
    """

    task: str = Field("segmentation", description="What to predict.")
    iterations: int = Field(300, ge=1, description="Training steps.")
    method: Literal["sparsemask", "maskconnect", "perturbation"] = Field(
        "sparsemask",
        description="Weights decide on any number of inputs to a stage, or on a fixed one "
        "(--inputs); perturbation: what the loss of the trained network of all connections "
        "misses least is dropped.",
    )
    inputs: int = Field(2, ge=1, description="Inputs of each stage with maskconnect.")
    loss: Literal["sparse", "l1"] = Field("sparse", description="What drives weights to 0.")
    lambda_: float = Field(0.3, ge=0, description="Weight of that loss.")
    ramp: tuple[float, float] = Field(
        (0.15, 0.55), description="Its weight grows between these shares of the steps: FROM,TO."
    )
    threshold: float = Field(
        0.001, ge=0, lt=1, description="Connections up to this weight (0…1) are dropped."
    )
    noise: float = Field(0.1, ge=0, description="Standard deviation of the noise on weights.")
    settle: float = Field(
        0.15, ge=0, le=1, description="Share of the steps, at the end, without that noise."
    )
    direct_drop: float = Field(
        0.0, ge=0, lt=1,
        description="Share of the steps that leave out a connection of the encoder straight into "
        "the output.",
    )  # fmt: skip
    connection_bn: bool = Field(True, description="BatchNorm in every connection.")
    connection_lr: float | None = Field(
        0.03, gt=0, description="Adam's rate for the weights; none: the network's optimiser."
    )
    cost: Literal["latency", "macs", "params"] | None = Field(
        None,
        description="A connection's cost, in the loss besides; with --method front the network's, "
        "which the front holds its score against: macs, unless latency is asked for, which is "
        "measured here and so does not repeat.",
    )
    cost_weight: float = Field(0.0, ge=0, description="Weight of the cost, 1 for all connections.")
    merge: bool = Field(True, description="Merge stages with the same inputs.")
    absorb: bool = Field(True, description="Drop stages that another one contains.")

    @field_validator("connection_lr", mode="before")
    @classmethod
    def _parse_none(cls, value: Any) -> Any:
        return None if value == "none" else value

    @model_validator(mode="after")
    def _check_search(self) -> Self:
        start, end = self.ramp
        if not 0 <= start <= end <= 1:
            raise ValueError(f"--ramp: {start:g},{end:g} is not 0 ≤ FROM ≤ TO ≤ 1")
        if (self.cost is None) != (self.cost_weight == 0):
            raise ValueError("--cost and --cost-weight: give both or neither")
        return self


CANDIDATES = 16
"""Of a search for a front without a time to spend."""


class FrontConfig(NetworkConfig):
    """A search for a front of wirings: candidates, trained briefly and kept by halving.

    The gradient searches among its sources take ``searches``, the options of ``SearchConfig``.
    """

    task: str = Field("segmentation", description="What to predict.")
    epochs: int | None = Field(
        None, ge=1, description="Passes of a full training, of which a rung is a share."
    )
    steps: int | None = Field(None, ge=1, description="Steps of a full training, likewise.")
    rungs: tuple[float, ...] = Field(
        (0.1, 1 / 3), min_length=1, max_length=8,
        description="Shares of a full training after which a third of the candidates stays.",
    )  # fmt: skip
    candidates: int | None = Field(
        None, ge=1, le=1000, description=f"Wirings that are trained; default: {CANDIDATES}."
    )
    minutes: float | None = Field(
        None, gt=0, description="Time to spend, control included, in place of a number of them."
    )
    cost: Literal["latency", "macs", "params"] | None = Field(
        None, description="Of the whole network, see ``SearchConfig``."
    )
    budget_ms: float | None = Field(
        None, gt=0, description="Most milliseconds of one image, network and resizing."
    )
    budget_macs: float | None = Field(
        None, gt=0, description="Most multiply-accumulates of one image."
    )
    control: Literal["none", "random"] = Field(
        "none", description="random: as many steps on random wirings, for comparison."
    )
    searches: dict[str, Any] = Field(default_factory=dict)

    @field_validator("rungs", mode="before")
    @classmethod
    def _parse_rungs(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_front(self) -> Self:
        rungs = self.rungs
        if not all(a < b <= 1 for a, b in itertools.pairwise((0.0, *rungs))):
            raise ValueError(f"--rungs: {_listed(rungs)} do not grow within 0…1")
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"--epochs: {self.epochs}: give it or --steps, not both")
        if self.candidates is not None and self.minutes is not None:
            raise ValueError(f"--minutes: {self.minutes:g}: give it or --candidates, not both")
        return self


def _listed(numbers: Iterable[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


class Resolved(NetworkConfig):
    """A configuration whose open fields have values, as ``benchmark.experiment.plan.resolve``
    fills them. The fields are those of ``FALLBACKS``, and mean and std: a number for each channel
    of the images."""

    backbone: str
    mean: Channels
    std: Channels
    image_size: Size
    zoom: tuple[float, float]
    rotate: float
    colour: float
    batch_size: int
    optimizer: Literal["sgd", "adamw"]
    lr: float
    decoder_lr_factor: float
    weight_decay: float
    schedule: Literal["poly", "cosine"]
    warmup: float

    @property
    def channels(self) -> int:
        """Channels of the images; 3 is RGB."""
        return len(self.mean)

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"--std: has {len(self.std)} numbers, --mean has {len(self.mean)}")
        return self


class ResolvedRun(Resolved, RunConfig):
    """A run as it is executed."""

    epochs: int
    validate_every: int


class ResolvedSearch(Resolved, SearchConfig):
    """A search as it is executed."""


FALLBACKS: Mapping[str, Any] = {
    "backbone": "mobilenetv2_100",
    "image_size": (256, 256),
    "zoom": (1.0, 1.5),
    "rotate": 0.0,
    "colour": 0.2,
    "epochs": 8,
    "validate_every": 1,
    "batch_size": 8,
    "optimizer": "sgd",
    "lr": 0.01,
    "decoder_lr_factor": 10.0,
    "weight_decay": 4e-5,
    "schedule": "poly",
    "warmup": 0.0,
}


PAPER_SEARCH: Mapping[str, Any] = {
    "image_size": (513, 513),
    "iterations": 33_000,
    "batch_size": 16,
    "optimizer": "sgd",
    "lr": 0.005,
    "decoder_lr_factor": 10.0,
    "weight_decay": 4e-5,
    "schedule": "poly",
    "warmup": 0.0,
    "clip_grad": 0.0,
    "zoom": (0.5, 2.0),
    "lambda_": 0.01,
    "ramp": (0.0, 0.0),
    "settle": 0.0,
    "connection_lr": "none",
}
"""The paper's own search: ``search --preset paper``."""


PAIRS = {"backbone_args": "backbone_arg", "task_weights": "task_weight"}
"""Fields that one KEY=VALUE option each fills."""
LATER = (
    "description", "weights_key", "init", "init_sha256", "width", "decoder_revision",
    "match_undilated", "steps", "split", "direct_drop",
)  # fmt: skip
"""Fields that records of before lack."""
SINCE = (*LATER, "sync_bn", "processes")
"""Fields that came later: at their default the key is the one from before."""
UNSCORED = ("name", "licence", "citation")
"""Parts of a description that change no score."""
NOT_IDENTITY = {"weights", "init", "workers", "on_bad_sample"}
"""Fields that do not change what a run of good data gives."""
FILLED_IN = (
    "description", "weights_sha256", "init_sha256", "wiring", "decoder_revision", "match_undilated",
    "processes", "searches",
)  # fmt: skip
"""Fields that follow from files or from this version, and are no options."""


def option_name(field: str) -> str:
    """The command line's option for a field of a configuration."""
    return f"--{PAIRS.get(field, field).rstrip('_').replace('_', '-')}"


@overload
def make_config(values: Mapping[str, Any]) -> RunConfig: ...


@overload
def make_config(values: Mapping[str, Any], kind: type[Config]) -> Config: ...


def make_config(values: Mapping[str, Any], kind: type[NetworkConfig] = RunConfig) -> NetworkConfig:
    """A configuration from ``values``. Raises UsageError naming the key, value and remedy."""
    unknown = [key for key in values if key not in kind.model_fields]
    if unknown:
        close = nearest(unknown[0], kind.model_fields, 1)
        hint = f"did you mean {close[0]}?" if close else "see the command's --help"
        raise UsageError(f"unknown option '{unknown[0]}': {hint}")
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = message_of(first)
        seen = f" (got {printable(repr(first['input']), 200)})" if key else ""
        label = f"{option_name(str(first['loc'][0]))}: " if key else ""
        raise UsageError(f"{label}{message}{seen}") from error


def read_config_file(path: Path) -> dict[str, Any]:
    """The keys of a YAML file with the names of the options (dashes or underscores)."""
    try:
        content = yaml.load(read_yaml_text(path), LimitedLoader)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such configuration file") from None
    except (OSError, *WRONG) as error:
        reason = printable(" ".join(str(error).split()), 300)
        raise DataError(f"{path}: not a readable YAML file ({reason})") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected 'option: value' lines")
    values = {str(key).replace("-", "_"): value for key, value in content.items()}
    renamed = {option: field for field, option in PAIRS.items()} | {"lambda": "lambda_"}
    for option, field in renamed.items():
        if option in values:
            values[field] = values.pop(option)
    return values
