"""The user's own images and masks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError
from datasets.readers.image_masks import ImageMasks

H, W = 24, 32
RGB = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
MASK = np.resize(np.array([0, 255, 128, 129], np.uint8), (H, W))


def add(root: Path, image: str, mask: str | None = None) -> None:
    path = root / "images" / image
    target = root / "masks" / (mask or str(Path(image).with_suffix(".png")))
    for file, array in ((path, RGB), (target, MASK)):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(file)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "mine"
    for name in ("camel_00000.jpg", "camel_00005.jpg", "soapbox_00095.jpg"):
        add(root, name)
    (root / "train.txt").write_text("camel_00000\ncamel_00005\n")
    (root / "test.txt").write_text("soapbox_00095\n")
    return root


def load(root: Path, *lines: str) -> ImageMasks:
    if lines:
        (root / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    return ImageMasks(root, "train", "saliency")


def failure(root: Path, *lines: str) -> str:
    with pytest.raises(DataError) as caught:
        load(root, *lines)[0]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_above_128_is_object(root: Path) -> None:
    assert ImageMasks.info.generic
    assert load(root)[0].targets["saliency"].flatten()[:4].tolist() == [0, 1, 0, 1]


def test_lines_are_stems_names_or_paths(root: Path) -> None:
    add(root, "inner/one.PNG", "inner/one.png")
    add(root, "v1.5_a.webp")
    add(root, "ein Bild – straße 日本.jpeg")
    lines = {
        "camel_00000": "camel_00000",
        "camel_00000.jpg": "camel_00000",
        "images/camel_00005.jpg": "camel_00005",
        "images/camel_00005": "camel_00005",
        "inner/one": "inner/one",
        "inner/one.PNG": "inner/one",
        "v1.5_a": "v1.5_a",
        "ein Bild – straße 日本": "ein Bild – straße 日本",
    }
    assert [sample.name for sample in load(root, *lines)] == list(lines.values())


def test_image_of_two_formats(root: Path) -> None:
    add(root, "camel_00000.bmp")
    text = failure(root, "camel_00000")
    where = f"{root / 'train.txt'}:1"
    assert text.startswith(f"{where}: 'camel_00000' is camel_00000.bmp and camel_00000.jpg: write")
    assert load(root, "camel_00000.bmp")[0].name == "camel_00000"


def test_val_is_optional(root: Path) -> None:
    assert ImageMasks.available_splits(root) == ["train", "test"]
    (root / "val.txt").write_text("soapbox_00095")
    assert ImageMasks.available_splits(root) == ["train", "val", "test"]
    assert len(ImageMasks(root, "val", "saliency")) == 1


def test_missing_folders(root: Path) -> None:
    (root / "masks").rename(root / "labels")
    assert failure(root).startswith(f"{root}: has no folder masks/: put images/NAME.jpg and")


@pytest.mark.parametrize("line", ["sunset", "sunset.jpg", "images/sunset.jpg", "images", ".", "a/"])
def test_missing_image(root: Path, line: str) -> None:
    text = failure(root, "camel_00000", line)
    assert "no image of that name" in text
    assert f"{root / 'train.txt'}:2" in text
    assert line == "." or Path(line).name in text


def test_a_line_from_the_root_of_the_file_system(root: Path) -> None:
    expected = f"{root / 'train.txt'}:1: /camel_00000 leads out of {root}"
    assert failure(root, "/camel_00000").startswith(expected)


def test_bad_masks(root: Path) -> None:
    path = root / "masks/camel_00000.png"
    Image.fromarray(RGB).save(path)
    assert failure(root).startswith(f"{path}: mode RGB is no mask: write an 8-bit grey image")
    Image.fromarray(MASK // 255).save(path)
    assert failure(root).startswith(f"{path}: largest value is 1, nothing is above 128: write")
