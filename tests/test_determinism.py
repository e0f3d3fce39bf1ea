"""The same command gives the same bits on the CPU: weights, scores, curves, pictures."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import ROOT

pytestmark = pytest.mark.slow

# several commands in one fresh process; without timings, which are never alike
DRIVER = """
import json, sys
from benchmark.runner import Runner
from cli import main
Runner.time = lambda *_: None
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
    "search": ["search", "--task", "segmentation", *SMALL, "--iterations", "12"],
}  # fmt: skip


def in_a_fresh_process(folder: Path, names: Sequence[str], hashes: str, *options: str) -> None:
    """Run commands into ``folder``/NAME. hashes: of Python's strings (PYTHONHASHSEED)."""
    commands = [
        [*COMMANDS[n], *options, "--output" if n == "search" else "--results", str(folder / n)]
        for n in names
    ]
    subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(commands),
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hashes},
        capture_output=True,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under ``folder`` but for what tells when, where and how long."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if path.name in ("result.json", "search.json"):
            record = json.loads(content)
            for name in ("seconds", "environment", "command"):
                del record[name]
            content = json.dumps(record).encode()
        found[str(path.relative_to(folder))] = content
    return found


def differing(one: Path, other: Path) -> list[str]:
    a, b = contents(one), contents(other)
    assert a.keys() == b.keys()
    return [name for name in a if a[name] != b[name]]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of all commands, on one thread."""
    folder = tmp_path_factory.mktemp("first")
    in_a_fresh_process(folder, list(COMMANDS), "1", "--threads", "1")
    return folder


def test_the_same_commands_give_the_same_bits(first: Path, tmp_path: Path) -> None:
    in_a_fresh_process(tmp_path, list(COMMANDS), "2", "--threads", "1")
    names = contents(first)
    for name in ("last.safetensors", "metrics.jsonl", "bootstrap.npz", "result.json", "found.json"):
        assert any(n.endswith(name) for n in names)
    assert any("samples/" in n for n in names)
    assert differing(first, tmp_path) == []
