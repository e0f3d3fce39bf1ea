"""Tiny folders of depth and saliency data sets: FIXTURES writes each by its name.

Names, types, encodings and axes are those of the real files; sizes, counts and contents are not.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from tests.datasets.fixtures_data import ODD, H, W, seeded, write_image, write_list

NYU_SIZE = 480, 640  # the evaluation crop of NYU Depth v2 is defined on these pixels alone


def depths(name: str, low: float, high: float) -> NDArray[np.float32]:
    """Metres [H, W] that grow downwards, between ``low`` and ``high``."""
    rows = np.linspace(low, high, H)[:, None] * seeded(name).uniform(0.9, 1.0, (H, W))
    return rows.clip(low, high).astype(np.float32)


# --- depth ---------------------------------------------------------------------------------------

NYU_LABELS = 894
NYU_FRAMES = 5


def nyu_arrays(size: tuple[int, int] = NYU_SIZE) -> dict[str, NDArray[np.generic]]:
    """Images [N, H, W, 3], depths and labels [N, H, W], as a reader should return them."""
    h, w = size
    random = seeded("nyu")
    colours = random.integers(0, 256, (NYU_FRAMES, h // 8, w // 8, 3), dtype=np.uint8)
    metres = np.linspace(0.8, 9.5, h)[None, :, None] * random.uniform(0.9, 1, (NYU_FRAMES, 1, w))
    labels = random.integers(1, NYU_LABELS + 1, (NYU_FRAMES, h // 8, w // 8), dtype=np.uint16)
    labels[:, 0, 0] = 0  # unlabelled
    return {
        "images": colours.repeat(8, 1).repeat(8, 2),
        "depths": metres.astype(np.float32),
        "labels": labels.repeat(8, 1).repeat(8, 2),
    }


def nyu_depth_v2(root: Path, size: tuple[int, int] = NYU_SIZE) -> None:
    """MATLAB 7.3: a block of 512 bytes before HDF5, axes reversed, names by object references."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in nyu_arrays(size).items():
            turned = array.transpose(0, *range(array.ndim - 1, 0, -1))
            chunks = (1, *turned.shape[1:])
            data = file.create_dataset(name, data=turned, chunks=chunks, compression="gzip")
            kind = {"images": "uint8", "depths": "single", "labels": "uint16"}[name]
            data.attrs["MATLAB_class"] = np.bytes_(kind)
        store = file.create_group("#refs#")
        references = np.empty((1, NYU_LABELS), h5py.ref_dtype)
        for label in range(NYU_LABELS):
            letters = np.array([[ord(letter)] for letter in f"thing {label + 1}"], np.uint16)
            text = store.create_dataset(f"n{label}", data=letters)
            text.attrs["MATLAB_class"] = np.bytes_("char")
            references[0, label] = text.ref
        names = file.create_dataset("names", data=references)
        names.attrs["MATLAB_class"] = np.bytes_("cell")
    with path.open("r+b") as block:
        block.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    column = {"trainNdxs": [[2], [4], [5]], "testNdxs": [[1], [3]]}
    scipy.io.savemat(root / "splits.mat", {k: np.array(v, np.uint16) for k, v in column.items()})
    classes = (np.arange(NYU_LABELS) % 40 + 1).astype(np.uint8)[None]
    texts = np.empty((1, 40), object)
    texts[0] = [f"class {index}" for index in range(40)]
    content = {"mapClass": classes, "className": texts}
    scipy.io.savemat(root / "classMapping40.mat", content, do_compression=True)


