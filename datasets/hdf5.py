"""One HDF5 file in the place of a data set's folder: arrays of one size, read without decoding.

Each array is a dataset of its own, in one chunk with a checksum: ``SPLIT/image/INDEX`` and
``SPLIT/TARGET/INDEX``; ``SPLIT/names`` lists the samples. Attributes hold the facts.
"""

import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common import limits
from common.errors import DataError, UsageError, UserError
from common.limits import printable
from datasets._hdf5_checks import LARGEST_CHUNK, attribute, own_array, own_group
from datasets.base import DATASETS, TARGETS, DatasetInfo, DenseDataset, Sample
from datasets.files import one_of

FORMAT = 1
SUFFIXES = (".h5", ".hdf5")
IMAGE = "image"
IMAGE_TYPES = ("uint8", "float32")
PACK = "python cli.py data pack"
LARGEST_NAMES = 2**28  # bytes of a split's names: a million of 256
COMPRESSIONS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "lzf": {"compression": "lzf", "shuffle": True},
    "gzip": {"compression": "gzip", "shuffle": True},
}
# metadata with checksums, which HDF5 1.10 and later read
_LIBVER = ("v110", "v110")


def is_packed(root: Path | None) -> bool:
    """Whether ``--data`` names a packed file and not a folder."""
    return root is not None and root.suffix.lower() in SUFFIXES and not root.is_dir()


# --- writing -------------------------------------------------------------------------------------


class _Disk(io.FileIO):
    """A file that stores its first error for ``check``: raised within HDF5 it would be lost.

    After a failed write HDF5 goes on, and crashes the process when it closes the file.
    """

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        try:
            while rest and self.failed is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.failed = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failed = self.failed or error
            return 0

    def check(self) -> None:
        if self.failed is not None:
            raise self.failed


