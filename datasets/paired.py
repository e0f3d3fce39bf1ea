"""Splits of one image file and one target file per sample."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from common.errors import DataError
from datasets.base import DenseDataset, Sample
from datasets.decoding import orient, read_mask, read_stored
from datasets.files import Line, check_choice, check_file, check_root, fingerprint, warn_of_count

if TYPE_CHECKING:
    from torch import Tensor


class Pair(NamedTuple):
    """The files of one sample; ``where`` is the list line that asks for them."""

    image: Path
    target: Path
    name: str
    where: str


def match_files(images: Path, image: str, targets: Path, target: str, remedy: str) -> list[Pair]:
    """Pairs of ``images`` / NAME.jpg and ``targets`` / NAME.png, by name, where no list exists.

    image, target: glob patterns; what follows the last ``*`` is no part of NAME. A name that only
    one folder has makes a pair too, whose other file is then missing. Raises DataError if a folder
    is missing or no file fits.
    """
    names: dict[str, Path] = {}
    ends = [pattern.rpartition("*")[2] for pattern in (image, target)]
    for folder, pattern, end in zip((images, targets), (image, target), ends, strict=True):
        files = [path for path in folder.glob(pattern) if not path.name.startswith(".")]
        if not files:
            problem = f"no {end} in it" if folder.is_dir() else "folder is missing"
            raise DataError(f"{folder}: {problem}: {remedy}")
        for path in files:
            names.setdefault(path.relative_to(folder).as_posix().removesuffix(end), path)
    return [
        Pair(images / f"{name}{ends[0]}", targets / f"{name}{ends[1]}", name, str(names[name]))
        for name in sorted(names)
    ]


class PairedFiles(DenseDataset):
    """A split of one image file and one target file per sample, for one task.

    layout: what the folder holds, target: the name of a target file; both for errors.
    inner: subfolders, the first existing one of which is opened instead of the folder.
    """

    layout: ClassVar[str]
    target: ClassVar[str]
    inner: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, root: Path | None, split: str, task: str, missing: list[DataError] | None = None
    ) -> None:
        """Open ``split``: reads the list and looks for every file, without opening any image.

        missing: collects the error of each file, whose pair is left out; None: the first is raised.
        Raises UsageError without ``root``, or on an unknown split or task; DataError on a missing
        folder, list or file. Warns where a published count differs.
        """
        check_choice(self.info, "task", task, self.info.tasks)
        check_choice(self.info, "split", split, self.info.splits)
        folder = check_root(self.info, root, self.layout)
        nested = (folder / name for name in self.inner)
        self.root = next((path for path in nested if path.is_dir()), folder)
        check_choice(self.info, "split", split, self.available_splits(root))
        self.split, self.task, self.missing = split, task, missing
        listed = self.find(split)
        self.pairs = [pair for pair in listed if self._is_there(pair)]
        self.dropped += len(listed) - len(self.pairs)
        warn_of_count(self.info, self.root, split, len(self.pairs))

    @property
    def remedy(self) -> str:
        """What to do where a published file is missing, for errors."""
        return f"--data must name a folder with {self.layout} (get it from {self.info.homepage})"

    @classmethod
    def survey(
        cls, root: Path | None, split: str, task: str, **facts: Any
    ) -> tuple[DenseDataset, list[DataError]]:
        missing: list[DataError] = []
        return cls(root, split, task, missing, **facts), missing

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Raise the error of one pair, or collect it in ``missing``."""
        try:
            yield
        except DataError as error:
            if self.missing is None:
                raise
            self.missing.append(error)

    def has(self, path: Path, where: str, role: str) -> bool:
        """Whether a file is there; without ``missing`` to collect it, a lack raises DataError."""
        before = len(self.missing or ())
        with self._noted():
            check_file(path, where, role)
        return len(self.missing or ()) == before

    def _is_there(self, pair: Pair) -> bool:
        files = ((pair.image, "image"), (pair.target, self.target))
        there = [self.has(path, pair.where, role) for path, role in files]
        return all(there)

    def listed(self, lines: Iterable[Line], pair: Callable[[Line], Pair | None]) -> list[Pair]:
        """The ``pair`` of each line that has one, for ``find``.

        A bad line does not hide the others where ``missing`` collects errors.
        """
        pairs = []
        for line in lines:
            self.dropped += 1
            with self._noted():
                if match := pair(line):
                    pairs.append(match)
                self.dropped -= 1
        return pairs

    @abstractmethod
    def find(self, split: str) -> list[Pair]:
        """The pairs of ``split``, at least one, in the order of its list."""

    @abstractmethod
    def read_target(self, path: Path) -> Tensor:
        """The ground truth [H, W] of a file, encoded as in ``TARGETS``."""

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Raises DataError that names the damaged or wrong file."""
        pair = self.pairs[index]
        stored, orientation = read_stored(pair.image)
        target = self.read_target(pair.target)
        maps = [(pair.target, self.target, target)]
        image, doubt = orient(pair.image, stored, orientation, maps)
        if doubt is not None:
            self.doubt("orientation", pair.image, doubt)
        return Sample(image, {self.task: target}, pair.name)

    def faults(self, index: int) -> list[DataError]:
        pair, errors = self.pairs[index], []
        for read, path in ((read_stored, pair.image), (self.read_target, pair.target)):
            try:
                read(path)
            except DataError as error:
                errors.append(error)
        return errors

    def fingerprint(self) -> str:
        return fingerprint(self.root, (path for pair in self.pairs for path in pair[:2]))


class MaskPairs(PairedFiles):
    """Images with grey masks of a salient object."""

    target = "mask"

    def read_target(self, path: Path) -> Tensor:
        return read_mask(path)
