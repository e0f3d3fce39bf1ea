"""What every data set hands out and tells of itself."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from common.errors import DataError
from common.registry import Registry


@dataclass(frozen=True)
class Sample:
    """One image with its ground truth, at the resolution of the files.

    image: uint8 [3, H, W], RGB. targets, each [H, W], by name:

    - ``segmentation``: uint8 class index, 255 = ignore
    - ``depth``: float32 metres along the optical axis, 0 = no reading
    - ``saliency``: uint8, 1 = salient object, 0 = background
    - ``edges``: int32, the annotators' boundaries as ``common.annotators.pack`` writes them
    """

    image: Tensor
    targets: dict[str, Tensor]
    name: str


class TargetKind(NamedTuple):
    """How a target is stored: the value of a pixel that counts nowhere, and its type."""

    ignore: int
    dtype: torch.dtype


TARGETS = {
    "segmentation": TargetKind(255, torch.uint8),
    "depth": TargetKind(0, torch.float32),
    "saliency": TargetKind(255, torch.uint8),
    "edges": TargetKind(0, torch.int32),
}


@dataclass(frozen=True)
class DatasetInfo:
    """Declared facts about a data set; known without touching its files.

    tasks: target name → keyword arguments of the task (classes, depth range, crop).
    splits: split name → published count, None where it is the user's own.
    scored: the split whose numbers are published: ``val`` where the test labels are secret.
    held_out: which tenth of train stands in where no split is left to validate on: its end, for
        lists of frames with alike neighbours, or samples spread over it.
    defaults: RunConfig fields that suit this data set, used where the user gives none.
    generic: what the folder holds is the user's choice, so that it is part of a run's identity.
    turned: images stand upright or lie, of one size otherwise. Training turns those that are not as
        the image size is by a quarter; scoring takes them as they are, at the size turned.
    revision: counts up when the same files, or the same seed, give other samples.
    """

    name: str
    title: str
    tasks: Mapping[str, Mapping[str, Any]]
    splits: Mapping[str, int | None]
    scored: str = "test"
    held_out: Literal["end", "spread"] = "end"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    palette: tuple[tuple[int, int, int], ...] = ()
    licence: str = ""
    citation: str = ""
    homepage: str = ""
    built_in: bool = False
    generic: bool = False
    turned: bool = False
    revision: int = 1


class DenseDataset(ABC):
    """One split of a data set. Random access, picklable, the same sample for the same index."""

    info: ClassVar[DatasetInfo]
    dropped = 0
    """Samples that ``survey`` has left out."""

    @abstractmethod
    def __init__(self, root: Path | None, split: str, task: str) -> None:
        """Open ``split``; only what ``task`` needs must be there.

        Raises DataError that names the missing folder, list or file.
        """

    @classmethod
    def survey(
        cls, root: Path | None, split: str, task: str, **facts: Any
    ) -> tuple["DenseDataset", list[DataError]]:
        """The split without the samples that cannot be found, and what is wrong with each of them.

        Raises as the constructor does where a whole folder or list is missing.
        """
        return cls(root, split, task, **facts), []

    def faults(self, index: int) -> list[DataError]:  # noqa: ARG002
        """What is wrong with each file of a sample that cannot be read; none: it has only one."""
        return []

    @classmethod
    def available_splits(cls, root: Path | None) -> list[str]:  # noqa: ARG003
        """The splits that can be opened under ``root``; the declared ones unless files decide."""
        return list(cls.info.splits)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    @abstractmethod
    def fingerprint(self) -> str:
        """Short hexadecimal digest that changes when the split's files change."""


DATASETS: Registry[type[DenseDataset]] = Registry("dataset", "datasets.readers", "datasets.scenes")
