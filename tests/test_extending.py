"""The files of ``docs/extending.md``: shown as they are, registered, run by the command line."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.base import DATASETS
from models.decoders.base import DECODERS
from tasks.base import TASKS
from tests.support import ROOT, TINY

PAGE = ROOT / "docs" / "extending.md"
FILES = sorted((ROOT / "docs" / "extending").glob("*.py"))
SMALL = ("--limit", "4", "--epochs", "1", "--batch-size", "2", "--image-size", "32x64",
         "--crop-size", "32x64")  # fmt: skip


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Imports one of the files; what it registers is forgotten after the test."""
    for registry in (DATASETS, DECODERS, TASKS):
        registry.names()
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))

    def load(name: str) -> None:
        (file,) = (file for file in FILES if file.stem == name)
        spec = importlib.util.spec_from_file_location(f"extending_{name}", file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # where timm looks for it
        spec.loader.exec_module(module)

    return load


@pytest.fixture
def aerial(tmp_path: Path) -> Path:
    """Six photos of 40×72 with a class in each third, as the data set of the page has them."""
    root = tmp_path / "aerial"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    labels = np.repeat(np.arange(3, dtype=np.uint8), 24)[None].repeat(40, axis=0)
    labels[0] = 255
    random = np.random.default_rng(0)
    for name in "abcdef":
        noise = random.integers(0, 60, (*labels.shape, 3))
        Image.fromarray((60 * (labels % 3)[..., None] + noise).astype(np.uint8)).save(
            root / "images" / f"{name}.jpg"
        )
        Image.fromarray(labels).save(root / "labels" / f"{name}.png")
    (root / "train.txt").write_text("a\nb\nc\nd\n")
    (root / "test.txt").write_text("e\nf\n")
    return root


def run(cli, folder: Path, *words: object) -> dict:
    """The one result of a ``run`` on a tiny network."""
    results = folder / "runs"
    done = cli("run", *SMALL, *words, "--results", results)
    assert done.exit_code == 0, done.output
    (path,) = results.glob("*/result.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_page_shows_the_file(file: Path) -> None:
    shown = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert file.read_text("utf-8") in shown


def test_a_decoder(load, cli, tmp_path) -> None:
    load("decoder")
    assert "two-scale" in cli("list", "decoders").stdout
    result = run(cli, tmp_path, "--task", "depth", "--decoder", "two-scale", *TINY)
    assert result["metrics"]["abs_rel"] > 0
    assert result["params"]["decoder"] == 64 * (1 + 1) + 64 * sum(features())


def features() -> tuple[int, int]:
    """Channels of the tiny network's first and last map."""
    from models.backbones import create_backbone

    maps = create_backbone(TINY[1]).features
    return maps[0].channels, maps[-1].channels


def test_a_data_set(load, cli, aerial, tmp_path) -> None:
    load("dataset")
    check = cli("data", "check", "aerial", "--data", aerial, "--json", "-")
    assert json.loads(check.stdout)["problems"] == []
    words = ("--task", "segmentation", "--dataset", "aerial", "--data", aerial, "--decoder", "fcn")
    result = run(cli, tmp_path, *words, *TINY)
    assert {"iou/field", "iou/road", "iou/water"} <= result["metrics"].keys()
    assert result["counts"]["images"] == 2
    (aerial / "labels" / "e.png").unlink()
    assert cli("data", "check", "aerial", "--data", aerial).exit_code == 1


def test_a_task(load, cli, tmp_path) -> None:
    load("task")
    (row,) = json.loads(cli("list", "tasks", "reach", "--json").stdout)
    assert "seven-scenes" in row["datasets"]
    result = run(cli, tmp_path, "--task", "reach", "--decoder", "fcn", *TINY)
    assert 0 < result["metrics"]["wrong"] < 1
    assert 0 < result["constant"]["metrics"]["wrong"] <= 0.5
    assert "wrong" in cli("report", "--results", tmp_path / "runs").stdout


def test_a_metric(load, cli, tmp_path) -> None:
    load("metric")
    result = run(cli, tmp_path, "--task", "depth-tail", "--decoder", "fcn", *TINY)
    assert result["columns"] == ["rel95"]
    low, high = result["intervals"]["rel95"]
    assert 0 < low <= result["metrics"]["rel95"] <= high
    assert result["protocol"].startswith("scenes/depth-tail/test/rel95/")


def test_a_backbone_quirk(load, cli, tmp_path) -> None:
    load("backbone_quirk")
    words = ("--task", "depth", "--decoder", "fcn", "--backbone", "mobilenetv2_050_same")
    result = run(cli, tmp_path, *words)
    assert result["config"]["mean"] == [0.5, 0.5, 0.5]

    from models.backbones import create_backbone

    padding = [type(m).__name__ for m in create_backbone("mobilenetv2_050_same").modules()]
    assert "Conv2dSame" in padding


@pytest.mark.slow
def test_files_dropped_into_a_checkout_are_known_at_once(aerial, tmp_path) -> None:
    """In the folders that the page names."""
    checkout = tmp_path / "checkout"
    for name in ("benchmark", "common", "datasets", "models", "tasks"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "cli.py", checkout)
    page = PAGE.read_text("utf-8")
    copies = re.findall(r"^    cp (docs/extending/\S+) (\S+)$", page, re.MULTILINE)
    assert {ROOT / source for source, _ in copies} == set(FILES)
    for source, target in copies:
        shutil.copy(ROOT / source, checkout / target)
    for words in (
        ("data", "check", "aerial", "--data", str(aerial)),
        ("run", "--task", "reach", "--task", "depth-tail", "--backbone", "mobilenetv2_050_same",
         "--decoder", "two-scale", *SMALL),
    ):  # fmt: skip
        command = [sys.executable, "cli.py", *words]
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "two-scale" in done.stdout
