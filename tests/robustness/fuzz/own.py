"""The user's own data for the fuzzer: folders of every format, and what reads them."""

import random
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from common.errors import UserError
from datasets.own.reader import OwnData
from tests.datasets.own.folder import YAML, discs, maps, save
from tests.robustness.fuzz.mutations import (
    of_bytes,
    of_png,
    of_text,
    with_numpy_head,
    with_tiff_tag,
)

BANDS = r"""name: bands
images: [tif/*.tif, npy/*.npy]
bands:
  names: [r, g, b, nir, swir]
  also: far/*.png
  max: 1000
  mean: [1, 2, 3, 4, 5]
  std: [1, 1, 1, 1, 1]
targets:
  depth:
    files: disparity/*
    focal_times_baseline: 20
    disparity_scale: 0.5
    range: [0.5, 80]
    partial: true
  segmentation:
    files: [rgb/*.png, palette/*.png, values/*]
    classes: {0: background, 7: disc, 255: ring}
    ignore: [9, 254]
    palette: {background: [0, 0, 0], disc: '#800000', ring: [0, 128, 0]}
    ignore_colours: ['#ffffff']
  saliency: {files: masks/*.png, threshold: 0, ignore: 128}
splits: {train: train.txt, test: 't?f/*_[0-9].tif'}
image_size: [32, 48]
"""
TASKS = ("segmentation", "depth", "saliency", "edges")


def make_descriptions(root: Path) -> None:
    discs(root / "discs", 6, YAML.replace("val: 0.2, test: 0.3", "val: 0.3, test: 0.3"))
    make_bands(root / "bands")


def make_bands(root: Path) -> None:
    """Five bands in TIFF and arrays, disparity, labels by value, palette and colour."""
    for folder in ("tif", "npy", "disparity", "values"):
        (root / folder).mkdir(parents=True)
    for number in range(6):
        arrays, name = maps(number), f"a_{number}"
        bands = np.dstack([arrays["image"].astype(np.uint16) * 4, arrays["depth"] // 5])
        disparity = arrays["depth"] / np.float32(100)
        if number < 3:
            write_tiff(root / f"tif/{name}.tif", bands, number)
            tifffile.imwrite(root / f"disparity/{name}.tif", disparity)
        else:
            np.save(root / f"npy/{name}.npy", bands)
            kind = ("f8", "i2", ">f4")[number % 3]
            np.save(root / f"disparity/{name}.npy", disparity.astype(kind))
        save(root / f"far/{name}.png", (arrays["depth"] % 999).astype(np.uint16))
        write_labels(root, name, arrays["labels"], number % 3)
        grey = arrays["mask"]
        save(root / f"masks/{name}.png", np.dstack([grey, grey, grey, np.full_like(grey, 255)]))
    (root / "train.txt").write_text("a_3\nnpy/a_4.npy\na_5\n")
    (root / "dataset.yaml").write_text(BANDS)


def write_tiff(path: Path, bands: np.ndarray, kind: int) -> None:
    """Bands side by side, one after the other, or packed in tiles."""
    if kind == 1:
        tifffile.imwrite(path, bands.transpose(2, 0, 1), photometric="minisblack",
                         planarconfig="separate")  # fmt: skip
    else:
        packed = {"compression": "zlib", "tile": (16, 16)} if kind else {}
        tifffile.imwrite(path, bands, photometric="minisblack", planarconfig="contig", **packed)


def write_labels(root: Path, name: str, labels: np.ndarray, kind: int) -> None:
    """As colours, as indices of a palette of them, or as values."""
    table = np.zeros((256, 3), np.uint8)
    table[[1, 2, 255]] = [(128, 0, 0), (0, 128, 0), (255, 255, 255)]
    if kind == 0:
        save(root / f"rgb/{name}.png", table[labels])
    elif kind == 1:
        picture = Image.fromarray(labels).convert("P")
        picture.putpalette(table.tobytes())
        (root / "palette").mkdir(exist_ok=True)
        picture.save(root / f"palette/{name}.png")
    else:
        values = np.array([0, 7, 255, *[9] * 252, 254])
        np.save(root / f"values/{name}.npy", values[labels].astype(np.int32))


def read_own(root: Path, rng: random.Random) -> None:
    """As ``data check``, ``run`` and ``evaluate`` do with each folder below ``root``."""
    refused: UserError | None = None
    for folder in sorted(root.iterdir()):
        try:
            read_folder(folder)
        except UserError as error:
            refused = error
    if refused is not None:
        raise refused


def read_folder(folder: Path) -> None:
    info = OwnData.facts(OwnData.description(folder))
    for task, facts in info.tasks.items():
        assert task in TASKS, facts
    (task, *others), refused = info.tasks, None
    for split in OwnData.available_splits(folder):
        data, missing = OwnData.survey(folder, split, task, also=others)
        data.remarks()
        data.fingerprint()
        for index in range(len(data)):
            missing += data.faults(index)
            try:
                sample = data[index]
            except UserError as error:
                refused = error
                continue
            shapes = {tuple(map.shape[-2:]) for map in (sample.image, *sample.targets.values())}
            assert len(shapes) == 1, shapes
        refused = missing[0] if missing else refused
    if refused is not None:
        raise refused


def of_array(content: bytes, rng: random.Random) -> bytes:
    return of_bytes(content, rng) if rng.random() < 0.4 else with_numpy_head(content, rng)


def of_tiff(content: bytes, rng: random.Random) -> bytes:
    return of_bytes(content, rng) if rng.random() < 0.3 else with_tiff_tag(content, rng)


DESCRIPTIONS = [("*/dataset.yaml", of_text), ("*/dataset.yaml", of_text), ("*/*.txt", of_text)]
CONTENTS = [("*/*/*.npy", of_array), ("*/*/*.tif", of_tiff), ("*/*/*.png", of_png)]
