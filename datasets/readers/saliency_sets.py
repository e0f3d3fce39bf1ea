"""Salient objects: MSRA-B, DUTS, ECSSD, HKU-IS, DUT-OMRON and PASCAL-S as they are published.

An image and its mask have the same name, but for the ending, each in a folder of its own. The four
without a training split score networks that were trained on another data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from common.errors import DataError
from datasets.base import DATASETS, DatasetInfo
from datasets.decoding import read_mask
from datasets.files import SUFFIXES, Line, inside, read_list
from datasets.paired import MaskPairs, Pair

if TYPE_CHECKING:
    from torch import Tensor

DEFAULTS = {"image_size": (256, 256), "crop_size": (224, 224)}


class FolderPairs(MaskPairs):
    """All images of one folder that have their masks in another.

    folders: split → folder of the images, folder of the masks.
    """

    folders: ClassVar[Mapping[str, tuple[str, str]]]

    def find(self, split: str) -> list[Pair]:
        images, masks = (self.root / folder for folder in self.folders[split])
        for folder in (images, masks):
            if not folder.is_dir():
                raise DataError(f"{folder}: no such folder: {self.remedy}")
        pairs = [
            Pair(path, masks / f"{path.stem}.png", path.stem, str(path))
            for path in sorted(images.glob("*"))
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        ]
        if not pairs:
            raise DataError(f"{images}: no image in it: unpack {self.info.title} again")
        return pairs


@DATASETS.register("msra-b")
class MsraB(MaskPairs):
    """5,000 images; the lists of Jiang et al. 2013 name the masks, ``0_0_735.png``, one a line.

    ``NAME.jpg`` and ``NAME.png`` are in ``image/`` and ``annotation/``, or all beside the lists.
    """

    info = DatasetInfo(
        name="msra-b",
        title="MSRA-B",
        tasks={"saliency": {}},
        splits={"train": 2500, "val": 500, "test": 2000},
        defaults=DEFAULTS,
        licence="not stated; for research",
        citation=(
            "Liu, Sun, Zheng, Tang, Shum: Learning to detect a salient object, CVPR 2007; masks "
            "and split of Jiang, Wang, Yuan, Wu, Zheng, Li: Salient object detection: a "
            "discriminative regional feature integration approach, CVPR 2013"
        ),
        homepage="http://mftp.mmcheng.net/Data/MSRA-B.zip",
    )
    layout = (
        "train_cvpr2013.txt, valid_cvpr2013.txt, test_cvpr2013.txt and image/, annotation/ (or all "
        "images and masks beside the lists)"
    )

    def find(self, split: str) -> list[Pair]:
        stem = {"val": "valid"}.get(split, split)
        own, published = self.root / f"{split}.txt", self.root / f"{stem}_cvpr2013.txt"
        folders = ("image", "annotation") if (self.root / "image").is_dir() else ("", "")

        def pair(line: Line) -> Pair:
            path = inside(self.root, line, line.text)
            name = path.stem if path.suffix.lower() in SUFFIXES else path.name
            image, mask = (self.root / folder for folder in folders)
            return Pair(image / f"{name}.jpg", mask / f"{name}.png", name, line.where)

        return self.listed(read_list(own if own.exists() else published, self.remedy), pair)


@DATASETS.register("duts")
class Duts(FolderPairs):
    """15,572 images; what most saliency networks since 2017 are trained on."""

    info = DatasetInfo(
        name="duts",
        title="DUTS",
        tasks={"saliency": {}},
        splits={"train": 10553, "test": 5019},
        held_out="spread",  # names are sorted by ImageNet's classes
        defaults=DEFAULTS,
        licence="not stated; for research",
        citation=(
            "Wang, Lu, Wang, Feng, Wang, Yin, Ruan: Learning to detect salient objects with "
            "image-level supervision, CVPR 2017"
        ),
        homepage="http://saliencydetection.net/duts/",
    )
    folders: ClassVar = {
        "train": ("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask"),
        "test": ("DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask"),
    }
    layout = "DUTS-TR/DUTS-TR-Image, DUTS-TR/DUTS-TR-Mask and the same of DUTS-TE"


@DATASETS.register("ecssd")
class Ecssd(FolderPairs):
    """1,000 images of meaningful but complex scenes; test only."""

    info = DatasetInfo(
        name="ecssd",
        title="ECSSD",
        tasks={"saliency": {}},
        splits={"test": 1000},
        defaults=DEFAULTS,
        licence="not stated; for research",
        citation=(
            "Shi, Yan, Xu, Jia: Hierarchical image saliency detection on extended CSSD, TPAMI 2016"
        ),
        homepage="https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/dataset.html",
    )
    folders: ClassVar = {"test": ("images", "ground_truth_mask")}
    layout = "images/ and ground_truth_mask/"


@DATASETS.register("hku-is")
class HkuIs(FolderPairs):
    """4,447 images, most with several salient objects.

    All of them are the test split, as in the literature since DUTS; the authors' own division into
    2,500, 500 and 1,447 is not read.
    """

    info = DatasetInfo(
        name="hku-is",
        title="HKU-IS",
        tasks={"saliency": {}},
        splits={"test": 4447},
        defaults=DEFAULTS,
        licence="not stated; for research",
        citation="Li, Yu: Visual saliency based on multiscale deep features, CVPR 2015",
        homepage="https://i.cs.hku.hk/~gbli/deep_saliency.html",
    )
    folders: ClassVar = {"test": ("imgs", "gt")}
    layout = "imgs/ and gt/"


@DATASETS.register("dut-omron")
class DutOmron(FolderPairs):
    """5,168 images with one or more objects before a complex background; test only."""

    info = DatasetInfo(
        name="dut-omron",
        title="DUT-OMRON",
        tasks={"saliency": {}},
        splits={"test": 5168},
        defaults=DEFAULTS,
        licence="not stated; for research",
        citation=(
            "Yang, Zhang, Lu, Ruan, Yang: Saliency detection via graph-based manifold ranking, "
            "CVPR 2013"
        ),
        homepage="http://saliencydetection.net/dut-omron/",
    )
    folders: ClassVar = {"test": ("DUT-OMRON-image", "pixelwiseGT-new-PNG")}
    layout = "DUT-OMRON-image/ and pixelwiseGT-new-PNG/"


@DATASETS.register("pascal-s")
class PascalS(FolderPairs):
    """850 images of PASCAL VOC 2010; a mask's grey is the share of viewers who chose the object.

    More than half of them make it salient, so that a mask may have no object at all.
    """

    info = DatasetInfo(
        name="pascal-s",
        title="PASCAL-S",
        tasks={"saliency": {}},
        splits={"test": 850},
        defaults=DEFAULTS,
        licence="not stated; for research",
        citation=(
            "Li, Hou, Koch, Rehg, Yuille: The secrets of salient object segmentation, CVPR 2014"
        ),
        homepage="http://cbs.ic.gatech.edu/salobj/",
    )
    folders: ClassVar = {"test": ("datasets/imgs/pascal", "datasets/masks/pascal")}
    layout = "datasets/imgs/pascal/ and datasets/masks/pascal/"

    def read_target(self, path: Path) -> Tensor:
        return read_mask(path, graded=True)
