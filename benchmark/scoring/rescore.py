"""Score a trained network again: other split, data set or size, with flip, scales, windows."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field
from torch import nn

from benchmark.experiment.config import ResolvedRun, RunConfig
from benchmark.experiment.environment import OPEN, Environment, environment
from benchmark.experiment.network import check_device
from benchmark.experiment.plan import as_resolved, info_of, make_tasks
from benchmark.experiment.readers import with_readers
from benchmark.results.checkpoint import Checkpoint, open_checkpoint
from benchmark.results.result import PairScores, SplitFacts, TaskScores
from benchmark.scoring.evaluate import evaluate, protocol_id, replicates_of, scores_of
from benchmark.scoring.views import Size, Views
from common.errors import UsageError
from common.progress import Listener, Silent
from datasets.hdf5 import is_packed
from datasets.pipeline import Resized, Split, description_of, open_split, role_of
from models.predictor import DensePredictor
from tasks.base import Task
from tasks.metrics.base import Accumulator
from tasks.metrics.resampling import Floats


class Rescore(BaseModel):
    """Result of ``evaluate``: the scores of each task, and what they depend on.

    pairs: of the runtimes and precisions that were asked for; then ``tasks`` are of eager f32.
    """

    format: int = 1
    checkpoint: str
    key: str
    tasks: dict[str, TaskScores]
    data: Annotated[SplitFacts, OPEN]
    environment: Annotated[Environment, OPEN]
    seconds: float
    pairs: list[PairScores] = Field(default_factory=list)


@dataclass
class Scoring:
    """A trained network and the images to score it on. of: how many images the split has."""

    checkpoint: Checkpoint
    config: ResolvedRun
    tasks: list[Task]
    data: Resized
    of: int
    views: Views
    original: bool
    listener: Listener

    def score(
        self, model: nn.Module, amp: bool | None = None
    ) -> tuple[dict[str, TaskScores], dict[str, dict[str, Floats]]]:
        """Scores of ``model``, the network as it runs, and their replicates, by task.

        amp: mixed precision; None: as configured.
        """
        changed = {} if amp is None else {"amp": amp}
        config = self.config.model_copy(update=changed)

        def attempt() -> dict[Task, Accumulator]:
            accumulators = {
                trained: task.accumulator()
                for trained, task in zip(self.checkpoint.tasks, self.tasks, strict=True)
            }
            evaluate(config, model, accumulators, self.data, self.listener, self.views)
            return accumulators

        accumulators = with_readers(attempt, config.workers, self.listener, saves=False)
        split, missing = self.data.source.name.replace(" ", "-"), len(self.data.bad)
        scores, replicates = {}, {}
        for task, accumulator in zip(self.tasks, accumulators.values(), strict=True):
            protocol = protocol_id(config, task, split, self.views, self.original, missing)
            replicates[task.name] = replicates_of(accumulator, task)
            scores[task.name] = scores_of(accumulator, task, protocol, replicates[task.name])
        return scores, replicates

    def facts(self) -> SplitFacts:
        """What the scores are of."""
        count, source = len(self.data), self.data.source
        return {
            "images": count,
            **({"of": self.of} if count < self.of else {}),
            "from": source.name,
            "fingerprint": source.data.fingerprint(),
            **({"skipped": self.data.errors()} if self.data.bad else {}),
        }


def rescored(scoring: Scoring) -> Rescore:
    """The scores of the trained network as it is."""
    start = time.perf_counter()
    scores, _ = scoring.score(on_device(scoring))
    return Rescore(
        checkpoint=str(scoring.checkpoint.path),
        key=scoring.checkpoint.key,
        tasks=scores,
        data=scoring.facts(),
        environment=environment(scoring.config.device),
        seconds=time.perf_counter() - start,
    )


def on_device(scoring: Scoring) -> nn.Module:
    """The trained network where it is to be scored."""
    device = torch.device(scoring.config.device)
    model: nn.Module = scoring.checkpoint.model
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def opened(
    path: Path,
    changes: Mapping[str, Any],
    views: Views,
    split: str = "test",
    original: bool = False,
    listener: Listener | None = None,
    role: str | None = None,
) -> Scoring:
    """Open the network of a run's folder or weights file, and ``split``.

    split: as ``datasets.pipeline.role_of`` takes it; ``test`` is the one that the set is scored on.
    role: the split as ``open_split`` takes it, in place of that. changes: fields to replace in its
    RunConfig (data set, data, size, device, …). original: take images at the files' own resolution.
    Raises UsageError for options that do not fit the network.
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
    role = role or role_of(config.dataset, config.data, split)
    targets = [task.target for task in tasks]
    whole = open_split(config.dataset, config.data, targets, config.image_size, role)
    part = Split(whole.data, whole.indices[: config.limit], whole.name)
    if len(part) < len(whole):
        whose = "" if "limit" in changes else " (the run's --limit; --limit all scores all)"
        listener.message(f"{part.name}: the first {len(part)} of {len(whole)} images{whose}")
    skips = config.on_bad_sample == "skip"
    data = Resized(part, size, targets, targets=False, skips=skips, keeps=False)
    return Scoring(checkpoint, config, tasks, data, len(whole), views, original, listener)


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
