"""The result of a run: the fields of its JSON file."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from benchmark.experiment.config import RunConfig
from benchmark.experiment.environment import OPEN, Environment

FORMAT = 1

SplitFacts = TypedDict(
    "SplitFacts",
    {
        "images": int,
        "of": int,
        "channels": int,
        "from": str,
        "fingerprint": str,
        "skipped": list[str],
    },
    total=False,
)
"""The images of a split. of: how many it has, where a limit leaves some out. channels: of images
that are not RGB. from: its published name. skipped: the errors of bad samples."""


class Constant(TypedDict, total=False):
    """The best constant prediction of a task, and its scores: the floor."""

    value: Any
    metrics: dict[str, float]


class Speed(TypedDict, total=False):
    """A timing with its conditions.

    From median_ms to iqr_ms: of one forward. fps: images per second, batch / median. channels: of
    the images. session: an id that all networks timed in turns share. weights_of: key of the run
    whose weights were timed for all runs of this network. neck_ms: median of the backbone's neck
    alone, missing without one. peak_memory_mb: of one forward above the weights; peak_memory_how:
    which counter was read, or why there is none. disturbed: see ``Latency``; missing in results of
    earlier versions.
    """

    median_ms: float
    p5_ms: float
    p95_ms: float
    iqr_ms: float
    fps: float
    calls: int
    warmup_calls: int
    disturbed: float | None
    batch: int
    size: list[int]
    channels: int
    device: str
    hardware: str
    threads: int
    memory_format: str
    fused: bool
    compiled: bool
    amp: bool
    covers: str
    interleaved_with: list[str]
    session: str
    weights_of: str
    neck_ms: float
    peak_memory_mb: float | None
    weights_mb: float | None
    peak_memory_how: str


class TaskScores(BaseModel):
    """Scores of a run in one task.

    metrics and intervals: the test split's (95 % over the choice of images). bootstrap: "weighted",
    as ``tasks.metrics.resampling`` does it; empty: intervals of an earlier version, from images
    drawn with replacement. columns: the metrics that a table shows, the ranking one first;
    higher_is_better: for each of them. constant: scores of the best constant prediction, the floor.
    """

    model_config = ConfigDict(extra="forbid")

    protocol: str = ""
    columns: list[str] = Field(default_factory=list)
    higher_is_better: dict[str, bool] = Field(default_factory=dict)
    units: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = Field(default_factory=dict)
    bootstrap: Literal["", "weighted"] = ""
    counts: dict[str, int] = Field(default_factory=dict)
    constant: Annotated[Constant, OPEN] = Field(default_factory=Constant)


class Cost(BaseModel):
    """A task's ranking metric beside the one of eager f32, on the same images.

    difference: this one − eager f32's. interval: of the difference, 95 %, paired, over the choice
    of images; None without replicates. worse: the loss as a share of eager f32's metric, below 0:
    a gain; None if that is 0. within: the loss is one that the precision allows.
    """

    metric: str
    higher_is_better: bool
    reference: float
    value: float
    difference: float
    interval: tuple[float, float] | None
    worse: float | None
    within: bool


class Calibration(BaseModel):
    """How int8 came about: of ``asked`` training images there were ``images`` to choose ranges by.

    kept_in_float: names of the layers that stayed in float.
    """

    asked: int
    images: int
    split: str
    kept_in_float: list[str]


class PairScores(BaseModel):
    """A runtime and precision: its scores by task, and what they cost; or the reason for none.

    static: files take images of one size. once: see ``benchmark.speed.runtimes.Once``. speed: None
    until it is timed, by ``run``, in turns with the runs of its comparison; untimed: why that
    failed.
    """

    runtime: str
    precision: str
    reason: str | None = None
    static: bool = True
    tasks: dict[str, TaskScores] = Field(default_factory=dict)
    costs: dict[str, Cost] = Field(default_factory=dict)
    once: dict[str, Any] = Field(default_factory=dict)
    calibration: Calibration | None = None
    speed: Annotated[Speed, OPEN] | None = None
    untimed: str | None = None

    @property
    def kept_in_float(self) -> tuple[str, ...]:
        """Layers of int8 that stayed in float."""
        return () if self.calibration is None else tuple(self.calibration.kept_in_float)

    @property
    def pair(self) -> tuple[str, str]:
        return self.runtime, self.precision


class Result(TaskScores):
    """All that is needed to rank a run and to repeat it.

    Its own scores are those of a single task; with several tasks, ``tasks`` holds them by name.
    params, macs: of backbone, decoder and head, and of a neck where there is one. speed: None until
    the run is timed. resumed: steps at which an interrupted training went on.
    deployed: params and macs of the whole network where its backbone is re-parameterised before it
    is timed and exported, empty where it is not; ``params`` and ``macs`` are those in training.
    at_once: images that go through the network together, where memory does not hold a batch.
    pairs: the network in the runtimes and precisions that it was scored in.
    folder: the folder it was read from; it is not written.
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
    deployed: dict[str, int] = Field(default_factory=dict)
    speed: Annotated[Speed, OPEN] | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    history: list[dict[str, float]] = Field(default_factory=list)
    best_epoch: int = 0
    steps: int = 0
    resumed: list[int] = Field(default_factory=list)
    pairs: list[PairScores] = Field(default_factory=list)
    at_once: int | None = None
    data: Annotated[dict[str, SplitFacts], OPEN] = Field(default_factory=dict)
    environment: Annotated[Environment, OPEN] = Field(default_factory=Environment)
    command: str = ""
    folder: Path | None = Field(default=None, exclude=True)

    @property
    def machine(self) -> tuple[str, int]:
        """Device and threads; "" and 0 where a failed run has none."""
        return self.environment.get("device") or "", self.environment.get("threads") or 0

    def by_task(self) -> "dict[str, Result]":
        """The result by task, each with that task's scores as its own."""
        if not self.tasks:
            return {self.config.task: self}
        return {
            name: self.model_copy(update={f: getattr(scores, f) for f in TaskScores.model_fields})
            for name, scores in self.tasks.items()
        }
