"""The data of runs, opened once for all runs that read the same."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.experiment.config import ResolvedRun, RunConfig
from benchmark.experiment.plan import PlannedRun, info_of
from benchmark.results.result import Constant, SplitFacts
from benchmark.scoring.evaluate import score_constant
from common.progress import Listener
from datasets.base import TARGETS, TargetStatistics
from datasets.files import ANOTHER
from datasets.pipeline import Resized, open_splits
from tasks.base import Task


@dataclass
class Data:
    """The splits of a data set at one size, shared by the runs of a comparison.

    test: the split that is scored, ``val`` itself where a run asks for it.
    """

    train: Resized
    val: Resized
    test: Resized
    facts: dict[str, SplitFacts]
    constant: dict[str, Constant]

    @classmethod
    def open(cls, config: ResolvedRun, tasks: Sequence[Task], listener: Listener) -> "Data":
        """Open all splits, read what fits into memory and score the best constant of each task."""
        splits = open_splits(
            config.dataset, config.data, [task.target for task in tasks], config.image_size,
            config.limit,
        )  # fmt: skip
        targets = [task.target for task in tasks]
        skips = config.on_bad_sample == "skip"
        resized = {
            name: Resized(split, config.image_size, targets, name == "train", skips)
            for name, split in splits.items()
        }
        for name, part in resized.items():
            if part.cached and config.workers == 0:
                listener.begin(f"read {config.dataset} {name}", len(part))
                for index in range(len(part)):
                    sample = part.get(index)
                    listener.step(sample.name if sample is not None else "")
        if config.split == "val":
            splits["test"], resized["test"] = splits["val"], resized["val"]
        facts: dict[str, SplitFacts] = {
            name: {
                "images": len(split),
                **({} if config.channels == 3 else {"channels": config.channels}),
                "from": split.name,
                "fingerprint": split.data.fingerprint(),
            }
            for name, split in splits.items()
        }
        for name, part in resized.items():
            for error in part.errors():
                listener.message(f"skipped in {name}: {error}")
        train, test = resized["train"], resized["test"]
        listener.begin("best constants", len(tasks) * (len(train) + len(test)))
        constant = {}
        for task in tasks:
            counted = _counted(config, task)
            constant[task.name] = score_constant(task, train, test, listener, counted)
            for text in counted.contradictions() if counted is not None else ():
                warnings.warn(f"{config.data}: {task.target}: {text}: {ANOTHER}", stacklevel=2)
        return cls(resized["train"], resized["val"], resized["test"], facts, constant)

    def split_facts(self) -> dict[str, SplitFacts]:
        """Facts of each split for a result, with the errors of skipped samples.

        In training the next sample stands in for a skipped one.
        """
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {
            name: {**facts, "skipped": parts[name].errors()} if parts[name].bad else facts
            for name, facts in self.facts.items()
        }


def _counted(config: ResolvedRun, task: Task) -> TargetStatistics | None:
    """Counts the training targets of a published set, which tell whether it is that one."""
    info = info_of(config)
    if not info.published or config.limit is not None:
        return None
    return TARGETS.get(task.target).statistics(info.tasks[task.target])


def shared_data(config: RunConfig) -> tuple[Any, ...]:
    """A key that is equal for runs that read the same ``Data``."""
    fields = (config.task, config.dataset, config.data, config.image_size, config.limit)
    return (*fields, config.on_bad_sample, config.split)


def comparable(runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """Runs that are timed together: one task, data set, size, device and precision."""
    groups: dict[tuple[Any, ...], list[PlannedRun]] = {}
    for run in runs:
        config = run.config
        key = (
            *(config.task, config.dataset, config.image_size),
            *(config.device, config.threads, config.amp),
        )
        groups.setdefault(key, []).append(run)
    return list(groups.values())
