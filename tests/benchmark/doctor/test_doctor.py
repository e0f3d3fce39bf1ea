"""doctor: every check in worlds where it must warn or fail, what is printed, exit codes."""

import json
import os
import re
import subprocess
import sys
import time
import types
import warnings
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmark.doctor import machine, software
from benchmark.doctor.checks import Check, Outcome, Question, answer, stops_runs
from benchmark.doctor.examine import examine, questions
from benchmark.doctor.report import checks_table, summary
from common.errors import UserError
from tests.support import ROOT

Usage = namedtuple("Usage", "total used free")
GB = 10**9


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """An empty /proc and /sys/fs/cgroup to write to."""
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "groups")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "groups").mkdir()
    return tmp_path / "proc"


def disk(monkeypatch, free, total=100 * GB):
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(total, total - free, free))


def group(proc, path, **files):
    folder = proc.parent / "groups" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


# how checks are made


def test_a_check_that_raises_is_a_failure_with_its_reason():
    def crash():
        raise ZeroDivisionError("broken\nin two lines")

    found = answer(Question("x", crash, needed=True))
    assert (found.status, found.seen, found.needed) == ("fail", "ZeroDivisionError: broken", True)

    def mistake():
        raise UserError("no such thing")

    assert answer(Question("x", mistake)).seen == "no such thing"
    assert answer(Question("x", lambda: sys.exit(3))).seen == "SystemExit: 3"


def test_a_check_that_hangs_is_left():
    found = answer(Question("x", lambda: time.sleep(30), limit=0.05))
    assert found.status == "fail"
    assert "within 0.05 s" in found.seen
    assert found.seconds < 20


def test_an_interrupt_ends_it():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer(Question("x", interrupted))


def test_only_what_runs_need_stops_them():
    checks = [
        Check("a", "fail", "", "", False, 0.0),
        Check("b", "warn", "", "", True, 0.0),
        Check("c", "fail", "", "", True, 0.0),
    ]
    assert stops_runs(checks) == ["c"]
    assert stops_runs(checks[:2]) == []


@pytest.fixture
def no_probes(monkeypatch):
    """No process is started."""
    monkeypatch.setattr(software.Probes, "start", lambda *_: None)


def test_findings_come_in_order_and_are_told_as_they_come(monkeypatch, tmp_path, no_probes):
    asked = [Question(n, lambda: Outcome("ok", "fine")) for n in ("one", "two")]
    monkeypatch.setattr("benchmark.doctor.examine.questions", lambda *_: asked)
    steps, counts = [], []
    listener = types.SimpleNamespace(begin=lambda _, count: counts.append(count), step=steps.append)
    assert [c.name for c in examine(tmp_path, listener=listener)] == ["one", "two"] == steps
    assert counts == [2]


# the machine


@pytest.mark.parametrize(
    ("now", "cores", "status"),
    [(0.2, 2, "ok"), (1.0, 2, "warn"), (1.0, 64, "ok"), (30.0, 64, "warn")],
)
def test_load_counts_per_core(monkeypatch, now, cores, status):
    monkeypatch.setattr("os.getloadavg", lambda: (now, 0, 0))
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert machine.load().status == status


def test_memory_that_is_short(proc):
    assert machine.memory().status == "ok"  # a system that does not tell
    (proc / "meminfo").write_text("MemTotal: 16000000 kB\nMemFree: 1 kB\nMemAvailable: 9000000 kB")
    assert machine.memory()[:2] == ("ok", "9.2 GB available of 16.4 GB")
    (proc / "meminfo").write_text("MemTotal: 16000000 kB\nMemFree: 1 kB\nMemAvailable: 900000 kB")
    found = machine.memory()
    assert found.status == "warn"
    assert "--batch-size" in found.advice


@pytest.mark.parametrize("version", [1, 2])
def test_memory_is_that_of_the_control_group(proc, version):
    (proc / "meminfo").write_text("MemTotal: 64000000 kB\nMemAvailable: 60000000 kB")
    stat = f"anon 1\ninactive_file {GB}"
    if version == 2:
        (proc / "self/cgroup").write_text("0::/a/b\n")
        group(proc, "a", memory__max=4 * GB, memory__current=3 * GB, memory__stat=stat)
        group(proc, "a/b", memory__max="max", memory__current=GB)
    else:
        # in a container the path is the host's
        (proc / "self/cgroup").write_text("7:cpu,cpuacct:/\n4:memory:/docker/0123\n")
        group(proc, "memory", memory__limit_in_bytes=4 * GB, memory__usage_in_bytes=3 * GB,
              memory__stat=stat)  # fmt: skip
    assert machine.memory()[:2] == ("ok", "2.0 GB available of the 4.0 GB of this control group")


