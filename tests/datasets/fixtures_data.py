"""Tiny folders of segmentation and edges, in their published layouts, and how to write them.

Add a data set, here or to fixtures_depth_saliency: a function that fills the folder ``root``,
entered into ``FIXTURES``. Each split has at least two samples, one of them with ``ODD`` in its
name; ``readers/test_contract.py`` does the rest.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from datasets.readers.cityscapes import IDS
from datasets.readers.voc import PALETTE

H, W = 40, 48
ODD = "straße 1 日本"  # a space, and letters that are not ASCII


def seeded(name: str) -> np.random.Generator:
    return np.random.default_rng(list(name.encode()))


def write_image(path: Path) -> None:
    """RGB [H, W], random by the file's name, in the format of its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = seeded(path.name).integers(0, 256, (H, W, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_array(path: Path, values: Sequence[int], dtype: type = np.uint8) -> None:
    """A grey PNG [H, W] that repeats ``values``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.resize(np.array(values, dtype), (H, W))).save(path)


def write_palette(path: Path, values: Sequence[int], palette: Sequence[Sequence[int]]) -> None:
    """A palette PNG [H, W] of the indices ``values``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.resize(np.array(values, np.uint8), (H, W)), mode="P")
    image.putpalette([value for colour in palette for value in colour])
    image.save(path)


def write_list(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def camvid(root: Path) -> None:
    for split, count in {"train": 3, "val": 2, "test": 2}.items():
        names = [*(f"{split}_{n:06d}" for n in range(count - 1)), f"{split} {ODD}"]
        for name in names:
            write_image(root / split / f"{name}.png")
            write_array(root / f"{split}annot" / f"{name}.png", [*range(12), 255])
        write_list(root / f"{split}.txt", [f"{split}/{n}.png {split}annot/{n}.png" for n in names])


def seven_scenes(root: Path) -> None:
    for split in ("train", "test"):
        names = [f"{split}/frame-000000", f"{split} {ODD}/frame-000004", f"{split}/frame-000008"]
        for name in names:
            write_image(root / f"{name}.color.png")
            write_array(root / f"{name}.depth.png", [0, 500, 4321, 65535], np.uint16)
        write_list(root / f"{split}.txt", names)


def image_masks(root: Path) -> None:
    for split in ("train", "test"):
        names = [split, f"{split} {ODD}"]
        for name in names:
            write_image(root / "images" / f"{name}.jpg")
            write_array(root / "masks" / f"{name}.png", [0, 0, 255])
        write_list(root / f"{split}.txt", names)


def voc2012(root: Path) -> None:
    for split, names in {"train": ["2007_000032", ODD], "val": ["2007_000033", f"2 {ODD}"]}.items():
        for name in names:
            write_image(root / "JPEGImages" / f"{name}.jpg")
            write_palette(root / "SegmentationClass" / f"{name}.png", [*range(21), 255], PALETTE)
        write_list(root / "ImageSets/Segmentation" / f"{split}.txt", names)


def voc2012_aug(root: Path) -> None:
    voc2012(root)
    names = ["2007_000032", ODD, "2008_000002"]
    write_image(root / "JPEGImages" / "2008_000002.jpg")
    for name in names:
        write_array(root / "SegmentationClassAug" / f"{name}.png", [*range(21), 255])
    write_list(root / "ImageSets/Segmentation/trainaug.txt", names)


def ade20k(root: Path) -> None:
    for folder, short in {"training": "train", "validation": "val"}.items():
        for name in (f"ADE_{short}_00000001", f"ADE_{short}_{ODD}"):
            write_image(root / "images" / folder / f"{name}.jpg")
            write_array(root / "annotations" / folder / f"{name}.png", range(151))


def cityscapes(root: Path) -> None:
    for split in ("train", "val"):
        for city in (f"{split}stadt", f"{split} {ODD}"):
            stem = f"{split}/{city}/{city}_000000_000019"
            write_image(root / "leftImg8bit" / f"{stem}_leftImg8bit.png")
            write_array(root / "gtFine" / f"{stem}_gtFine_labelIds.png", range(34))
            write_array(root / "gtFine" / f"{stem}_gtFine_instanceIds.png", IDS, np.uint16)


def bsds500(root: Path) -> None:
    for split in ("train", "val", "test"):
        for name in (f"{split}2", f"{split} {ODD}"):
            write_image(root / "images" / split / f"{name}.jpg")
            marks = seeded(name).random((4, H, W)) < 0.1
            cells = np.empty((1, len(marks)), object)
            for index, boundaries in enumerate(marks.astype(np.uint8)):
                cells[0, index] = {"Segmentation": np.uint16(boundaries), "Boundaries": boundaries}
            path = root / "groundTruth" / split / f"{name}.mat"
            path.parent.mkdir(parents=True, exist_ok=True)
            scipy.io.savemat(path, {"groundTruth": cells}, do_compression=True)


FIXTURES: dict[str, Callable[[Path], None]] = {
    "ade20k": ade20k,
    "bsds500": bsds500,
    "camvid": camvid,
    "cityscapes": cityscapes,
    "image-masks": image_masks,
    "seven-scenes": seven_scenes,
    "voc2012": voc2012,
    "voc2012-aug": voc2012_aug,
}
