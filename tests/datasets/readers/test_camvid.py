"""CamVid in a folder as the SegNet tutorial lays it out."""

import shutil
from pathlib import Path

import pytest

from common.errors import DataError
from datasets.readers.camvid import CamVid
from tests.datasets.fixtures_data import camvid

pytestmark = pytest.mark.filterwarnings("ignore:.* samples in '.*' where ")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    camvid(tmp_path / "camvid")
    return tmp_path / "camvid"


def load(root: Path) -> CamVid:
    return CamVid(root, "train", "segmentation")


def test_void_is_ignored(root: Path) -> None:
    labels = load(root)[0].targets["segmentation"]
    assert labels.flatten()[:13].tolist() == [*range(11), 255, 255]


def test_lists_of_the_tutorial_hold_its_own_paths(root: Path) -> None:
    relative = load(root)
    lines = [
        f"/SegNet/CamVid/train/{pair.name}.png /SegNet/CamVid/trainannot/{pair.name}.png"
        for pair in relative.pairs
    ]
    (root / "train.txt").write_text("\r\n".join(lines), encoding="utf-8")
    assert load(root).pairs == relative.pairs
    assert load(root).fingerprint() == relative.fingerprint()


@pytest.mark.parametrize("gap", [" ", "  ", "\t"])
def test_names_with_spaces_and_other_letters(root: Path, gap: str) -> None:
    name = "ein Bild – straße 日本"
    for folder in ("train", "trainannot"):
        shutil.copy(root / folder / "train_000000.png", root / folder / f"{name}.png")
    line = f"train/{name}.png{gap}trainannot/{name}.png"
    (root / "train.txt").write_text(f"{line}\n{line}\n", encoding="utf-8")
    assert load(root)[0].name == name


def test_line_without_label(root: Path) -> None:
    (root / "train.txt").write_text("train/train_000000.png\n")
    expected = f"{root / 'train.txt'}:1: 'train/train_000000.png' is not 'image label'"
    with pytest.raises(DataError) as caught:
        load(root)
    assert str(caught.value).startswith(expected)
