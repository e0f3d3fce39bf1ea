"""ADE20K: labels 1…150 become classes, 0 is ignored."""

from pathlib import Path

import pytest

from datasets.readers.ade20k import CLASSES, Ade20k
from tests.datasets.fixtures_data import ODD, ade20k

pytestmark = pytest.mark.filterwarnings("ignore:.* samples in '.*' where ")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    ade20k(tmp_path / "ADEChallengeData2016")
    return tmp_path / "ADEChallengeData2016"


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
