"""The interface of data sets: samples, kinds of targets, declared facts."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from common.drawing import RGB, Palette
from common.errors import DataError
from common.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One image with its ground truth, at the resolution of the files.

    image: uint8 [C, H, W], or float32 in the same scale 0…255 where the files hold more than 8
    bits; three channels are RGB. targets: maps [H, W] by name, encoded as in ``TARGETS``.
    """

    image: Tensor
    targets: dict[str, Tensor]
    name: str


class TargetStatistics(ABC):
    """Counts over the maps of one split, in memory that does not grow with it.

    facts: the data set's facts about the task (classes, depth range). ``add`` returns the fault of
    a single map; ``summary`` and ``doubts`` describe all maps.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self.maps = 0

    @abstractmethod
    def add(self, target: Tensor) -> str | None:
        """Count a map [H, W]; returns its fault, or None."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Numbers and tables of numbers, by name."""

    @abstractmethod
    def doubts(self) -> list[str]:
        """Warnings of what is possible but unlikely to be right."""

    def contradictions(self) -> list[str]:
        """What a published training split cannot look like; a problem of a set that has one."""
        return []


class TargetKind(ABC):
    """One kind of ground truth: its encoding, resizing, colours and statistics.

    ignore: the value of pixels that are neither trained on nor scored. dtype: of a map. statistics:
    the class that counts maps for ``data check``.
    """

    ignore: ClassVar[int]
    dtype: ClassVar[torch.dtype]
    statistics: ClassVar[type[TargetStatistics]]

    def resize(self, target: Tensor, size: tuple[int, int]) -> Tensor:
        """[H, W] → [*size], nearest: values are never mixed."""
        import torch.nn.functional as F

        if target.shape == size:
            return target
        resized = F.interpolate(target[None, None].float(), size, mode="nearest-exact")
        return resized[0, 0].to(target.dtype)

    def zoomed(self, target: Tensor, zoom: Tensor) -> Tensor:  # noqa: ARG002
        """Adapt targets [B, H, W] to images magnified by ``zoom`` [B, 1, 1]; ``ignore`` stays."""
        return target

    @abstractmethod
    def draw(self, target: Tensor, palette: Palette = ()) -> RGB:
        """A map [H, W] as RGB [H, W, 3]; ignored pixels are hatched.

        palette: the data set's colours of classes.
        """


TARGETS: Registry[type[TargetKind]] = Registry(
    "target", "datasets.targets", listing="the files of datasets/targets"
)
"""Kinds of ground truth by target name; several tasks may learn from one."""


@dataclass(frozen=True)
class DatasetInfo:
    """Declared facts about a data set; known without touching its files.

    tasks: target name → keyword arguments of the task (classes, depth range, crop).
    splits: split name → published count, None where it is the user's own.
    scored: the split whose numbers are published: ``val`` where the test labels are secret.
    held_out: the tenth of train that validates where there is no other split for it: the end, for
        lists of frames with similar neighbours, or samples spread over train.
    defaults: RunConfig fields that suit this data set, used where the user gives none.
    generic: the user chooses what the folder holds, so that its content identifies a run too.
    channels: of the images; 3 is RGB. channel_names: a name for each, or none.
    turned: images are portrait or landscape, of one size otherwise. Training rotates those of
        another orientation than the image size by 90°; scoring rotates the size instead.
    revision: increases when the same files, or the same seed, give other samples.
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
    channels: int = 3
    channel_names: tuple[str, ...] = ()
    revision: int = 1

    @property
    def published(self) -> bool:
        """Whether others have the same images under this name."""
        return not (self.generic or self.built_in)


class DenseDataset(ABC):
    """One split of a data set. Random access, picklable, the same sample for the same index."""

    info: ClassVar[DatasetInfo]
    described: ClassVar[bool] = False
    """Whether files under the root say what the data set is: ``description`` reads them."""
    joint: ClassVar[bool] = False
    """Whether the constructor takes ``also``: further tasks whose targets its samples hold."""
    dropped = 0
    """Number of samples that ``survey`` has left out."""

    @abstractmethod
    def __init__(self, root: Path | None, split: str, task: str) -> None:
        """Open ``split``; only what ``task`` needs must be there.

        Raises DataError that names the missing folder, list or file.
        """

    @classmethod
    def survey(
        cls, root: Path | None, split: str, task: str, **facts: Any
    ) -> tuple[DenseDataset, list[DataError]]:
        """The split without samples whose files are missing, and the error of each of these.

        Raises as the constructor does where a whole folder or list is missing.
        """
        return cls(root, split, task, **facts), []

    def doubt(self, kind: str, where: object, problem: str) -> None:
        """Note what may be wrong with a file that is read; the first of a kind is a warning."""
        noted = self.__dict__.setdefault("_doubts", {}).setdefault(kind, {})
        if not noted:
            warnings.warn(f"{where}: {problem}", stacklevel=3)
        noted[str(where)] = problem

    def doubts(self) -> list[tuple[str, str]]:
        """File and problem of all that ``doubt`` has noted."""
        kinds: dict[str, dict[str, str]] = self.__dict__.get("_doubts", {})
        return [doubt for noted in kinds.values() for doubt in noted.items()]

    def faults(self, index: int) -> list[DataError]:  # noqa: ARG002
        """An error for each file of an unreadable sample; empty where it has a single file."""
        return []

    def remarks(self) -> list[str]:
        """Warnings of files under the root that are part of no sample."""
        return []

    @classmethod
    def description(cls, root: Path | None) -> dict[str, Any] | None:  # noqa: ARG003
        """What the files under ``root`` say of the data set, for JSON; None if all is declared.

        Raises as the constructor does.
        """
        return None

    @classmethod
    def facts(cls, description: Mapping[str, Any] | None) -> DatasetInfo:  # noqa: ARG003
        """The facts of the data set that ``description`` is of."""
        return cls.info

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


DATASETS: Registry[type[DenseDataset]] = Registry(
    "dataset", "datasets.readers", "datasets.scenes", "datasets.own"
)
