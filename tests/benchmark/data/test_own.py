"""The user's own data through the commands: check, pack, preview, run, evaluate, report."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result

from datasets.pipeline import description_of, open_splits
from tests.datasets.own.folder import discs
from tests.support import TINY

Cli = Callable[..., Result]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return discs(tmp_path / "discs")


def test_check_reads_every_target_once(cli: Cli, root: Path) -> None:
    done = cli("data", "check", "own", "--data", root, "--json", "-")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["problems"], report["warnings"]) == ([], [])
    assert sum(split["samples"] for split in report["splits"].values()) == 24
    for split in report["splits"].values():
        assert list(split["targets"]) == ["segmentation", "depth", "saliency", "edges"]
        assert split["targets"]["depth"]["nearest m"] == 1.5
        assert split["targets"]["edges"]["fewest annotators"] == 2


def test_check_says_what_has_no_partner(cli: Cli, root: Path) -> None:
    (root / "rgb/clip0_000.jpg").unlink()
    done = cli("data", "check", "own", "--data", root, "--task", "depth", "--json", "-")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["warnings"] == [
        "1 file of depth without an image, first depth/clip0_000.png"
    ]


def test_packed_samples_are_those_of_the_folder(cli: Cli, root: Path, tmp_path: Path) -> None:
    packed = tmp_path / "discs.h5"
    done = cli("data", "pack", "own", "--data", root, "-o", packed, "--image-size", "48x64")
    assert done.exit_code == 0, done.output
    assert description_of("own", packed) == description_of("own", root)
    tasks = ["segmentation", "depth", "saliency", "edges"]
    one, other = (open_splits("own", data, tasks, (48, 64)) for data in (root, packed))
    for split in ("train", "val", "test"):
        assert len(one[split]) == len(other[split]) > 0
        for a, b in zip(one[split], other[split], strict=True):
            assert torch.equal(a.image, b.image)
            assert set(a.targets) == set(b.targets) == set(tasks)
            assert all(torch.equal(a.targets[t], b.targets[t]) for t in tasks)


def test_a_packed_file_of_another_set_is_refused(cli: Cli, root: Path, tmp_path: Path) -> None:
    packed = tmp_path / "discs.h5"
    cli("data", "pack", "own", "--data", root, "-o", packed, "--image-size", "48x64")
    done = cli("run", "--dataset", "camvid", "--task", "segmentation", "--data", packed, *TINY)
    assert done.exit_code == 2
    assert "packed from own, not camvid" in done.stderr


def test_from_a_folder_to_a_row_and_back(cli: Cli, root: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    sheet = cli("data", "preview", "own", "--data", root, "--task", "depth", "--count", "2",
                "--image-size", "48x64", "-o", tmp_path / "sheet.png")  # fmt: skip
    assert sheet.exit_code == 0, sheet.output
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    done = cli("run", "--dataset", "own", "--data", root, "--task", "segmentation", "--task",
               "depth", "--decoder", "fcn", *TINY, "--image-size", "48x64", "--epochs", "1",
               "--results", runs)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "segmentation on own (discs)" in done.stdout
    folder = next(path.parent for path in runs.glob("*/result.json"))
    result = json.loads((folder / "result.json").read_text())
    assert result["config"]["description"]["targets"]["segmentation"]["classes"] == [
        "background", "disc", "ring",
    ]  # fmt: skip
    scored = cli("evaluate", "--checkpoint", folder, "--split", "val", "--json", "-")
    assert scored.exit_code == 0, scored.output
    text = (root / "dataset.yaml").read_text().replace("disc, ring", "ring, disc")
    (root / "dataset.yaml").write_text(text)
    changed = cli("evaluate", "--checkpoint", folder)
    assert changed.exit_code == 2, changed.output
    assert "classes" in changed.stderr
    # a network is all that prediction and a report need
    (root / "dataset.yaml").unlink()
    predicted = cli("predict", root / "rgb/clip0_000.jpg", "--checkpoint", folder, "-o",
                    tmp_path / "maps")  # fmt: skip
    assert predicted.exit_code == 0, predicted.output
    assert len(list((tmp_path / "maps").glob("*.png"))) >= 2
    report = cli("report", "--results", runs, "--html", tmp_path / "page")
    assert report.exit_code == 0, report.output
    assert "own (discs)" in (tmp_path / "page" / "index.html").read_text()


def test_a_finished_run_says_that_its_data_have_changed(cli: Cli, root: Path) -> None:
    arguments = ("run", "--dataset", "own", "--data", root, "--task", "saliency", "--decoder",
                 "fcn", *TINY, "--image-size", "48x64", "--epochs", "1", "--results",
                 root.parent / "runs")  # fmt: skip
    assert cli(*arguments).exit_code == 0
    again = cli(*arguments)
    assert again.exit_code == 0
    assert "already finished" in again.stderr
    assert "changed" not in again.stderr
    split = json.loads(next((root.parent / "runs").glob("*/result.json")).read_text())["data"]
    assert set(split) >= {"train", "test"}
    for path in sorted((root / "masks").iterdir())[:3]:  # one clip, so in one split
        path.write_bytes(path.read_bytes() + b"more")
    changed = cli(*arguments)
    assert changed.exit_code == 0
    assert "its data have changed since it ran (" in changed.stderr
