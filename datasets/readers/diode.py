"""DIODE: laser-scanned rooms and streets; an array file for depth, another for its validity."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from datasets.base import DATASETS, DatasetInfo
from datasets.decoding import AGAIN, DepthSet, check_depth, read_array
from datasets.files import fingerprint, one_of
from datasets.paired import Pair, PairedFiles, match_files

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("indoors", "outdoor")
FOLDERS = {"train": "train", "test": "val"}


@DATASETS.register("diode")
class Diode(DepthSet, PairedFiles):
    """Indoor and outdoor depth, 1024×768, dense; metres up to the sensor's 350.

    ``train/`` and ``val/`` hold ``{indoors,outdoor}/scene_*/scan_*/NAME.png`` with
    ``NAME_depth.npy`` and ``NAME_depth_mask.npy``. The test split is the published ``val``, on
    which results are reported: the test images were never released.
    """

    info = DatasetInfo(
        name="diode",
        title="DIODE",
        # the range of the sensor, a FARO Focus S350
        tasks={"depth": {"min_depth": 0.6, "max_depth": 350.0}},
        splits={"train": 8574 + 16884, "test": 325 + 446},
        defaults={"image_size": (192, 256), "crop_size": (160, 224), "clip_grad": 1.0},
        licence="MIT",
        citation=(
            "Vasiljevic, Kolkin, Zhang, Luo, Wang, Dai, Daniele, Mostajabi, Basart, Walter, "
            "Shakhnarovich: DIODE: a dense indoor and outdoor depth dataset, 2019"
        ),
        homepage="https://diode-dataset.org",
    )
    layout = "train/ and val/, in each indoors/ and outdoor/ with scene_*/scan_*/*.png"
    target = "depth map"

    def find(self, split: str) -> list[Pair]:
        """Indoor and outdoor images, interleaved so that every part of the list has both."""
        folder = self.root / FOLDERS[split]
        ranked = []
        for kind in KINDS:
            if (folder / kind).is_dir():
                images, depths = (f"{kind}/scene_*/scan_*/*{end}" for end in (".png", "_depth.npy"))
                matches = match_files(folder, images, folder, depths, self.remedy)
                ranked += [((rank + 0.5) / len(matches), pair) for rank, pair in enumerate(matches)]
        if not ranked:
            raise DataError(f"{folder}: no {one_of(KINDS)} in it: {self.remedy}")
        pairs = [pair for _, pair in sorted(ranked)]
        return [pair for pair in pairs if self.has(_mask(pair.target), pair.where, "validity mask")]

    def read_target(self, path: Path) -> Tensor:
        import torch

        depth, valid = _read_map(path), _read_map(_mask(path))
        if depth.shape != valid.shape:
            problem = f"shape {valid.shape} but its depth map has {depth.shape}"
            raise DataError(f"{_mask(path)}: {problem}: {AGAIN}")
        metres = np.where((valid > 0) & np.isfinite(depth) & (depth > 0), depth, 0)
        check_depth(path, metres, 1, self.limits)
        return self.check_unit(path, torch.from_numpy(metres), 1)

    def fingerprint(self) -> str:
        files = ((p.image, p.target, _mask(p.target)) for p in self.pairs)
        return fingerprint(self.root, (path for three in files for path in three))


def _mask(depth: Path) -> Path:
    return depth.with_name(f"{depth.stem}_mask.npy")


def _read_map(path: Path) -> NDArray[np.float32]:
    """The numbers, float32 [H, W], of an array file [H, W] or [H, W, 1]. Raises DataError."""
    array = read_array(path)
    if array.shape[2:] not in ((), (1,)):
        raise DataError(f"{path}: shape {array.shape} where [H, W, 1] is expected: {AGAIN}")
    with np.errstate(all="ignore"):
        numbers: NDArray[np.float32] = array.reshape(array.shape[:2]).astype(np.float32)
    return numbers
