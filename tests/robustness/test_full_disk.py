"""A real file system that is full, or that becomes read-only, under a run."""

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from tests.support import line

Cli = Callable[..., Result]
RUN = ("run", "--task", "depth", "--decoder", "fcn", "--backbone", "test_resnet", "--image-size",
       "32", "--limit", "8", "--batch-size", "4", "--epochs", "1")  # fmt: skip


def mount(*words: object) -> bool:
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, check=False)
    return done.returncode == 0


def fill(file: Path) -> None:
    """Write until nothing more fits."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as out:
        while out.write(bytes(4096)):
            pass


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte, less than a checkpoint of the network above."""
    folder = tmp_path / "small"
    folder.mkdir()
    try:
        mounted = mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", folder)
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_costs_nothing_that_was_saved(cli: Cli, small: Path) -> None:
    done = cli(*RUN, "--results", small / "runs")
    assert done.exit_code == 1
    assert "cannot be written (No space left on device)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(small.rglob("*.partial"))
    assert mount("-o", "remount,size=64m", small)
    done = cli(*RUN, "--results", small / "runs")
    assert done.exit_code == 0, done.stderr
    (path,) = small.glob("runs/*/result.json")
    before = path.read_bytes()
    assert json.loads(before)["status"] == "finished"

    fill(small / "filler")
    again = cli(*RUN, "--overwrite", "--results", small / "runs")
    assert again.exit_code == 1
    assert "No space left on device" in line(again)
    assert path.read_bytes() == before


def test_read_only_results_are_told_and_stay(cli: Cli, small: Path) -> None:
    assert mount("-o", "remount,size=64m", small)
    assert cli(*RUN, "--results", small / "runs").exit_code == 0
    (path,) = small.glob("runs/*/result.json")
    before = path.read_bytes()
    assert mount("-o", "remount,ro", small)
    again = cli(*RUN, "--overwrite", "--results", small / "runs")
    assert again.exit_code == 1
    assert "cannot be written (Read-only file system): choose another place with --results" in line(
        again
    )
    # a report lies beside its results
    assert "leaderboard" in line(cli("report", "--results", small / "runs"))
    assert path.read_bytes() == before
