"""Read every sample of a data set once; collect problems, warnings and statistics.

Problems make the check fail: missing or damaged files, values out of range, and images that two
splits share, since training images must not be scored. Warnings do not: counts other than the
published ones, an image twice in one split, ground truth that looks odd.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from common.errors import DataError
from common.progress import Listener
from datasets.base import (
    TARGETS,
    DatasetInfo,
    DenseDataset,
    Sample,
    TargetStatistics,
)
from datasets.pipeline import info_at, opener


@dataclass
class ImageStatistics:
    """Sizes and colours of a split's images. values: counts [channel, value]."""

    sizes: Counter[str] = field(default_factory=Counter)
    values: Any = field(default_factory=lambda: np.zeros((3, 256), np.int64))

    def add(self, image: Tensor) -> None:
        self.sizes[f"{image.shape[1]}x{image.shape[2]}"] += 1
        for counts, channel in zip(self.values, image.numpy(), strict=True):
            counts += np.bincount(channel.ravel(), minlength=256)

    def summary(self) -> dict[str, Any]:
        """Counts by size; mean and std of red, green and blue in 0…1, None without images."""
        if not self.sizes:
            return {"image_sizes": {}, "mean": None, "std": None}
        weights = self.values / self.values.sum(1, keepdims=True)
        levels = np.arange(256) / 255
        mean = weights @ levels
        std = np.sqrt((weights * (levels - mean[:, None]) ** 2).sum(1))
        return {
            "image_sizes": dict(self.sizes.most_common()),
            "mean": mean.round(4).tolist(),
            "std": std.round(4).tolist(),
        }


@dataclass
class Check:
    """The check's state. first_met: hash of an image → its first split, index and name."""

    info: DatasetInfo
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    first_met: dict[bytes, tuple[str, int, str]] = field(default_factory=dict)

    def split(
        self, split: str, data: DenseDataset, tasks: Sequence[str], listener: Listener
    ) -> set[str]:
        """Read all samples for ``tasks``; check images once. Returns the tasks with targets."""
        first = split not in self.splits
        images = ImageStatistics()
        targets: dict[str, TargetStatistics] = {}
        readable = 0
        listener.begin(f"check {self.info.name} {split}", len(data))
        for index in range(len(data)):
            try:
                sample = data[index]
            except DataError as error:
                self.problems += [str(fault) for fault in data.faults(index) or [error]]
                listener.step()
                continue
            readable += 1
            if first:
                images.add(sample.image)
                self._compare(split, index, sample)
            for task in tasks:
                if task in sample.targets:
                    if task not in targets:
                        targets[task] = TARGETS.get(task).statistics(self.info.tasks[task])
                    if problem := targets[task].add(sample.targets[task]):
                        self.problems.append(f"{split}: {sample.name}: {task}: {problem}")
            listener.step(sample.name)
        report = self.splits.setdefault(split, {"targets": {}})
        if first:
            samples = len(data) + data.dropped
            if not samples:
                self.problems.append(f"{split}: no sample")
            published = self.info.splits.get(split)
            report |= {"samples": samples, "published": published, "readable": readable}
            report |= {"fingerprint": data.fingerprint(), **images.summary()}
            if published not in (None, samples):
                self.warnings.append(f"{split}: {samples} samples, published are {published}")
        for task, statistics in targets.items():
            report["targets"][task] = statistics.summary()
            self.warnings += [f"{split}: {task}: {doubt}" for doubt in statistics.doubts()]
        return set(targets)

    def closed(self, split: str) -> None:
        """Report a split that could not be opened."""
        facts = {"samples": None, "published": self.info.splits.get(split), "readable": 0,
                 "fingerprint": "", "targets": {}, **ImageStatistics().summary()}  # fmt: skip
        self.splits.setdefault(split, facts)

    def _compare(self, split: str, index: int, sample: Sample) -> None:
        pixels = sample.image.numpy()
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16, person=_shape(pixels)).digest()
        other, number, name = self.first_met.setdefault(digest, (split, index, sample.name))
        if other != split:
            self.problems.append(
                f"{split}: {sample.name}: the same image as {name} of {other}: leave one out"
            )
        elif number != index:
            self.warnings.append(f"{split}: {sample.name}: the same image as {name}")


def _shape(pixels: np.ndarray) -> bytes:
    return "x".join(map(str, pixels.shape[1:])).encode()[:16]


def check(name: str, root: Path | None, tasks: Sequence[str], listener: Listener) -> dict[str, Any]:
    """Read every sample of ``tasks`` in every split of data set ``name``.

    Returns ``problems`` and ``warnings`` as texts, numbers by split, and the training images' mean
    and std. Raises UsageError for wrong arguments, DataError if nothing can be read.
    """
    dataset, facts = opener(name, root)
    result = Check(info_at(name, root))
    for split in dataset.available_splits(root):
        done: set[str] = set()
        for task in tasks:
            if task in done:
                continue
            left = [other for other in tasks if other not in done]
            also = {"also": [other for other in left if other != task]} if dataset.joint else {}
            try:
                with warnings.catch_warnings():  # the report has the counts
                    warnings.simplefilter("ignore")
                    data, missing = dataset.survey(root, split, task, **also, **facts)
            except DataError as error:
                result.problems.append(str(error))
                result.closed(split)
                continue
            result.problems += map(str, missing)
            result.warnings += data.remarks()
            done |= result.split(split, data, left, listener)
    train = result.splits.get("train", {})
    return {
        "dataset": name,
        "data": None if root is None else str(root),
        "tasks": list(tasks),
        "problems": list(dict.fromkeys(result.problems)),
        "warnings": list(dict.fromkeys(result.warnings)),
        "mean": train.get("mean"),
        "std": train.get("std"),
        "splits": result.splits,
    }
