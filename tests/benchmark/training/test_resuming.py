"""A training that is stopped anywhere and started again ends with the bits of one that was not."""

import contextlib
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from benchmark.experiment import distributed
from benchmark.experiment.config import RunConfig, SearchConfig, make_config
from benchmark.experiment.plan import plan, resolve
from benchmark.results.layout import FILES, hand_over, tidy
from benchmark.results.store import read, save
from benchmark.run import runner as runner_module
from benchmark.training import keeper as resuming
from benchmark.training.keeper import Keeper
from benchmark.training.learner import Learner
from benchmark.training.scalars import ScalarLog
from benchmark.training.state_file import pack, unpack
from benchmark.wiring.search import search
from common import stopping
from common.errors import UserError
from common.files import locked
from common.progress import Silent
from tests.support import ROOT, folder_of, run_plan

Cli = Callable[..., Result]
VALUES = {
    "task": "depth", "dataset": "scenes", "image_size": "32x32", "limit": 10, "batch_size": 4,
    "backbone": "test_resnet", "epochs": 3, "lr": 0.01, "threads": 1,
}  # fmt: skip
STEPS = 3 * 2
WEIGHT = {"weight": torch.ones(1)}
"""A state; older safetensors read none without a tensor."""
NUMBERS = st.integers() | st.floats(allow_nan=False) | st.text() | st.booleans() | st.none()
STATES = st.dictionaries(
    st.text() | st.integers(),
    st.recursive(
        NUMBERS,
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
        max_leaves=8,
    ),
)


class Ears(Silent):
    """Hears messages; sends this process a signal, or raises, after training step ``at``."""

    def __init__(self, at: int = 0, act: Callable[[], object] | None = None) -> None:
        self.said: list[str] = []
        self.at, self.act, self.steps, self.training = at, act, 0, False

    def begin(self, title: str, steps: int) -> None:
        self.training = title.startswith(("train", "search"))
        self.steps = 0

    def step(self, note: str = "") -> None:
        self.steps += note.startswith("loss")
        if self.training and note.startswith("loss") and self.steps == self.at and self.act:
            self.act()

    def message(self, text: str) -> None:
        self.said.append(text)


def runs_of(decoder: str = "fcn", **values: Any) -> list[RunConfig]:
    return plan({**VALUES, **values}, {"decoder": [decoder]})


def made(results: Path, config: RunConfig) -> tuple[Any, ...]:
    """Of a finished run, what must be the same to the bit."""
    folder = folder_of(config, results)
    result = json.loads((folder / "result.json").read_bytes())
    weights = load_file(folder / "last.safetensors")
    same = {name: result[name] for name in ("status", "metrics", "intervals", "history", "steps",
                                            "best_epoch", "tasks")}  # fmt: skip
    files = {p.name: p.read_bytes() for p in folder.glob("samples/*")}
    log = (folder / "metrics.jsonl").read_text()
    assert not (folder / "training").exists()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    return same, {name: t.numpy().tobytes() for name, t in weights.items()}, files, log


# --- the file ------------------------------------------------------------------------------------


@given(STATES, st.lists(st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool])))
def test_a_state_comes_back_as_it_was(tmp_path_factory: Any, state: Any, types: Any) -> None:
    tensors = [torch.arange(6).reshape(2, 3).to(dtype) for dtype in types]
    path = tmp_path_factory.mktemp("state") / "a.safetensors"
    path.write_bytes(pack({"state": state, "tensors": tensors, "none": torch.empty(0)}))
    found = unpack(path)
    assert found["state"] == state
    assert [t.dtype for t in found["tensors"]] == types
    assert all(torch.equal(a, b) for a, b in zip(found["tensors"], tensors, strict=True))


def test_no_damage_goes_unnoticed(tmp_path: Path) -> None:
    whole = pack({"a": torch.arange(20.0), "b": [1, {"c": None}]})
    path = tmp_path / "a.safetensors"
    refused = 0
    for place in range(0, len(whole), 7):
        for damaged in (whole[:place], whole[:place] + b"\xa5" + whole[place + 1 :]):
            if damaged == whole:
                continue
            path.write_bytes(damaged)
            try:
                found = unpack(path)
            except UserError:
                refused += 1
            else:  # a blank of the header, or a name in it that nobody reads
                assert torch.equal(found["a"], torch.arange(20.0))
                assert found["b"] == [1, {"c": None}]
    assert refused > len(whole) // 7


