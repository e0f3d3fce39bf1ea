"""From a data set's samples to batches: resizing, subsets, hold-out, memory cache."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import DataError, UsageError, first_line
from datasets.base import DATASETS, TARGETS, DatasetInfo, DenseDataset, Sample
from datasets.files import one_of
from datasets.hdf5 import Packed, is_packed, packed_description

HOLD_OUT = 0.1
HELD_OUT = "held-out"
SPLITS = ("train", HELD_OUT, "val", "test")
"""What users call splits: as they are published, and the part held out of train."""
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
    """The class that reads ``root``, a folder, a packed file or None, and its further arguments.

    size: as for ``open_splits``; None: a built-in data set's default, any size of a packed file.
    """
    dataset = DATASETS.get(name)
    if is_packed(root):
        return Packed, {"dataset": name, "size": size}
    return dataset, {"size": size} if dataset.info.built_in and size is not None else {}


def description_of(name: str, root: Path | None) -> dict[str, Any] | None:
    """What the files under ``root`` say of data set ``name``; None if all of it is declared."""
    dataset = DATASETS.get(name)
    if dataset.described and root is not None and is_packed(root):
        return packed_description(root, name)
    return dataset.description(root)


def info_at(name: str, root: Path | None) -> DatasetInfo:
    """The facts of data set ``name``, whose files are under ``root``."""
    return DATASETS.get(name).facts(description_of(name, root))


def role_of(name: str, root: Path | None, split: str) -> str:
    """What a split that a user names, one of ``SPLITS``, is to ``open_split``.

    ``test`` also names the scored split of a set that publishes no test labels. Raises UsageError
    for a split that the data set has not.
    """
    info, available = info_at(name, root), opener(name, root)[0].available_splits(root)
    roles = {other: other for other in available}
    if _holds_out(info, available) and "train" in available:
        roles = {"train": "train", HELD_OUT: "val", **roles}
    roles[info.scored] = "test"
    if split in roles:
        return roles[split]
    if split == "test":
        return split
    named = one_of(roles)
    raise UsageError(f"--split {split}: {info.title} has no such split: choose {named}")


def _holds_out(info: DatasetInfo, available: Sequence[str]) -> bool:
    """Whether runs choose by a part of train, for lack of another split."""
    return "val" not in available or info.scored == "val"


def open_split(
    name: str,
    root: Path | None,
    task: str | Sequence[str],
    size: tuple[int, int],
    split: str,
    limit: int | None = None,
    opened: dict[str, DenseDataset] | None = None,
) -> Split:
    """The samples to train on (``train``), to choose by (``val``) or to score (``test``).

    ``test`` is the split that the data set declares as ``scored``; its published name is the
    Split's. Where there is no other ``val``, a tenth of train is held out for it, as declared: its
    end (then hardly any frame has a near-copy in training), or samples spread over it. size: of the
    images of a built-in data set or a packed file; other files come at their own resolution. task:
    one, or several that the samples are for. limit: only the first N. opened: the whole splits that
    earlier calls have opened; this one adds to it.

    Raises UsageError for an unknown data set, task or split, DataError for missing or empty files.
    """
    dataset, facts = opener(name, root, size)
    info, available = info_at(name, root), dataset.available_splits(root)
    opened = {} if opened is None else opened
    held_out = _holds_out(info, available)
    source = {"test": info.scored, "val": "train" if held_out else "val"}.get(split, split)
    if source not in opened:
        first, *others = [task] if isinstance(task, str) else task
        if dataset.joint:
            facts["also"], others = others, []
        opened[source] = dataset(root, source, first, **facts)
        with warnings.catch_warnings():  # the first task has given them
            warnings.simplefilter("ignore")
            for other in others:  # raises for what the files lack
                dataset(root, source, other, **facts)
    data = opened[source]
    indices: Sequence[int] = range(len(data))
    origin = source
    if held_out and source == "train":
        count = max(1, round(HOLD_OUT * len(data)))
        step = len(data) // count if info.held_out == "spread" else 1
        held = range(len(data))[::-step][:count][::-1]
        indices = held if split == "val" else [i for i in indices if i not in held]
        origin = "held out of train" if split == "val" else "train"
    indices = indices[:limit]
    if not indices:
        raise DataError(f"{root or name}: the {split} split is empty: it needs more images")
    return Split(data, indices, origin)


def open_splits(
    name: str,
    root: Path | None,
    task: str | Sequence[str],
    size: tuple[int, int],
    limit: int | None = None,
) -> dict[str, Split]:
    """The splits ``train``, ``val`` and ``test``, as ``open_split`` opens each.

    Raises what it raises, and UsageError for a data set without a train split.
    """
    info, available = info_at(name, root), opener(name, root, size)[0].available_splits(root)
    if "train" not in available:
        infos = [DATASETS.get(other).info for other in DATASETS.names()]
        tasks = [task] if isinstance(task, str) else task
        others = [
            other.name
            for other in infos
            if "train" in other.splits and set(tasks) <= set(other.tasks)
            if not (other.generic or other.built_in)
        ] or ["another data set"]
        remedy = f"train on {one_of(others)} and score it with evaluate --dataset {name}"
        raise UsageError(f"{info.title} has only a {one_of(available)} split: {remedy}")
    opened: dict[str, DenseDataset] = {}
    return {
        split: open_split(name, root, task, size, split, limit, opened)
        for split in ("train", "val", "test")
    }


def check_image(sample: Sample, info: DatasetInfo) -> None:
    """Raises DataError for an image of other channels, or with values that are no numbers."""
    channels = sample.image.shape[0]
    if channels != info.channels:
        problem = f"has {channels} channels, {info.title} has {info.channels}"
        raise DataError(f"{sample.name}: {problem}: leave it out, or convert it")
    if sample.image.is_floating_point() and not bool(sample.image.isfinite().all()):
        bad = int((~sample.image.isfinite()).sum())
        raise DataError(f"{sample.name}: {bad} values of the image are NaN or infinite: fill them")


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """[C, H, W] → [C, *size] of the same type, bilinear, antialiased; only uint8 is rounded."""
    if image.shape[-2:] == size:
        return image
    resized = F.interpolate(
        image[None].float(), size, mode="bilinear", align_corners=False, antialias=True
    )
    if image.dtype == torch.uint8:
        resized = resized.round_().clamp_(0, 255).to(torch.uint8)
    return resized[0]


def resize_target(name: str, target: Tensor, size: tuple[int, int]) -> Tensor:
    """[H, W] → [*size], as the target's kind resizes its maps."""
    return TARGETS.get(name)().resize(target, size)