@pytest.mark.parametrize("version", [1, 2])
def test_cores_are_those_of_affinity_and_quota(proc, monkeypatch, version):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert machine.usable_cores() == 8
    if version == 2:
        (proc / "self/cgroup").write_text("0::/a/b\n")
        group(proc, "a", cpu__max="250000 100000")
        group(proc, "a/b", cpu__max="max 100000")
    else:
        (proc / "self/cgroup").write_text("7:cpu,cpuacct:/\n")
        group(proc, "cpu,cpuacct", cpu__cfs_quota_us=250000, cpu__cfs_period_us=100000)
    assert machine.usable_cores() == 2.5
    if version == 1:
        group(proc, "cpu,cpuacct", cpu__cfs_quota_us=-1)
        assert machine.usable_cores() == 8


def test_threads_against_cores(monkeypatch):
    def processor(cores, threads):
        monkeypatch.setattr(machine, "usable_cores", lambda: cores)
        monkeypatch.setattr("torch.get_num_threads", lambda: threads)
        return machine.processor()

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert processor(64.0, 32).status == "ok"  # one a physical core
    assert processor(0.5, 1).status == "ok"
    assert processor(64.0, 1)[::2] == ("warn", "most cores idle: --threads 64")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    idle = processor(64.0, 1)
    assert "(OMP_NUM_THREADS=1)" in idle.seen
    assert "unset OMP_NUM_THREADS" in idle.advice
    crowded = processor(2.5, 64)
    assert crowded.status == "warn"
    assert crowded.advice.endswith("--threads 2")


def test_little_shared_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "SHARED", tmp_path)
    disk(monkeypatch, 64_000_000)
    found = machine.shared_memory()
    assert found.status == "warn"
    assert "0.06 GB free" in found.seen
    assert "--workers 0" in found.advice
    disk(monkeypatch, GB)
    assert machine.shared_memory().status == "ok"
    monkeypatch.setattr(machine, "SHARED", tmp_path / "none")
    assert machine.shared_memory().status == "ok"


def test_results_are_looked_at_without_being_made(tmp_path, monkeypatch):
    disk(monkeypatch, 50 * GB)
    monkeypatch.setattr(machine, "file_system", lambda _: "ext4")
    monkeypatch.setattr(machine, "write_time", lambda _: 0.01)
    found = machine.results_folder(tmp_path / "a" / "b")
    assert found.status == "ok"
    assert "50.0 GB free, ext4, a safe write takes 10 ms" in found.seen
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("free", "kind", "seconds", "status", "told"),
    [
        (0.01, "ext4", 0.01, "fail", "make room"),
        (0.5, "ext4", 0.01, "warn", "make room"),
        (50, "nfs4", 0.01, "warn", "network"),
        (50, "ext4", 0.9, "warn", "slow disk"),
    ],
)
def test_disks_that_are_full_far_or_slow(tmp_path, monkeypatch, free, kind, seconds, status, told):
    disk(monkeypatch, int(free * GB))
    monkeypatch.setattr(machine, "file_system", lambda _: kind)
    monkeypatch.setattr(machine, "write_time", lambda _: seconds)
    found = machine.results_folder(tmp_path)
    assert found.status == status
    assert told in found.advice


def test_results_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    found = machine.results_folder(tmp_path / "file" / "runs")
    assert found.status == "fail"
    assert "a file, not a folder" in found.seen

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    found = machine.results_folder(tmp_path)
    assert found.status == "fail"
    assert "cannot be written (Permission denied)" in found.seen
    assert "--results" in found.advice


