"""Sweeps on workers: the same bits as here, every run once, whatever dies."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from benchmark.experiment.plan import plan, planned, run_key
from benchmark.results.layout import FILE
from benchmark.results.store import load, read_all
from benchmark.run.runner import Runner
from benchmark.sweep.execute import Work, execute
from benchmark.sweep.executors.base import Answer, Ended, Started
from benchmark.sweep.executors.choice import make_executor
from benchmark.sweep.executors.local import LocalPool
from benchmark.sweep.executors.work import SMALL, perform
from common.errors import UsageError, UserError
from tests.support import ROOT, folder_of, line

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*samples in.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def runs_of(camvid, *decoders, seeds=(0,), **values):
    values = {
        "task": "segmentation", "dataset": "camvid", "data": camvid, "image_size": "32x64",
        "crop_size": "32x64", "epochs": 1, "batch_size": 3, "backbone": "test_resnet",
        "threads": 1, **values,
    }  # fmt: skip
    return plan(values, {"decoder": decoders, "seed": seeds})


class Watching:
    """Keeps what it is told."""

    def __init__(self):
        self.begun, self.ends, self.messages = [], [], []

    def begin(self, title, steps): ...
    def step(self, note=""): ...
    def detail(self, text): ...
    def message(self, text):
        self.messages.append(text)

    def started(self, run, where=""):
        self.begun.append((run.key, where))

    def ended(self, result):
        self.ends.append(result.key)


class Here:
    """An executor that works in this process, one job after another.

    deaths: of each run, by key, how its jobs die: before they begin, or when the result is written.
    """

    room, lanes, threads, same_files, elsewhere = 2, 2, 1, True, False

    def __init__(self, deaths=None):
        self.deaths = deaths or {}
        self.queue, self.done = [], []

    def __enter__(self):
        return self

    def __exit__(self, *_): ...

    def submit(self, jobs):
        self.queue += jobs
        assert len(self.queue) <= self.room

    def wait(self):
        job = self.queue.pop(0)
        self.done.append(job)
        key = job.name.partition("-")[0]
        how = self.deaths.get(key, []).pop(0) if self.deaths.get(key) else None
        if how == "before":
            return [Ended(job, None, "its process was ended by SIGKILL")]
        answer = perform(self.changed(job))
        return [Started(job, "host", 1), Ended(job, None if how == "after" else answer, "gone")]

    def changed(self, job):
        return job


def sweep(executor, configs, folder, **options):
    watch = Watching()
    runs = planned(configs, folder)
    work = Work(runs, runs, {}, {}, Runner(folder, listener=watch), watch)
    return execute(work, executor, **options), watch


def scores(results):
    return [(r.key, r.status, r.metrics, r.intervals, r.history) for r in results]


@pytest.fixture
def trained(monkeypatch):
    """The runs that were trained, in pretence."""
    trained = []

    def pretend(self, run, tasks, data, result):
        trained.append(run.key)
        result.data, result.columns, result.protocol = data.facts, ["score"], "p"
        result.metrics, result.higher_is_better = {"score": 0.5}, {"score": True}
        result.counts, result.constant = {"images": 4}, {"metrics": {"score": 0.1}}
        run.folder.mkdir(exist_ok=True)
        (run.folder / "metrics.jsonl").write_text("{}\n")

    monkeypatch.setattr(Runner, "_train_and_score", pretend)
    monkeypatch.setattr(Runner, "_time", lambda *_: None)
    return trained


def test_a_run_whose_worker_dies_is_run_again_then_failed(camvid, tmp_path, trained):
    runs = runs_of(camvid, "fcn", "unet-connectivity", "hed")
    keys = [run_key(run) for run in runs]
    executor = Here({keys[0]: ["before"], keys[1]: ["before", "before"]})
    done, watch = sweep(executor, runs, tmp_path)
    assert [r.status for r in done] == ["finished", "failed", "finished"]
    assert "its worker died, 2 times: its process was ended by SIGKILL" in done[1].error
    assert load(folder_of(runs[1], tmp_path)).error == done[1].error
    assert sorted(watch.ends) == sorted(keys)  # each once
    assert sorted(trained) == sorted([keys[0], keys[2]])
    assert sum("run again (1 of 1)" in text for text in watch.messages) == 2
    assert not list(tmp_path.glob(".sweep-*"))


def test_a_result_finished_just_before_the_death_counts(camvid, tmp_path, trained):
    runs = runs_of(camvid, "fcn", "hed")
    key = run_key(runs[0])
    done, watch = sweep(Here({key: ["after"]}), runs, tmp_path)
    assert [r.status for r in done] == ["finished"] * 2
    assert sorted(trained) == sorted(map(run_key, runs))
    assert sorted(watch.ends) == sorted(map(run_key, runs))
    # an older one does not
    done, _ = sweep(Here({key: ["before"]}), runs, tmp_path, retries=0)
    assert done[0].status == "failed"
    assert load(folder_of(runs[0], tmp_path)).status == "finished"


def test_unusable_data_are_tried_once(camvid, tmp_path, trained):
    (camvid / "train" / "1.png").write_bytes(b"")
    runs = runs_of(camvid, "fcn", "hed", "dss", "unet-connectivity")
    executor = Here()
    executor.room = 1
    done, watch = sweep(executor, runs, tmp_path)
    assert [r.status for r in done] == ["failed"] * 4
    assert all("1.png" in r.error for r in done)
    assert len(executor.done) == 1
    assert len(watch.ends) == 4


class Apart(Here):
    """Its workers do not see the results folder, nor the history of the code."""

    elsewhere = True

    def changed(self, job):
        settings = dataclasses.replace(job.settings, results="/nowhere", git={"commit": "c0ffee"})
        return dataclasses.replace(job, settings=settings)


def test_workers_without_the_folder_send_its_contents(camvid, tmp_path, trained, monkeypatch):
    monkeypatch.setattr("benchmark.sweep.workers.environment", lambda _: {
        "commit": "c0ffee", "uncommitted_changes": False})  # fmt: skip
    monkeypatch.setattr("benchmark.run.runner.environment", lambda _: {
        "commit": "", "device": "d", "threads": 1})  # fmt: skip
    runs = runs_of(camvid, "fcn", "hed")
    done, _ = sweep(Apart(), runs, tmp_path / "runs")
    assert [r.status for r in done] == ["finished"] * 2
    for run in runs:
        folder = folder_of(run, tmp_path / "runs")
        assert load(folder).environment["commit"] == "c0ffee"
        assert any(folder.rglob("metrics.jsonl"))
    monkeypatch.setattr("benchmark.sweep.executors.work.SMALL", 1)
    (tmp_path / "again").mkdir()
    done, watch = sweep(Apart(), runs[:1], tmp_path / "again")
    assert done[0].status == "finished"
    assert any("metrics.jsonl: too large to send, left in" in text for text in watch.messages)
    assert SMALL > 1


def test_results_that_cannot_be_written_end_the_sweep(camvid, tmp_path):
    class Stopping(Here):
        def wait(self):
            return [Ended(self.queue.pop(), Answer(stop="/x: cannot be written"))]

    with pytest.raises(UserError, match="/x: cannot be written"):
        sweep(Stopping(), runs_of(camvid, "fcn"), tmp_path)
    assert not list(tmp_path.glob(".sweep-*"))


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("local", {"address": "auto"}, "--address: is for --executor ray"),
        ("ray", {"slurm": {"partition": "x"}}, "--slurm-option: is for --executor slurm"),
        ("local", {"resources": "cpus=2"}, "--jobs divides the threads"),
        ("ray", {"resources": "cpu=2"}, "--resources cpu=2: expected cpus=N,gpus=N"),
        ("ray", {"resources": "cpus=0"}, "--resources cpus=0: expected"),
        ("ray", {"resources": "gpus=nan"}, "--resources gpus=nan: expected"),
        ("ray", {"resources": "gpus=inf"}, "--resources gpus=inf: expected"),
        ("slurm", {"slurm": {"cluster": "moon"}}, "cluster=moon: is slurm or local"),
        ("slurm", {"slurm": {"cluster": "local", "mem-gb": "x"}}, "mem-gb=x: is not a number"),
        ("slurm", {}, "no sbatch here"),
    ],
)
def test_wrong_options(camvid, tmp_path, name, options, part, monkeypatch):
    if name == "slurm":
        pytest.importorskip("submitit")
        monkeypatch.setenv("PATH", str(tmp_path))
    if "resources" not in options and name == "ray":
        pytest.importorskip("ray")
    with pytest.raises(UsageError, match=re.escape(part)):
        make_executor(name, planned(runs_of(camvid, "fcn"), tmp_path), tmp_path, **options)


@pytest.mark.parametrize(("name", "module"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_told_with_its_extra(cli, tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    done = cli("sweep", "demo", "--executor", name, "--results", tmp_path, "--dry-run")
    assert done.exit_code == 2
    assert f"pip install -e .[{name}]" in line(done)


def test_local_choice(camvid, tmp_path, monkeypatch):
    configs = runs_of(camvid, "fcn")
    runs = planned(configs, tmp_path)
    assert make_executor("local", runs, tmp_path) is None
    assert make_executor("local", runs, tmp_path, jobs=1) is None
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    pool = make_executor("local", runs, tmp_path, jobs=3)
    assert (pool.room, pool.threads) == (3, 2)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    gpu = planned([c.model_copy(update={"device": "cuda"}) for c in configs], tmp_path)
    pool = make_executor("local", gpu, tmp_path)
    assert [v["CUDA_VISIBLE_DEVICES"] for v in pool.free] == ["4", "6"]
    with pytest.raises(UsageError, match="--jobs 3: each run has a GPU of its own, here are 2"):
        make_executor("local", gpu, tmp_path, jobs=3)
    named = planned([c.model_copy(update={"device": "cuda:1"}) for c in configs], tmp_path)
    with pytest.raises(UsageError, match="cuda:1 is one GPU"):
        make_executor("local", named, tmp_path)


class Killing:
    """An executor whose first job on ``key`` is killed once it has begun."""

    def __init__(self, inner, key):
        self.inner, self.key, self.killed = inner, key, None

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __enter__(self):
        self.inner.__enter__()
        return self

    def __exit__(self, *parts):
        return self.inner.__exit__(*parts)

    def wait(self):
        happened = self.inner.wait()
        for event in happened:
            mine = isinstance(event, Started) and event.job.name.startswith(self.key)
            if mine and self.killed is None:
                self.killed = event.pid
                os.kill(event.pid, signal.SIGKILL)
        return happened


def finishes_though_one_is_killed(executor, camvid, folder):
    """A sweep of four runs; the second is killed in its middle. Every run completes once."""
    runs = runs_of(camvid, "fcn", "unet-connectivity", seeds=(0, 1), epochs=10)
    killing = Killing(executor, run_key(runs[1]))
    done, watch = sweep(killing, runs, folder)
    assert killing.killed is not None
    assert [r.status for r in done] == ["finished"] * 4, [r.error for r in done]
    assert sorted(watch.ends) == sorted(map(run_key, runs))
    assert sum("its worker died" in text for text in watch.messages) == 1, watch.messages
    assert len(list(read_all(folder))) == 4
    assert all(r.speed is not None for r in done), watch.messages
    here = sweep(None, runs[:2], folder / "here")[0]
    assert [r.metrics for r in here] == [r.metrics for r in done[:2]]


def test_a_worker_that_died_idle_gets_no_job():
    with LocalPool(1, 1) as pool:
        worker = pool._idle()
        worker.process.kill()
        worker.process.join()
        other = pool._idle()
        assert other is not worker
        assert other.process.is_alive()


@pytest.mark.slow
def test_a_local_pool_gives_the_same_bits(camvid, tmp_path):
    runs = runs_of(camvid, "fcn", "unet-connectivity", seeds=(0, 1))
    here = sweep(None, runs, tmp_path / "here")[0]
    done, watch = sweep(LocalPool(2, 1), runs, tmp_path / "pool")
    assert [(r.key, r.metrics, r.intervals) for r in here] == [
        (r.key, r.metrics, r.intervals) for r in done
    ]
    assert [h.history == d.history for h, d in zip(here, done, strict=True)] == [True] * 4
    assert {r.environment["threads"] for r in done} == {1}
    assert all(r.speed is not None for r in done)
    assert len({where for _, where in watch.begun}) == 1


@pytest.mark.slow
def test_a_local_pool_with_a_killed_worker(camvid, tmp_path):
    finishes_though_one_is_killed(LocalPool(2, 1), camvid, tmp_path)


RAY = pytest.mark.xdist_group("ray")  # one cluster at a time


@pytest.mark.slow
@RAY
def test_ray_with_a_killed_worker(camvid, tmp_path):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        runs = runs_of(camvid, "fcn")
        executor = make_executor("ray", planned(runs, tmp_path), tmp_path, address=cluster.address)
        finishes_though_one_is_killed(executor, camvid, tmp_path)
        assert executor.lanes == 2
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_submitit_with_a_killed_job(camvid, tmp_path):
    pytest.importorskip("submitit")
    options = {"cluster": "local"}
    executor = make_executor(
        "slurm", planned(runs_of(camvid, "fcn"), tmp_path), tmp_path, jobs=2, slurm=options
    )
    finishes_though_one_is_killed(executor, camvid, tmp_path)


def ends(group: int) -> bool:
    """Whether within seconds no process of a group is left."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.parametrize(
    "executor", [("--jobs", "2"), pytest.param(("--executor", "ray"), marks=RAY)]
)
def test_ctrl_c_ends_the_workers_and_the_same_command_goes_on(tmp_path, executor):
    if "ray" in executor:
        pytest.importorskip("ray")
    path = tmp_path / "sweep.yaml"
    path.write_text(
        "defaults: {image-size: 32x32, epochs: 40, limit: 60, batch-size: 2, threads: 1,"
        " backbone: test_resnet}\nruns: [{task: depth, decoders: [fcn, unet-connectivity]}]\n"
    )
    command = [sys.executable, "cli.py", "sweep", path, "--results", tmp_path / "runs",
               *executor, "-v"]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    told = []
    for text in process.stderr:
        told.append(text)
        if "started on" in text:
            break
    states, end = tmp_path / "runs", time.monotonic() + 120
    while not list(states.glob("*/training/state.safetensors")):  # of a first epoch
        assert time.monotonic() < end
        time.sleep(0.1)
    stopped = time.time()
    os.killpg(process.pid, signal.SIGINT)
    told += process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 130
    assert any("the same command goes on with the rest" in text for text in told)
    assert not any("Traceback" in text for text in told), told
    saved = [p.stat().st_mtime for p in states.glob("*/training/state.safetensors")]
    assert max(saved) >= stopped
    assert ends(process.pid)  # nobody is left of its group; helpers of Python's own take a moment
    again = subprocess.run(
        [*command, "--set", "epochs=1", "--set", "limit=8"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stderr
    assert "2 finished" in again.stderr
    assert list((tmp_path / "runs").glob(f"*/{FILE}"))