def turn(sample: Sample) -> Sample:
    """The sample rotated by 90°, counter-clockwise."""
    targets = {name: torch.rot90(t, 1, (-2, -1)) for name, t in sample.targets.items()}
    return Sample(torch.rot90(sample.image, 1, (-2, -1)), targets, sample.name)


def fitted(sample: Sample, size: tuple[int, int], turned: bool, targets: bool) -> Sample:
    """The sample at ``size``. targets: resized too (training), or unchanged (scoring).

    turned: where image and ``size`` differ in orientation, training rotates the sample by 90°,
    scoring swaps the sides of ``size``.
    """
    if turned and not _alike(sample.image.shape[-2:], size):
        if targets:
            sample = turn(sample)
        else:
            size = size[::-1]
    maps = dict(sample.targets)
    if targets:
        maps = {name: resize_target(name, target, size) for name, target in maps.items()}
    return Sample(resize_image(sample.image, size), maps, sample.name)


class Resized(Dataset[Sample]):
    """Samples of one size; a split that is small enough stays in memory after the first read.

    size: None leaves images as they are. targets: resize them too (training), or leave them at the
    files' resolution (scoring). mixed: images may differ in size or orientation, so that
    they do not fit into one batch.
    """

    def __init__(
        self,
        source: Split,
        size: tuple[int, int] | None,
        target: str | Sequence[str],
        targets: bool,
        skips: bool = False,
        keeps: bool = True,
    ) -> None:
        """target: name(s) of the targets to read; of several, a sample may lack some.

        Then training gets a map without any label, and scoring none. skips: ``get`` returns None
        instead of raising. keeps: False where each sample is read once. Raises DataError for a
        sample that has no target, or, with ``skips``, where no sample can be read.
        """
        self.source, self.size, self.targets, self.skips = source, size, targets, skips
        self.bad: dict[int, str] = {}
        self.names = (target,) if isinstance(target, str) else tuple(target)
        self.turned = source.data.info.turned
        self.mixed = size is None or (self.turned and not targets and size[0] != size[1])
        # the first sample gives an estimate for the split
        self.cached = False
        index, sample = self.next_readable(0)
        taken = sample.image.numel() * sample.image.element_size()
        taken += sum(t.numel() * t.element_size() for t in sample.targets.values())
        self.cached = keeps and taken * len(source) <= CACHE_BYTES
        self._cache: dict[int, Sample] = {index: sample} if self.cached else {}

    def get(self, index: int) -> Sample | None:
        """The sample; None for a bad one that is skipped, whose error is in ``bad``."""
        if index in self.bad:
            return None
        try:
            return self[index]
        except DataError as error:
            if not self.skips:
                raise
            self.bad[index] = first_line(error)
            return None

    def errors(self) -> list[str]:
        """Why samples were skipped, in their order."""
        return [self.bad[index] for index in sorted(self.bad)]

    def next_readable(self, index: int) -> tuple[int, Sample]:
        """Index and sample of the first readable one from ``index`` on; 0 follows the last.

        Raises DataError if there is none.
        """
        for step in range(len(self)):
            there = (index + step) % len(self)
            if (sample := self.get(there)) is not None:
                return there, sample
        first = self.bad[min(self.bad)]
        raise DataError(f"none of the {len(self)} samples can be read, the first one: {first}")

    def _read(self, index: int) -> Sample:
        sample = self.source[index]
        check_image(sample, self.source.data.info)
        targets = {name: t for name, t in sample.targets.items() if name in self.names}
        if not targets:
            has = ", ".join(sample.targets) or "no ground truth at all"
            raise DataError(f"{sample.name}: no {' or '.join(self.names)}: only {has}")
        sample = Sample(sample.image, targets, sample.name)
        if self.size is None:
            return sample
        sample = fitted(sample, self.size, self.turned, self.targets)
        if self.targets:
            for name in set(self.names) - set(targets):
                kind = TARGETS.get(name)
                sample.targets[name] = torch.full(self.size, kind.ignore, dtype=kind.dtype)
        return sample

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        if not self.cached:
            return self._read(index)
        if index not in self._cache:
            self._cache[index] = self._read(index)
        return self._cache[index]