def test_a_write_is_timed_and_leaves_nothing(tmp_path):
    assert machine.write_time(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []
    disk_of_temporary_files = machine.temporary_folder()
    assert disk_of_temporary_files.seen.startswith("/")


def test_a_file_system_is_that_of_the_innermost_mount(proc, tmp_path):
    far = tmp_path / "far away"
    far.mkdir()
    escaped = str(far).replace(" ", "\\040")
    (proc / "self/mountinfo").write_text(
        "1 0 8:1 / / rw,relatime - ext4 /dev/a rw\n"
        f"2 1 8:1 / {escaped} rw shared:3 - tmpfs none rw\n"
        f"3 1 8:1 / {escaped} rw shared:3 - nfs4 server:/x rw\n"
    )
    assert machine.file_system(far / "runs") == "nfs4"
    assert machine.file_system(tmp_path) == "ext4"
    (proc / "self/mountinfo").unlink()
    assert machine.file_system(far) == "file system unknown"


def test_data_that_cannot_be_read(tmp_path, monkeypatch):
    assert "No such file" in machine.data(tmp_path / "none").seen
    assert machine.data(tmp_path)[:2] == ("fail", f"{tmp_path}: an empty folder")
    (tmp_path / "a.h5").write_bytes(b"x" * 200_000)
    assert machine.data(tmp_path)[:2] == ("ok", f"{tmp_path}: 1 files and folders")
    assert machine.data(tmp_path / "a.h5")[:2] == ("ok", f"{tmp_path / 'a.h5'}: 0.2 MB")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "Permission denied" in machine.data(tmp_path / "a.h5").seen


class Card:
    """Stands for torch.cuda with one card."""

    def __init__(self, monkeypatch, there=True, capability=(8, 0), arch=("sm_80", "sm_90a")):
        def available():
            if not there:
                warnings.warn(
                    "CUDA initialization: The NVIDIA driver is too old. Update", stacklevel=1
                )
            return there

        for name, value in {
            "is_available": available,
            "device_count": lambda: 1,
            "get_arch_list": lambda: list(arch),
            "get_device_capability": lambda _: capability,
            "get_device_name": lambda _: "A card",
            "mem_get_info": lambda _: (60 * GB, 80 * GB),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        ones = torch.ones
        monkeypatch.setattr(torch, "ones", lambda *size, **_: ones(*size))


def test_cards(monkeypatch, proc):
    Card(monkeypatch)
    found = machine.cuda()
    assert found.status == "ok"
    assert "cuda:0 A card, 60 GB free of 80 GB, capability 8.0; TF32: " in found.seen
    assert "--device cuda" in found.advice


@pytest.mark.parametrize(
    ("capability", "status"),
    [((9, 0), "ok"), ((8, 6), "ok"), ((7, 5), "warn"), ((10, 0), "warn")],
)
def test_cards_that_this_torch_was_not_made_for(monkeypatch, proc, capability, status):
    Card(monkeypatch, capability=capability)
    assert machine.cuda().status == status


def test_no_card_and_a_card_that_cannot_be_used(monkeypatch, proc):
    Card(monkeypatch, there=False)
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: str(self) != "/dev/nvidia0" and real(self))
    assert machine.cuda()[:2] == ("ok", "no CUDA device")
    (proc / "driver/nvidia").mkdir(parents=True)
    (proc / "driver/nvidia/version").write_text("")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = machine.cuda()
    assert found.status == "warn"
    assert "The NVIDIA driver is too old" in found.seen
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "a torch without CUDA" in machine.cuda().seen


def test_peak_memory_that_cannot_be_told(monkeypatch):
    monkeypatch.setattr("benchmark.speed.memory.RESET", Path("/none/clear_refs"))
    found = machine.fresh_processes()
    assert found.status == "warn"
    assert found.seen.startswith("/none/clear_refs cannot be written")
    monkeypatch.setattr("benchmark.speed.memory.reset_peak", lambda: None)
    monkeypatch.setattr("benchmark.speed.memory.resident", lambda _: 10)
    assert machine.fresh_processes().status == "warn"
    monkeypatch.delattr(os, "fork")
    assert machine.fresh_processes().seen == "this system cannot fork"


# the installation


def project_of(monkeypatch, **values):
    table = {"requires-python": ">=3.11", "dependencies": [], "optional-dependencies": {}}
    table.update({name.replace("_", "-"): value for name, value in values.items()})
    monkeypatch.setattr(software, "project", lambda: table)


def test_the_real_table_names_packages_and_extras():
    assert any(text.startswith("torch>=") for text in software.project()["dependencies"])
    assert "tensorboard" in software.extras()
    assert not set(software.extras()) & {"test", "lint", "type"}
    assert software.python().status == "ok"


def test_another_python(monkeypatch):
    project_of(monkeypatch, requires_python=">=4")
    found = software.python()
    assert found.status == "warn"
    assert ">=4" in found.advice


def test_packages_that_are_missing_or_old(monkeypatch):
    project_of(monkeypatch, dependencies=["numpy>=1", "no-such-thing; python_version < '3'"])
    assert software.packages()[:2] == ("ok", f"numpy {software.version('numpy')}")
    project_of(monkeypatch, dependencies=["numpy>=999"])
    found = software.packages()
    assert found.status == "warn"
    assert "(asked: >=999)" in found.seen
    project_of(monkeypatch, dependencies=["numpy>=999", "no-such-thing>=1"])
    assert software.packages() == ("fail", "not installed: no-such-thing", "pip install -e .")


def test_extras_that_are_missing_or_old(monkeypatch):
    wanted = {"a": ["no-such-thing"], "b": ["numpy>=999"], "c": ["numpy"], "test": ["pytest"]}
    project_of(monkeypatch, optional_dependencies=wanted)
    assert software.extras() == ["a", "b", "c"]
    assert software.extra("a")[::2] == ("ok", "if needed: pip install -e .[a]")
    assert software.extra("b")[::2] == ("warn", "pip install -e .[b]")
    assert software.extra("c").status == "ok"
    assert software.install_of("no-such-thing") == "pip install -e .[a]"
    assert software.install_of("onnx") == "pip install onnx"


def test_packages_that_do_not_fit_together(monkeypatch):
    def refuse(name):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("importlib.import_module", refuse)
    found = software.imports()
    assert found.status == "fail"
    assert (
        found.seen == "import torchvision: RuntimeError: operator torchvision::nms does not exist"
    )


class Told:
    """Probes that have found this, or failed for that."""

    def __init__(self, found=None, why=""):
        self.found, self.why = found, why

    def result(self, name):
        if self.found is None:
            raise UserError(self.why)
        return self.found


def test_what_was_tried_elsewhere(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    assert software.compiles(Told({"seconds": 4.0})).status == "ok"
    found = software.compiles(Told(why="InvalidCxxCompiler: No working C++ compiler found"))
    assert found[:2] == ("fail", "InvalidCxxCompiler: No working C++ compiler found")
    assert "g++" in found.advice
    assert software.exports(Told({"error": 1e-6})).status == "ok"
    assert software.exports(Told({"error": 0.5})).status == "fail"
    found = software.exports(Told({"error": None}))
    assert found.advice.startswith("to run the exported file: pip install")
    assert software.exports(Told(why="broken")).status == "fail"
    assert software.starts_ray(Told({"seconds": 9.0})).status == "ok"
    assert software.starts_ray(Told(why="no port")).seen == "no port"
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert software.exports(Told())[:2] == ("ok", "not tried: no onnx and no onnxscript")
    assert software.starts_ray(Told()).status == "warn"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("raise ValueError('so it is')", "ValueError: so it is"),
        ("import sys; sys.exit('g++: command not found')", "g++: command not found"),
        ("import os; os.kill(os.getpid(), 9)", "its process ended with -9"),
        ("import sys; sys.stderr.write('a.E: AnError: x\\nSet TORCHDYNAMO_VERBOSE'); sys.exit(1)",
         "a.E: AnError: x"),
    ],
)  # fmt: skip
def test_a_probe_that_fails_tells_why(monkeypatch, script, told):
    real = subprocess.Popen
    monkeypatch.setattr(
        "subprocess.Popen", lambda _, **o: real([sys.executable, "-c", script], **o)
    )
    with software.Probes(["compile"]) as probes, pytest.raises(UserError, match=re.escape(told)):
        probes.result("compile")
    assert not Path(probes.folder).exists()


