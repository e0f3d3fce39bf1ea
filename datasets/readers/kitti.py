"""KITTI depth, Eigen split: camera images of the raw data, accumulated laser depth, list files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import DataError
from datasets.base import DATASETS, DatasetInfo
from datasets.decoding import DepthSet, read_depth
from datasets.files import Line, exists, inside, read_list
from datasets.paired import Pair, PairedFiles

if TYPE_CHECKING:
    from torch import Tensor

PER_METRE = 256
ENTRY = re.compile(r"(?P<image>.+?\.(?:png|jpe?g))\s+(?P<depth>None|.+?\.png)(?:\s.*)?", re.I)
# where the archives of the raw images and of the annotated depth are often unpacked
IMAGES = ("", "raw", "raw_data")
DEPTHS = tuple(
    f"{folder}{part}" for folder in ("", "data_depth_annotated/") for part in ("", "train", "val")
)


@DATASETS.register("kitti-depth")
class KittiDepth(DepthSet, PairedFiles):
    """Outdoor depth, about 1242×375; 16-bit PNG in 1/256 m, 0 = no reading.

    A line of a list is ``IMAGE DEPTH focal``, as BTS and its successors distribute them. DEPTH is
    None where the annotated depth has no such frame: those lines are left out. Of Eigen's 697 test
    images 652 have one. ``val`` is there if its list is.
    """

    info = DatasetInfo(
        name="kitti-depth",
        title="KITTI depth (Eigen split)",
        tasks={"depth": {"min_depth": 1e-3, "max_depth": 80.0, "crop": "kitti_garg"}},
        splits={"train": 23158, "val": None, "test": 652},
        # a third of the scale; unclipped, SGD's first steps can drive the depth out of range
        defaults={"image_size": (128, 416), "crop_size": (112, 352), "clip_grad": 1.0},
        licence="CC BY-NC-SA 3.0",
        citation=(
            "Geiger, Lenz, Stiller, Urtasun: Vision meets robotics: the KITTI dataset, IJRR 2013; "
            "depth of Uhrig, Schneider, Schneider, Franke, Brox, Geiger: Sparsity invariant CNNs, "
            "3DV 2017; split of Eigen, Puhrsch, Fergus: Depth map prediction from a single image "
            "using a multi-scale deep network, NIPS 2014; lists of Lee, Han, Ko, Suh: From big to "
            "small, 2019"
        ),
        homepage="https://www.cvlibs.net/datasets/kitti/eval_depth.php?benchmark=depth_prediction",
    )
    layout = (
        "eigen_train_files_with_gt.txt, eigen_test_files_with_gt.txt, the raw data "
        "2011_…/…/image_02/data and the annotated depth …/proj_depth/groundtruth/image_02"
    )
    target = "depth map"

    @classmethod
    def available_splits(cls, root: Path | None) -> list[str]:
        """train and test, between them val where ``root`` has a list of it."""
        has_val = root is not None and cls._list(root, "val").exists()
        return [split for split in cls.info.splits if has_val or split != "val"]

    @staticmethod
    def _list(root: Path, split: str) -> Path:
        """The list of ``split``, or the name it should have."""
        name = f"eigen_{split}_files_with_gt.txt"
        paths = [root / other for other in (name, f"kitti_{name}", f"{split}.txt")]
        return next((path for path in paths if path.exists()), paths[0])

    def find(self, split: str) -> list[Pair]:
        path = self._list(self.root, split)
        known: dict[str, Path] = {}
        pairs = self.listed(read_list(path, self.remedy), lambda line: self._pair(line, known))
        if not pairs:
            raise DataError(f"{path}: None of its lines has a depth map: take the list with them")
        return pairs

    def _pair(self, line: Line, known: dict[str, Path]) -> Pair | None:
        """The two paths of a line; None without depth. known: drive → folder that holds it."""
        if not (match := ENTRY.fullmatch(line.text)):
            raise DataError(f"{line.where}: '{line.text}' is not 'image depth focal': write paths")
        if match["depth"].lower() == "none":
            return None
        image = self._path(line, match["image"].lstrip("/"), IMAGES, known)
        depth = self._path(line, match["depth"].lstrip("/"), DEPTHS, known)
        name = Path(match["image"].lstrip("/")).with_suffix("").as_posix()
        return Pair(image, depth, name, line.where)

    def _path(
        self, line: Line, entry: str, folders: tuple[str, ...], known: dict[str, Path]
    ) -> Path:
        """``entry`` in the first of ``folders`` that has its drive; else right under the root."""
        path = inside(self.root, line, entry).relative_to(self.root)
        drive = path.parent.as_posix()
        if drive not in known:
            places = (self.root / folder for folder in folders)
            known[drive] = next((p for p in places if exists(p / drive)), self.root)
        return known[drive] / path

    def read_target(self, path: Path) -> Tensor:
        return self.check_unit(path, read_depth(path, PER_METRE, 0, self.limits), PER_METRE)
