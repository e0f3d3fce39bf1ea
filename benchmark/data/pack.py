"""Decode and resize a data set's folder once, into one HDF5 file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import DataError, UsageError
from common.files import check_target, whole_file
from common.progress import Listener
from datasets.base import DenseDataset, Sample
from datasets.files import one_of
from datasets.hdf5 import SUFFIXES, PackWriter
from datasets.pipeline import check_image, description_of, fitted, info_at, open_split, opener


def pack(
    name: str,
    root: Path | None,
    tasks: Sequence[str],
    size: tuple[int, int],
    compression: str,
    output: Path,
    overwrite: bool,
    listener: Listener,
) -> int:
    """Write every split of data set ``name`` with the targets of ``tasks`` to ``output``.

    Images and training targets are resized to ``size`` (height, width); other targets keep the
    resolution at which they are scored. Returns the number of samples. Raises UsageError if
    ``output`` exists (unless ``overwrite``) or is not called .h5, DataError for a damaged sample,
    UserError if ``output`` cannot be written; an earlier file then stays.
    """
    _check_output(output, overwrite)
    info = info_at(name, root)
    dataset, facts = opener(name, root, size)
    parts = {
        split: _sources(dataset, root, split, tasks, facts)
        for split in dataset.available_splits(root)
    }
    train = parts.get("train", {}).get(tasks[0])
    trained: list[int] = []
    if train is not None:
        opened = {"train": train}
        trained = open_split(name, root, tasks[0], size, "train", opened=opened).indices
    with whole_file(output, "-o") as path, PackWriter(path, compression) as writer:
        named = f"{size[0]}x{size[1]}"
        listener.message(f"packing images of {named}: runs on the file need --image-size {named}")
        writer.facts(info, tasks, list(parts), size, description_of(name, root))
        for split, sources in parts.items():
            data = sources[tasks[0]]
            resized = set(trained if data is train else ())
            names = []
            listener.begin(f"pack {name} {split}", len(data))
            for index in range(len(data)):
                sample = _merged(sources, index)
                check_image(sample, info)
                sample = fitted(sample, size, info.turned, index in resized)
                writer.sample(split, index, sample)
                names.append(sample.name)
                listener.step(sample.name)
            writer.split(split, names, data.fingerprint())
    return sum(len(sources[tasks[0]]) for sources in parts.values())


def _check_output(output: Path, overwrite: bool) -> None:
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"-o {output}: call the file .h5, which --data recognises")
    check_target(output, "-o")
    if output.exists() and not overwrite:
        raise UsageError(f"-o {output}: exists: name another file, or replace it by --overwrite")


def _sources(
    dataset: type[DenseDataset],
    root: Path | None,
    split: str,
    tasks: Sequence[str],
    facts: Mapping[str, Any],
) -> dict[str, DenseDataset]:
    """What reads the targets of each task: one for all of them, where there is such a one."""
    if dataset.joint:
        return dict.fromkeys(tasks, dataset(root, split, tasks[0], **{**facts, "also": tasks[1:]}))
    return {task: dataset(root, split, task, **facts) for task in tasks}


def _merged(sources: Mapping[str, DenseDataset], index: int) -> Sample:
    """Sample ``index`` with the target of every task; one source may hold several."""
    sample = next(iter(sources.values()))[index]
    targets = {}
    for task, data in sources.items():
        other = sample if task in sample.targets else data[index]
        if (other.name, len(data)) != (sample.name, len(next(iter(sources.values())))):
            others = one_of(t for t in sources if t != task)
            raise DataError(
                f"{task} has other samples than {others}: pack each --task into a file of its own"
            )
        if task not in other.targets:
            raise DataError(f"{sample.name}: no {task}: pack each --task into a file of its own")
        targets[task] = other.targets[task]
    return Sample(sample.image, targets, sample.name)
