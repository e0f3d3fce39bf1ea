"""Cityscapes: label ids become the 19 classes; the other 15 ids are ignored."""

from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError
from datasets.readers.cityscapes import CLASSES, Cityscapes
from tests.datasets.fixtures_data import ODD, cityscapes, write_array

pytestmark = pytest.mark.filterwarnings("ignore:.* samples in '.*' where ")
# class of each id 0…33, of the published label table
TRAIN_IDS = [
    *(255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 4, 255, 255, 255),
    *(5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255, 255, 16, 17, 18),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    cityscapes(tmp_path)
    return tmp_path


def failure(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(Cityscapes(root, "train", "segmentation"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_ids_become_classes(root: Path) -> None:
    assert len(CLASSES) == 19
    labels = Cityscapes(root, "train", "segmentation")[0].targets["segmentation"].flatten()
    assert labels[:34].tolist() == TRAIN_IDS


def test_a_sample_is_named_by_its_city(root: Path) -> None:
    for split in ("train", "val"):
        cities = (f"{split} {ODD}", f"{split}stadt")
        data = Cityscapes(root, split, "segmentation")
        assert [pair.name for pair in data.pairs] == [f"{c}/{c}_000000_000019" for c in cities]


def test_wrong_labels(root: Path) -> None:
    path = root / "gtFine/train/trainstadt/trainstadt_000000_000019_gtFine_labelIds.png"
    write_array(path, [7, 34])
    expected = (
        f"{path}: label 34 is outside 7…8, 11…13, 17, 19…28, 31…33 and "
        "0…6, 9…10, 14…16, 18, 29…30, 255: map it to a class"
    )
    assert failure(root).startswith(expected)
    write_array(path, [7, 26001], np.uint16)  # as in instanceIds
    assert failure(root).startswith(f"{path}: mode I;16 is no map of class indices: ")


def test_missing_files(root: Path) -> None:
    stem = "trainstadt/trainstadt_000000_000019"
    image = root / "leftImg8bit" / "train" / f"{stem}_leftImg8bit.png"
    label = root / "gtFine" / "train" / f"{stem}_gtFine_labelIds.png"
    label.unlink()
    assert failure(root).startswith(f"{label}: label map is missing: ")
    image.unlink()
    assert len(Cityscapes(root, "train", "segmentation")) == 1
    for path in (root / "gtFine" / "train").glob("*/*labelIds.png"):
        path.unlink()
    seen = failure(root)
    folder = root / "gtFine" / "train"
    assert seen.startswith(f"{folder}: no _gtFine_labelIds.png in it: --data must name")
    assert "https://www.cityscapes" in seen
