"""Files that commit 0858ab1 wrote are read as before; its README says which commands wrote them."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import Result
from safetensors import safe_open
from torch.torch_version import TorchVersion

from datasets.hdf5 import Packed

Cli = Callable[..., Result]
OLD = Path(__file__).parent / "written_by_0858ab1"
RUNS = sorted(path.parent.name for path in OLD.glob("runs/*/result.json"))
KEY = re.compile(r"\b[0-9a-f]{10}\b")


def content(path: Path) -> Any:
    return json.loads(path.read_bytes())


FINISHED = [run for run in RUNS if content(OLD / "runs" / run / "result.json")["error"] is None]
(FAILED,) = set(RUNS) - set(FINISHED)
ONE, CAMVID, SEVERAL = (
    next(run for run in FINISHED if run.startswith(start))
    for start in ("segmentation_scenes", "segmentation_camvid", "segmentation+depth")
)


def key_of(run: str) -> str:
    return run.rpartition("_")[2]


def recorded(run: str) -> dict[str, Any]:
    result: dict[str, Any] = content(OLD / "runs" / run / "result.json")
    return result


def scores_of(run: str) -> dict[str, dict[str, Any]]:
    """The recorded scores by task."""
    result = recorded(run)
    return result["tasks"] or {result["config"]["task"]: result}


def command_of(record: dict[str, Any]) -> list[str]:
    """The recorded command, without ``python cli.py``."""
    return shlex.split(record["command"])[2:]


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def assert_holds(new: Any, old: Any, where: str = "") -> None:
    """Everything in ``old`` is in ``new``, which may have more keys; numbers up to rounding."""
    if isinstance(old, dict):
        assert isinstance(new, dict), where
        assert set(new) >= set(old), where
        for name, value in old.items():
            assert_holds(new[name], value, f"{where}/{name}")
    elif isinstance(old, list):
        assert len(new) == len(old), where
        for number, (one, other) in enumerate(zip(new, old, strict=True)):
            assert_holds(one, other, f"{where}/{number}")
    elif isinstance(old, float):
        assert new == pytest.approx(old, rel=1e-12), where
    else:
        assert new == old, where


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, in which the test works: its paths are relative."""
    folder = tmp_path / "old"
    shutil.copytree(OLD, folder)
    monkeypatch.chdir(folder)
    return folder


def test_no_file_names_a_machines_folder() -> None:
    for name, data in files(OLD).items():
        if not name.endswith(".webp"):
            assert b"/tmp/" not in data, name
            assert b"/home/" not in data, name
            assert b"/root/" not in data, name


# --- results -------------------------------------------------------------------------------------


def test_report_shows_the_same_numbers(cli: Cli, old: Path) -> None:
    done = cli("report", "--results", "runs", "--no-reported", "--output", "new", "--html", "page")
    assert done.exit_code == 0, done.stderr
    assert "left out" not in done.stderr
    new = content(old / "new" / "leaderboard.json")
    expected = content(old / "leaderboard.json")
    for board in expected["boards"]:  # since then the best constant takes its place in the ranks
        for row in board["rows"]:
            if row["rank"] is not None and not beats(row, board):
                row["rank"] += 1
    assert_holds(new, expected)
    rows = [row for board in new["boards"] for row in board["rows"]]
    for run in FINISHED:
        for scores in scores_of(run).values():
            shown = [{n: row.get(n) for n in scores["columns"]} for row in rows]
            assert {name: scores["metrics"][name] for name in scores["columns"]} in shown
    assert recorded(FAILED)["error"] in {row["error"] for row in rows}
    assert (old / "page" / "index.html").stat().st_size > 0


def beats(row: dict[str, Any], board: dict[str, Any]) -> bool:
    """Whether a row is better than the best constant."""
    name = board["columns"][0]
    sign = 1 if board["higher_is_better"][name] else -1
    return bool(sign * (row[name] - board["constant"][name]) > 0)


@pytest.mark.parametrize("run", FINISHED)
def test_the_recorded_command_does_not_train_again(cli: Cli, old: Path, run: str) -> None:
    before = files(old / "runs")
    done = cli(*command_of(recorded(run)), "--results", "runs")
    assert done.exit_code == 0, done.stderr
    assert key_of(run) == recorded(run)["key"]
    assert KEY.findall(done.stderr) == [key_of(run)]
    assert files(old / "runs") == before


def test_a_configuration_file_means_the_same_run(cli: Cli, old: Path) -> None:
    before = files(old / "runs")
    done = cli("run", "--config", "run.yaml")
    assert done.exit_code == 0, done.stderr
    assert KEY.findall(done.stderr) == [key_of(ONE)]
    assert files(old / "runs") == before


