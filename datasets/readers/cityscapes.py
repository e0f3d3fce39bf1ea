"""Cityscapes in its published layout: ``leftImg8bit`` and the fine labels, ``gtFine``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from datasets.base import DATASETS, DatasetInfo
from datasets.labels import read_labels
from datasets.paired import Pair, PairedFiles, match_files

if TYPE_CHECKING:
    from torch import Tensor

# class → id in *_gtFine_labelIds.png, colour
CLASSES: dict[str, tuple[int, tuple[int, int, int]]] = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
IDS = [label for label, _ in CLASSES.values()]
VOID = [label for label in range(34) if label not in IDS]


@DATASETS.register("cityscapes")
class Cityscapes(PairedFiles):
    """Streets of 50 cities, 2048×1024, 19 of 34 label ids; the other ids are ignored.

    Scored on val: the test labels are secret.
    """

    info = DatasetInfo(
        name="cityscapes",
        title="Cityscapes (fine)",
        tasks={"segmentation": {"classes": tuple(CLASSES)}},
        splits={"train": 2975, "val": 500},
        scored="val",
        # Wang et al.: Deep high-resolution representation learning for visual recognition, TPAMI
        # 2021; one rate for all parameters
        defaults={
            "image_size": (1024, 2048),
            "crop_size": (512, 1024),
            "zoom": (0.5, 2.0),
            "colour": 0.0,
            "epochs": 484,
            "batch_size": 12,
            "optimizer": "sgd",
            "lr": 0.01,
            "decoder_lr_factor": 1.0,
            "weight_decay": 5e-4,
            "schedule": "poly",
            "warmup": 0.0,
        },
        palette=tuple(colour for _, colour in CLASSES.values()),
        licence="Cityscapes' own, non-commercial use",
        citation=(
            "Cordts, Omran, Ramos, Rehfeld, Enzweiler, Benenson, Franke, Roth, Schiele: The "
            "Cityscapes dataset for semantic urban scene understanding, CVPR 2016"
        ),
        homepage="https://www.cityscapes-dataset.com",
    )
    layout = "leftImg8bit/train/CITY/, gtFine/train/CITY/, the same for val"
    target = "label map"

    def find(self, split: str) -> list[Pair]:
        return match_files(
            *(self.root / "leftImg8bit" / split, "*/*_leftImg8bit.png"),
            *(self.root / "gtFine" / split, "*/*_gtFine_labelIds.png"),
            self.remedy,
        )

    def read_target(self, path: Path) -> Tensor:
        return read_labels(path, IDS, VOID)
