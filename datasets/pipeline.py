"""From a data set's samples to batches: resizing, subsets, hold-out, memory cache."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from common.annotators import pack, unpack
from common.errors import DataError
from datasets.augment import IGNORE
from datasets.base import DATASETS, DenseDataset, Sample

HOLD_OUT = 0.1
CACHE_BYTES = 2**30
DTYPES = {
    "segmentation": torch.uint8,
    "saliency": torch.uint8,
    "edges": torch.int32,
    "depth": torch.float32,
}


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


def open_splits(
    name: str, root: Path | None, task: str, size: tuple[int, int], limit: int | None = None
) -> dict[str, Split]:
    """The samples to train on (``train``), to choose by (``val``) and to score (``test``).

    ``test`` is the split that the data set declares as ``scored``; its published name is the
    Split's. Where no ``val`` is left besides, a tenth of train is held out for it, as declared: its
    end (of neighbouring frames hardly any then has a twin in training), or spread over it. size: of
    the images of a built-in data set; files come at their own resolution. limit: keep the first N
    of each.

    Raises UsageError for an unknown data set or task, DataError for missing or empty files.
    """
    dataset = DATASETS.get(name)
    available = dataset.available_splits(root)
    info = dataset.info
    facts = {"size": size} if info.built_in else {}

    def part(split: str) -> DenseDataset:
        return dataset(root, split, task, **facts)

    train, test = part("train"), part(info.scored)
    indices, held = range(len(train)), range(0)
    if "val" in available and info.scored != "val":
        validation = part("val")
        val = Split(validation, range(len(validation)), "val")
    else:
        count = max(1, round(HOLD_OUT * len(train)))
        step = len(train) // count if info.held_out == "spread" else 1
        held = indices[::-step][:count][::-1]
        val = Split(train, held, "held out of train")
    splits = {
        "train": Split(train, [i for i in indices if i not in held], "train"),
        "val": val,
        "test": Split(test, range(len(test)), info.scored),
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


def resize_target(name: str, target: Tensor, size: tuple[int, int]) -> Tensor:
    """[H, W] → [*size], nearest: labels and depths are never mixed, and no edge is lost."""
    if target.shape == size:
        return target
    if name == "edges" and (size[0] < target.shape[0] or size[1] < target.shape[1]):
        return _shrink_edges(target, size)
    resized = F.interpolate(target[None, None].float(), size, mode="nearest-exact")
    return resized[0, 0].to(target.dtype)


def _shrink_edges(packed: Tensor, size: tuple[int, int]) -> Tensor:
    """Every marked pixel marks the one that it falls into; nearest would break thin lines."""
    rows, columns = (
        ((torch.arange(old) + 0.5) * new / old).long()
        for old, new in zip(packed.shape, size, strict=True)
    )
    seen = unpack(packed)
    if not len(seen):
        return packed.new_zeros(size)
    marks = torch.zeros(len(seen), *size, dtype=torch.bool)
    annotator, y, x = seen.nonzero(as_tuple=True)
    marks[annotator, rows[y], columns[x]] = True
    known = F.interpolate((packed != 0)[None, None].float(), size, mode="nearest-exact")[0, 0]
    return pack(marks, known > 0)


def turn(sample: Sample) -> Sample:
    """The sample turned by a quarter, counter-clockwise."""
    targets = {name: torch.rot90(t, 1, (-2, -1)) for name, t in sample.targets.items()}
    return Sample(torch.rot90(sample.image, 1, (-2, -1)), targets, sample.name)


class Resized(Dataset[Sample]):
    """Samples of one size; kept in memory after the first read where the split is small enough.

    targets: resize them too (training), or leave them at the files' resolution (scoring). mixed:
    the size of some images is ``size`` turned, so that they do not fit into one batch.
    """

    def __init__(
        self, source: Split, size: tuple[int, int], target: str | Sequence[str], targets: bool
    ) -> None:
        """target: name(s) of what is read; of several, a sample may lack some.

        Then training gets a map without any label, and scoring none. Raises DataError for a sample
        that has none.
        """
        self.source, self.size, self.targets = source, size, targets
        self.names = (target,) if isinstance(target, str) else tuple(target)
        self.turned = source.data.info.turned
        self.mixed = self.turned and not targets and size[0] != size[1]
        # the first sample tells what the split would take
        sample = self._read(0)
        taken = sample.image.numel()
        taken += sum(t.numel() * t.element_size() for t in sample.targets.values())
        self.cached = taken * len(source) <= CACHE_BYTES
        self._cache: dict[int, Sample] = {0: sample} if self.cached else {}

    def _read(self, index: int) -> Sample:
        sample = self.source[index]
        targets = {name: t for name, t in sample.targets.items() if name in self.names}
        if not targets:
            has = ", ".join(sample.targets) or "no ground truth at all"
            raise DataError(f"{sample.name}: no {' or '.join(self.names)}: only {has}")
        sample = Sample(sample.image, targets, sample.name)
        size = self.size
        if self.turned and not _alike(sample.image.shape[-2:], size):
            if self.targets:
                sample = turn(sample)
            else:
                size = size[::-1]
        targets = sample.targets
        if self.targets:
            targets = {
                name: resize_target(name, targets[name], size)
                if name in targets
                else torch.full(size, IGNORE[name], dtype=DTYPES[name])
                for name in self.names
            }
        return Sample(resize_image(sample.image, size), targets, sample.name)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        if index not in self._cache:
            sample = self._read(index)
            if not self.cached:
                return sample
            self._cache[index] = sample
        return self._cache[index]


def _alike(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether both sizes are upright, or both lie."""
    return (one[0] > one[1]) == (other[0] > other[1]) or one[0] == one[1] or other[0] == other[1]


def collate(samples: Sequence[Sample]) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Images [B, 3, H, W] float in 0…1, and the samples' targets."""
    images = torch.stack([sample.image for sample in samples]).float() / 255
    return images, [sample.targets for sample in samples]