@pytest.mark.parametrize("damage", ["newest", "both", "missing"])
def test_a_damaged_state_falls_back_to_the_one_before(tmp_path: Path, damage: str) -> None:
    keeper = Keeper(tmp_path, {"key": "k"})
    keeper.save(1, {"at": 1, "weight": torch.ones(2)})
    keeper.save(2, {"at": 2, "weight": torch.ones(2)})
    newest, before = (tmp_path / name for name in FILES)
    if damage == "missing":  # killed between two renamings
        newest.unlink()
    else:
        newest.write_bytes(newest.read_bytes()[:-3])
    if damage == "both":
        before.write_bytes(b"")
    ears = Ears()
    found = Keeper(tmp_path, {"key": "k"}, listener=ears)
    assert (found.state or {}).get("at") == (None if damage == "both" else 1)
    assert len(ears.said) == {"newest": 1, "both": 2, "missing": 0}[damage]
    assert all("damaged" in said for said in ears.said)
    other = Keeper(tmp_path, {"key": "other"}, listener=ears)
    assert other.state is None


# --- stopped and gone on -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"optimizer": "adamw", "lr": 0.003, "ema": 0.9, "score": "best"},
        {"task": "segmentation+depth", "loss_weighting": "dwa", "amp": True},
        {"task": "segmentation+depth", "loss_weighting": "uncertainty", "clip_grad": 1.0},
        {"decoder": "sparsemask", "validate_every": 2, "schedule": "cosine", "warmup": 0.3},
    ],
    ids=lambda values: "-".join(map(str, values)) or "plain",
)
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, values: dict[str, Any]) -> None:
    runs = runs_of(**values)
    run_plan(runs, tmp_path / "whole")
    expected = made(tmp_path / "whole", runs[0])
    for number, at in ((signal.SIGTERM, 1), (signal.SIGINT, 3), (signal.SIGTERM, 1)):
        with stopping.signals(), pytest.raises(stopping.Stopped) as stop:
            run_plan(
                runs, tmp_path / "cut", Ears(at, lambda number=number: signal.raise_signal(number))
            )
        assert stop.value.exit_code == 128 + number
    ears = Ears()
    (result,) = run_plan(runs, tmp_path / "cut", ears)
    assert made(tmp_path / "cut", runs[0]) == expected
    assert result.resumed == [1, 4, 5]
    assert [said for said in ears.said if said.startswith("resuming")] == [
        f"resuming {runs[0].decoder}, seed 0: at step 5 of {STEPS}, epoch 3 of 3"
    ]


def test_an_error_anywhere_costs_no_finished_epoch(tmp_path: Path) -> None:
    """As kill -9 would: nothing is saved at the moment itself."""
    runs = runs_of("sparsemask")
    run_plan(runs, tmp_path / "whole")

    def fail() -> None:
        raise SystemError("killed")

    for at in (2, 3, 1):
        ears = Ears(at, fail)
        (result,) = run_plan(runs, tmp_path / "cut", ears)
        assert result.error == "SystemError: killed"
    ears = Ears()
    (result,) = run_plan(runs, tmp_path / "cut", ears)
    assert result.resumed
    assert any("resuming sparsemask, seed 0: at step" in said for said in ears.said)
    assert made(tmp_path / "cut", runs[0]) == made(tmp_path / "whole", runs[0])
    assert result.seconds["total"] >= result.seconds["train"] > 0