def test_a_failed_run_is_repeated_into_the_same_folder(cli: Cli, old: Path) -> None:
    done = cli(*command_of(recorded(FAILED)), "--results", "runs")
    assert done.exit_code == 1, done.stderr
    assert sorted(path.name for path in (old / "runs").iterdir() if path.is_dir()) == RUNS
    new = content(old / "runs" / FAILED / "result.json")
    assert set(new) >= set(recorded(FAILED))
    same = ("format", "key", "status", "config", "params", "macs", "command")
    assert_holds({n: new[n] for n in same}, {n: recorded(FAILED)[n] for n in same})
    assert set(new["environment"]) >= set(recorded(FAILED)["environment"])


def test_a_sweep_file_means_the_same_runs(cli: Cli, old: Path) -> None:
    before = files(old / "runs")
    planned = cli("sweep", "sweep.yaml", "--cache", "always", "--dry-run")
    assert planned.exit_code == 0, planned.stderr
    assert sorted(KEY.findall(planned.stdout)) == sorted(map(key_of, RUNS))
    assert "camvid has no depth" in planned.stderr
    shown = cli("sweep", "sweep.yaml", "--cache", "always")
    assert shown.exit_code == 1, shown.stderr  # one of them failed
    assert recorded(FAILED)["error"] in shown.stderr
    assert files(old / "runs") == before


def test_bootstrap_samples_are_paired(cli: Cli, old: Path) -> None:
    pair = [f"runs/{run}" for run in (ONE, SEVERAL)]
    done = cli("compare", *pair, "--json", "-")
    assert done.exit_code == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    a, b = (scores_of(run)["segmentation"]["metrics"] for run in (ONE, SEVERAL))
    samples = [np.load(old / folder / "bootstrap.npz") for folder in pair]
    assert [d["metric"] for d in row["differences"]] == recorded(ONE)["columns"]
    for difference in row["differences"]:
        metric = difference["metric"]
        assert (difference["a"], difference["b"]) == (a[metric], b[metric])
        one, other = (s[f"segmentation/{metric}"].astype(float) for s in samples)
        expected = np.percentile(other - one, (2.5, 97.5))
        assert difference["interval"] == pytest.approx(expected)


# --- weights and states --------------------------------------------------------------------------


@pytest.mark.parametrize("run", FINISHED)
def test_the_weights_score_the_same(cli: Cli, old: Path, run: str) -> None:
    """To the tolerance of test_determinism: another processor rounds otherwise."""
    done = cli("evaluate", "--checkpoint", f"runs/{run}", "--json", "-")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    names = {"format", "checkpoint", "key", "tasks", "data", "environment", "seconds"}
    assert set(found) == names
    assert found["key"] == key_of(run)
    data = recorded(run)["data"]["test"]
    assert {name: found["data"][name] for name in data} == data
    expected = scores_of(run)
    assert list(found["tasks"]) == list(expected)
    fields = set(recorded(SEVERAL)["tasks"]["depth"])
    for task, scores in expected.items():
        new = found["tasks"][task]
        assert set(new) == {*fields, "bootstrap"}
        for name in ("protocol", "columns", "higher_is_better", "units"):
            assert new[name] == scores[name]
        assert set(new["metrics"]) == set(scores["metrics"])
        for name in scores["columns"]:
            assert new["metrics"][name] == pytest.approx(scores["metrics"][name], abs=1e-3), name


