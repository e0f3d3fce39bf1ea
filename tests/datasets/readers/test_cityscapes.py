"""Cityscapes: label ids become the 19 classes; the other 15 ids are ignored."""

from pathlib import Path

import pytest

from datasets.readers.cityscapes import CLASSES, Cityscapes
from tests.datasets.fixtures_data import ODD, cityscapes

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


def test_ids_become_classes(root: Path) -> None:
    assert len(CLASSES) == 19
    labels = Cityscapes(root, "train", "segmentation")[0].targets["segmentation"].flatten()
    assert labels[:34].tolist() == TRAIN_IDS


def test_a_sample_is_named_by_its_city(root: Path) -> None:
    for split in ("train", "val"):
        cities = (f"{split} {ODD}", f"{split}stadt")
        data = Cityscapes(root, split, "segmentation")
        assert [pair.name for pair in data.pairs] == [f"{c}/{c}_000000_000019" for c in cities]
