"""One JSON file a run: written atomically, read, checked."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchmark.experiment.config import RunConfig

FORMAT = 1


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