def _alike(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether both sizes have one orientation; a square fits either."""
    return (one[0] > one[1]) == (other[0] > other[1]) or one[0] == one[1] or other[0] == other[1]


class Readable(Dataset[tuple[Sample | None, dict[int, str]]]):
    """The samples of ``data`` for a loader, each with the errors of the bad ones on the way to it.

    replaced: the next readable sample takes a bad one's place, so that training's batches are full;
    else a bad one is None.
    """

    def __init__(self, data: Resized, replaced: bool) -> None:
        self.data, self.replaced = data, replaced

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Sample | None, dict[int, str]]:
        if self.replaced:
            there, sample = self.data.next_readable(index)
            steps = range((there - index) % len(self))
            skipped = [(index + step) % len(self) for step in steps]
            return sample, {i: self.data.bad[i] for i in skipped}
        readable = self.data.get(index)
        return readable, {} if readable is not None else {index: self.data.bad[index]}


def collate(samples: Sequence[Sample]) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Images [B, C, H, W] as they are (uint8 has a quarter of the bytes of floats), and targets."""
    images = torch.stack([sample.image for sample in samples])
    return images, [sample.targets for sample in samples]


def collate_readable(
    samples: Sequence[tuple[Sample | None, dict[int, str]]],
) -> tuple[Tensor | None, list[dict[str, Tensor]], dict[int, str]]:
    """``collate`` of the samples of ``Readable``, and their errors; no images if all are bad."""
    bad = {index: error for _, errors in samples for index, error in errors.items()}
    good = [sample for sample, _ in samples if sample is not None]
    return (*collate(good), bad) if good else (None, [], bad)