def write_kitti_depth(path: Path) -> None:
    """16-bit PNG in 1/256 m with most pixels empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metres = depths(path.name, 4, 75)
    metres[:10] = metres[:, ::3] = 0
    Image.fromarray((metres * 256).astype(np.uint16)).save(path)


def kitti_depth(root: Path) -> None:
    """Drives of both parts of the annotated depth, a test image without it among them."""
    drives = {
        "train": ("2011_09_26_drive_0057_sync", "train", (311, 312, 313)),
        "test": ("2011_09_26_drive_0002_sync", "val", (69, 54)),
    }
    for split, (drive, part, frames) in drives.items():
        lines = []
        for frame in frames:
            camera = f"image_02 {ODD}" if frame == frames[-1] else "image_02"
            image = f"2011_09_26/{drive}/{camera}/data/{frame:010d}.png"
            depth = f"{drive}/proj_depth/groundtruth/{camera}/{frame:010d}.png"
            write_image(root / image)
            write_kitti_depth(root / part / depth)
            lines.append(f"{image} {depth} 721.5377")
        if split == "test":
            lines.insert(1, f"2011_09_26/{drive}/image_02/data/0000000075.png None 721.5377")
        write_list(root / f"eigen_{split}_files_with_gt.txt", lines)


def diode(root: Path) -> None:
    """An indoor and an outdoor scene for each of the two released splits."""
    for split, scenes in {"train": (0, 3), "val": (19, 22)}.items():
        for scene, kind, top in zip(scenes, ("indoors", "outdoor"), (8, 120), strict=True):
            folder = root / split / kind / f"scene_{scene:05d}" / f"scan_{scene + 160:05d}"
            for angle in ("000", ODD):
                name = f"{scene:05d}_{scene + 160:05d}_{kind}_000_{angle}"
                write_image(folder / f"{name}.png")
                np.save(folder / f"{name}_depth.npy", depths(name, 1, top)[..., None])
                valid = np.ones((H, W))
                valid[:8] = 0
                np.save(folder / f"{name}_depth_mask.npy", valid)


# --- saliency ------------------------------------------------------------------------------------


def write_mask(path: Path, inside: int = 255) -> None:
    """A grey mask with a rectangle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((H, W), np.uint8)
    mask[8:24, 12:36] = inside
    Image.fromarray(mask).save(path)


def msra_b(root: Path) -> None:
    """Images and masks in two folders, three lists of mask names."""
    names = {
        "train": ("0_0_735", f"0 {ODD}"),
        "valid": ("1_45_45002", f"1 {ODD}"),
        "test": ("9_122_122991", f"9 {ODD}"),
    }
    for split, stems in names.items():
        for stem in stems:
            write_image(root / "image" / f"{stem}.jpg")
            write_mask(root / "annotation" / f"{stem}.png")
        write_list(root / f"{split}_cvpr2013.txt", [f"{stem}.png" for stem in stems])


def image_mask_folders(
    root: Path, folders: Mapping[tuple[str, str], tuple[str, ...]], suffix: str = ".jpg"
) -> None:
    """(folder of images, folder of masks) → names."""
    for (images, masks), names in folders.items():
        for name in names:
            write_image(root / images / f"{name}{suffix}")
            write_mask(root / masks / f"{name}.png")


DUTS = {
    ("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask"): (
        *("ILSVRC2012_test_00000004", "n01443537_16150", ODD),
    ),
    ("DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask"): (
        *("ILSVRC2012_test_00000003", f"sun {ODD}"),
    ),
}
ECSSD = {("images", "ground_truth_mask"): ("0001", ODD)}
HKU_IS = {("imgs", "gt"): ("0004", ODD)}
DUT_OMRON = {("DUT-OMRON-image", "pixelwiseGT-new-PNG"): ("im005", ODD)}


def pascal_s(root: Path) -> None:
    """Masks that tell the share of twelve viewers, the last one below a half."""
    for name, viewers in (("1", 12), ("2", 8), (ODD, 4)):
        write_image(root / "datasets/imgs/pascal" / f"{name}.jpg")
        write_mask(root / "datasets/masks/pascal" / f"{name}.png", round(255 * viewers / 12))


FIXTURES: dict[str, Callable[[Path], None]] = {
    "nyu-depth-v2": nyu_depth_v2,
    "kitti-depth": kitti_depth,
    "diode": diode,
    "msra-b": msra_b,
    "duts": partial(image_mask_folders, folders=DUTS),
    "ecssd": partial(image_mask_folders, folders=ECSSD),
    "hku-is": partial(image_mask_folders, folders=HKU_IS, suffix=".png"),
    "dut-omron": partial(image_mask_folders, folders=DUT_OMRON),
    "pascal-s": pascal_s,
}
