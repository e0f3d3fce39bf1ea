"""The same command gives the same bits on the CPU: weights, scores, curves, pictures."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("determinism")]  # they share ``first``

# several commands in one fresh process; without timings, which are never alike
DRIVER = """
import json, sys
from benchmark.run.runner import Runner
from cli import main
Runner.complete = lambda *_: None
for command in json.load(sys.stdin):
    main(command, standalone_mode=False)
"""
SMALL = (
    "--dataset", "scenes", "--limit", "10", "--image-size", "64x64", "--batch-size", "4",
    "--backbone", "test_resnet", "--colour", "0.2", "--zoom", "1,1.5",
)  # fmt: skip
EPOCHS = ("--epochs", "2")
COMMANDS = {
    "segmentation": ["run", "--task", "segmentation", *SMALL, *EPOCHS, "--ema", "0.9",
                     *("--decoder", "sparsemask", "--decoder", "fcn"),
                     *("--decoder", "smp-fpn", "--decoder", "encnet")],
    "depth": ["run", "--task", "depth", *SMALL, *EPOCHS, "--backbone", "mobilenetv2_050",
              "--decoder", "sparsemask", "--decoder", "deeplabv3-light", "--optimizer", "sgd"],
    "saliency": ["run", "--task", "saliency", *SMALL, *EPOCHS, "--decoder", "dss"],
    "edges": ["run", "--task", "edges", *SMALL, *EPOCHS, "--decoder", "hed", "--rotate", "22.5"],
    "uncertainty": ["run", "--task", "segmentation", "--task", "depth", *SMALL, *EPOCHS,
                    "--decoder", "sparsemask", "--loss-weighting", "uncertainty"],
    "dwa": ["run", "--task", "segmentation", "--task", "depth", *SMALL, *EPOCHS,
            "--decoder", "sparsemask", "--loss-weighting", "dwa"],
    "amp": ["run", "--task", "segmentation", *SMALL, *EPOCHS, "--decoder", "unet-connectivity",
            "--amp"],
    "search": ["search", "--task", "segmentation", *SMALL, "--iterations", "12"],
}  # fmt: skip
CALM = {
    task: ["run", "--task", task, *SMALL, *EPOCHS, "--limit", "16", "--lr", "0.001", *decoders]
    for task, decoders in {
        "depth": ("--decoder", "sparsemask", "--decoder", "fcn"),
        "segmentation": ("--decoder", "sparsemask", "--decoder", "smp-fpn"),
    }.items()
}
"""Few and small steps, in which rounding does not grow."""


def in_a_fresh_process(
    folder: Path, commands: Mapping[str, list[str]], *options: str, hashes: str = "0"
) -> None:
    """Run commands into ``folder``/NAME. hashes: seed of Python's hashes of texts."""
    words = [
        [*command, *options, "--output" if name == "search" else "--results", str(folder / name)]
        for name, command in commands.items()
    ]
    # threads that wait for each other must not take the cores of other processes
    surroundings = {**os.environ, "PYTHONHASHSEED": hashes, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(words), cwd=ROOT, env=surroundings, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under ``folder``, but for what tells when, where and how long."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if path.name in ("result.json", "search.json"):
            record = json.loads(content)
            for name in ("seconds", "environment", "command"):
                del record[name]
            del record["config"]["workers"]
            content = json.dumps(record).encode()
        found[str(path.relative_to(folder))] = content
    return found


def differing(one: Path, other: Path) -> list[str]:
    """Files of ``other`` that ``one`` has not, or has otherwise."""
    here, there = contents(one), contents(other)
    assert there
    return [name for name, content in there.items() if here.get(name) != content]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of all commands, on one thread."""
    folder = tmp_path_factory.mktemp("first")
    in_a_fresh_process(folder, COMMANDS, "--threads", "1")
    return folder


def test_the_same_commands_give_the_same_bits(first: Path, tmp_path: Path) -> None:
    in_a_fresh_process(tmp_path, COMMANDS, "--threads", "1", hashes="1")
    names = contents(tmp_path)
    assert names.keys() == contents(first).keys()
    for name in ("last.safetensors", "metrics.jsonl", "bootstrap.npz", "result.json",
                 "prediction.webp", "search.json", "found.json"):  # fmt: skip
        assert any(n.endswith(name) for n in names)
    assert differing(first, tmp_path) == []


def test_a_decoder_gives_alone_what_it_gives_among_others(first: Path, tmp_path: Path) -> None:
    command = COMMANDS["segmentation"]
    start = command.index("--decoder")
    alone = {"segmentation": [*command[:start], "--decoder", "encnet"]}  # the last of them
    in_a_fresh_process(tmp_path, alone, "--threads", "1")
    assert differing(first, tmp_path) == []


def test_who_reads_the_images_changes_nothing(first: Path, tmp_path: Path) -> None:
    """The number of workers is no part of a run's key."""
    chosen = {name: COMMANDS[name] for name in ("depth", "dwa", "search")}
    in_a_fresh_process(tmp_path, chosen, "--threads", "1", "--workers", "2")
    assert differing(first, tmp_path) == []


def test_another_number_of_threads_changes_no_more_than_rounding_does(tmp_path: Path) -> None:
    """Tolerance: seven times the largest difference seen with six decoders and three seeds.

    That was 1.4e-4 of the loss and 1.3e-4 of AbsRel and mIoU. A long training at a high rate has no
    such bound: docs/reproducibility.md.
    """
    found = []
    for threads in ("1", "2"):
        folder = tmp_path / threads
        in_a_fresh_process(folder, CALM, "--threads", threads)
        records = [json.loads(p.read_text()) for p in sorted(folder.rglob("result.json"))]
        assert {r["environment"]["threads"] for r in records} == {int(threads)}
        found.append({(r["config"]["task"], r["config"]["decoder"]): r for r in records})
    one, two = found
    assert len(one) == 4
    for name, record in one.items():
        other = two[name]
        for a, b in zip(record["history"], other["history"], strict=True):
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)
        main = record["columns"][0]
        assert other["metrics"][main] == pytest.approx(record["metrics"][main], abs=1e-3)
