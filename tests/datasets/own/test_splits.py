"""Which samples a split has: by a hash that nothing else moves, or by lists of any form."""

from pathlib import Path

import pytest

from common.errors import DataError
from datasets.own.description import Splits
from datasets.own.splits import Names, by_hash, by_lists

NAMES = [f"clip{i // 10}_{i:04d}" for i in range(1000)]
SPLITS = Splits(val=0.1, test=0.2)


def test_shares_are_nearly_those_that_were_asked_for() -> None:
    chosen = by_hash(NAMES, SPLITS)
    counts = {split: len(names) for split, names in chosen.items()}
    assert sum(counts.values()) == 1000
    # four standard deviations of a share of 1,000 names
    assert abs(counts["val"] - 100) < 4 * (1000 * 0.1 * 0.9) ** 0.5
    assert abs(counts["test"] - 200) < 4 * (1000 * 0.2 * 0.8) ** 0.5


def test_more_images_move_none() -> None:
    few, many = by_hash(NAMES[::3], SPLITS), by_hash(reversed(NAMES), SPLITS)
    for split, names in few.items():
        assert set(names) <= set(many[split])


def test_another_seed_chooses_others() -> None:
    other = by_hash(NAMES, Splits(val=0.1, test=0.2, seed=1))
    assert set(by_hash(NAMES, SPLITS)["test"]) != set(other["test"])


@pytest.mark.parametrize("group", [r"(.*)_\d+", r"^clip\d+"])
def test_a_group_stays_together(group: str) -> None:
    chosen = by_hash(NAMES, Splits(test=0.3, group=group))
    clips = {split: {name.partition("_")[0] for name in names} for split, names in chosen.items()}
    assert set(clips) == {"train", "test"}
    assert not clips["train"] & clips["test"]
    assert all(clips.values())


def lists(root: Path, text: str, images: dict[str, str], others: list = []) -> list:  # type: ignore[type-arg]  # noqa: B006
    (root / "train.txt").write_text(text)
    return list(by_lists(root, {"train": "train.txt"}, "train", Names(images, others)))


IMAGES = {"s1/1": "sync/s1/rgb_1.jpg", "s2/1": "sync/s2/rgb_1.jpg", "s2/2": "sync/s2/rgb_2.jpg"}


@pytest.mark.parametrize(
    "line",
    [
        "s2/2", "sync/s2/rgb_2.jpg", "/s2/rgb_2.jpg", "s2/rgb_2", "rgb_2.jpg",
        "./sync/s2/rgb_2.jpg",
        "/s2/rgb_2.jpg /s2/sync_depth_2.png 518.8579", "s2/rgb_2.jpg,1", '"s2/2"',
    ],
)  # fmt: skip
def test_a_line_names_an_image_in_any_usual_form(tmp_path: Path, line: str) -> None:
    assert lists(tmp_path, f"{line}\n", IMAGES) == [("s2/2", f"{tmp_path / 'train.txt'}:1")]


def test_lines_that_name_no_image_or_several_are_errors_in_their_place(tmp_path: Path) -> None:
    first, second, third, fourth = lists(tmp_path, "rgb_1.jpg\ns9/9\ns1/1\ns1/rgb_1\n", IMAGES)
    assert "train.txt:1: 'rgb_1.jpg' is several images" in str(first)
    assert "train.txt:2: 's9/9' is no image: write one a line, such as sync/s1/rgb_1.jpg" in str(
        second
    )
    assert third == ("s1/1", f"{tmp_path / 'train.txt'}:3")
    assert isinstance(fourth, DataError)
    assert "train.txt:4: 's1/1' stands in" in str(fourth)


def test_a_line_with_the_file_of_another_sample_is_an_error(tmp_path: Path) -> None:
    depth = {"s2/1": "s2/depth_1.png", "s2/2": "s2/depth_2.png"}
    others = [("*/depth_*.png", depth)]
    good, bad = lists(
        tmp_path, "s2/rgb_2.jpg s2/depth_2.png 1\nsync/s2/rgb_1.jpg s2/depth_2.png 1\n", IMAGES,
        others,
    )  # fmt: skip
    assert good[0] == "s2/2"
    assert "s2/depth_2.png is not the file that belongs to sync/s2/rgb_1.jpg" in str(bad)


def test_a_pattern_chooses_by_the_images_folder(tmp_path: Path) -> None:
    splits = {"train": "sync/s2/*", "test": "sync/s9/*.jpg"}
    entries = list(by_lists(tmp_path, splits, "train", Names(IMAGES, [])))
    assert entries == [("s2/1", "sync/s2/*"), ("s2/2", "sync/s2/*")]
    with pytest.raises(DataError, match=r"splits.test: sync/s9/\*.jpg matches no image"):
        list(by_lists(tmp_path, splits, "test", Names(IMAGES, [])))
