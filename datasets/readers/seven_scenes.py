"""7-Scenes: Kinect frames ``*.color.png`` (or ``.jpg``) beside ``*.depth.png``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import DataError
from datasets.base import DATASETS, DatasetInfo
from datasets.decoding import DepthSet, read_depth
from datasets.files import exists, inside, read_list
from datasets.paired import Pair, PairedFiles

if TYPE_CHECKING:
    from torch import Tensor

NO_READING = 65535
MILLIMETRES = 1000


@DATASETS.register("seven-scenes")
class SevenScenes(DepthSet, PairedFiles):
    """Indoor depth, 640×480, colour and depth not registered to each other in the original.

    The folder holds ``train.txt`` and ``test.txt`` with one frame a line (``frame-000000``, or
    ``chess/seq-01/frame-000000``), or it is the published one: scenes, or one scene, with
    ``TrainSplit.txt`` and ``TestSplit.txt`` that name sequences.
    """

    info = DatasetInfo(
        name="seven-scenes",
        title="7-Scenes",
        tasks={"depth": {"min_depth": 0.1, "max_depth": 10.0}},
        splits={"train": None, "test": None},
        # unclipped, SGD's first steps on 1,280 channels drive FCN's depth out of range for good
        defaults={"image_size": (240, 320), "crop_size": (192, 256), "clip_grad": 1.0},
        generic=True,
        licence="Microsoft Research licence, non-commercial use",
        citation=(
            "Shotton, Glocker, Zach, Izadi, Criminisi, Fitzgibbon: Scene coordinate regression "
            "forests for camera relocalization in RGB-D images, CVPR 2013"
        ),
        homepage="https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/",
    )
    layout = "train.txt, test.txt and frame-*.color.png, frame-*.depth.png"
    target = "depth map"

    def find(self, split: str) -> list[Pair]:
        frames, published = self.root / f"{split}.txt", f"{split.title()}Split.txt"
        sequences = [*self.root.glob(published), *sorted(self.root.glob(f"*/{published}"))]
        if sequences and not frames.exists():
            return [pair for path in sequences for pair in self._sequences(path)]
        remedy = f"write one frame a line, such as frame-000000, or unpack a scene with {published}"
        return self.listed(
            read_list(frames, remedy),
            lambda line: self._pair(inside(self.root, line, line.text), line.where),
        )

    def _sequences(self, path: Path) -> list[Pair]:
        """All frames of the sequences that ``path`` names, ``sequence1`` being ``seq-01``."""
        pairs = []
        for line in read_list(path, "unpack the scene again"):
            if not (match := re.fullmatch(r"sequence\s*(\d+)", line.text)):
                raise DataError(f"{line.where}: '{line.text}' is no sequence: write sequence1")
            folder = path.parent / f"seq-{int(match[1]):02d}"
            suffix = ".depth.png"
            frames = sorted(folder.glob(f"frame-*{suffix}"))
            if not frames:
                raise DataError(f"{folder}: no {suffix} of {line.where}: unpack {folder.name}.zip")
            pairs += [
                self._pair(frame.with_name(frame.name[: -len(suffix)]), line.where)
                for frame in frames
            ]
        return pairs

    def _pair(self, frame: Path, where: str) -> Pair:
        png, jpg = (frame.with_name(f"{frame.name}.color{suffix}") for suffix in (".png", ".jpg"))
        depth = frame.with_name(f"{frame.name}.depth.png")
        name = frame.relative_to(self.root).as_posix()
        return Pair(jpg if exists(jpg) else png, depth, name, where)

    def read_target(self, path: Path) -> Tensor:
        depth = read_depth(path, MILLIMETRES, NO_READING, self.limits)
        return self.check_unit(path, depth, MILLIMETRES)
