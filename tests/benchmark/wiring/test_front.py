"""Searches for a front, on tiny networks: what they write, resume and refuse."""

import json
import shlex
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from benchmark.experiment.config import FrontConfig, SearchConfig, make_config
from benchmark.experiment.plan import PlannedRun, resolve
from benchmark.results.result import Result as Run
from benchmark.sweep.rung import trainer
from benchmark.wiring import costs
from benchmark.wiring import search as searching
from benchmark.wiring.front import search as front_search
from benchmark.wiring.front.race import Pace, Trainer
from benchmark.wiring.front.record import Front, read_front
from benchmark.wiring.front.search import search_front
from common.errors import DataError, UsageError
from common.progress import Silent
from models.connectivity import Connectivity, alive_stages
from tests.support import line

Cli = Callable[..., Result]
TINY: dict[str, Any] = {
    "backbone": "test_efficientnet", "image_size": "64", "limit": 8, "batch_size": 4, "steps": 20,
    "task": "depth",
}  # fmt: skip
SEARCHES = {"iterations": 2}
OPTIONS = (
    "--method", "front", "--jobs", "1", "--iterations", "2",
    *(f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name != "task"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def quiet() -> None:
    warnings.filterwarnings("ignore", message=".*samples in.*")


@pytest.fixture(autouse=True)
def timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for timing in ("TIMING", "BRIEFLY"):
        once = {"min_time": 0.0, "min_calls": 1, "warmup_time": 0.0}
        monkeypatch.setattr(costs, timing, once)


@pytest.fixture
def one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"gradient": front_search.SEARCHES["gradient"]}
    monkeypatch.setattr(front_search, "SEARCHES", few)


def front_of(
    output: Path, train: Callable[[Trainer], Trainer] | None = None, **values: Any
) -> Front:
    config = make_config({**TINY, "searches": SEARCHES, "candidates": 6, **values}, FrontConfig)
    with trainer(lambda *_: None, 1, "cpu", 1, 60.0, Silent()) as here:
        return search_front(config, output, train(here) if train else here)


def outcome(front: Front) -> list[tuple[str, float, list[float], dict[str, Any]]]:
    return [(w.file, w.score, w.rungs, w.origin) for w in front.wirings]


def test_a_front_is_written_with_its_control(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "a"
    result = cli(
        *("search", "--task", "depth", *OPTIONS, "--output", out),
        *("--candidates", "6", "--control", "random"),
    )
    assert result.exit_code == 0, result.output
    record = json.loads((out / "front.json").read_text())
    assert record["format"] == 1
    assert (record["metric"], record["higher_is_better"]) == ("abs_rel", False)
    assert record["rungs"] == [2, 7]
    assert record["steps"] == 20
    wirings = record["wirings"]
    assert len(wirings) == 2
    assert [w["score"] for w in wirings] == sorted(w["score"] for w in wirings)
    for wiring in wirings:
        assert {"file", "score", "interval", "ms", "macs", "params", "rungs", "origin"} <= set(
            wiring
        )
        loaded = Connectivity.load(out / wiring["file"])
        assert loaded.backbone == "test_efficientnet"
        assert loaded.alive().stages == loaded.stages
        assert wiring["rungs"][-1] == wiring["score"]
        assert wiring["interval"][0] <= wiring["score"] <= wiring["interval"][1]
        assert wiring["ms"] > 0
    assert Connectivity.load(out / "found.json") == Connectivity.load(out / record["found"])
    found = next(w for w in wirings if w["file"] == record["found"])
    alike = [w for w in wirings if w["alike"]]
    assert found["macs"] == min(w["macs"] for w in alike)
    # presets, short searches, and children of the best
    tried = {t["name"]: t for t in record["tried"]}
    assert len(tried) == 6
    sources = {t["origin"]["source"] for t in record["tried"]}
    assert {"preset", "change"} <= sources
    assert all(t["rungs"][0] is not None for t in record["tried"])
    assert sum(t["rungs"][1] is not None for t in record["tried"]) == 2
    control = record["control"]
    # three searches of 2 steps, six wirings of 2, two of 7: 32; seven would be 2·7 + 3·7
    assert control["candidates"] == 6
    assert set(control["kinds"]) == {"subset", "macs", "connections"}
    stem = Path(record["found"]).stem
    assert control["found"] == tried[stem]["rungs"][0]
    assert control["gain"] == pytest.approx((control["mean"] - control["found"]) / control["mean"])
    assert control["best"] == min(w["score"] for w in control["wirings"])
    assert 0 <= record["hypervolume"] <= 1
    for text in ("6 candidates, trained for 2, 7 of 20 steps", "6 random wirings", "best is"):
        assert text in " ".join(result.output.split())
    # a second call shows the same, and does nothing
    again = cli(
        *("search", "--task", "depth", *OPTIONS, "--output", out),
        *("--candidates", "6", "--control", "random"),
    )
    assert again.exit_code == 0
    assert "already finished" in again.stderr
    assert json.loads((out / "front.json").read_text()) == record
    picture = cli("draw", out, "-o", tmp_path / "front.svg")
    assert picture.exit_code == 0, picture.output
    assert "<svg" in (tmp_path / "front.svg").read_text()


def test_a_search_that_keeps_nothing_leaves_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # L1 with a weight that drops everything; twice, as a resumed search meets its record
    few = {"gradient": front_search.SEARCHES["gradient"]}
    monkeypatch.setattr(front_search, "SEARCHES", few)
    options = {"loss": "l1", "lambda_": 100.0, "ramp": "0,0", "iterations": 40, "noise": 0.0}
    with pytest.raises(Killed):
        front_of(tmp_path, dying(0), searches=options, candidates=4)
    front = front_of(tmp_path, searches=options, candidates=4)
    assert front.wirings
    assert not (tmp_path / "searches" / "gradient" / "found.json").exists()


def test_lengths_count_the_images_that_are_trained_on(tmp_path: Path) -> None:
    values = {name: value for name, value in TINY.items() if name != "steps"}
    config = make_config({**values, "epochs": 5, "candidates": 4}, FrontConfig)
    none = Trainer(lambda _: [], lambda _: [])
    search = front_search.FrontSearch(config, tmp_path, none, Silent(), 60.0)
    assert search.data["train"]["images"] == search.data["val"]["images"] == 8
    assert search.protocol.steps == 5 * 8 // 4


def test_the_recorded_command_is_the_same_search(cli: Cli, tmp_path: Path) -> None:
    values = {**TINY, "candidates": 4, "searches": {"iterations": 2, "connection_bn": False}}
    config = make_config(values, FrontConfig)
    words = shlex.split(front_search.command_of_front(config))
    assert words[:3] == ["python", "cli.py", "search"]
    assert words.count("--task") == words.count("--dataset") == 1
    assert words[words.index("--task") + 1] == "depth"
    assert words[words.index("--iterations") + 1] == "2"
    assert "--no-connection-bn" in words
    assert words[words.index("--method") + 1] == "front"
    again = cli(*words[2:], "--candidates", "1", "--output", tmp_path)
    assert "--candidates 1: 2 rungs need 3 or more" in line(again)


def test_overwriting_removes_no_folder_of_the_users(tmp_path: Path) -> None:
    mine = tmp_path / "front" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("kept")
    with trainer(lambda *_: None, 1, "cpu", 1, 60.0, Silent()) as here:
        config = make_config({**TINY, "budget_macs": 1, "candidates": 4}, FrontConfig)
        search = front_search.FrontSearch(config, tmp_path, here, Silent(), 60.0)
        search._remove()
    assert mine.read_text() == "kept"


@pytest.mark.slow
@pytest.mark.usefixtures("one_search")
def test_a_control_may_come_later_and_leaves_the_front_as_it_is(tmp_path: Path) -> None:
    at_once = front_of(tmp_path / "a", control="random")
    bare = front_of(tmp_path / "b")
    assert bare.control is None
    later = front_of(tmp_path / "b", control="random")
    assert outcome(bare) == outcome(later) == outcome(at_once)
    assert later.control is not None
    assert at_once.control is not None
    assert later.control.mean == at_once.control.mean


class Killed(Exception):
    """Stands for the end of a process."""


def dying(after: int) -> Callable[[Trainer], Trainer]:
    """A trainer whose process ends when ``after`` runs are done."""
    done = 0

    def make(real: Trainer) -> Trainer:
        def run(runs: Sequence[PlannedRun]) -> list[Run]:
            nonlocal done
            results: list[Run] = []
            for one in runs:
                if done == after:
                    raise Killed
                results += real.run([one])
                done += 1
            return results

        return Trainer(run, real.estimate)

    return make


@pytest.mark.slow
@pytest.mark.usefixtures("one_search")
def test_a_front_that_is_killed_in_any_rung_ends_alike(tmp_path: Path) -> None:
    whole = front_of(tmp_path / "whole")
    finished = len(list((tmp_path / "whole").glob("rungs/*/*/result.json")))
    for after in (0, 5, finished - 1):
        folder = tmp_path / str(after)
        with pytest.raises(Killed):
            front_of(folder, dying(after))
        before = {p: p.stat().st_mtime_ns for p in folder.glob("rungs/*/*/result.json")}
        assert len(before) == after
        front = front_of(folder)
        assert outcome(front) == outcome(whole)
        assert front.found == whole.found
        found = (folder / "found.json", tmp_path / "whole" / "found.json")
        assert found[0].read_bytes() == found[1].read_bytes()
        assert {p: p.stat().st_mtime_ns for p in before} == before, "finished runs are kept"


@pytest.mark.slow
@pytest.mark.parametrize(
    "executor",
    [
        ("--jobs", "2"),
        pytest.param(("--executor", "ray"), marks=pytest.mark.xdist_group("ray")),
        ("--executor", "slurm", "--slurm-option", "cluster=local"),
    ],
    ids=lambda options: options[1],
)
@pytest.mark.usefixtures("one_search")
def test_rungs_on_any_executor_give_the_same_bits(
    cli: Cli, tmp_path: Path, executor: tuple[str, ...]
) -> None:
    for module in {"ray": ["ray"], "slurm": ["submitit"]}.get(executor[1], []):
        pytest.importorskip(module)
    here = front_of(tmp_path / "here")
    options = [word for word in OPTIONS if word not in ("--jobs", "1")]
    words = ("--task", "depth", *options, "--candidates", "6", "--output", tmp_path / "there")
    result = cli("search", *words, *executor)
    assert result.exit_code == 0, result.output
    assert outcome(read_front(tmp_path / "there")) == outcome(here)


@pytest.mark.slow
@pytest.mark.usefixtures("one_search")
def test_another_seed_has_other_candidates(tmp_path: Path) -> None:
    origins = [
        [t.origin for t in front_of(tmp_path / str(seed), seed=seed).tried] for seed in (0, 1)
    ]
    assert origins[0] != origins[1]


@pytest.mark.slow
@pytest.mark.usefixtures("one_search")
def test_other_settings_are_refused_before_and_after_the_end(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        front_of(tmp_path, dying(1))
    with pytest.raises(UsageError, match="with other settings was begun there"):
        front_of(tmp_path, seed=1)
    front_of(tmp_path)
    with pytest.raises(UsageError, match="a front of depth on scenes with test_efficientnet and"):
        front_of(tmp_path, seed=1)


@pytest.mark.usefixtures("one_search")
def test_a_wiring_that_cannot_be_trained_is_left_out(tmp_path: Path) -> None:
    def spoiling(*names: str) -> Callable[[Trainer], Trainer]:
        def make(real: Trainer) -> Trainer:
            def run(runs: Sequence[PlannedRun]) -> list[Run]:
                results = real.run(runs)
                for result in results:
                    if not names or Path(result.config.decoder).stem in names:
                        result.status, result.error = "failed", "the loss is nan"
                return results

            return Trainer(run, real.estimate)

        return make

    front = front_of(tmp_path / "a", spoiling("encoder-sum", "encoder-sum-child1"))
    left = {t.name for t in front.tried if t.rungs[0] is None}
    assert "encoder-sum" in left
    assert not {Path(w.file).stem for w in front.wirings} & left
    with pytest.raises(DataError, match=r"no wiring could be trained: see result\.json"):
        front_of(tmp_path / "b", spoiling())


@pytest.mark.usefixtures("one_search")
def test_damaged_files_of_a_front_are_named(tmp_path: Path) -> None:
    front_of(tmp_path)
    path = tmp_path / "front.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "format": 2}))
    with pytest.raises(UsageError, match=r"front\.json: not the record of a front \(format"):
        read_front(tmp_path)
    path.write_text("{")
    with pytest.raises(UsageError, match=r"front\.json: not the record of a front"):
        read_front(tmp_path)
    path.unlink()
    with pytest.raises(UsageError, match=r"front\.json: not there"):
        read_front(tmp_path)
    (tmp_path / "plan.json").write_text('{"config": 1}')
    with pytest.raises(DataError, match=r"plan\.json: not readable .*--overwrite"):
        front_of(tmp_path)


@pytest.mark.usefixtures("one_search")
def test_a_budget_that_no_candidate_meets_names_the_cheapest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--budget-macs 1000: no candidate meets it: the cheapes"):
        front_of(tmp_path / "a", budget_macs=1000)
    with pytest.raises(UsageError, match=r"--budget-ms 1e-06: no candidate meets it: the cheapest"):
        front_of(tmp_path / "b", budget_ms=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("one_search")
def test_a_budget_leaves_out_what_is_dearer(tmp_path: Path) -> None:
    free = front_of(tmp_path / "a")
    macs = sorted(t.macs for t in free.tried)
    front = front_of(tmp_path / "b", budget_macs=macs[3])
    assert front.tried
    assert max(t.macs for t in front.tried) <= macs[3]


@pytest.mark.slow
@pytest.mark.usefixtures("one_search")
def test_time_to_spend_decides_on_the_number_of_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def estimating(seconds: float) -> Callable[[Trainer], Trainer]:
        return lambda real: Trainer(
            real.run, lambda runs: [100.0, seconds] * (len(runs) // 2), lanes=1
        )

    # a candidate costs 6 + 6/3 seconds, of the minute some go to the search
    front = front_of(tmp_path / "a", estimating(6.0), minutes=1, candidates=None)
    assert 5 <= len(front.tried) <= 7
    # on to the second rung goes what the rest of the minute allows: here all of them
    assert len(front.wirings) == len(front.tried)
    ends: list[float] = []

    class Noted(Pace):
        def __init__(self, deadline: float) -> None:
            super().__init__(deadline)
            ends.append(self.left)

    monkeypatch.setattr(front_search, "Pace", Noted)
    for name in ("front.json", "plan.json"):  # as if killed in the last rung
        (tmp_path / "a" / name).unlink()
    front_of(tmp_path / "a", estimating(6.0), minutes=1, candidates=None)
    assert ends == [pytest.approx(60 - front.seconds["searches"] - front.seconds["rungs"], abs=1)]
    with pytest.raises(UsageError, match=r"--minutes 1: leaves time for 0 wirings, and 2 rungs ne"):
        front_of(tmp_path / "b", estimating(600.0), minutes=1, candidates=None)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--candidates", "9", "--minutes", "1"), "--minutes: 1: give it or --candidates, not bot"),
        (("--candidates", "2"), "--candidates 2: 2 rungs need 3 or more"),
        (("--rungs", "0.5,0.1"), "--rungs: 0.5,0.1 do not grow within 0…1"),
        (("--rungs", "0.5,2"), "--rungs: 0.5,2 do not grow within 0…1"),
        (("--epochs", "2"), "--epochs: 2: give it or --steps, not both"),
        (("--inputs", "3"), "--inputs: is for one training: give --method sparsemask, maskconnect"),
        (("--no-merge",), "--merge: is for one training"),
        (("--resources", "cpus=2"), "--resources: is for --executor ray or slurm"),
        (("--iterations", "many"), "--iterations: "),
        (("--preset", "paper"), "--preset paper: is one search: give --method sparsemask"),
        (("--tensorboard",), "--tensorboard: is for the other methods"),
    ],
)
def test_options_that_do_not_fit(
    cli: Cli, tmp_path: Path, options: tuple[str, ...], text: str
) -> None:
    result = cli("search", "--task", "depth", *OPTIONS, "--output", tmp_path / "a", *options)
    assert result.exit_code == 2
    assert text in line(result)
    assert not (tmp_path / "a").exists()


def test_options_of_a_front_are_for_a_front(cli: Cli, tmp_path: Path) -> None:
    result = cli("search", "--method", "maskconnect", "--candidates", "9", "--output", tmp_path)
    assert "--candidates: is for --method front, not maskconnect" in line(result)
    result = cli("search", "--method", "sparsemask", "--jobs", "2", "--output", tmp_path)
    assert "--jobs: is for --method front, not sparsemask" in line(result)


def test_a_front_and_a_search_of_one_training_never_share_a_folder(
    cli: Cli, tmp_path: Path
) -> None:
    for name, method, text in (
        ("search.json", "front", "a search of one training is there: name another --output"),
        ("front.json", "sparsemask", "a front is there: name another --output"),
    ):
        folder = tmp_path / method
        folder.mkdir()
        (folder / name).write_text("{}")
        (folder / "found.json").write_text("kept")
        options = ("--backbone", "test_efficientnet", "--limit", "8", "--batch-size", "4")
        result = cli("search", "--task", "depth", "--method", method, "--output", folder, *options)
        assert text in line(result)
        assert (folder / "found.json").read_text() == "kept"


@pytest.mark.parametrize(
    ("options", "method"),
    [
        ((), "front"),
        (("--iterations", "2"), "sparsemask"),
        (("--preset", "paper"), "sparsemask"),
        (("--method", "front", "--iterations", "2"), "front"),
    ],
)
def test_the_method_follows_from_options_where_none_is_named(
    cli: Cli, tmp_path: Path, options: tuple[str, ...], method: str
) -> None:
    only = cli("search", "--task", "depth", "--output", tmp_path, *options, "--candidates", "1")
    if method == "front":
        assert "--candidates 1: 2 rungs need 3 or more" in line(only)
    else:
        assert f"--candidates: is for --method front, not {method}" in line(only)


@pytest.mark.slow
@pytest.mark.usefixtures("one_search")
def test_one_front_for_several_tasks(tmp_path: Path) -> None:
    front = front_of(tmp_path, task="depth+saliency", candidates=4)
    assert (front.metric, front.higher_is_better) == ("skill", True)
    assert all(w.score < 1 and w.interval is not None for w in front.wirings)


@pytest.mark.parametrize("options", [("--direct-drop", "0.5"), ("--method", "perturbation")])
def test_passes_that_differ_between_processes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr("benchmark.experiment.distributed.asked", lambda: 2)
    config = resolve(
        make_config(
            {"task": "depth", "backbone": "test_efficientnet", "limit": 8, "batch_size": 4,
             options[0][2:].replace("-", "_"): options[1]},
            SearchConfig,
        )
    )  # fmt: skip
    with pytest.raises(UsageError, match=f"{options[0]}.*: is for one process, not for torchrun"):
        searching.search(config, tmp_path / "a")


def test_a_perturbation_is_a_search_of_its_own(cli: Cli, tmp_path: Path) -> None:
    options = [o for o in OPTIONS if not o.startswith("--steps")]
    options[options.index("front")] = "perturbation"
    del options[options.index("--jobs") : options.index("--jobs") + 2]
    result = cli("search", "--task", "depth", *options, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "search.json").read_text())
    losses = record["losses"]["without"]
    assert record["threshold"] == pytest.approx((losses.index(min(losses)) + 0.5) / len(losses))
    found = Connectivity.load(tmp_path / "found.json")
    assert alive_stages(found.stages) == dict(found.stages)
    # another threshold gives another of the sequence: the first is the network of all connections
    every = cli("prune", tmp_path, "--threshold", "0", "--no-merge", "--no-absorb")
    assert every.exit_code == 0, every.output
    assert Connectivity.load(tmp_path / "found.json").connections == len(record["final"])