def test_a_probe_that_cannot_start_tells_why(monkeypatch):
    def refuse(*_, **__):
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with software.Probes(["compile"]) as probes, pytest.raises(UserError, match="No usable temp"):
        probes.result("compile")


def test_a_probe_that_goes_on_is_ended(monkeypatch):
    real, script = subprocess.Popen, "import time; time.sleep(600)"
    monkeypatch.setattr(
        "subprocess.Popen", lambda _, **o: real([sys.executable, "-c", script], **o)
    )
    with software.Probes(["compile"]) as probes:
        pass
    assert probes.running["compile"].returncode == -9


@pytest.mark.parametrize(
    ("times", "told"), [((2.0, 1.0), "--amp pays"), ((1.0, 3.0), "leave --amp")]
)
def test_half_precision_pays_or_not(monkeypatch, times, told):
    def timed(calls):
        for call in calls:
            call()
        return times

    monkeypatch.setattr(software, "best_times", timed)
    found = software.mixed_precision()
    assert found.status == "ok"
    assert f"{times[1] / times[0]:.2f} times" in found.seen
    assert told in found.advice


def test_the_shortest_time_counts():
    calls = []
    best = software.best_times([lambda: calls.append(0), lambda: time.sleep(0.002)], budget=0.01)
    assert len(calls) > 1
    assert best[1] >= 0.002 > best[0]