def test_a_stop_while_scoring_does_not_train_again(tmp_path: Path) -> None:
    runs = runs_of()
    run_plan(runs, tmp_path / "whole")

    class Scored(Ears):
        def begin(self, title: str, steps: int) -> None:
            if title.startswith("score"):
                signal.raise_signal(signal.SIGTERM)

    with stopping.signals(), pytest.raises(stopping.Stopped):
        run_plan(runs, tmp_path / "cut", Scored())
    ears = Ears(1, lambda: pytest.fail("trained again"))
    (result,) = run_plan(runs, tmp_path / "cut", ears)
    assert result.resumed == [STEPS]
    assert made(tmp_path / "cut", runs[0]) == made(tmp_path / "whole", runs[0])


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize("values", [{}, {"optimizer": "adamw", "ema": 0.9, "score": "best"}])
def test_a_stop_while_validating_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], epoch: int
) -> None:
    runs = runs_of(**values)
    run_plan(runs, tmp_path / "whole")
    evaluate, calls = runner_module.evaluate, []

    def interrupted(*arguments: Any) -> None:
        calls.append(len(arguments))
        evaluate(*arguments)
        if len(calls) == epoch:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(runner_module, "evaluate", interrupted)
    with stopping.signals(), pytest.raises(stopping.Stopped):
        run_plan(runs, tmp_path / "cut")
    assert calls == [4] * epoch  # none of the test split's
    (result,) = run_plan(runs, tmp_path / "cut")
    assert result.resumed == [2 * epoch]
    assert result.steps == STEPS
    assert made(tmp_path / "cut", runs[0]) == made(tmp_path / "whole", runs[0])


@pytest.mark.parametrize("call", range(1, 4))
@pytest.mark.parametrize("what", ["save_checkpoint", "pack", "any_of"])
def test_a_stop_at_an_awkward_moment_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, call: int
) -> None:
    """Within the best network's writing or a state's, or just after nobody had a wish to stop."""
    runs = runs_of(score="best")
    run_plan(runs, tmp_path / "whole")
    place = {"save_checkpoint": runner_module, "pack": resuming, "any_of": distributed}[what]
    original, calls = getattr(place, what), []

    def interrupted(*arguments: Any) -> Any:
        calls.append(what)
        found = original(*arguments)
        if len(calls) == call:
            signal.raise_signal(signal.SIGTERM)
        return found

    monkeypatch.setattr(place, what, interrupted)
    ears = Ears()
    with stopping.signals(), pytest.raises(stopping.Stopped):
        run_plan(runs, tmp_path / "cut", ears)
    (result,) = run_plan(runs, tmp_path / "cut")
    assert result.resumed == [ears.steps]  # nothing is repeated
    assert result.steps == STEPS
    assert made(tmp_path / "cut", runs[0]) == made(tmp_path / "whole", runs[0])


def test_a_stop_while_a_search_ends_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {name: v for name, v in VALUES.items() if name != "epochs"}
    config = resolve(make_config({**values, "iterations": 3}, SearchConfig))
    whole = search(config, tmp_path / "whole")
    original = pack

    def interrupted(state: Any) -> bytes:
        signal.raise_signal(signal.SIGTERM)
        return original(state)

    monkeypatch.setattr(resuming, "pack", interrupted)
    with stopping.signals(), pytest.raises(stopping.Stopped):
        search(config, tmp_path / "cut")
    monkeypatch.undo()
    found = search(config, tmp_path / "cut")
    assert found.resumed == [config.iterations]
    assert found.final == whole.final


@pytest.mark.parametrize("left", ["states", "no states", "newer states"])
def test_what_a_process_killed_at_its_end_has_left(tmp_path: Path, left: str) -> None:
    """Between the result and the removal of the training's folder, or within the removal."""
    runs = runs_of(score="best")
    run_plan(runs, tmp_path)
    whole = made(tmp_path, runs[0])
    folder = folder_of(runs[0], tmp_path) / "training"
    keeper = Keeper(folder, {"of": "some run"})
    keeper.save(STEPS, {"weight": torch.ones(1)})
    (folder / "last.safetensors").write_bytes(b"")
    now = time.time() + (100 if left == "newer states" else -100)
    os.utime(folder / FILES[0], (now, now))
    if left == "no states":
        (folder / FILES[0]).unlink()
    run_plan(runs, tmp_path)  # finished: only looked at
    assert folder.exists() == (left != "states")  # newer ones: of an --overwrite under way
    ears = Ears()
    (again,) = run_plan(runs, tmp_path, ears, overwrite=True)
    assert again.resumed == []
    assert again.steps == STEPS
    assert made(tmp_path, runs[0]) == whole


def test_a_damaged_state_does_not_push_out_the_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Keeper(tmp_path, {})
    for step in (1, 2):
        keeper.save(step, {"at": step, "weight": torch.ones(2)})
    newest, before = (tmp_path / name for name in FILES)
    newest.write_bytes(b"damaged")
    found = Keeper(tmp_path, {})
    assert found.state is not None
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target == newest:
            raise SystemExit
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(SystemExit):
        found.save(3, {"at": 3, "weight": torch.ones(2)})
    assert unpack(before)["training"]["at"] == 1


