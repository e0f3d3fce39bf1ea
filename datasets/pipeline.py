"""From a data set's samples to batches: resizing, subsets, hold-out, memory cache."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import DataError
from datasets.base import DATASETS, DenseDataset, Sample
from datasets.hdf5 import Packed, is_packed

HOLD_OUT = 0.1
CACHE_BYTES = 2**30


class Split(Dataset[Sample]):
    """Some samples of one split of a data set."""

    def __init__(self, data: DenseDataset, indices: Sequence[int], name: str) -> None:
        self.data = data
        self.indices = list(indices)
        self.name = name

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.data[self.indices[index]]


def opener(
    name: str, root: Path | None, size: tuple[int, int] | None = None
) -> tuple[type[DenseDataset], dict[str, Any]]:
    """The class that reads ``root``, a folder, a packed file or none, and what to tell it besides.

    size: as for ``open_splits``; None: a built-in data set's own, a packed file's whatever it is.
    """
    dataset = DATASETS.get(name)
    if is_packed(root):
        return Packed, {"dataset": name, "size": size}
    return dataset, {"size": size} if dataset.info.built_in and size is not None else {}


def open_splits(
    name: str, root: Path | None, task: str, size: tuple[int, int], limit: int | None = None
) -> dict[str, Split]:
    """The splits ``train``, ``val`` and ``test`` of a data set for a task.

    Where a data set has no ``val`` split, the last tenth of ``train`` (of neighbouring frames, so
    that hardly any has a twin in training) is held out for it. size: of the images of a built-in
    data set or a packed file; other files come at their own resolution. limit: keep the first N
    of each.

    Raises UsageError for an unknown data set or task, DataError for missing or empty files.
    """
    dataset, facts = opener(name, root, size)
    available = dataset.available_splits(root)

    def part(split: str) -> DenseDataset:
        return dataset(root, split, task, **facts)

    train, test = part("train"), part("test")
    if "val" in available:
        val = Split(part("val"), [], "val")
        val.indices = list(range(len(val.data)))
        kept = len(train)
    else:
        held = max(1, round(HOLD_OUT * len(train)))
        kept = len(train) - held
        val = Split(train, range(kept, len(train)), "held out of train")
    splits = {
        "train": Split(train, range(kept), "train"),
        "val": val,
        "test": Split(test, range(len(test)), "test"),
    }
    for split, chosen in splits.items():
        if limit is not None:
            chosen.indices = chosen.indices[:limit]
        if not len(chosen):
            raise DataError(f"{root or name}: the {split} split is empty: it needs more images")
    return splits


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [3, H, W] → uint8 [3, *size], bilinear with antialiasing."""
    if image.shape[-2:] == size:
        return image
    resized = F.interpolate(
        image[None].float(), size, mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0].round_().clamp_(0, 255).to(torch.uint8)


def resize_target(target: Tensor, size: tuple[int, int]) -> Tensor:
    """[H, W] → [*size], nearest: labels and depths are never mixed."""
    if target.shape == size:
        return target
    resized = F.interpolate(target[None, None].float(), size, mode="nearest-exact")
    return resized[0, 0].to(target.dtype)


class Resized(Dataset[Sample]):
    """Samples of one size; kept in memory after the first read where the split is small enough.

    targets: resize them too (training), or leave them at the files' resolution (scoring).
    """

    def __init__(
        self, source: Split, size: tuple[int, int], target: str | Sequence[str], targets: bool
    ) -> None:
        """target: name(s) of what is read. Raises DataError for what the samples do not have."""
        self.source, self.size, self.targets = source, size, targets
        self.names = (target,) if isinstance(target, str) else tuple(target)
        # the first sample tells what the split would take
        sample = self._read(0)
        taken = sample.image.numel()
        taken += sum(t.numel() * t.element_size() for t in sample.targets.values())
        self.cached = taken * len(source) <= CACHE_BYTES
        self._cache: dict[int, Sample] = {0: sample} if self.cached else {}

    def _read(self, index: int) -> Sample:
        sample = self.source[index]
        missing = [name for name in self.names if name not in sample.targets]
        if missing:
            raise DataError(f"{sample.name}: no {missing[0]}: only {', '.join(sample.targets)}")
        targets = {name: sample.targets[name] for name in self.names}
        if self.targets:
            targets = {name: resize_target(t, self.size) for name, t in targets.items()}
        return Sample(resize_image(sample.image, self.size), targets, sample.name)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        if index not in self._cache:
            sample = self._read(index)
            if not self.cached:
                return sample
            self._cache[index] = sample
        return self._cache[index]


def collate(samples: Sequence[Sample]) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Images uint8 [B, 3, H, W], a quarter of what floats would be to hand over, and targets."""
    images = torch.stack([sample.image for sample in samples])
    return images, [sample.targets for sample in samples]
