"""BSDS500 as distributed: photographs, and a MATLAB file of all annotators' boundaries for each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.annotators import MOST, pack
from common.errors import DataError
from datasets.base import DATASETS, DatasetInfo
from datasets.decoding import AGAIN
from datasets.paired import Pair, PairedFiles, match_files
from datasets.readers._matlab import read_field

if TYPE_CHECKING:
    from torch import Tensor


@DATASETS.register("bsds500")
class BSDS500(PairedFiles):
    """Edges of 481×321 and 321×481 photographs, marked by 4 to 9 people each."""

    info = DatasetInfo(
        name="bsds500",
        title="BSDS500",
        tasks={"edges": {}},
        splits={"train": 200, "val": 100, "test": 200},
        # HED trains on every photograph turned by multiples of 22.5°, mirrored and scaled
        defaults={
            "image_size": (320, 480),
            "crop_size": (320, 320),
            "rotate": 22.5,
            "zoom": (0.75, 1.5),
            "validate_every": 1000,  # only at the end: matching edges takes long
        },
        licence="non-commercial research and education",
        citation=(
            "Arbeláez, Maire, Fowlkes, Malik: Contour detection and hierarchical image "
            "segmentation, PAMI 2011"
        ),
        homepage="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/",
        turned=True,
    )
    layout = "images/{train,val,test}/*.jpg and groundTruth/{train,val,test}/*.mat"
    target = "ground truth"

    def find(self, split: str) -> list[Pair]:
        pairs = match_files(
            *(self.root / "images" / split, "*.jpg"),
            *(self.root / "groundTruth" / split, "*.mat"),
            self.remedy,
        )
        return sorted(pairs, key=lambda pair: (len(pair.name), pair.name))  # names are numbers

    def read_target(self, path: Path) -> Tensor:
        import torch

        return pack(torch.from_numpy(read_boundaries(path)))


def read_boundaries(path: Path) -> np.ndarray:
    """bool [A, H, W]: the boundaries of each annotator of a BSDS .mat file.

    Raises DataError that names the file if it holds anything else.
    """
    maps = read_field(path, "groundTruth", "Boundaries")
    remedy = f"{AGAIN} (expected groundTruth{{k}}.Boundaries, all of one size)"
    if not 1 <= len(maps) <= MOST:
        raise DataError(f"{path}: {len(maps)} boundary maps, not 1 to {MOST}: {remedy}")
    shapes = {array.shape for array in maps}
    if len(shapes) != 1:
        raise DataError(f"{path}: boundary maps of shapes {sorted(shapes)}: {remedy}")
    if any(((array != 0) & (array != 1)).any() for array in maps):
        raise DataError(f"{path}: boundary maps hold more than 0 and 1: {remedy}")
    return np.stack(maps).astype(bool)