def test_a_log_goes_on_where_its_state_was(tmp_path: Path) -> None:
    with ScalarLog(tmp_path) as log:
        log.write(10, {"loss": 1.0})
        kept = log.position
        log.write(20, {"loss": 2.0})
    with ScalarLog(tmp_path, position=kept) as log:
        assert log.position == kept
        log.write(20, {"loss": 2.0})
    rows = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20]


@pytest.mark.parametrize("method", ["sparsemask", "maskconnect"])
def test_a_stopped_search_goes_on_to_the_same_bits(tmp_path: Path, method: str) -> None:
    values = {name: v for name, v in VALUES.items() if name != "epochs"}
    config = resolve(make_config({**values, "iterations": 7, "method": method}, SearchConfig))
    whole = search(config, tmp_path / "whole")
    for at in (2, 3):
        ears = Ears(at, lambda: signal.raise_signal(signal.SIGTERM))
        with stopping.signals(), pytest.raises(stopping.Stopped):
            search(config, tmp_path / "cut", listener=ears)
    ears = Ears()
    cut = search(config, tmp_path / "cut", listener=ears)
    assert ears.said == ["resuming the search: at step 5 of 7"]
    assert cut.resumed == [2, 5]
    for name in ("iterations", "weights", "final", "losses", "found"):
        assert getattr(cut, name) == getattr(whole, name)
    for name in ("found.json", "metrics.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {
        "found.json", "search.json", "metrics.jsonl",
    }  # fmt: skip
    assert search(config, tmp_path / "cut", listener=ears).final == whole.final
    assert "already finished" in ears.said[-1]


def test_a_signal_waits_only_where_work_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def work(deferring: bool, count: int) -> None:
        with stopping.deferred() if deferring else contextlib.nullcontext():
            for _ in range(count):
                signal.raise_signal(signal.SIGTERM)
                done.append(deferring)

    def nested() -> None:
        with stopping.deferred():
            work(deferring=True, count=1)
            done.append(False)

    with stopping.signals():
        with pytest.raises(stopping.Stopped, match="SIGTERM"):
            work(deferring=False, count=1)
        assert done == []
        with pytest.raises(stopping.Stopped, match="SIGTERM"):
            work(deferring=True, count=1)
        assert done == [True]
        with pytest.raises(stopping.Stopped):  # one signal may come twice
            work(deferring=True, count=2)
        assert done == [True] * 3
        monkeypatch.setattr(stopping, "PATIENCE", 0.0)
        with pytest.raises(stopping.Stopped):  # a second one does not wait
            work(deferring=True, count=2)
        assert done == [True] * 4
        with pytest.raises(stopping.Stopped):  # the outermost one ends the waiting
            nested()
        assert done == [*[True] * 5, False]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_what_is_made_replaces_what_was_there(tmp_path: Path) -> None:
    target, folder = tmp_path / "run", tmp_path / "run" / "training"
    (target / "samples").mkdir(parents=True)
    (target / "maps").mkdir()
    folder.mkdir()
    for path in (
        "run/samples/old",
        "run/maps/mine",
        "run/last",
        "run/result.json",
        "run/events.out.tfevents.1",
    ):
        (tmp_path / path).write_text("old")
    (folder / "samples").mkdir()
    for name in ("samples/new", "last", *FILES, ".last.x.partial"):
        (folder / name).write_text("new")
    hand_over(folder, target)
    found = {str(p.relative_to(target)): p.read_text() for p in target.rglob("*") if p.is_file()}
    mine = {name: text for name, text in found.items() if not name.startswith("training/")}
    assert mine == {
        "samples/new": "new", "last": "new", "result.json": "old", "maps/mine": "old",
    }  # fmt: skip
    assert len(found) == len(mine) + 5


