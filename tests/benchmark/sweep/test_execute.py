"""A sweep's runs: what is run, what is kept, what a failure stops, what is told."""

import io
import subprocess
import sys
import warnings

import pytest
from rich.console import Console

from benchmark.experiment.plan import plan, planned, run_key
from benchmark.results.store import read_all
from benchmark.run.data import shared_data
from benchmark.run.runner import Runner
from benchmark.sweep import estimate as estimating
from benchmark.sweep import prepare
from benchmark.sweep.estimate import Estimate, estimate
from benchmark.sweep.execute import Work, execute
from benchmark.sweep.prepare import open_data, stored, to_do
from benchmark.sweep.report import comparison, duration, plan_line, watching
from common.errors import UserError
from tests.support import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:.*samples in.*")

FILE = """
defaults:
  image-size: 32x64
  crop-size: 32x64
  epochs: 1
  batch-size: 3
  backbone: test_efficientnet
  limit: 4
data: {{camvid: "{camvid}"}}
runs:
  - tasks: [segmentation, depth]
    datasets: [camvid, scenes]
    decoders: [fcn, unet-connectivity]
"""


@pytest.fixture
def file(camvid, tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(FILE.format(camvid=camvid))
    return path


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No measuring before."""
    monkeypatch.setattr("benchmark.sweep.estimate._measure", lambda *_: None)


@pytest.fixture
def tried(monkeypatch):
    """The runs that were trained, in pretence: all but training, counting and timing is real.

    Those of ``broken`` fail.
    """

    class Tried(list):
        broken: tuple[tuple[str, str], ...] = ()

    tried = Tried()

    def pretend(self, run, tasks, data, result):
        config = run.config
        tried.append((config.task, config.dataset, config.decoder))
        if (config.task, config.decoder) in tried.broken:
            raise UserError("the loss is nan")
        result.data, result.columns, result.protocol = (
            data.facts,
            ["score"],
            f"{config.dataset}/{config.task}",
        )
        result.metrics, result.higher_is_better = {"score": 0.5}, {"score": True}
        result.seconds["train"] = 0.5
        result.counts, result.constant = {"images": 4}, {"metrics": {"score": 0.1}}

    monkeypatch.setattr(Runner, "_train_and_score", pretend)
    for name in ("_measure_size", "_time"):
        monkeypatch.setattr(Runner, name, lambda *_: None)
    return tried


def statuses(folder):
    return {(r.config.task, r.config.dataset, r.config.decoder): r.status for r in read_all(folder)}


def swept(configs, folder, watch=None, kept=None, unusable=None):
    """The results of a sweep of ``configs``, all of them pending."""
    runs = planned(configs, folder)
    watch = watch or Quiet()
    return execute(Work(runs, runs, kept or {}, unusable or {}, Runner(folder), watch))


def test_failures_are_recorded_and_a_second_sweep_runs_what_is_missing(cli, file, tmp_path, tried):
    results = tmp_path / "runs"
    tried.broken = (("segmentation", "unet-connectivity"),)
    first = cli("sweep", file, "--results", results)
    assert first.exit_code == 1
    assert len(tried) == 6
    assert list(statuses(results).values()).count("failed") == 2
    assert "left out: camvid has no depth" in first.stderr
    assert "6 runs, 6 of them to do" in first.stderr
    ended = [text for text in first.stderr.splitlines() if text.startswith("[")]
    assert [text.split("]")[0] for text in ended] == [f"[{n}/6" for n in range(1, 7)]
    assert sum("failed: the loss is nan" in text for text in ended) == 2
    assert "6 runs: 4 finished, 2 failed, 0 were finished before" in first.stderr
    assert (
        "failed: segmentation on camvid: unet-connectivity, test_efficientnet, seed 0 and 1 more"
        in first.stderr
    )
    assert "depth on scenes" in first.stdout

    tried.clear()
    tried.broken = ()
    dry = cli("sweep", file, "--results", results, "--dry-run")
    assert dry.exit_code == 0
    assert dry.stdout.count("failed before") == 2
    assert "6 runs, 2 of them to do" in dry.stdout
    assert not tried
    second = cli("sweep", file, "--results", results)
    assert second.exit_code == 0, second.stderr
    assert [name for *_, name in tried] == ["unet-connectivity"] * 2
    assert "6 runs: 2 finished, 0 failed, 4 were finished before" in second.stderr
    assert set(statuses(results).values()) == {"finished"}

    tried.clear()
    again = cli("sweep", file, "--results", results)
    assert again.exit_code == 0
    assert not tried
    assert "6 runs, 0 of them to do" in again.stderr


def test_cache_policies(cli, file, tmp_path, tried):
    results = tmp_path / "runs"
    file.write_text(file.read_text().replace(", depth]", "]").replace(", scenes]", "]"))
    none = cli("sweep", file, "--results", results, "--cache", "always")
    assert none.exit_code == 0
    assert "2 have no result" in none.stderr
    assert not tried
    assert cli("sweep", file, "--results", results).exit_code == 0
    assert len(tried) == 2
    tried.clear()
    shown = cli("sweep", file, "--results", results, "--cache", "always")
    assert not tried
    assert "2 were finished before" in shown.stderr
    assert "segmentation on camvid" in shown.stdout
    file.write_text("cache: never\n" + file.read_text())
    assert cli("sweep", file, "--results", results).exit_code == 0
    assert len(tried) == 2
    tried.clear()
    assert cli("sweep", file, "--results", results, "--cache", "only-missing").exit_code == 0
    assert not tried


def test_missing_data_fail_first_and_the_others_go_on(cli, file, camvid, tmp_path, tried):
    results = tmp_path / "runs"
    (camvid / "test.txt").unlink()
    done = cli("sweep", file, "--results", results)
    assert done.exit_code == 1
    assert "cannot run segmentation on camvid: " in done.stderr
    ended = [text for text in done.stderr.splitlines() if text.startswith("[")]
    assert all("camvid" in text and "list is missing" in text for text in ended[:2])
    assert {dataset for _, dataset, _ in tried} == {"scenes"}
    found = statuses(results)
    assert {f"{d} {s}" for (_, d, _), s in found.items()} == {"camvid failed", "scenes finished"}


def test_data_that_prove_damaged_stop_their_own_runs_only(cli, file, camvid, tmp_path, tried):
    (camvid / "train" / "1.png").write_bytes(b"")
    done = cli("sweep", file, "--results", tmp_path / "runs")
    assert done.exit_code == 1
    assert done.stderr.count("1.png") >= 2
    assert "Traceback" not in done.stderr
    assert [d for _, d, _ in tried] == ["scenes"] * 4


def test_a_variable_that_is_not_set(cli, file, tmp_path, tried, monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    done = cli("sweep", file, "--results", tmp_path, "--data", "camvid=${NOWHERE}", "--dry-run")
    assert done.exit_code == 1  # the plan is printed, and is none that runs as a whole
    assert "6 runs, 6 of them to do" in done.stdout
    assert "NOWHERE is not set: set it, or give --data camvid=PATH" in done.stderr


def runs_of(camvid, *decoders, **values):
    values = {
        "task": "segmentation", "dataset": "camvid", "data": camvid, "image_size": "32x64",
        "crop_size": "32x64", "epochs": 1, "batch_size": 3, "backbone": "test_efficientnet",
        **values,
    }  # fmt: skip
    return plan(values, {"decoder": decoders})


class Quiet:
    def __init__(self):
        self.ends = []

    def begin(self, title, steps): ...
    def step(self, note=""): ...
    def message(self, text): ...
    def detail(self, text): ...
    def started(self, config): ...
    def ended(self, result):
        self.ends.append(result)


@pytest.mark.slow
def test_each_comparison_is_timed_as_soon_as_it_is_complete(camvid, tmp_path, monkeypatch):
    runs = [*runs_of(camvid, "fcn"), *runs_of(camvid, "fcn", image_size=64, crop_size=64),
            *runs_of(camvid, "unet-connectivity")]  # fmt: skip
    order = []
    for name in ("one", "complete"):
        method = getattr(Runner, name)

        def spy(self, what, *rest, name=name, method=method):
            names = [run.config.decoder for run in ([what] if name == "one" else what)]
            order.append((name, names[0] if name == "one" else names))
            return method(self, what, *rest)

        monkeypatch.setattr(Runner, name, spy)
    done = swept(runs, tmp_path, Quiet())
    assert order == [
        ("one", "fcn"), ("one", "unet-connectivity"), ("complete", ["fcn", "unet-connectivity"]),
        ("one", "fcn"), ("complete", ["fcn"]),
    ]  # fmt: skip
    assert [result.key for result in done] == [run_key(config) for config in runs]
    assert done[0].speed["interleaved_with"] == ["unet-connectivity"]
    assert done[1].speed["interleaved_with"] == []


def test_an_impossible_network_and_a_defect_do_not_stop_a_sweep(camvid, tmp_path, monkeypatch):
    monkeypatch.setattr(Runner, "_time", lambda *_: None)
    fixed = {"backbone": "coatnet_pico_rw_224", "backbone_args": {"img_size": 224}}
    runs = [*runs_of(camvid, "fcn", **fixed), *runs_of(camvid, "fcn")]
    watch = Quiet()
    done = swept(runs, tmp_path, watch)
    assert [result.status for result in done] == ["failed", "finished"]
    assert (
        "takes images of 224×224 only"
        in dict(stored(planned(runs, tmp_path)))[run_key(runs[0])].error
    )

    def broken(*_):
        raise RuntimeError("a reader's defect\nin detail")

    monkeypatch.setattr(prepare, "open_splits", broken)
    opened, unusable = open_data(planned(runs, tmp_path))
    assert not opened
    found = dict(stored(planned(runs, tmp_path)))
    done = swept(runs, tmp_path, watch, found, unusable)
    assert done[1].error == "RuntimeError: a reader's defect"
    kept = dict(stored(planned(runs, tmp_path)))[run_key(runs[1])]
    assert kept.status == "finished"  # what was finished stays, the failure is beside it


def test_results_that_cannot_be_written_stop_a_sweep(camvid, tmp_path):
    (tmp_path / "file").write_text("")
    runs = runs_of(camvid, "fcn")
    with pytest.raises(UserError, match="cannot be written"):
        swept(runs, tmp_path / "file" / "runs", Quiet())


def test_what_a_cache_policy_runs(camvid, tmp_path, tried):
    runs = planned(runs_of(camvid, "fcn", "unet-connectivity"), tmp_path)
    runner = Runner(tmp_path)
    execute(Work(runs[:1], runs[:1], {}, {}, runner, Quiet()))
    runner.fail(runs[1], UserError("why"))
    found = {key: result.status for key, result in stored(runs)}
    assert to_do(runs, found, "only-missing") == runs[1:]
    assert to_do(runs, found, "always") == []
    assert to_do(runs, found, "never") == runs


def test_estimate_from_a_finished_run_and_from_nothing(camvid, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = runs_of(camvid, "fcn", "unet-connectivity", seed=1)
        (result,) = swept(runs[:1], tmp_path, Quiet())
        longer = runs_of(camvid, "fcn", seed=2, epochs=3)
        opened, _ = open_data(planned([*runs, *longer], tmp_path))
    result.seconds |= {"train": 10.0, "total": 14.0, "time": 1.0, "data": 2.0}
    seeds = runs_of(camvid, "fcn", seed=3, epochs=3)
    told = estimate(planned([*longer, *seeds, *runs[1:]], tmp_path), [result], opened)
    assert told[run_key(longer[0])] == Estimate(10 * 3 + 4 + 1 + 2, "as finished runs")
    # the data are read once, the network is timed once
    assert told[run_key(seeds[0])] == Estimate(10 * 3 + 4, "as finished runs")
    assert told[run_key(runs[1])] == Estimate(None, "unknown")
    assert estimate(planned(longer, tmp_path), [result], {})[run_key(longer[0])].seconds is None
    result.environment["device"] = "another machine"
    assert estimate(planned(longer, tmp_path), [result], opened)[run_key(longer[0])].seconds is None


def test_estimate_from_what_was_measured(camvid, tmp_path, monkeypatch):
    """Seconds a step × steps, an image × images; another decoder by its multiply-accumulates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fcn, other = runs_of(camvid, "fcn", "unet-connectivity", epochs=5, validate_every=2)
        opened, _ = open_data(planned([fcn, other], tmp_path))
    rates = {"step": 3.0, "build": 0.25, "read": 0.5, "cached": True, "validated": 2, "scored": 4}

    def measured(runs, opened, found, end):
        network, scoring = estimating._network(fcn), estimating._scoring(fcn)
        found.macs[network] = estimating._macs(fcn)
        for name, value in rates.items():
            getattr(found, name)[network if name in ("step", "build") else scoring] = value

    def seconds(step, build):
        # 6 images in batches of 3: 2 steps × 5 epochs; 2 images validated 3 times, 3 scored
        return step * 2 * 5 + 3 * 2 * 2 + 3 * 4 + 2 * build + 20 * step / (3 * 3)

    monkeypatch.setattr(estimating, "_measure", measured)
    told = estimate(planned([fcn, other], tmp_path), [], opened)
    assert told[run_key(fcn)].source == "measured"
    assert told[run_key(fcn)].seconds == pytest.approx(seconds(3, 0.25) + 0.5 * 11)  # reads all
    scaled = 3 * estimating._macs(other) / estimating._macs(fcn)
    assert told[run_key(other)].source == "scaled by MACs"
    assert told[run_key(other)].seconds == pytest.approx(seconds(scaled, 0.5))
    wide = other.model_copy(update={"width": 128})
    assert estimating._macs(wide) > estimating._macs(other)
    told = estimate(planned([wide], tmp_path), [], opened)
    assert told[run_key(wide)].source == "scaled by MACs"
    rates["cached"] = False  # each step waits for its images, unless workers read them
    assert estimate(planned([fcn], tmp_path), [], opened)[run_key(fcn)].seconds == pytest.approx(
        seconds(3 + 3 * 0.5, 0.25) + 0.5 * 11
    )


def test_durations_and_plan_lines(camvid, tmp_path):
    assert [duration(s) for s in (0.2, 59.4, 129, 12_000, 356_400)] == [
        "1 s", "59 s", "2 min 9 s", "3 h 20 min", "4 d 3 h",
    ]  # fmt: skip
    runs = planned(runs_of(camvid, "fcn", "unet-connectivity", "sparsemask"), tmp_path)
    keys = [run.key for run in runs]
    told = {keys[0]: Estimate(60, "measured"), keys[1]: Estimate(30, "measured")}
    assert plan_line(runs, runs[:2], told) == (
        "3 runs, 2 of them to do: about 1 min 30 s (2 measured)"
    )
    told[keys[2]] = Estimate(None, "unknown")
    assert "without the unknown ones (2 measured, 1 unknown)" in plan_line(runs, runs, told)
    assert comparison(told, 100) == "estimated 1 min 30 s, took 1 min 40 s"
    assert comparison({}, 100) == "took 1 min 40 s"


def test_the_live_table(camvid, tmp_path):
    runs = planned(runs_of(camvid, "fcn", "unet-connectivity"), tmp_path)
    told = {run.key: Estimate(600.0, "measured") for run in runs}
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    said = []
    with watching(runs, told, said.append, console=screen) as watch:
        watch.started(runs[0])
        watch.begin("train [fcn]", 4)
        watch.step("loss [0.1]")
        watch.ended(Runner(tmp_path).fail(runs[0], UserError("why [not]")))
        watch.started(runs[1])
        watch.begin("train", 2)
        page = Console(file=io.StringIO(), width=120)
        page.print(watch)
    text = page.file.getvalue()
    assert "segmentation" in text
    counts = next(row for row in text.splitlines() if "segmentation   camvid" in row)
    assert counts.split() == ["segmentation", "camvid", "1", "1"]  # running, failed; none left
    assert "about 10 min 0 s left" in text
    assert "unet-connectivity" in text
    assert "failed: why [not]" in screen.file.getvalue()
    assert said == []


@pytest.mark.slow
def test_measured_estimates(camvid, tmp_path, monkeypatch):
    monkeypatch.undo()
    warnings.filterwarnings("ignore", message=".*samples in.*")
    configs = [*runs_of(camvid, "fcn", "unet-connectivity"), *runs_of(camvid, "fcn", seed=1),
               *runs_of(camvid, "fcn", workers=2, epochs=20)]  # fmt: skip
    runs = planned(configs, tmp_path)
    opened, _ = open_data(runs)
    assert shared_data(configs[0]) in opened
    told = [estimate(runs, [], opened)[run.key] for run in runs]
    assert {e.source for e in told} == {"measured"}
    assert all(e.seconds > estimating.TIMING for e in told[:2])  # the first of their networks
    assert all(e.seconds > 0 for e in told)
    together = estimate(runs, [], opened)  # of one measurement, whatever else the machine does
    assert together[runs[3].key].seconds > together[runs[2].key].seconds
    one_network = estimate(runs, [], opened, budget=1e-9)
    assert {e.source for e in one_network.values()} == {"unknown"}


@pytest.mark.slow
def test_a_sweep_in_a_process_of_its_own(tmp_path):
    """A run that diverges in the middle; the second sweep repeats only that one."""
    path = tmp_path / "sweep.yaml"
    text = """
    results: {results}
    defaults: {{image-size: 32x32, epochs: 1, limit: 8, batch-size: 4, backbone: test_resnet}}
    runs:
      - {{tasks: [depth, saliency], decoders: [fcn, unet-connectivity, sparsemask]}}
    overrides:
      - when: {{task: depth, decoder: unet-connectivity}}
        set: {{optimizer: sgd, clip-grad: 0, lr: {rate}}}
    """

    def sweep(rate, *options):
        path.write_text(text.format(results=tmp_path / "runs", rate=rate))
        done = subprocess.run(
            [sys.executable, "cli.py", "sweep", path, *options],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done

    first = sweep("1.0e+30")
    assert first.returncode == 1, first.stderr
    assert "5 finished, 1 failed" in first.stderr
    assert "the loss is" in first.stderr
    assert "estimated" in first.stderr
    again = sweep("1.0e+30", "--dry-run")
    assert again.stdout.count("done") == 5
    assert again.stdout.count("failed before") == 1
    assert again.stdout.count("as finished runs") <= 1
    mended = sweep("0.01")
    assert mended.returncode == 0, mended.stderr
    assert "1 finished, 0 failed, 5 were finished before" in mended.stderr
    speeds = [result.speed for result in read_all(tmp_path / "runs") if result.speed]
    assert len(speeds) == 6
    assert "--cache always" in sweep("0.01", "--retime", "--cache", "always").stderr
    assert sweep("0.01", "--retime").returncode == 0
    sessions = {speed["session"] for speed in speeds}
    assert not sessions & {r.speed["session"] for r in read_all(tmp_path / "runs") if r.speed}
