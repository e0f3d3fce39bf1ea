"""One JSON file a run: written atomically, read, filtered."""

import io
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.config import RunConfig
from common.files import write_atomic
from tasks.metrics.base import Floats

FILE = "result.json"
REPLICATES = "bootstrap.npz"


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
    None until the run has been timed. folder: where it was read from, not written.
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
    path = folder / FILE
    try:
        result = Result.model_validate_json(path.read_bytes())
        result.folder = folder
        return result
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()
        warnings.warn(f"{path}: left out: {' '.join(reason[:3])}", stacklevel=2)
        return None


def save_replicates(folder: Path, replicates: Mapping[str, Mapping[str, Floats]]) -> None:
    """Write the bootstrap replicates of each task's metrics, for comparisons image by image."""
    arrays = {
        f"{task}/{name}": values.astype(np.float32)
        for task, metrics in replicates.items()
        for name, values in metrics.items()
    }
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
    write_atomic(folder / REPLICATES, out.getvalue())


def load_replicates(folder: Path, task: str) -> dict[str, Floats]:
    """The replicates of one task's metrics, by name; empty where the folder holds none readable.

    Two runs scored on the same images drew the same splits: their replicates are paired.
    """
    try:
        with np.load(folder / REPLICATES, allow_pickle=False) as file:
            return {
                name.removeprefix(f"{task}/"): file[name].astype(np.float64)
                for name in file.files
                if name.startswith(f"{task}/")
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}


def read_all(results: Path) -> Iterator[Result]:
    """Every readable result under ``results``, in order of folder names."""
    for path in sorted(results.glob(f"*/{FILE}")):
        result = load(path.parent)
        if result is not None:
            yield result