def test_a_state_tells_what_could_not_be_read(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, {})
    keeper.watch({"train": {3: "a.png: damaged"}, "val": {}})
    keeper.save(1, WEIGHT)
    bad: dict[str, dict[int, str]] = {"train": {}, "val": {1: "b.png: damaged"}}
    again = Keeper(tmp_path, {})
    again.watch(bad)
    assert bad == {"train": {3: "a.png: damaged"}, "val": {1: "b.png: damaged"}}
    again.save(2, WEIGHT)
    third: dict[str, dict[int, str]] = {"train": {}, "val": {}}
    Keeper(tmp_path, {}).watch(third)
    assert third == bad


def test_what_another_training_has_made_is_not_taken_for_its_own(tmp_path: Path) -> None:
    Keeper(tmp_path, {"lr": 1}).save(1, WEIGHT)
    (tmp_path / "best.safetensors").write_bytes(b"of lr 1")
    assert Keeper(tmp_path, {"lr": 1}).state == WEIGHT
    assert (tmp_path / "best.safetensors").exists()
    assert Keeper(tmp_path, {"lr": 2}).state is None
    assert [path.name for path in tmp_path.iterdir()] == [FILES[0]]


def test_timing_leaves_a_training_that_has_begun_again(tmp_path: Path) -> None:
    runs = runs_of()
    run_plan(runs, tmp_path)
    ears = Ears(3, lambda: signal.raise_signal(signal.SIGTERM))
    with stopping.signals(), pytest.raises(stopping.Stopped):
        run_plan(runs, tmp_path, ears, overwrite=True)
    (before,) = run_plan(runs, tmp_path, retime=True)
    (after,) = run_plan(runs, tmp_path, overwrite=True)
    assert before.resumed == []
    assert after.resumed == [3]


# --- faults --------------------------------------------------------------------------------------


def test_two_processes_do_not_run_the_same(tmp_path: Path) -> None:
    runs = runs_of()
    heard = [Ears(), Ears()]
    results: dict[int, Any] = {}

    def work(number: int) -> None:
        results[number] = run_plan(runs, tmp_path, heard[number])[0]

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0].status == results[1].status == "finished"
    assert results[0].metrics == results[1].metrics
    said = [text for ears in heard for text in ears.said]
    assert len([text for text in said if "waiting for another process" in text]) == 1
    assert len([text for text in said if "finished by another process, not run again" in text]) == 1
    made(tmp_path, runs[0])


def test_runs_that_another_process_times_are_not_timed_again(tmp_path: Path) -> None:
    runs = runs_of()
    run_plan(runs, tmp_path)
    folder = folder_of(runs[0], tmp_path)
    result = read(folder)
    speed, result.speed = result.speed, None
    ears = Ears()

    def time_there() -> None:
        result.speed = speed
        save(folder, result)
        release.set()

    release, held = threading.Event(), threading.Event()

    def other() -> None:
        with locked(tmp_path, lambda: None):
            held.set()
            release.wait(20)

    class Waits(Ears):
        def message(self, text: str) -> None:
            super().message(text)
            time_there()

    save(folder, result)
    thread = threading.Thread(target=other)
    thread.start()
    held.wait(20)
    ears = Waits()
    (found,) = run_plan(runs, tmp_path, ears)
    thread.join()
    assert ears.said == [f"{tmp_path}: another process is timing: waiting for it"]
    assert found.speed == speed
    assert read(folder).speed == speed


def test_nobody_waits_to_tidy_up(tmp_path: Path) -> None:
    Keeper(tmp_path / "training", {}).save(1, WEIGHT)
    (tmp_path / "result.json").write_text("")
    with locked(tmp_path, lambda: None):
        tidy(tmp_path / "result.json")
    assert (tmp_path / "training").exists()
    tidy(tmp_path / "result.json")
    assert not (tmp_path / "training").exists()


def test_a_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from common.files import locked\n"
        "with locked(Path(sys.argv[1]), lambda: None): print('in', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    other.stdout.readline()
    asked = []

    def waiting() -> None:
        asked.append(time.monotonic())
        other.kill()

    with locked(tmp_path, waiting) as waited:
        assert waited
    other.wait()
    other.stdout.close()
    assert len(asked) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_batch_that_does_not_fit_goes_in_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from models.predictor import DensePredictor

    forward = DensePredictor.forward
    seen = []

    def short(self: DensePredictor, images: torch.Tensor) -> Any:
        if self.training:
            if len(images) > 2:
                raise error
            seen.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(DensePredictor, "forward", short)
    runs = runs_of()
    (result,) = run_plan(runs, tmp_path)
    assert result.status == "finished"
    assert result.at_once == 2
    assert seen == [2] * (2 * STEPS)
    assert result.steps == STEPS

    def none(self: DensePredictor, images: torch.Tensor) -> Any:
        if self.training:
            raise error
        return forward(self, images)

    monkeypatch.setattr(DensePredictor, "forward", none)
    (result,) = run_plan(runs, tmp_path / "none")
    assert "memory ran out with 1 images at once" in str(result.error)


