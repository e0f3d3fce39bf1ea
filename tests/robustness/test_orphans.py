"""kill -9 of a program: the processes that it started end within seconds, asleep or at work."""

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs /proc")
PATIENCE = 10.0
LOADER = """
import torch.utils.data
from datasets.pipeline import Resized, Split
from tests.benchmark.training.test_network_training import Halves, Pixelwise, config_of

# torch's own loaders look for their parent every five seconds; ours are told
torch.utils.data._utils.worker.MP_STATUS_CHECK_INTERVAL = 600.0
config = config_of(workers=2)
data = Resized(Split(Halves(), range(8), "train"), (32, 32), "segmentation", targets=True)
"""
TRAINING = """
from benchmark.training.batches import Batches

batches = iter(Batches(config, data))
next(batches)
"""
SCORING = """
from benchmark.experiment.plan import make_task
from benchmark.scoring.evaluate import evaluate

class Waiting(Pixelwise):
    def forward(self, images):
        print("ready", flush=True)
        input()

task = make_task(config)
evaluate(config, Waiting(), {task: task.accumulator()}, data)
"""
MEMORY = """
from benchmark.speed.fresh import FreshProcess
from tests.robustness.test_orphans import asleep

print("ready", flush=True)
FreshProcess().call(asleep)
"""
READY = """
print("ready", flush=True)
input()
"""
SWEEP = """
defaults: {backbone: test_resnet, image_size: 32, limit: 40, batch_size: 4, threads: 1,
           epochs: 1000, workers: 1}
runs:
  - {tasks: [depth], datasets: [scenes], decoders: [fcn, sparsemask]}
"""


def asleep() -> None:
    time.sleep(600)


def below(pid: int) -> dict[int, str]:
    """The command lines of this Python's processes that ``pid`` started, and these in turn."""
    children = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        if (state := state_of(int(folder.name))) is not None:
            children[int(state[1])].append(int(folder.name))
    found = [pid]
    for parent in found:
        found += children[parent]
    lines = {child: command_of(child) for child in found[1:]}
    return {child: line for child, line in lines.items() if line.startswith(sys.executable)}


def command_of(pid: int) -> str:
    """The command line of a process; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def state_of(pid: int) -> list[str] | None:
    """State, parent and more of a process; None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def lives(pid: int) -> bool:
    state = state_of(pid)
    return state is not None and state[0] != "Z"


def orphans(command: list[str | Path], count: int) -> dict[int, str]:
    """The command lines of those that outlive a killed ``command`` by more than ``PATIENCE``.

    It is killed when it has started ``count`` processes; if it is a program's text, also not before
    it has printed a line.
    """
    words = [sys.executable, *map(str, command)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    started: dict[int, str] = {}
    try:
        assert process.stdout is not None
        if command[0] == "-c":
            assert process.stdout.readline() == "ready\n", process.communicate()[1]
        end = time.monotonic() + 120
        before: dict[int, str] = {}
        while len(started) < count:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end, started
            time.sleep(0.05)
            now = below(process.pid)
            # a program that was asked something, git for one, is a Python until it has begun
            started = {pid: line for pid, line in now.items() if before.get(pid) == line}
            before = now
        process.kill()
        end = time.monotonic() + PATIENCE
        while any(map(lives, started)) and time.monotonic() < end:
            time.sleep(0.05)
        return {pid: line for pid, line in started.items() if lives(pid)}
    finally:
        process.kill()
        for pid in filter(lives, started):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize(
    ("program", "count"),
    [
        pytest.param(LOADER + TRAINING + READY, 2, id="training"),
        pytest.param(LOADER + SCORING, 2, id="scoring"),
        pytest.param(MEMORY, 2, id="memory"),  # a server and the process that it forked
    ],
)
def test_what_a_killed_program_started_ends(program: str, count: int) -> None:
    assert orphans(["-c", program], count) == {}


@pytest.mark.slow
def test_a_killed_sweep_leaves_nobody(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP)
    command = ["cli.py", "sweep", file, "--jobs", "2", "--results", tmp_path / "runs"]
    # two workers with a loader each, and multiprocessing's own
    assert orphans(command, 5) == {}


@pytest.mark.slow
def test_a_killed_doctor_leaves_nobody(tmp_path: Path) -> None:
    assert orphans(["cli.py", "doctor", "--results", tmp_path], 2) == {}
