"""ADE20K: labels 1…150 become classes, 0 is ignored; the folders and what is missing in them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError
from datasets.readers.ade20k import CLASSES, Ade20k
from tests.datasets.fixtures_data import ODD, ade20k, write_array

pytestmark = pytest.mark.filterwarnings("ignore:.* samples in '.*' where ")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    ade20k(tmp_path / "ADEChallengeData2016")
    return tmp_path / "ADEChallengeData2016"


def failure(root: Path, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        Ade20k(root, split, "segmentation")[0]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_classes_by_their_published_number() -> None:
    numbers = {
        **{1: "wall", 2: "building", 8: "bed", 13: "person", 21: "car", 45: "chest of drawers"},
        **{57: "pool table", 90: "television", 100: "buffet", 131: "screen", 150: "flag"},
    }
    assert {n: CLASSES[n - 1] for n in numbers} == numbers
    colours = Ade20k.info.palette
    assert (colours[0], colours[2], colours[149]) == ((120, 120, 120), (6, 230, 230), (92, 0, 255))


def test_zero_is_ignored_and_the_others_move_down(root: Path) -> None:
    data = Ade20k(root, "train", "segmentation")
    labels = data[0].targets["segmentation"].flatten()
    assert labels[:151].tolist() == [255, *range(150)]
    assert [pair.name for pair in data.pairs] == ["ADE_train_00000001", f"ADE_train_{ODD}"]


def test_the_folder_above_is_the_same_data(root: Path) -> None:
    found = {Ade20k(r, "val", "segmentation").fingerprint() for r in (root, root.parent)}
    assert len(found) == 1


def test_grey_photographs_and_files_of_other_programs(root: Path) -> None:
    path = root / "images" / "training" / "ADE_train_00000001.jpg"
    Image.open(path).convert("L").save(path)
    (path.parent / "._ADE_train_00000001.jpg").write_bytes(b"\0")
    (path.parent / "Thumbs.db").write_bytes(b"\0")
    data = Ade20k(root, "train", "segmentation")
    assert len(data) == 2
    assert data[0].image.shape[0] == 3


def test_wrong_labels(root: Path) -> None:
    path = root / "annotations" / "training" / "ADE_train_00000001.png"
    write_array(path, [0, 151])
    assert failure(root).startswith(f"{path}: label 151 is outside 1…150 and 0, 255: ")
    # the full ADE20K has 16-bit and colour-coded maps
    write_array(path, [0, 300], np.uint16)
    assert failure(root).startswith(f"{path}: mode I;16 is no map of class indices: write an 8-bit")
    shutil.copy(root / "images" / "training" / "ADE_train_00000001.jpg", path)
    assert failure(root).startswith(f"{path}: mode RGB is no map of class indices: write an 8-bit")


def test_missing_files_and_folders(root: Path) -> None:
    image = root / "images" / "training" / "ADE_train_00000001.jpg"
    label = root / "annotations" / "training" / "ADE_train_00000001.png"
    label.rename(root / "kept.png")
    assert failure(root).startswith(f"{label}: label map is missing: add the file or remove what")
    assert failure(root).endswith(f"({image})")
    (root / "kept.png").rename(label)
    image.unlink()
    assert failure(root).startswith(f"{image}: image is missing: ")
    assert failure(root).endswith(f"({label})")
    for path in image.parent.iterdir():
        path.unlink()
    assert failure(root).startswith(f"{image.parent}: no .jpg in it: --data must name a folder")
    image.parent.rmdir()
    seen = failure(root)
    assert seen.startswith(f"{image.parent}: folder is missing: --data must name a folder with")
    assert "http://sceneparsing" in seen