class PackWriter:
    """Writes a new file at ``path``; leaving the context without an error marks it as complete.

    Raises OSError if it cannot be written.
    """

    def __init__(self, path: Path, compression: str) -> None:
        self._disk = _Disk(path, "w+")
        self._file = h5py.File(self._disk, "w", libver=_LIBVER)
        self._filters = {"fletcher32": True, **COMPRESSIONS[compression]}
        self._file.attrs["format"] = FORMAT
        self._file.attrs["compression"] = _encoded([compression])[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        with self._disk:
            if kind is None:
                self._file.flush()
                self._file.attrs["complete"] = True
            self._file.close()
            if kind is None:
                self._disk.check()

    def facts(
        self,
        info: DatasetInfo,
        tasks: Sequence[str],
        splits: Sequence[str],
        size: tuple[int, int],
        description: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the facts of the data set, and the size (height, width) of the images.

        description: what the data set's own files say of it.
        """
        attributes = self._file.attrs
        attributes["dataset"] = _encoded([info.name])[0]
        attributes["revision"] = info.revision
        attributes["tasks"] = _encoded(tasks)
        attributes["splits"] = _encoded(splits)
        attributes["image_size"] = size
        attributes["channels"] = info.channels
        for task in tasks:
            if classes := info.tasks[task].get("classes"):
                attributes["classes"] = _encoded(classes)
        if description is not None:
            attributes["description"] = _encoded([json.dumps(description)])[0]
        if info.palette:
            attributes["palette"] = np.array(info.palette, np.uint8)

    def split(self, name: str, names: Sequence[str], fingerprint: str) -> None:
        """Write the names of a split's samples and the fingerprint of their files."""
        group = self._file.require_group(name)
        self._array(group, "names", _encoded(names))
        group.attrs["count"] = len(names)
        group.attrs["fingerprint"] = _encoded([fingerprint])[0]

    def sample(self, split: str, index: int, sample: Sample) -> None:
        """Write sample ``index`` of ``split``; the method ``split`` writes its name."""
        for kind, tensor in {IMAGE: sample.image, **sample.targets}.items():
            group = self._file.require_group(f"{split}/{kind}")
            self._array(group, str(index), tensor.numpy())

    def _array(self, group: h5py.Group, name: str, array: NDArray[Any]) -> None:
        whole = array.nbytes <= LARGEST_CHUNK
        chunks = array.shape if whole else (1, *array.shape[1:])  # else a channel at a time
        group.create_dataset(name, data=array, chunks=chunks, **self._filters)
        self._disk.check()


def _encoded(texts: Sequence[str]) -> NDArray[Any]:
    """Strings of one length: unlike variable ones, HDF5 stores them under the checksums."""
    coded = [text.encode("utf-8", "surrogateescape") for text in texts]
    longest = max(1, *map(len, coded))
    return np.array(coded, h5py.string_dtype("utf-8", longest))


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


# --- reading -------------------------------------------------------------------------------------


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Any failure inside raises a DataError of one line."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: does not exist: write it with {PACK}") from None
    except Exception as error:  # a damaged file makes h5py raise almost anything
        reason = " ".join((getattr(error, "strerror", None) or str(error)).split())
        raise DataError(
            f"{path}: cut or damaged ({reason}): copy it again, or pack it anew with {PACK}"
        ) from error


def _open(path: Path) -> h5py.File:
    """The file, open for reading. Raises DataError unless it is whole and of this format."""
    limits.check_size(path, limits.INTEGER)  # a pipe would block
    path.open("rb").close()  # raises the system's own reason if it cannot be read
    if not h5py.is_hdf5(path):
        problem = "is no HDF5 file, or its start is damaged"
        raise DataError(f"{path}: {problem}: name a file that {PACK} wrote, or a folder")
    file = h5py.File(path, "r", locking=False)  # a complete file never changes
    try:
        if "format" not in file.attrs:
            raise DataError(f"{path}: holds no packed data set: write one with {PACK}")
        if (number := attribute(file, "format")) != FORMAT:
            problem = f"has format {number} where this version reads {FORMAT}"
            raise DataError(f"{path}: {problem}: pack it anew with {PACK}")
        if "complete" not in file.attrs:
            raise DataError(f"{path}: packing was interrupted: repeat {PACK}")
    except BaseException:
        file.close()
        raise
    return file


def _texts(coded: Any) -> list[str]:
    return [_decoded(text) for text in np.atleast_1d(coded)]


def _channels(file: h5py.File) -> int:
    """Channels of the file's images; earlier versions packed RGB only, and did not say so."""
    return int(attribute(file, "channels")) if "channels" in file.attrs else 3


def _check_array(kind: str, array: h5py.Dataset, channels: int) -> None:
    """Raises ValueError unless it is an image [channels, H, W] or a target [H, W] of its type."""
    if kind not in (IMAGE, *TARGETS.names()):
        raise ValueError(f"{kind!r} is no known target")
    is_image = kind == IMAGE
    sides = array.shape[1:] if is_image else array.shape
    types = IMAGE_TYPES if is_image else (str(TARGETS.get(kind).dtype).removeprefix("torch."),)
    shape = (channels, *sides) if is_image else sides
    pixels = math.prod(sides)
    if array.dtype not in types or array.shape != shape or len(sides) != 2:
        raise ValueError(f"{array.name} is {array.dtype} of shape {array.shape}")
    if not 0 < pixels <= limits.PIXELS:
        raise ValueError(f"{array.name} has {pixels} pixels, at most {limits.PIXELS} are read")
    if array.nbytes > limits.IMAGE:
        raise ValueError(f"{array.name} has {array.nbytes} bytes, at most {limits.IMAGE} are read")


def packed_description(path: Path, dataset: str) -> dict[str, Any] | None:
    """What the files that were packed said of their data set; None if it declares all itself.

    Raises UsageError for a file that holds another data set than ``dataset``, DataError for a
    damaged one.
    """
    with _reading(path), _open(path) as file:
        _check_name(path, file, dataset)
        if "description" not in file.attrs:
            return None
        content = limits.parse_json(_decoded(attribute(file, "description")))
        if not isinstance(content, dict):
            raise ValueError("its description is no mapping")
        return content


def _check_name(path: Path, file: h5py.File, dataset: str) -> None:
    """Raises UsageError unless the file was packed from ``dataset``."""
    name = printable(_decoded(attribute(file, "dataset")), 80)
    if name != dataset:
        raise UsageError(f"{path}: packed from {name}, not {dataset}: name the right one")


def _check_size(path: Path, file: h5py.File, size: tuple[int, int]) -> None:
    height, width = map(int, attribute(file, "image_size"))
    if size != (height, width):
        packed, expected = f"{height}x{width}", f"{size[0]}x{size[1]}"
        raise UsageError(
            f"{path}: packed at {packed}, not {expected}: give --image-size {packed}, or pack anew "
            f"with --image-size {expected}"
        )


def check_packed_size(path: Path, dataset: str, size: tuple[int, int]) -> None:
    """Raises UsageError if a packed file's images have another size than (height, width).

    Also if it was packed from another data set. Raises DataError where it is damaged.
    """
    with _reading(path), _open(path) as file:
        _check_name(path, file, dataset)
        _check_size(path, file, size)


class Packed(DenseDataset):
    """One split of a packed file; a sample has the targets of all tasks in it.

    Images and the targets of training have the size of packing; the targets of scoring have the
    files' own. Any number of processes may read, forked or spawned.
    """

    def __init__(
        self,
        root: Path | None,
        split: str,
        task: str,
        *,
        dataset: str,
        size: tuple[int, int] | None = None,
    ) -> None:
        """dataset: the data set that it must hold. size: (height, width) that it must have, if any.

        Raises UsageError where the file holds something else, DataError where it is damaged.
        """
        assert root is not None
        description = packed_description(root, dataset)
        self.info = DATASETS.get(dataset).facts(description)  # type: ignore[misc]
        self.path, self.split = root, split
        self._handle: tuple[int, h5py.File] | None = None
        with _reading(root), _open(root) as file:
            self.kinds = _texts(attribute(file, "tasks"))
            self._check(file, task, dataset, size)
            self.channels = _channels(file)
            names = own_array(file, f"{split}/names")
            if names.ndim != 1 or names.nbytes > LARGEST_NAMES:
                raise ValueError(f"{split}/names is {names.dtype} of shape {names.shape}")
            self.names = _texts(names[()])
            self._fingerprint = _decoded(attribute(own_group(file, split), "fingerprint"))

    def _check(
        self, file: h5py.File, task: str, dataset: str, size: tuple[int, int] | None
    ) -> None:
        _check_name(self.path, file, dataset)
        if attribute(file, "revision") != DATASETS.get(dataset).info.revision:
            changed = f"the reader of {dataset} has changed since"
            raise UsageError(f"{self.path}: {changed}: pack it anew")
        if (channels := _channels(file)) != self.info.channels:
            raise UsageError(
                f"{self.path}: its images have {channels} channels, those of {dataset} have "
                f"{self.info.channels}: pack it anew"
            )
        if task not in self.kinds:
            kinds = one_of(self.kinds)
            raise UsageError(f"{self.path}: holds {kinds}, no {task}: pack anew with --task {task}")
        if self.split not in file:
            raise UsageError(f"{self.path}: holds {one_of(file)}, no split '{self.split}'")
        if size is not None:
            _check_size(self.path, file, size)

    @classmethod
    def available_splits(cls, root: Path | None) -> list[str]:
        """The splits in the file, in the order of packing."""
        assert root is not None
        with _reading(root), _open(root) as file:
            return _texts(attribute(file, "splits"))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Raises DataError where the file is damaged."""
        index = range(len(self))[index]
        with _reading(self.path):
            image, *targets = (self._read(kind, index) for kind in (IMAGE, *self.kinds))
        return Sample(image, dict(zip(self.kinds, targets, strict=True)), self.names[index])

    def _read(self, kind: str, index: int) -> Tensor:
        # a forked process opens the file itself: HDF5's state is its parent's
        if self._handle is None or self._handle[0] != os.getpid():
            if self._handle is not None:
                self._handle[1].close()
            self._handle = os.getpid(), _open(self.path)
        array = own_array(self._handle[1], f"{self.split}/{kind}/{index}")
        _check_array(kind, array, self.channels)
        return torch.from_numpy(array[()])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def fingerprint(self) -> str:
        """The fingerprint of the files that were packed."""
        return self._fingerprint
