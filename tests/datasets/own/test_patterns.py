"""Patterns of files: which they match, which key pairs them, what is said where none match."""

from pathlib import Path

import pytest

from common.errors import DataError
from datasets.own.patterns import (
    Matches,
    check_expression,
    check_pattern,
    closer,
    files_below,
    key_of,
)


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    ("pattern", "path", "last", "key"),
    [
        ("rgb/*.png", "rgb/a.png", 1, "a"),
        ("rgb/*.png", "rgb/a.b.png", 1, "a.b"),
        ("rgb/*.png", "rgb/x/a.png", 1, None),
        ("rgb/*.png", "rgb/a.PNG", 1, None),
        ("rgb/*.png", "xrgb/a.png", 1, None),
        ("*/rgb_*.jpg", "kitchen_1/rgb_017.jpg", 2, "kitchen_1/017"),
        ("*/rgb_*.jpg", "kitchen_1/rgb_017.jpg", 1, "017"),
        ("**/left/*.png", "left/1.png", 2, "1"),
        ("**/left/*.png", "a/b/left/1.png", 2, "a/b/1"),
        ("a[12]/*.png", "a2/7.png", 2, "2/7"),
        ("a[!12]/*.png", "a2/7.png", 2, None),
        ("?.png", "7.png", 1, "7"),
        ("only.png", "only.png", 0, "only"),
        ("a.b/*.png", "aXb/1.png", 1, None),
        # pairs are of one stem, whatever ends the names
        ("rgb/*", "rgb/a.png", 1, "a"),
        ("rgb/*", "rgb/a.b.png", 1, "a.b"),
        ("rgb/*", "rgb/a", 1, "a"),
        ("rgb/*.*", "rgb/a.b.png", 1, "a.b"),
        ("rgb/*.*", "rgb/a", 1, None),
        ("frame-*.color.*", "frame-07.color.png", 1, "07"),
        ("frame-*.color.*", "frame-07.depth.png", 1, None),
        ("rgb/a_*", "rgb/a_1.tif", 1, "1"),
        ("**/*", "x/a.png", 2, "x/a"),
    ],
)
def test_the_key_is_what_wildcards_stand_for(
    pattern: str, path: str, last: int, key: str | None
) -> None:
    assert key_of(pattern, path, last) == key


def test_files_of_both_groups_have_one_key(tmp_path: Path) -> None:
    touch(tmp_path, "s1/rgb_1.jpg", "s1/depth_1.png", "s2/rgb_1.jpg", "s2/depth_1.png")
    matches = Matches(tmp_path, {"images": ["*/rgb_*.jpg"], "depth": ["*/depth_*.png"]})
    assert matches.groups == {
        "images": {"s1/1": "s1/rgb_1.jpg", "s2/1": "s2/rgb_1.jpg"},
        "depth": {"s1/1": "s1/depth_1.png", "s2/1": "s2/depth_1.png"},
    }


def test_folders_of_one_group_alone_are_no_part_of_the_name(tmp_path: Path) -> None:
    touch(tmp_path, "day1/a.jpg", "day2/b.jpg", "labels/a.png", "labels/b.png")
    matches = Matches(tmp_path, {"images": ["*/*.jpg"], "labels": ["labels/*.png"]})
    assert list(matches.groups["images"]) == list(matches.groups["labels"]) == ["a", "b"]


def test_two_files_of_one_name_are_both_named(tmp_path: Path) -> None:
    touch(tmp_path, "day1/a.jpg", "day2/a.jpg", "labels/a.png")
    with pytest.raises(DataError, match=r"day1/a.jpg and day2/a.jpg are both images of 'a'"):
        Matches(tmp_path, {"images": ["*/*.jpg"], "labels": ["labels/*.png"]})
    touch(tmp_path, "rgb/a.png", "rgb/a.jpg")
    with pytest.raises(DataError, match=r"rgb/a.png and rgb/a.jpg are both images of 'a'"):
        Matches(tmp_path, {"images": ["rgb/*.png", "rgb/*.jpg"]})


def test_hidden_files_are_no_samples_and_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "rgb/a.png", "rgb/._a.png", ".git/b.png", "elsewhere/c.png")
    (tmp_path / "rgb" / "up").symlink_to(tmp_path)
    (tmp_path / "rgb" / "more").symlink_to(tmp_path / "elsewhere")
    files = files_below(tmp_path / "rgb", ["**/*.png"])
    assert {"a.png", "more/c.png"} <= set(files)
    assert not any("._" in file or ".git" in file for file in files)
    assert len(files) < 10


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("rgb/*.JPG", "rgb has 2 *.jpg, such as rgb/a.jpg"),
        ("rbg/*.jpg", "there is no folder rbg"),
        ("empty/*.jpg", "empty has no files"),
        ("*.jpg", "the folder has 2 *.jpg, such as rgb/a.jpg"),
    ],
)
def test_a_pattern_without_files_says_what_is_there(
    tmp_path: Path, pattern: str, hint: str
) -> None:
    touch(tmp_path, "rgb/a.jpg", "rgb/b.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        Matches(tmp_path, {"images": [pattern]})
    assert str(caught.value) == f"{tmp_path}: images: {pattern} matches no file: {hint}"


@pytest.mark.parametrize(
    "text",
    [r"(.*)_\d+", r"^clip\d+", r"((?:[^_]+_){2})", r"(?P<clip>[a-z]+-\d{2,4})(?:_l|_r)?",
     r"[(*+]+\)\*", r"(\w+)\.(\w+)_*", r"(ab)+"],
)  # fmt: skip
def test_expressions_that_end(text: str) -> None:
    assert check_expression(text) == text


@pytest.mark.parametrize(
    "text",
    [r"(a+)+$", r"(a*)*b", r"((a|b)c?)+d", r"(a|aa)+$", r"(?:a?){40}a{40}", r".*.*.*.*.*x",
     r"(a+){9}b", r"(\w+\s?)*$", r"(x+x+)+y", r"([a-z]+)*?1"],
)  # fmt: skip
def test_expressions_that_may_never_end_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="may take too long"):
        check_expression(text)


def test_many_wildcards_are_refused() -> None:
    with pytest.raises(ValueError, match="7 wildcards, at most 6 are possible"):
        check_pattern("a*a*a*a*a*a*a*b")


def test_a_class_of_characters_in_the_wrong_order_is_refused() -> None:
    with pytest.raises(ValueError, match="no pattern: bad character range z-a"):
        check_pattern("rgb/[z-a]*.png")


def test_a_pattern_that_is_too_long_for_the_system_matches_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="matches no file: there is no folder x"):
        Matches(tmp_path, {"images": [f"{'x' * 5000}/*.png"]})


@pytest.mark.parametrize(
    ("path", "some", "others", "expected"),
    [
        ("7_mask.png", ["*_mask.png"], ["*.png"], True),
        ("7.png", ["*_mask.png"], ["*.png"], False),
        ("rgb/7.png", ["*/*.png"], ["rgb/*.png"], False),
        ("7.png", ["*.png"], ["*.png"], False),
        ("7_nir.png", ["*.jpg", "*_nir.png"], ["*.jpg", "*.png"], True),
    ],
)
def test_the_pattern_of_more_letters_is_closer(
    path: str, some: list[str], others: list[str], expected: bool
) -> None:
    assert closer(path, some, others) is expected
