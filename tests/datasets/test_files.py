"""Reading of lists and folders: what is right, and every error."""

from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import DataError
from datasets.files import Line, check_file, fingerprint, inside, one_of, read_list


def message(call: Callable[[], object], *parts: object) -> str:
    """The one line of the DataError that ``call`` raises; it holds all ``parts``."""
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text
    return text


@pytest.mark.parametrize(
    "content",
    [
        "a b\n\nstraße\n",
        "a b\r\n\r\nstraße\r\n",
        "a b\r\rstraße",
        "\ufeffa b \n\t\n  straße",
    ],
)
def test_list_lines(tmp_path: Path, content: str) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(content.encode())
    assert read_list(path, "") == [Line(f"{path}:1", "a b"), Line(f"{path}:3", "straße")]


def test_bad_lists(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    message(lambda: read_list(path, "write it"), path, "list is missing: write it")
    path.write_text("\n \n")
    message(lambda: read_list(path, "write it"), path, "list is empty: write it")
    path.write_bytes("a\nstraße".encode("latin-1"))
    message(lambda: read_list(path, ""), path, "byte 0xdf at 6 is not UTF-8", "save the list")
    message(lambda: read_list(tmp_path, "write it"), tmp_path, "cannot be read", "write it")


@pytest.mark.parametrize("entry", ["../a.png", "a/../../b.png", "/etc/passwd"])
def test_paths_stay_inside(tmp_path: Path, entry: str) -> None:
    message(lambda: inside(tmp_path, Line("l.txt:1", entry), entry), "l.txt:1", entry, "relative")


def test_missing_and_empty_files(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    where = "train.txt:7"
    message(lambda: check_file(path, where, "image"), path, "image is missing", where)
    path.touch()
    message(lambda: check_file(path, where, "mask"), path, "mask is empty (0 bytes)", where)
    message(lambda: check_file(tmp_path, where, "image"), tmp_path, "is not a file", where)
    message(lambda: check_file(path / "b", where, "image"), path / "b", "is missing", where)
    long = tmp_path / ("x" * 1000)
    message(lambda: check_file(long, where, "image"), long, "cannot be reached", where)
    message(lambda: check_file(Path("a\0b"), where, "image"), "cannot be reached", where)


def test_fingerprint_follows_names_sizes_and_order(tmp_path: Path) -> None:
    a, b = tmp_path / "one" / "a", tmp_path / "one" / "b"
    a.parent.mkdir()
    a.write_bytes(b"123")
    b.write_bytes(b"12")
    first = fingerprint(tmp_path, [a, b])
    assert len(first) == 16
    assert int(first, 16) >= 0
    assert fingerprint(tmp_path, [b, a]) != first
    assert fingerprint(tmp_path, [a]) != first
    renamed = b.with_name("c")
    renamed.write_bytes(b"12")
    assert fingerprint(tmp_path, [a, renamed]) != first
    moved = tmp_path / "two"
    moved.mkdir()
    a.parent.rename(moved / "one")
    assert fingerprint(moved, [moved / "one" / "a", moved / "one" / "b"]) == first
    (moved / "one" / "a").write_bytes(b"1234")
    assert fingerprint(moved, [moved / "one" / "a", moved / "one" / "b"]) != first
    message(lambda: fingerprint(tmp_path, [a]), a, "cannot be reached")


def test_one_of() -> None:
    assert [one_of(["a"]), one_of("ab"), one_of("abc")] == ["a", "a or b", "a, b or c"]