@pytest.mark.parametrize("most", [2, 0])
def test_scoring_a_batch_that_does_not_fit_goes_in_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    from benchmark.scoring import evaluate as evaluation

    predictions = evaluation._predictions
    (whole,) = run_plan(runs_of(), tmp_path / "whole")
    seen = set()

    def short(model: Any, tasks: Any, images: torch.Tensor, *others: Any) -> Any:
        if len(images) > most:
            raise RuntimeError("could not create a primitive")  # of oneDNN
        seen.add(len(images))
        return predictions(model, tasks, images, *others)

    monkeypatch.setattr(evaluation, "_predictions", short)
    (result,) = run_plan(runs_of(), tmp_path / "halves")
    if not most:
        assert result.error == "memory ran out with one image: use a smaller --image-size"
        return
    assert 2 in seen
    assert result.at_once is None  # of the training, which had enough
    assert result.counts == whole.counts
    assert result.metrics == pytest.approx(whole.metrics, rel=1e-5)


@pytest.mark.parametrize(
    ("count", "at_once", "least", "then"),
    [(8, 8, 1, 4), (5, 5, 2, 2), (8, 4, 2, 2), (5, 2, 1, 1), (5, 2, 2, None), (1, 1, 1, None)],
)
def test_no_piece_is_too_small_for_the_network(
    count: int, at_once: int, least: int, then: int | None
) -> None:
    """Five images, of which two fit, go as 2, 2, 1: too few for one that needs two."""
    config = resolve(make_config({**VALUES, "batch_size": at_once}))
    model = torch.nn.Conv2d(1, 1, 1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.0)
    learner = Learner(config, model, [sgd], None, {}, least)
    pieces = math.ceil(count / then) if then else 0
    if then is None or count // pieces < least:
        with pytest.raises(UserError, match=f"needs {least} or more"):
            learner._halve(count, MemoryError())
    else:
        learner._halve(count, MemoryError())
        assert learner.at_once == then


def test_an_error_in_a_reader_is_none_of_its_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(self: Any, index: int) -> Any:
        raise RuntimeError("of our own")

    monkeypatch.setattr("datasets.pipeline.Readable.__getitem__", wrong)
    ears = Ears()
    (result,) = run_plan(runs_of(workers=1), tmp_path, ears)
    assert result.error is not None
    assert result.error.startswith("RuntimeError: ")
    assert not [said for said in ears.said if "died" in said]


def test_halves_add_up_to_the_gradient_of_the_batch() -> None:
    torch.manual_seed(0)
    config = resolve(make_config({**VALUES, "batch_size": 6}))
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU(), torch.nn.Conv2d(2, 1, 1))
    images, targets = torch.rand(6, 3, 8, 8), {"y": torch.rand(6, 1, 6, 6)}
    gradients = []
    for at_once in (6, 4, 3, 1):
        learner = Learner(config, model, [torch.optim.SGD(model.parameters(), lr=0.0)], None, {})
        learner.at_once = at_once

        def losses_of(x: torch.Tensor, y: Any) -> Any:
            loss = (x - y["y"]).square().mean()
            return loss, {"task": loss}

        value, parts = learner.step(images, targets, losses_of, "here")
        assert parts == {"task": pytest.approx(value)}
        gradients.append([p.grad.clone() for p in model.parameters()])
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0])


