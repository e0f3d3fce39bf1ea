"""Files that are whole or not there."""

import hashlib
import os
from pathlib import Path

import pytest

from common.errors import UsageError, UserError
from common.files import check_writable, sha256_of, write_atomic


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize(
    ("content", "stored"), [("möbius\n", b"m\xc3\xb6bius\n"), (b"\x00\xff", b"\x00\xff"), ("", b"")]
)
def test_write_atomic_stores_text_as_utf8_and_bytes_as_they_are(
    tmp_path: Path, content: str | bytes, stored: bytes
) -> None:
    path = tmp_path / "new" / "folder" / "result.json"
    write_atomic(path, content)
    assert path.read_bytes() == stored
    assert names(path.parent) == ["result.json"]  # nothing temporary is left
    assert path.stat().st_mode & 0o777 == 0o644  # mkstemp's own is 0600


def test_write_atomic_replaces_old_content(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_atomic(path, "a longer first version")
    write_atomic(path, "short")
    assert path.read_text() == "short"
    assert names(tmp_path) == ["result.json"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_old_content_survives_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), fail)
    with pytest.raises(UserError) as caught:
        write_atomic(path, "new")
    assert str(caught.value).startswith(f"{path}: cannot be written (No space left on device)")
    assert caught.value.exit_code == 1
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.json"]


def test_what_cannot_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")  # a path below a file cannot be made, not even by root
    for attempt in (
        lambda: write_atomic(file / "result.json", "x"),
        lambda: write_atomic(tmp_path, "x"),  # a folder stands there
        lambda: write_atomic(tmp_path / ("n" * 300), "x"),
        lambda: check_writable(file / "results"),
        lambda: check_writable(file),
    ):
        with pytest.raises(UserError) as caught:
            attempt()
        assert str(tmp_path) in str(caught.value)
        assert "choose another place with --results" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["file"]


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match=r"pipe: cannot be written \(is no regular file\): .* -o"):
        write_atomic(pipe, "x", "-o")
    assert pipe.is_fifo()


def test_check_writable_makes_the_folder_and_leaves_it_empty(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    check_writable(folder)
    check_writable(folder)
    assert folder.is_dir()
    assert names(folder) == []


def test_sha256_reads_files_longer_than_one_block(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    # the standard's own example (FIPS 180-4)
    assert sha256_of(path).startswith("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61")
    long = b"0123456789" * 250_000
    path.write_bytes(long)
    assert sha256_of(path) == hashlib.sha256(long).hexdigest()
