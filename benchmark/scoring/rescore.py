"""Score a trained network again: other split, data set or size, with flip, scales, windows."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel

from benchmark.experiment.config import ResolvedRun, RunConfig
from benchmark.experiment.environment import OPEN, Environment, environment
from benchmark.experiment.network import check_device
from benchmark.experiment.plan import as_resolved, info_of, make_tasks
from benchmark.experiment.readers import with_readers
from benchmark.results.checkpoint import open_checkpoint
from benchmark.results.result import SplitFacts, TaskScores
from benchmark.scoring.evaluate import evaluate, protocol_id, replicates_of, scores_of
from benchmark.scoring.views import Size, Views
from common.errors import UsageError
from common.progress import Listener, Silent
from datasets.hdf5 import is_packed
from datasets.pipeline import Resized, Split, description_of, open_split, role_of
from models.predictor import DensePredictor
from tasks.base import Task
from tasks.metrics.base import Accumulator


class Rescore(BaseModel):
    """Result of ``evaluate``: the scores of each task, and what they depend on."""

    format: int = 1
    checkpoint: str
    key: str
    tasks: dict[str, TaskScores]
    data: Annotated[SplitFacts, OPEN]
    environment: Annotated[Environment, OPEN]
    seconds: float


def rescore(
    path: Path,
    changes: Mapping[str, Any],
    views: Views,
    split: str = "test",
    original: bool = False,
    listener: Listener | None = None,
) -> Rescore:
    """Score the network of a run's folder or weights file on ``split``.

    split: as ``datasets.pipeline.role_of`` takes it; ``test`` is the one that the set is scored on.
    changes: fields to replace in its RunConfig (data set, data, size, device, …). original: take
    images at the files' own resolution. Raises UsageError for options that do not fit the network.
    """
    listener = listener or Silent()
    checkpoint = open_checkpoint(path)
    values = {**checkpoint.config.model_dump(), **changes}
    values["description"] = description_of(values["dataset"], values["data"])
    config = as_resolved(RunConfig.model_validate(values))
    check_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    original = original and not info_of(config).built_in  # rendered at any size
    size = None if original else config.image_size
    if is_packed(config.data) and (original or split == "train"):
        option = "--image-size original" if original else "--split train"
        raise UsageError(
            f"{option}: {config.data} holds this resized: name the folder by --data instead"
        )
    prepare_views(checkpoint.model, size, views)
    tasks = make_tasks(config)
    check_channels(checkpoint.config, config)
    for trained, task in zip(checkpoint.tasks, tasks, strict=True):
        check_classes(trained, task, config.dataset)
    role = role_of(config.dataset, config.data, split)
    targets = [task.target for task in tasks]
    whole = open_split(config.dataset, config.data, targets, config.image_size, role)
    part = Split(whole.data, whole.indices[: config.limit], whole.name)
    if len(part) < len(whole):
        whose = "" if "limit" in changes else " (the run's --limit; --limit all scores all)"
        listener.message(f"{part.name}: the first {len(part)} of {len(whole)} images{whose}")
    skips = config.on_bad_sample == "skip"
    data = Resized(part, size, targets, targets=False, skips=skips, keeps=False)
    model = checkpoint.model.to(torch.device(config.device), memory_format=torch.channels_last)  # type: ignore[call-overload]

    def attempt() -> dict[Task, Accumulator]:
        accumulators = {
            trained: task.accumulator()
            for trained, task in zip(checkpoint.tasks, tasks, strict=True)
        }
        evaluate(config, model, accumulators, data, listener, views)
        return accumulators

    start = time.perf_counter()
    accumulators = with_readers(attempt, config.workers, listener, saves=False)
    scores = {
        task.name: scores_of(
            accumulator,
            task,
            protocol_id(config, task, part.name.replace(" ", "-"), views, original, len(data.bad)),
            replicates_of(accumulator, task),
        )
        for task, accumulator in zip(tasks, accumulators.values(), strict=True)
    }
    return Rescore(
        checkpoint=str(path),
        key=checkpoint.key,
        tasks=scores,
        data={
            "images": len(part),
            **({"of": len(whole)} if len(part) < len(whole) else {}),
            "from": part.name,
            "fingerprint": part.data.fingerprint(),
            **({"skipped": data.errors()} if data.bad else {}),
        },
        environment=environment(config.device),
        seconds=time.perf_counter() - start,
    )


def prepare_views(model: DensePredictor, size: Size | None, views: Views) -> None:
    """Let ``model`` give its side outputs if the views merge them.

    Raises UsageError if it has none, and for sizes that the backbone does not take.
    """
    if views.sides:
        model.give_sides()
    fixed = model.backbone.fixed_size
    if views.window is not None:
        model.check_size(*views.window)
    elif fixed is not None and (size is None or views.scales != (1.0,)):
        raise UsageError(
            f"the backbone takes images of {fixed[0]}×{fixed[1]} only: add --window "
            f"{fixed[0]}x{fixed[1]}"
        )
    elif size is not None:
        model.check_size(*size)


def check_channels(trained: ResolvedRun, scored: ResolvedRun) -> None:
    """Raises UsageError if the network's channels are not the data set's."""
    info, mine = info_of(scored), info_of(trained).channel_names
    where = f"--dataset {scored.dataset}"
    if info.channels != trained.channels:
        raise UsageError(
            f"{where}: its images have {info.channels} channels, the network takes "
            f"{trained.channels}: name a data set of such images"
        )
    if mine and info.channel_names and mine != info.channel_names:
        raise UsageError(
            f"{where}: its channels are {', '.join(info.channel_names)}, those of the network are "
            f"{', '.join(mine)}: name them alike, in one order"
        )


def check_classes(trained: Task, scored: Task, dataset: str) -> None:
    """Raises UsageError if the network's classes are not the data set's."""
    mine, theirs = (getattr(task, "classes", ()) for task in (trained, scored))
    if mine != theirs:
        raise UsageError(
            f"--dataset {dataset}: has {len(theirs)} classes ({', '.join(theirs[:3])} …), the "
            f"network was trained for {len(mine)} others ({', '.join(mine[:3])} …)"
        )