@pytest.mark.slow
def test_an_interrupted_training_goes_on(
    cli: Cli, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends as the run that was not interrupted, to the tolerance of test_determinism."""
    (folder,) = (old / "interrupted").iterdir()
    assert folder.name == ONE
    with safe_open(folder / "training" / "state.safetensors", framework="pt") as file:
        state = dict(json.loads(file.metadata()["state"])["items"])
    # another version of torch begins a training anew, by design
    written = dict(state["identity"]["items"])["torch"]
    monkeypatch.setattr(torch, "__version__", TorchVersion(written))
    log = (folder / "training" / "metrics.jsonl").read_text().splitlines()
    done = cli("run", "--config", "run.yaml", "--results", "interrupted")
    assert done.exit_code == 0, done.stderr
    new, whole = content(folder / "result.json"), recorded(ONE)
    assert new["resumed"] == [state["step"]]
    assert 0 < state["step"] < whole["steps"]
    assert set(new) >= set(whole)
    assert {key: new["config"][key] for key in whole["config"]} == whole["config"]
    assert (new["key"], new["steps"]) == (whole["key"], whole["steps"])
    assert (folder / "metrics.jsonl").read_text().splitlines()[: len(log)] == log
    epochs = state["step"] * len(whole["history"]) // whole["steps"]
    assert new["history"][:epochs] == whole["history"][:epochs]
    for a, b in zip(new["history"], whole["history"], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
    for name in whole["columns"]:
        assert new["metrics"][name] == pytest.approx(whole["metrics"][name], abs=1e-3)
    assert not (folder / "training").exists()


# --- wirings -------------------------------------------------------------------------------------


def test_a_search_is_read(cli: Cli, old: Path) -> None:
    search, before = content(old / "search" / "search.json"), files(old / "search")
    again = cli(*command_of(search))
    assert again.exit_code == 0, again.stderr
    assert files(old / "search") == before
    pruned = cli("prune", "search", "--threshold", search["threshold"])
    assert pruned.exit_code == 0, pruned.stderr
    assert files(old / "search") == before
    assert search["found"]["stages"] == content(old / "search" / "found.json")["stages"]
    drawn = cli("draw", "search", "-o", "search.svg")
    assert drawn.exit_code == 0, drawn.stderr
    picture = (old / "search.svg").read_text()
    assert all(f"{source}" in picture for source in ("E1", "E7", "D1"))


def test_a_search_of_today_has_the_same_keys(cli: Cli, old: Path) -> None:
    search = content(old / "search" / "search.json")
    done = cli(*command_of(search), "--iterations", "2", "--output", "new")
    assert done.exit_code == 0, done.stderr
    new = content(old / "new" / "search.json")
    assert set(new) >= set(search)
    assert set(new["config"]) >= set(search["config"])
    assert set(new["found"]) >= set(search["found"])
    assert new["connections"] == search["connections"]


def test_a_wiring_is_read(cli: Cli, old: Path) -> None:
    wiring = content(old / "wiring.json")
    carried = cli(
        *("transfer", "wiring.json", "--backbone", "test_efficientnet", "-o", "same.json")
    )
    assert carried.exit_code == 0, carried.stderr
    same = content(old / "same.json")
    assert same["encoder"] == wiring["encoder"]
    assert same["stages"] == wiring["stages"]
    drawn = cli("draw", "wiring.json", "-o", "wiring.svg")
    assert drawn.exit_code == 0, drawn.stderr
    arguments = ("--backbone-arg", "channel_multiplier=0.25")
    new = cli("transfer", "sparsemask", "--backbone", "test_efficientnet", *arguments, "-o", "new")
    assert new.exit_code == 0, new.stderr
    assert content(old / "new") == wiring


# --- timings and packed data ---------------------------------------------------------------------


def test_timings_are_read(cli: Cli, old: Path) -> None:
    done = cli(
        *("recommend", "--task", "segmentation", "--dataset", "scenes", "--results", "runs"),
        *("--speed", "speed.json"),
    )
    assert done.exit_code == 0, done.stderr
    (row,) = (row for row in content(old / "speed.json") if row["decoder"] == "fcn")
    timed = f"{row['latency']['median_ms']:.3g}"
    assert timed != f"{recorded(ONE)['speed']['median_ms']:.3g}"
    (shown,) = (line.split() for line in done.stdout.splitlines() if " fcn " in line)
    assert timed in shown


@pytest.mark.parametrize(
    "memory", ["--no-memory", pytest.param("--memory", marks=pytest.mark.slow)]
)
def test_timings_of_today_have_the_same_keys(cli: Cli, old: Path, memory: str) -> None:
    rows = content(old / "speed.json")
    size = "x".join(map(str, rows[0]["image_size"]))
    done = cli(
        *("speed", "--backbone", rows[0]["backbone"], "--backbone-arg", "channel_multiplier=0.25"),
        *(word for row in rows for word in ("--decoder", row["decoder"])),
        *("--image-size", size, "--classes", rows[0]["classes"]),
        *("--min-time", "0.01", memory, "--json", "-"),
    )
    assert done.exit_code == 0, done.stderr
    counted = ("backbone", "backbone_args", "decoder", "image_size", "classes", "params", "macs")
    for new, row in zip(json.loads(done.stdout), rows, strict=True):
        assert set(new) >= set(row) - ({"memory"} if memory == "--no-memory" else set())
        assert set(new["latency"]) >= set(row["latency"])
        assert [new[name] for name in counted] == [row[name] for name in counted]


def test_a_packed_file_gives_the_same_samples(cli: Cli, old: Path) -> None:
    done = cli("data", "check", "camvid", "--data", "camvid.h5", "--json", "-")
    # the only problem: eleven images are far from the published count
    problems = json.loads(done.stdout)["problems"]
    assert problems
    assert all("samples, published are" in problem for problem in problems)
    path = old / "camvid.h5"
    with h5py.File(path, "r", locking=False) as file:
        for split in Packed.available_splits(path):
            data = Packed(path, split, "segmentation", dataset="camvid")
            assert data.names == [name.decode() for name in file[f"{split}/names"]]
            assert data.fingerprint() == file[split].attrs["fingerprint"].decode()
            for index in range(len(data)):
                sample = data[index]
                assert np.array_equal(sample.image, file[f"{split}/image/{index}"])
                assert list(sample.targets) == ["segmentation"]
                stored = file[f"{split}/segmentation/{index}"]
                assert np.array_equal(sample.targets["segmentation"], stored)
    fingerprint = recorded(CAMVID)["data"]["test"]["fingerprint"]
    assert Packed(path, "test", "segmentation", dataset="camvid").fingerprint() == fingerprint
