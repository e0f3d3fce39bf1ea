"""Pairs of an image and a target: how the image lies, and what is said of it."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import DataError
from datasets.decoding import read_image
from datasets.readers.image_masks import ImageMasks

H, W = 24, 32


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images, a and b, with masks, stored 32 wide and 24 high."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in "ab":
        save(tmp_path / f"images/{name}.png", 1)
        Image.fromarray(np.eye(H, W, dtype=np.uint8) * 255).save(tmp_path / f"masks/{name}.png")
    (tmp_path / "train.txt").write_text("a\nb\n")
    return tmp_path


def save(path: Path, orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def stored(path: Path) -> torch.Tensor:
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@pytest.mark.filterwarnings("error")
def test_a_mask_drawn_on_the_pixels_as_stored(root: Path) -> None:
    save(root / "images/a.png", 6)
    data = ImageMasks(root, "train", "saliency")
    assert torch.equal(data[0].image, stored(root / "images/a.png"))
    assert data.doubts() == []


@pytest.mark.filterwarnings("error")
def test_a_mask_drawn_on_the_upright_photograph(root: Path) -> None:
    save(root / "images/a.png", 6)
    Image.fromarray(np.eye(W, H, dtype=np.uint8) * 255).save(root / "masks/a.png")
    sample = ImageMasks(root, "train", "saliency")[0]
    assert torch.equal(sample.image, read_image(root / "images/a.png"))
    assert sample.image.shape == (3, W, H)


def test_where_it_cannot_be_told_there_is_one_warning(root: Path) -> None:
    for name in "ab":
        save(root / f"images/{name}.png", 3)
    data = ImageMasks(root, "train", "saliency")
    with pytest.warns(UserWarning, match="a.png: EXIF orientation 3, and its mask fits"):
        image = data[0].image
    assert torch.equal(image, stored(root / "images/a.png"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data[0], data[1]
    assert [where for where, _ in data.doubts()] == [
        str(root / f"images/{name}.png") for name in "ab"
    ]


def test_sizes_of_an_error_are_those_in_the_files(root: Path) -> None:
    save(root / "images/a.png", 6)
    Image.fromarray(np.eye(H, 9, dtype=np.uint8) * 255).save(root / "masks/a.png")
    with pytest.raises(DataError, match=r"mask of 9×24 pixels but its image .* has 32×24 and EXIF"):
        ImageMasks(root, "train", "saliency")[0]
