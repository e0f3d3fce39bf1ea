"""A run to a hub and back, against a local stand-in."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner, Result

from benchmark.export.hub import check_repo, package, parse
from benchmark.export.model_card import _scores
from benchmark.results.checkpoint import open_checkpoint
from benchmark.results.store import read, save
from models.connectivity import Connectivity
from tests.benchmark.export.hub_server import TOKEN, Hub, serving
from tests.support import line, result

Cli = Callable[..., Result]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        yield server


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cli import main

    results = tmp_path_factory.mktemp("runs")
    words = ("--task", "depth", "--decoder", "sparsemask", "--backbone", "test_resnet",
             "--image-size", "32", "--limit", "8", "--batch-size", "4", "--epochs", "1",
             "--results", str(results))  # fmt: skip
    done = CliRunner().invoke(main, ["run", *words])
    assert done.exit_code == 0, done.stderr
    (folder,) = results.iterdir()
    return folder


def test_there_and_back(cli: Cli, hub: Hub, run: Path, tmp_path: Path) -> None:
    done = cli("push-to-hub", "--checkpoint", run, "--repo", "me/net", "--private")
    assert done.exit_code == 0, done.stderr
    assert hub.private == {"me/net"}
    files = hub.repos["me/net"]
    assert files.keys() == {"model.safetensors", "config.json", "README.md"}
    _, front, text = files["README.md"].decode().split("---", 2)
    card = yaml.safe_load(front)
    metrics = card["model-index"][0]["results"][0]["metrics"]
    stored = json.loads((run / "result.json").read_bytes())["metrics"]
    assert {m["type"]: m["value"] for m in metrics}.items() <= stored.items()
    assert "license" not in card
    assert "python cli.py run" in text
    assert str(run.parent) not in files["README.md"].decode() + files["config.json"].decode()
    done = cli("from-hub", "me/net", "-o", tmp_path / "back")
    assert done.exit_code == 0, done.stderr
    before, after = open_checkpoint(run), open_checkpoint(tmp_path / "back")
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(before.model(images)["depth"], after.model(images)["depth"])
    commit = cli("from-hub", "me/net", "-o", tmp_path / "new", "--revision", "nope")
    assert commit.exit_code == 1
    assert "me/net: " in line(commit)
    again = cli("from-hub", "me/net", "-o", tmp_path / "back")
    assert again.exit_code == 2
    assert "is not empty" in line(again)


def test_no_path_of_this_machine_leaves(run: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    shutil.copytree(run, secret)
    result = read(secret)
    result.config = result.config.model_copy(
        update={"decoder": f"connectivity:{secret}/found.json", "data": secret}
    )
    result.data["train"]["skipped"] = [f"{secret}/a.png: not an image", f"{secret}/b.png: empty"]
    result.speed = {**(result.speed or {}), "peak_memory_how": f"{secret}: no such file"}
    save(secret, result)
    found = dataclasses.replace(open_checkpoint(run), path=secret, config=result.config)
    files = package(found, "me/net")
    sent = files["config.json"] + files["README.md"]
    assert b"secret" not in sent
    assert json.loads(files["config.json"])["decoder"] == "connectivity:found.json"
    told = json.loads(files["config.json"])["run"]
    assert told["data"]["train"]["skipped"] == ["2 could not be read"]
    told["config"] |= {"decoder": "fcn"}
    (tmp_path / "config.json").write_text(json.dumps({"run": told}))
    back = parse(tmp_path / "config.json", "me/net")
    assert back.data == told["data"]
    assert back.speed == told["speed"]


def test_a_wiring_goes_along(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    result = read(copy)
    wiring = {"strides": [2, 4, 8, 16, 32], "stages": {"1": ["E3", "G"]}}
    update = {"decoder": "connectivity:here/mine.json", "wiring": wiring}
    result.config = result.config.model_copy(update=update)
    save(copy, result)
    found = dataclasses.replace(open_checkpoint(run), path=copy, config=result.config)
    files = package(found, "me/net")
    card = files["README.md"].decode()
    assert "--decoder connectivity:mine.json" in card
    assert "`mine.json` is in this repository" in card
    (tmp_path / "mine.json").write_bytes(files["mine.json"])
    assert Connectivity.load(tmp_path / "mine.json").stages == {1: ("E3", "G")}


def test_what_is_public_does_not_take_what_is_private(
    cli: Cli, hub: Hub, run: Path, tmp_path: Path
) -> None:
    hub.repos["me/net"] = {}
    done = cli("push-to-hub", "--checkpoint", run, "--repo", "me/net", "--private")
    assert done.exit_code == 1
    assert "is public" in line(done)
    assert not hub.repos["me/net"]


def test_what_a_hub_refuses_is_one_line(
    cli: Cli, hub: Hub, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    done = cli("from-hub", "me/none", "-o", out)
    assert done.exit_code == 1
    assert "check the name" in line(done)
    for name in ("no name", "me/x..y", "me/x--y", "me/x.git", "me/-x"):
        assert cli("from-hub", name, "-o", out).exit_code == 2
    check_repo("_me/_net")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    done = cli("push-to-hub", "--checkpoint", run, "--repo", "me/net")
    assert "answers 401" in line(done)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = cli("from-hub", "me/net", "-o", out)
    assert "cannot be reached" in line(done)
    assert not out.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("backbone_args", {"checkpoint_path": "/etc/passwd"}), ("decoder", "connectivity:/etc/x"),
     ("device", ["cpu"])],
)  # fmt: skip
def test_a_hostile_repository_reads_nothing_here(
    cli: Cli, hub: Hub, run: Path, tmp_path: Path, field: str, value: object
) -> None:
    cli("push-to-hub", "--checkpoint", run, "--repo", "me/net")
    content = json.loads(hub.repos["me/net"]["config.json"])
    content["run"]["config"][field] = value
    hub.repos["me/net"]["config.json"] = json.dumps(content).encode()
    done = cli("from-hub", "me/net", "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert line(done).startswith("error: me/net: ")
    assert not (tmp_path / "out").exists()
    hub.repos["me/net"]["config.json"] = b"[" * 100_000
    done = cli("from-hub", "me/net", "-o", tmp_path / "out")
    assert "was not written by push-to-hub" in line(done)


def test_an_interval_that_begins_at_nothing_is_on_the_card():
    (row,) = _scores(result(value=0.05, intervals={"m": (0.0, 0.1)}, columns=["m"]))[0]["rows"]
    assert row["interval"] == "0.00–0.100"
    (row,) = _scores(result(value=0.05, intervals={}, columns=["m"]))[0]["rows"]
    assert row["interval"] == ""