def test_a_process_that_reads_and_dies_costs_nothing(tmp_path: Path) -> None:
    runs = runs_of(workers=1)
    run_plan(runs, tmp_path / "whole")

    def kill() -> None:
        for child in multiprocessing.active_children():
            child.kill()

    ears = Ears(3, kill)
    (result,) = run_plan(runs, tmp_path / "cut", ears)
    assert result.status == "finished"
    assert result.resumed == [2, 4]  # it dies in the third step of each attempt that has one
    assert any("a process that reads images died" in said for said in ears.said)
    assert made(tmp_path / "cut", runs[0]) == made(tmp_path / "whole", runs[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_turns_bad(tmp_path: Path, camvid: Path, cli: Cli, workers: int) -> None:
    options = ("run", "--task", "segmentation", "--dataset", "camvid", "--data", camvid,
               "--image-size", "32x64", "--crop-size", "32", "--backbone", "test_resnet",
               "--decoder", "fcn", "--epochs", 2, "--batch-size", 2, "--workers", workers,
               "--results")  # fmt: skip
    (camvid / "train" / "3.png").write_bytes(b"no image")
    (camvid / "test" / "1.png").write_bytes(b"no image")
    stopped = cli(*options, tmp_path / "stop")
    assert stopped.exit_code == 1
    assert "png" in stopped.stderr
    skipped = cli(*options, tmp_path / "skip", "--on-bad-sample", "skip")
    assert skipped.exit_code == 0, skipped.output
    (path,) = (tmp_path / "skip").glob("*/result.json")
    result = json.loads(path.read_bytes())
    assert [len(result["data"][name].get("skipped", ())) for name in ("train", "val", "test")] == [
        1, 0, 1,
    ]  # fmt: skip
    assert "3.png" in result["data"]["train"]["skipped"][0]
    assert result["steps"] == 2 * 3  # of six images in twos: one was there twice
    assert result["counts"]["images"] == 2
    assert result["protocol"].endswith("/without1")  # no rival of whole scores


def test_a_search_and_a_score_skip_bad_samples_too(tmp_path: Path, camvid: Path, cli: Cli) -> None:
    common = ("--task", "segmentation", "--dataset", "camvid", "--data", camvid, "--crop-size", 32,
              "--image-size", "32x64", "--backbone", "test_resnet", "--batch-size", 2)  # fmt: skip
    done = cli("run", *common, "--decoder", "fcn", "--epochs", 1, "--results", tmp_path / "runs")
    assert done.exit_code == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    (camvid / "train" / "0.png").write_bytes(b"no image")
    (camvid / "test" / "0.png").write_bytes(b"no image")
    search = ("search", *common, "--iterations", 3, "--output", tmp_path / "found")
    assert cli(*search).exit_code == 1
    done = cli(*search, "--on-bad-sample", "skip")
    assert done.exit_code == 0, done.stderr
    record = json.loads((tmp_path / "found" / "search.json").read_bytes())
    assert "0.png" in record["data"]["skipped"][0]
    score = ("evaluate", "--checkpoint", run, "--json", "-")
    assert cli(*score).exit_code == 1
    found = json.loads(cli(*score, "--on-bad-sample", "skip").stdout)
    assert "0.png" in found["data"]["skipped"][0]
    assert found["tasks"]["segmentation"]["protocol"].endswith("/without1")


def test_without_a_readable_sample_there_is_nothing_to_skip(
    tmp_path: Path, camvid: Path, cli: Cli
) -> None:
    for path in (camvid / "train").iterdir():
        path.write_bytes(b"no image")
    done = cli("run", "--task", "segmentation", "--dataset", "camvid", "--data", camvid,
               "--image-size", "32x64", "--backbone", "test_resnet", "--decoder", "fcn",
               "--on-bad-sample", "skip", "--results", tmp_path)  # fmt: skip
    assert done.exit_code == 1
    assert "none of the 6 samples can be read" in done.stderr


def test_a_state_of_another_network_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a change of a decoder's code, under the same name."""
    runs = runs_of()
    with stopping.signals(), pytest.raises(stopping.Stopped):
        run_plan(runs, tmp_path, Ears(3, lambda: signal.raise_signal(signal.SIGTERM)))
    build = runner_module.build_model

    def changed(config: RunConfig, tasks: Any) -> Any:
        model = build(config, tasks)
        model.decoder.more = torch.nn.Conv2d(1, 1, 1)
        return model

    monkeypatch.setattr(runner_module, "build_model", changed)
    (result,) = run_plan(runs, tmp_path)
    assert "the saved state is of another network" in str(result.error)
    assert "remove the folder `training`" in str(result.error)
