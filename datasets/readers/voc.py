"""PASCAL VOC 2012 in its published layout, alone and with the labels of SBD (trainaug)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import DataError
from datasets.base import DATASETS, DatasetInfo
from datasets.files import Line, inside, read_list
from datasets.labels import read_labels, voc_colour
from datasets.paired import Pair, PairedFiles

if TYPE_CHECKING:
    from torch import Tensor

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
VOID = 255
LISTS = Path("ImageSets/Segmentation")
AUG_LISTS = (
    "ImageSets/Segmentation/trainaug.txt",
    "ImageSets/Segmentation/train_aug.txt",
    "ImageSets/SegmentationAug/train_aug.txt",
    "SegmentationAug/train_aug.txt",
)
VOC_TRAIN = 1464  # lines of VOC's own train.txt

PALETTE = tuple(voc_colour(index) for index in range(256))
# Wu, Zhang, Huang: SparseMask, ICCV 2019; there crops are taken of images at their own size
PROTOCOL: dict[str, Any] = {
    "image_size": (513, 513),
    "zoom": (0.5, 2.0),
    "colour": 0.0,
    "epochs": 50,
    "batch_size": 16,
    "optimizer": "sgd",
    "lr": 0.005,
    "decoder_lr_factor": 10.0,
    "weight_decay": 4e-5,
    "schedule": "poly",
    "warmup": 0.0,
}


@DATASETS.register("voc2012")
class Voc2012(PairedFiles):
    """Photographs of 20 kinds of objects and background; 255, the objects' border, is ignored.

    ``--data`` is VOC2012, VOCdevkit or the folder that holds VOCdevkit. Scored on val: the test
    labels are secret.
    """

    info = DatasetInfo(
        name="voc2012",
        title="PASCAL VOC 2012",
        tasks={"segmentation": {"classes": CLASSES}},
        splits={"train": VOC_TRAIN, "val": 1449},
        scored="val",
        held_out="spread",
        defaults=PROTOCOL,
        palette=PALETTE[: len(CLASSES)],
        licence="Flickr's terms of use",
        citation=(
            "Everingham, Eslami, Van Gool, Williams, Winn, Zisserman: The PASCAL visual object "
            "classes challenge: a retrospective, IJCV 2015"
        ),
        homepage="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    )
    layout = "JPEGImages/, SegmentationClass/, ImageSets/Segmentation/train.txt and val.txt"
    target = "label map"
    inner = ("VOC2012", "VOCdevkit/VOC2012")

    def find(self, split: str) -> list[Pair]:
        lines = read_list(self.root / LISTS / f"{split}.txt", self.remedy)
        return self.list_pairs(lines, "SegmentationClass")

    def list_pairs(self, lines: Sequence[Line], folder: str) -> list[Pair]:
        """The samples that ``lines`` name, labels from ``folder``.

        A line is a name, or ``/JPEGImages/NAME.jpg /SegmentationClassAug/NAME.png``.
        """

        def pair(line: Line) -> Pair:
            entry = line.text.removeprefix("/")
            if entry.startswith("JPEGImages/"):
                name = entry.removeprefix("JPEGImages/").partition(".jpg")[0]
            else:
                name = line.text
            image = inside(self.root, line, f"JPEGImages/{name}.jpg")
            return Pair(image, inside(self.root, line, f"{folder}/{name}.png"), name, line.where)

        return self.listed(lines, pair)

    def read_target(self, path: Path) -> Tensor:
        return read_labels(path, range(len(CLASSES)), void=(VOID,), palette=PALETTE)


@DATASETS.register("voc2012-aug")
class Voc2012Aug(Voc2012):
    """VOC 2012, trained on trainaug: train and the images of SBD that are not in val.

    Beside VOC's own folders: ``SegmentationClassAug/NAME.png``, the labels of SBD as index images
    (grey or in VOC's palette), and one of ``AUG_LISTS``. A ``train.txt`` that is longer than VOC's
    own takes its place.
    """

    info = replace(
        Voc2012.info,
        name="voc2012-aug",
        title="PASCAL VOC 2012 + SBD (trainaug)",
        splits={"train": 10582, "val": 1449},
        citation=(
            "Hariharan, Arbeláez, Bourdev, Maji, Malik: Semantic contours from inverse detectors, "
            f"ICCV 2011; {Voc2012.info.citation}"
        ),
        homepage="http://home.bharathh.info/pubs/codes/SBD/download.html",
    )
    layout = "VOC 2012 and SegmentationClassAug/, ImageSets/Segmentation/trainaug.txt"

    def find(self, split: str) -> list[Pair]:
        if split == "val":
            return super().find(split)
        folder = self.root / "SegmentationClassAug"
        remedy = (
            "convert the labels of SBD to NAME.png here, and list the 10582 names outside VOC's "
            f"val in ImageSets/Segmentation/trainaug.txt (get SBD from {self.info.homepage})"
        )
        if not folder.is_dir():
            raise DataError(f"{folder}: folder is missing: {remedy}")
        pairs = self.list_pairs(self._names(remedy), folder.name)
        scored = {pair.name for pair in super().find("val")}
        for pair in pairs:
            if pair.name in scored:  # SBD's own lists overlap with VOC's val
                raise DataError(f"{pair.where}: {pair.name} is in val, which is scored: remove it")
        return pairs

    def _names(self, remedy: str) -> list[Line]:
        """The lines of the list, by whatever name it is distributed."""
        lists = [self.root / name for name in AUG_LISTS]
        path = next((path for path in lists if path.exists()), lists[0])
        bare = self.root / LISTS / "train.txt"
        if not path.exists() and bare.exists():
            lines = read_list(bare, remedy)
            if len(lines) > VOC_TRAIN:
                return lines
        return read_list(path, remedy)
