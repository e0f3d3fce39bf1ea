"""NYU Depth v2, the 1,449 labelled frames: one MATLAB 7.3 file, which is an HDF5 file.

HDF5 shows MATLAB's axes in reverse: an image is [3, W, H], a depth or label map [W, H].
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from common import limits
from common.errors import DataError
from datasets._hdf5_checks import own, own_array
from datasets.base import DATASETS, DatasetInfo, DenseDataset, Sample
from datasets.decoding import AGAIN, IGNORE, DepthSet, check_depth, reason
from datasets.files import check_choice, check_file, check_root, fingerprint, warn_of_count
from datasets.labels import voc_colour
from datasets.readers._matlab import read_numbers

if TYPE_CHECKING:
    from torch import Tensor

FRAMES = "nyu_depth_v2_labeled.mat"
SPLITS = "splits.mat"
MAPPING = "classMapping40.mat"
CLASSES = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window"),
    *("bookshelf", "picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser"),
    *("pillow", "mirror", "floor mat", "clothes", "ceiling", "books", "refrigerator"),
    *("television", "paper", "towel", "shower curtain", "box", "whiteboard", "person"),
    *("night stand", "toilet", "sink", "lamp", "bathtub", "bag", "other structure"),
    *("other furniture", "other prop"),
)
# kind of number, most bytes of one, and axes between the frame's number and W, H
ARRAYS = {"images": ("u", 1, (3,)), "depths": ("f", 8, ()), "labels": ("u", 4, ())}


@DATASETS.register("nyu-depth-v2")
class NyuDepthV2(DepthSet, DenseDataset):
    """Indoor depth (filled in) and 40 classes, 640×480.

    The folder holds ``nyu_depth_v2_labeled.mat``, the official division ``splits.mat`` and, for
    classes, ``classMapping40.mat``, which maps the file's 894 names to 40. With it every sample
    carries both targets.
    """

    info = DatasetInfo(
        name="nyu-depth-v2",
        title="NYU Depth v2",
        tasks={
            "depth": {"min_depth": 1e-3, "max_depth": 10.0, "crop": "nyu_eigen"},
            "segmentation": {"classes": CLASSES},
        },
        splits={"train": 795, "test": 654},
        # unclipped, SGD's first steps can drive the depth out of range for good
        defaults={"image_size": (240, 320), "crop_size": (192, 256), "clip_grad": 1.0},
        palette=tuple(voc_colour(index) for index in range(1, len(CLASSES) + 1)),
        licence="not stated; for research",
        citation=(
            "Silberman, Hoiem, Kohli, Fergus: Indoor segmentation and support inference from RGBD "
            "images, ECCV 2012; 40 classes of Gupta, Arbelaez, Malik: Perceptual organization and "
            "recognition of indoor scenes from RGB-D images, CVPR 2013"
        ),
        homepage="https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html",
    )
    layout = f"{FRAMES} and {SPLITS}"

    def __init__(self, root: Path | None, split: str, task: str) -> None:
        """Reads the division and, where it is there or ``task`` needs it, the class mapping.

        Raises UsageError without ``root``, or on an unknown split or task; DataError on a missing
        or damaged file. Warns where a published count differs.
        """
        check_choice(self.info, "task", task, self.info.tasks)
        check_choice(self.info, "split", split, self.info.splits)
        self.root = check_root(self.info, root, self.layout)
        self.split, self.task = split, task
        self.path = self.root / FRAMES
        self._open: tuple[int, h5py.File] | None = None  # by process id
        for name in (FRAMES, SPLITS):
            self._require(name, f"--data must name a folder with {self.layout}")
        with self._reading() as file:
            frames, names = _array(file, "images").shape[0], own(file, "names").size
        self.frames = self._numbers(split, frames)
        self.classes = self._mapping(names)
        warn_of_count(self.info, self.root, split, len(self.frames))

    def _require(self, name: str, remedy: str) -> None:
        """Raises DataError unless the folder has the file, with content."""
        path = self.root / name
        if not path.exists():
            raise DataError(f"{path}: file is missing: {remedy} (get it from {self.info.homepage})")
        check_file(path, self.info.homepage, "file")

    def _numbers(self, split: str, count: int) -> list[int]:
        """The frames of ``split``, counted from 0; the file counts from 1."""
        path, variable = self.root / SPLITS, f"{split}Ndxs"
        numbers = read_numbers(path, variable)
        if not len(numbers):
            raise DataError(f"{path}: {variable} is empty: {AGAIN}")
        if numbers.min() < 1 or numbers.max() > count:
            problem = (
                f"{variable} has frames {numbers.min()}…{numbers.max()}, {self.path} has {count}"
            )
            raise DataError(f"{path}: {problem}: take both from the same source")
        return [number - 1 for number in numbers.tolist()]

    def _mapping(self, names: int) -> NDArray[np.uint8] | None:
        """Label of the file → class, 255 for the unlabelled 0; None without the mapping's file."""
        path = self.root / MAPPING
        if not path.exists() and self.task != "segmentation":
            return None
        self._require(MAPPING, f"segmentation needs it beside {FRAMES}; it comes with the classes")
        numbers = read_numbers(path, "mapClass")
        if len(numbers) != names:
            problem = f"mapClass has {len(numbers)} labels, {self.path} has {names} names"
            raise DataError(f"{path}: {problem}: take both from the same source")
        if numbers.min() < 0 or numbers.max() > len(CLASSES):
            problem = f"mapClass has classes {numbers.min()}…{numbers.max()}"
            raise DataError(f"{path}: {problem} where 1…{len(CLASSES)} are expected: {AGAIN}")
        classes = np.full(names + 1, IGNORE, np.uint8)
        classes[1:] = np.where(numbers > 0, numbers - 1, IGNORE)
        return classes

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        """Raises DataError that names the file, and the frame, that is damaged or wrong."""
        import torch

        frame = self.frames[index]
        where = f"{self.path}: frame {frame + 1}"
        with self._reading() as file:
            image, depth = _frame(file, "images", frame), _frame(file, "depths", frame)
            labels = None if self.classes is None else _frame(file, "labels", frame)
        size = image.shape[1:]
        for name, array in (("depth", depth), ("label", labels)):
            if array is not None and array.shape != size:
                problem = f"{name} map of {array.shape} but image of {size}"
                raise DataError(f"{where}: {problem}: {AGAIN}")
        targets = {"depth": self._depth(where, depth)}
        if labels is not None:
            targets["segmentation"] = self._segmentation(where, labels)
        return Sample(torch.from_numpy(image), targets, f"{frame + 1:04d}")

    def _depth(self, where: str, depth: NDArray[Any]) -> Tensor:
        import torch

        with np.errstate(all="ignore"):
            metres = depth.astype(np.float32)
            metres = np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))
        check_depth(where, metres, 1, self.limits)
        return self.check_unit(where, torch.from_numpy(metres), 1)

    def _segmentation(self, where: str, labels: NDArray[Any]) -> Tensor:
        import torch

        assert self.classes is not None
        if labels.max() >= len(self.classes):
            expected = f"outside 0…{len(self.classes) - 1}"
            raise DataError(f"{where}: label {labels.max()} is {expected}: {AGAIN}")
        return torch.from_numpy(self.classes[labels])

    def fingerprint(self) -> str:
        paths = [self.root / name for name in (FRAMES, SPLITS, MAPPING)]
        files = fingerprint(self.root, (path for path in paths if path.exists()))
        return hashlib.sha256(f"{files} {self.frames}".encode()).hexdigest()[:16]

    @contextmanager
    def _reading(self) -> Iterator[h5py.File]:
        """The open file of this process; any failure inside raises DataError.

        A forked process opens its own: it must not move the position in its parent's.
        """
        try:
            if self._open is None or self._open[0] != os.getpid():
                if self._open is not None:
                    self._open[1].close()
                limits.check_size(self.path, limits.INTEGER)  # a pipe would block
                self._open = os.getpid(), h5py.File(self.path, "r")
            yield self._open[1]
        except DataError:
            raise
        except Exception as error:  # a damaged file makes h5py raise almost anything
            raise DataError(f"{self.path}: cannot be read ({reason(error)}): {AGAIN}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}


def _array(file: h5py.File, name: str) -> h5py.Dataset:
    """An array of the file. Raises DataError if its type or size is not as published."""
    data = own_array(file, name)
    (kind, most, axes), dtype = ARRAYS[name], data.dtype
    pixels = math.prod(data.shape[-2:])
    if (dtype.kind, data.shape[1:-2]) != (kind, axes) or dtype.itemsize > most or data.ndim < 3:
        problem = f"{name} is {dtype} of shape {data.shape}"
    elif not 0 < pixels <= limits.PIXELS:
        problem = f"{name} has frames of {pixels} pixels"
    else:
        return data
    raise DataError(f"{file.filename}: {problem}, not as it is published: {AGAIN}")


def _frame(file: h5py.File, name: str, index: int) -> NDArray[Any]:
    """One frame of an array, [..., H, W]; nothing else is read."""
    return np.ascontiguousarray(_array(file, name)[index].swapaxes(-1, -2))
