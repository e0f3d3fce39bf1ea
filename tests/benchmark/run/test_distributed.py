"""Several processes on the CPU, started by torchrun: the same scores, one writer, gone on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.support import ROOT, line

Cli = Callable[..., Result]
pytestmark = pytest.mark.slow
RUN = ("cli.py", "run", "--task", "depth", "--decoder", "sparsemask", "--backbone", "test_resnet",
       "--image-size", "32", "--limit", "11", "--batch-size", "4")  # fmt: skip


def started(count: int, *arguments: object, fault: str = "") -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone",
             "--nproc-per-node", count, *arguments]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
                   "FAULT": fault}  # fmt: skip
    return subprocess.Popen(
        [str(w) for w in words], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def ended(count: int, *arguments: object) -> str:
    process = started(count, *arguments)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "Warning" not in output
    return output


def result_in(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*/result.json")
    return json.loads(path.read_bytes())


def test_scores_and_steps_are_those_of_one_process(tmp_path: Path) -> None:
    found = {}
    for count in (1, 2, 3):
        file = tmp_path / f"{count}.json"
        ended(count, "tests/benchmark/run/distributed_checks.py", file)
        found[count] = json.loads(file.read_text())
        assert found[count]["size"] == count
        assert found[count]["tasks"] == found[1]["tasks"]  # to the bit, bootstrap included
        assert found[count]["weights"] == pytest.approx(found[1]["weights"], rel=1e-4, abs=1e-6)
    images = {name: task["counts"]["images"] for name, task in found[1]["tasks"].items()}
    assert images == dict.fromkeys(("segmentation", "depth", "saliency", "edges"), 7)


def test_two_processes_make_one_result_and_go_on_after_a_stop(tmp_path: Path) -> None:
    longer = (*RUN, "--epochs", 30, "--results")
    process = started(2, *longer, tmp_path / "cut")
    state = "*/training/state.safetensors"
    while not list((tmp_path / "cut").glob(state)) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0, output
    assert list((tmp_path / "cut").glob(state)), output
    output = ended(2, *longer, tmp_path / "cut")
    assert output.count("resuming sparsemask, seed 0: at step") == 1
    ended(2, *longer, tmp_path / "whole")
    cut, whole = result_in(tmp_path / "cut"), result_in(tmp_path / "whole")
    assert whole["status"] == "finished"
    assert whole["config"]["processes"] == 2
    assert whole["command"].startswith("torchrun --nproc-per-node 2 cli.py run ")
    assert whole["speed"]["median_ms"] > 0
    assert cut["resumed"]
    assert cut["metrics"] == whole["metrics"]
    assert cut["history"] == whole["history"]


def test_a_disk_that_is_full_for_the_writer_ends_all(tmp_path: Path) -> None:
    words = ("tests/benchmark/run/faulty_cli.py", *RUN[1:], "--decoder", "fcn", "--epochs", 2)
    process = started(2, *words, "--results", tmp_path, fault="disk")
    process.communicate(timeout=120)  # none waits for another
    assert process.returncode != 0
    result = result_in(tmp_path)
    assert result["status"] == "failed"
    assert "No space left on device" in result["error"]


def test_a_stop_of_one_in_a_validation_is_one_of_all(tmp_path: Path) -> None:
    words = ("tests/benchmark/run/faulty_cli.py", *RUN[1:], "--epochs", 3, "--results")
    process = started(2, *words, tmp_path / "cut", fault="validation")
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "stopped by SIGTERM: what is done is saved" in output
    assert 'Traceback (most recent call last):\n  File "/' not in output.partition("torch")[0]
    assert ended(2, *words, tmp_path / "cut").count("resuming sparsemask") == 1
    ended(2, *words, tmp_path / "whole")
    cut, whole = result_in(tmp_path / "cut"), result_in(tmp_path / "whole")
    assert cut["resumed"] == [2]
    assert cut["metrics"] == whole["metrics"]
    assert cut["history"] == whole["history"]


def test_a_signal_to_all_at_once_saves_first(tmp_path: Path) -> None:
    """As Slurm sends it: each process has it from the system, and again from torchrun."""
    words = [str(w) for w in RUN]
    words[words.index("--limit") + 1] = "600"  # an epoch, after which states are saved, takes long
    process = started(2, *words, "--epochs", 9, "--checkpoint-every", 3600, "--results", tmp_path)
    log = "*/training/metrics.jsonl"
    while not any(path.stat().st_size for path in tmp_path.glob(log)) and process.poll() is None:
        time.sleep(0.02)
    found = subprocess.run(
        ["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    assert list(tmp_path.glob("*/training/state*")) == []
    for pid in found.split():
        os.kill(int(pid), signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert "stopped by SIGTERM: what is done is saved" in output
    assert len(list(tmp_path.glob("*/training/state.safetensors"))) == 1


def test_a_search_by_two_processes(tmp_path: Path) -> None:
    options = ("cli.py", "search", *RUN[2:4], *RUN[6:], "--iterations", "4")
    ended(2, *options, "--output", tmp_path / "a")
    record = json.loads((tmp_path / "a" / "search.json").read_bytes())
    assert len(record["losses"]["depth"]) == 4
    assert record["config"]["processes"] == 2
    assert (tmp_path / "a" / "found.json").is_file()


def test_what_does_not_divide_is_told(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    done = cli("sweep", "demo")
    assert done.exit_code == 2
    assert "give torchrun a `run` or a `search`" in line(done)
    process = started(3, *RUN, "--results", tmp_path)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "--batch-size 4: does not divide among 3 processes: use 3 or 6" in output
    assert list(tmp_path.iterdir()) == []


def test_batchnorm_over_processes_needs_gpus(cli: Cli, tmp_path: Path) -> None:
    done = cli(*RUN[1:], "--sync-bn", "--results", tmp_path)
    assert done.exit_code == 2
    assert "--sync-bn: torch has it on GPUs only" in line(done)