def test_the_same_bits_or_not(monkeypatch):
    assert software.same_bits()[:2] == ("ok", "cpu: alike")
    assert not torch.are_deterministic_algorithms_enabled()
    drawn = iter(torch.arange(2.0))
    monkeypatch.setattr(software, "gradient", lambda _: next(drawn))
    found = software.same_bits()
    assert found[:2] == ("warn", "cpu: NOT alike")

    def refuse(device):
        raise RuntimeError("nll_loss2d does not have a deterministic implementation, but you set")

    monkeypatch.setattr(software, "gradient", refuse)
    assert (
        software.same_bits().seen == "cpu: nll_loss2d does not have a deterministic implementation"
    )


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        (([2.0, 1.0], 0.0), ([2.0, 1.0], 0.0), "ok"),
        (([2.0, 2.1], 0.0), ([2.0, 2.1], 0.0), "fail"),
        (([2.0, 1.0], 0.0), ([2.0, 1.0], 1e-7), "fail"),
        (([2.0, 1.0], 0.0), ([2.0, 1.1], 0.0), "fail"),
        (([2.0, float("nan")], 0.0), ([2.0, float("nan")], 0.0), "fail"),
    ],
)
def test_a_training_that_does_not_learn_or_repeat(monkeypatch, first, second, status):
    runs = iter((losses, {"w": torch.tensor([w])}, 100.0, 0.2) for losses, w in (first, second))
    monkeypatch.setattr(software, "trained", lambda: next(runs))
    assert software.self_test().status == status


# the command


CHECKS = [
    Check("memory", "ok", "much", "", False, 0.1),
    Check("[extra]", "warn", "a[b] " + "long " * 40, "pip install -e .[extra]", False, 0.1),
]
BAD = Check("results folder", "fail", "/x/" + "y" * 100, "another", True, 0.1)


@pytest.fixture
def found(monkeypatch):
    """What ``doctor`` will find, to be filled."""
    checks = []
    monkeypatch.setattr("benchmark.doctor.examine.examine", lambda *_: checks)
    return checks


def test_the_table_fits_eighty_columns_and_loses_nothing():
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(checks_table([*CHECKS, BAD]))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "y" * 100 in re.sub(r"\s", "", text)
    assert "pip install -e .[extra]" in text
    assert "a[b]" in text


def test_the_last_line_says_whether_runs_will_work():
    assert summary(CHECKS) == "1 ok, 1 warn, 0 fail in 0 s: `run` will work"
    assert summary([*CHECKS, BAD]).endswith("1 fail in 0 s: `run` will not work: results folder")


def test_exit_code_and_json(cli, found, tmp_path):
    found += CHECKS
    done = cli("doctor")
    assert done.exit_code == 0
    assert "`run` will work" in done.stdout
    found.append(BAD)
    done = cli("doctor", "--json", "-")
    assert done.exit_code == 1
    rows = json.loads(done.stdout)
    assert [r["status"] for r in rows] == ["ok", "warn", "fail"]
    assert set(rows[0]) == {"name", "status", "seen", "advice", "needed", "seconds"}
    done = cli("doctor", "--json", tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text()) == rows
    assert "will not work" in done.stdout


def test_data_and_ray_are_asked_for_only_where_given(tmp_path):
    without = [q.name for q in questions(tmp_path, None, False, Told())]
    with_both = [q.name for q in questions(tmp_path, tmp_path, True, Told())]
    assert [name for name in with_both if name not in without] == ["data", "Ray"]
    assert [name for name in with_both if name in without] == without
    assert len(set(with_both)) == len(with_both)
    assert with_both[-3:] == ["mixed precision", "same bits", "self-test"]


@pytest.mark.slow
def test_a_real_examination(tmp_path):
    done = subprocess.run(
        [sys.executable, "cli.py", "doctor", "--results", str(tmp_path / "runs"), "--json", "-"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 0, rows
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
    for name in ("packages", "imports", "results folder", "same bits", "self-test"):
        assert rows[name]["status"] == "ok", rows[name]
    assert "two runs from one seed are alike" in rows["self-test"]["seen"]
