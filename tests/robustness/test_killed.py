"""kill -9 at random moments of commands that write, and the same command again.

How often in all: the environment variable KILLS. `tox -e soak` takes 60, the slow tests 5.
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmark.results.store import collect
from benchmark.training.state_file import unpack
from tests.support import ROOT

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("KILLS", "5"))
TINY = ("--backbone", "test_resnet", "--image-size", "32", "--limit", "40", "--batch-size", "4",
        "--threads", "1", "--checkpoint-every", "0.1")  # fmt: skip
SWEEP = """
defaults: {backbone: test_resnet, image_size: 32, limit: 40, batch_size: 4, threads: 1, epochs: 3}
runs:
  - {tasks: [depth], datasets: [scenes], decoders: [fcn, sparsemask]}
"""
IGNORED = ("seconds", "speed", "environment", "resumed", "command", "ms", "disturbed")


def content(folder: Path) -> dict[str, Any]:
    """All files below ``folder`` but for times; a result without its latency, a pack's data."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        name = str(path.relative_to(folder))
        data: Any = path.read_bytes()
        if path.name in ("result.json", "search.json", "front.json", "plan.json"):
            data = _without_times(json.loads(data.replace(str(folder).encode(), b"OUT")))
        found[name] = data
    return found


def _without_times(data: Any) -> Any:
    if isinstance(data, dict):
        return {k: _without_times(v) for k, v in data.items() if k not in IGNORED}
    return [_without_times(item) for item in data] if isinstance(data, list) else data


def check(folder: Path, finished: dict[str, Any]) -> None:
    """What stands in ``folder`` is whole, and what was finished is still there, once."""
    results, problems = collect(folder)
    assert problems == []
    assert len({r.key for r in results}) == len(results)
    now = {r.key: r.metrics for r in results if r.status == "finished"}
    assert {key: now.get(key) for key in finished} == finished
    finished.update(now)
    for path in folder.rglob("*.json"):
        json.loads(path.read_bytes())
    for path in folder.rglob("training/state*.safetensors"):
        unpack(path)


@pytest.mark.parametrize("kind", ["run", "search", "front", "sweep", "pack", "report"])
def test_killed_at_random(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP)
    results = ROOT / "results"

    def command(out: Path) -> tuple[object, ...]:
        return {
            "run": ("run", "--task", "depth", "--decoder", "sparsemask", *TINY, "--epochs", "4",
                    "--results", out),
            "search": ("search", "--task", "depth", *TINY, "--iterations", "30", "--output", out),
            "front": ("search", "--method", "front", "--task", "depth", *TINY, "--iterations", "3",
                      "--steps", "20", "--candidates", "5", "--jobs", "2", "--output", out),
            "sweep": ("sweep", file, "--results", out, "--checkpoint-every", "0.1"),
            "pack": ("data", "pack", "scenes", "--image-size", "64x64", "--task", "depth",
                     "--overwrite", "-o", out / "a.h5"),
            "report": ("report", "--results", results, "--html", out / "page",
                       "--baseline", "fcn"),
        }[kind]  # fmt: skip

    def start(out: Path) -> "subprocess.Popen[str]":
        words = [sys.executable, "cli.py", *(str(word) for word in command(out))]
        return subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    begin = time.monotonic()
    whole = start(tmp_path / "whole")
    _, said = whole.communicate()
    assert whole.returncode == 0, said
    took = time.monotonic() - begin
    expected = content(tmp_path / "whole")
    seed = random.randrange(10**6)
    draw = random.Random(seed)
    kills, round_ = 0, 0
    while kills < max(KILLS // 5, 1):
        out, finished = tmp_path / f"cut{round_}", dict[str, Any]()
        round_ += 1
        assert round_ < 10 * KILLS + 10
        while True:
            process = start(out)
            moment = draw.uniform(0.2, 1.05) * took if kills < max(KILLS // 5, 1) else None
            try:
                _, said = process.communicate(timeout=moment)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
                if out.exists() and kind != "pack":
                    check(out, finished)
        assert process.returncode == 0, f"seed {seed}: {said}"
        if kind != "pack":
            check(out, finished)
        left = {name for name in content(out) if Path(name).name.startswith(".")}
        assert left == set(), f"seed {seed}"
        assert content(out) == expected, f"seed {seed}"
    print(f"{kind}: {kills} kills in {round_} rounds, seed {seed}")  # noqa: T201
