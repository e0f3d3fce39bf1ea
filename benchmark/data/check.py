"""Read every sample of a data set once; collect problems, warnings and statistics.

Problems make the check fail: missing or damaged files, values out of range, images that two splits
share, since training images must not be scored, and content that is not the published set's: a
count that is off by more than a factor of two, or fewer than half of the classes in train. Warnings
do not: other counts, an image twice in one split, ground truth that looks odd.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.data.notes import Notes
from common.errors import DataError
from common.progress import Listener
from datasets.base import (
    TARGETS,
    DatasetInfo,
    DenseDataset,
    Sample,
    TargetStatistics,
)
from datasets.files import ANOTHER, far_off
from datasets.pipeline import check_image, info_at, opener


@dataclass
class ImageStatistics:
    """Sizes and colours of a split's images of ``channels``.

    values: counts [channel, value] of uint8. moments: sums [1, values, squares; channel] of floats.
    """

    channels: int = 3
    sizes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.values = np.zeros((self.channels, 256), np.int64)
        self.moments = np.zeros((3, self.channels))

    def add(self, image: Tensor) -> None:
        self.sizes[f"{image.shape[1]}x{image.shape[2]}"] += 1
        if image.is_floating_point():
            x = image.double().flatten(1) / 255
            self.moments += torch.stack([torch.ones_like(x), x, x**2]).sum(2).numpy()
            return
        for counts, channel in zip(self.values, image.numpy(), strict=True):
            counts += np.bincount(channel.ravel(), minlength=256)

    def summary(self) -> dict[str, Any]:
        """Counts by size; mean and std of each channel in 0…1, None without images."""
        if not self.sizes:
            return {"image_sizes": {}, "mean": None, "std": None}
        levels = np.arange(256) / 255
        powers = np.stack([levels**0, levels, levels**2])
        count, total, squares = self.moments + powers @ self.values.T
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 0))
        return {
            "image_sizes": dict(self.sizes.most_common()),
            "mean": mean.round(4).tolist(),
            "std": std.round(4).tolist(),
        }


@dataclass
class Check:
    """The check's state. first_met: hash of an image → its first split, index and name."""

    info: DatasetInfo
    problems: Notes
    warnings: Notes
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    first_met: dict[bytes, tuple[str, int, str]] = field(default_factory=dict)

    def split(
        self, split: str, data: DenseDataset, tasks: Sequence[str], listener: Listener
    ) -> set[str]:
        """Read all samples for ``tasks``; check images once. Returns the tasks with targets."""
        first = split not in self.splits
        images = ImageStatistics(self.info.channels)
        targets: dict[str, TargetStatistics] = {}
        readable = 0
        listener.begin(f"check {self.info.name} {split}", len(data))
        for index in range(len(data)):
            try:
                sample = data[index]
                check_image(sample, self.info)
            except DataError as error:
                for fault in data.faults(index) or [error]:
                    self.problems.add_error(fault)
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
                        self.problems.add(f"{split}: {sample.name}", f"{task}: {problem}")
            listener.step(sample.name)
        for where, doubt in data.doubts():
            self.warnings.add(where, doubt)
        report = self.splits.setdefault(split, {"targets": {}})
        if first:
            samples = len(data) + data.dropped
            published = self.info.splits.get(split)
            report |= {"samples": samples, "published": published, "readable": readable}
            report |= {"fingerprint": data.fingerprint() if len(data) else None}
            report |= images.summary()
            self._count(split, samples)
        for task, statistics in targets.items():
            report["targets"][task] = statistics.summary()
            for doubt in statistics.doubts():
                self.warnings.add_alone(f"{split}: {task}: {doubt}")
            if split == "train" and self.info.published and 2 * readable > len(data) + data.dropped:
                for text in statistics.contradictions():
                    self.problems.add_alone(f"{split}: {task}: {text}: {ANOTHER}")
        return set(targets)

    def _count(self, split: str, samples: int) -> None:
        published = self.info.splits.get(split)
        if not samples:
            self.problems.add_alone(f"{split}: no sample")
        elif far_off(self.info, split, samples):
            text = f"{split}: {samples} samples, published are {published}"
            self.problems.add_alone(f"{text}: {ANOTHER}")
        elif published not in (None, samples):
            self.warnings.add_alone(f"{split}: {samples} samples, published are {published}")

    def closed(self, split: str) -> None:
        """Report a split that could not be opened."""
        facts = {"samples": None, "published": self.info.splits.get(split), "readable": 0,
                 "fingerprint": None, "targets": {}, **ImageStatistics().summary()}  # fmt: skip
        self.splits.setdefault(split, facts)

    def _compare(self, split: str, index: int, sample: Sample) -> None:
        pixels = sample.image.numpy()
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16, person=_shape(pixels)).digest()
        other, number, name = self.first_met.setdefault(digest, (split, index, sample.name))
        if other != split:
            text = f"the same image as {name} of {other}: leave one out"
            self.problems.add(f"{split}: {sample.name}", text, f"image of {other} in {split}")
        elif number != index:
            text = f"the same image as {name}"
            self.warnings.add(f"{split}: {sample.name}", text, f"image twice in {split}")


def _shape(pixels: np.ndarray) -> bytes:
    return "x".join(map(str, pixels.shape[1:])).encode()[:16]


def check(name: str, root: Path | None, tasks: Sequence[str], listener: Listener) -> dict[str, Any]:
    """Read every sample of ``tasks`` in every split of data set ``name``.

    Returns ``problems`` and ``warnings`` as texts, one for each cause, numbers by split, and the
    training images' mean and std. Raises UsageError for wrong arguments, DataError if nothing can
    be read.
    """
    dataset, facts = opener(name, root)
    result = Check(info_at(name, root), Notes(root), Notes(root))
    for split in dataset.available_splits(root):
        done: set[str] = set()
        for task in tasks:
            if task in done:
                continue
            left = [other for other in tasks if other not in done]
            also = {"also": [other for other in left if other != task]} if dataset.joint else {}
            with warnings.catch_warnings():  # the report has the counts and the doubts
                warnings.simplefilter("ignore")
                try:
                    data, missing = dataset.survey(root, split, task, **also, **facts)
                except DataError as error:
                    result.problems.add_error(error)
                    result.closed(split)
                    continue
                for lack in missing:
                    result.problems.add_error(lack)
                for remark in data.remarks():
                    result.warnings.add_alone(remark)
                done |= result.split(split, data, left, listener)
    train = result.splits.get("train", {})
    return {
        "dataset": name,
        "data": None if root is None else str(root),
        "tasks": list(tasks),
        "problems": result.problems.texts(),
        "warnings": result.warnings.texts(),
        "mean": train.get("mean"),
        "std": train.get("std"),
        "splits": result.splits,
    }
