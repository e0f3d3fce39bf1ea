"""From a data set's samples to batches: resizing, subsets, hold-out, memory cache."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import DataError, UsageError
from datasets.base import DATASETS, DenseDataset, Sample
from datasets.files import one_of

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


def open_split(
    name: str,
    root: Path | None,
    task: str,
    size: tuple[int, int],
    split: str,
    limit: int | None = None,
    opened: dict[str, DenseDataset] | None = None,
) -> Split:
    """One split of a data set for a task.

    Where a data set has no ``val`` split, the last tenth of ``train`` (of neighbouring frames, so
    that hardly any has a twin in training) is held out for it. size: of the images of a built-in
    data set; files come at their own resolution. limit: keep the first N. opened: the whole splits
    that earlier calls have opened.

    Raises UsageError for an unknown data set, task or split, DataError for missing or empty files.
    """
    dataset = DATASETS.get(name)
    opened = {} if opened is None else opened
    held_out = "val" not in dataset.available_splits(root)
    source = "train" if split == "val" and held_out else split
    if source not in opened:
        facts = {"size": size} if dataset.info.built_in else {}
        opened[source] = dataset(root, source, task, **facts)
    data = opened[source]
    indices, origin = range(len(data)), split
    if held_out and source == "train":
        kept = len(data) - max(1, round(HOLD_OUT * len(data)))
        indices = indices[:kept] if split == "train" else indices[kept:]
        origin = "train" if split == "train" else "held out of train"
    indices = indices[:limit]
    if not indices:
        raise DataError(f"{root or name}: the {split} split is empty: it needs more images")
    return Split(data, indices, origin)


def open_splits(
    name: str, root: Path | None, task: str, size: tuple[int, int], limit: int | None = None
) -> dict[str, Split]:
    """The splits ``train``, ``val`` and ``test``, as ``open_split`` opens each.

    Raises what it raises, and UsageError for a data set without a train split.
    """
    info, available = DATASETS.get(name).info, DATASETS.get(name).available_splits(root)
    if "train" not in available:
        infos = [DATASETS.get(other).info for other in DATASETS.names()]
        others = [
            other.name
            for other in infos
            if task in other.tasks and "train" in other.splits
            if not (other.generic or other.built_in)
        ] or ["another data set"]
        remedy = f"train on {one_of(others)} and score it with evaluate --dataset {name}"
        raise UsageError(f"{info.title} has only a {one_of(available)} split: {remedy}")
    opened: dict[str, DenseDataset] = {}
    return {
        split: open_split(name, root, task, size, split, limit, opened)
        for split in ("train", "val", "test")
    }


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
    """Images [B, 3, H, W] float in 0…1, and the samples' targets."""
    images = torch.stack([sample.image for sample in samples]).float() / 255
    return images, [sample.targets for sample in samples]
