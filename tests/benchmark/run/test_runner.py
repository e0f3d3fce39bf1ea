import copy
import json
import os
import warnings

import pytest
import torch

from benchmark.experiment.config import ResolvedRun, make_config
from benchmark.experiment.network import build_model
from benchmark.experiment.plan import make_tasks, plan, run_key
from benchmark.leaderboard.boards import boards
from benchmark.results.checkpoint import load_checkpoint
from benchmark.results.result import PairScores
from benchmark.results.store import amend, load, read_all, save
from benchmark.run import deployment, timing
from benchmark.run import runner as runner_module
from benchmark.run.data import Data
from benchmark.scoring.evaluate import evaluate, metrics_of
from benchmark.speed.latency import time_models
from common.errors import DataError, UserError
from common.progress import Silent
from tests.support import folder_of, run_plan

VALUES = {
    "task": "segmentation", "dataset": "camvid", "image_size": "32x64", "crop_size": "32x32",
    "epochs": 1, "batch_size": 3, "backbone": "test_efficientnet",
}  # fmt: skip
FIXED = {"backbone": "coatnet_pico_rw_224", "backbone_args": {"img_size": 224}}


def runs_of(camvid, decoders=("fcn", "sparsemask"), **values):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return plan({**VALUES, "data": camvid, **values}, {"decoder": list(decoders)})


@pytest.fixture(autouse=True)
def quick():
    """Counts of a tiny fixture are not the published ones."""
    warnings.filterwarnings("ignore", message=".*samples in.*")


def test_a_result_says_everything(camvid, tmp_path):
    results = tmp_path / "runs"
    runs = runs_of(camvid)
    done = run_plan(runs, results)
    assert [result.status for result in done] == ["finished", "finished"]
    for config, result in zip(runs, done, strict=True):
        folder = folder_of(config, results)
        assert {path.name for path in folder.iterdir()} == {
            "result.json", "best.json", "best.safetensors", "last.json", "last.safetensors",
            "metrics.jsonl", "bootstrap.npz", "samples",
        }  # fmt: skip
        stored = json.loads((folder / "result.json").read_text())
        assert stored == json.loads(result.model_dump_json())
        assert set(result.columns) <= set(result.metrics)
        low, high = result.intervals["miou"]
        assert low <= result.metrics["miou"] <= high
        assert result.protocol == "camvid/segmentation/test/miou/32x64"
        assert result.params.keys() == result.macs.keys() == {"backbone", "decoder", "head"}
        assert result.speed["size"] == [32, 64]
        assert result.speed["batch"] == 1
        assert result.speed["calls"] >= 20
        assert result.data["train"]["images"] == 6
        assert len(result.data["test"]["fingerprint"]) >= 8
        assert result.environment["versions"]["torch"] == torch.__version__.split("+")[0]
        assert {"train", "score", "total"} <= result.seconds.keys()
        assert result.history[0]["epoch"] == 1
        assert "miou" in result.constant["metrics"]
        assert config.decoder in result.command
    assert done[0].speed["interleaved_with"] == ["sparsemask"]


def test_runs_of_one_network_are_timed_once(camvid, tmp_path, monkeypatch):
    values = {**VALUES, "data": camvid}
    runs = plan(values, {"decoder": ["fcn", "hed"], "seed": [0, 1, 2]})
    rounds = []
    monkeypatch.setattr(
        timing, "time_models", lambda m, *a, **k: rounds.append(len(m)) or time_models(m, *a, **k)
    )
    run_plan(runs, tmp_path)
    assert rounds == [2]
    stored = {(r.config.decoder, r.config.seed): r for r in read_all(tmp_path)}
    for decoder in ("fcn", "hed"):
        assert stored[decoder, 0].speed["weights_of"] == stored[decoder, 0].key
        assert stored[decoder, 0].speed == stored[decoder, 1].speed == stored[decoder, 2].speed
    assert stored["fcn", 0].speed["median_ms"] != stored["hed", 0].speed["median_ms"]
    assert stored["fcn", 2].speed["interleaved_with"] == ["hed"]


def test_a_neck_is_in_the_counts_the_time_and_the_weights(camvid, tmp_path):
    options = {"backbone": "test_vit", "backbone_args": {"neck": "vitdet"}}
    runs = runs_of(camvid, ["fcn"], **options) + runs_of(camvid, ["fcn"], backbone="test_vit")
    learned, plain = run_plan(runs, tmp_path)
    assert (learned.error, plain.error) == (None, None)
    assert learned.params.keys() == learned.macs.keys() == {"backbone", "neck", "decoder", "head"}
    assert learned.params["neck"] == 2_427_024
    assert learned.params["backbone"] == plain.params["backbone"]
    assert learned.speed["neck_ms"] > 0
    folder = folder_of(runs[0], tmp_path)
    assert json.loads((folder / "result.json").read_text())["speed"] == learned.speed
    assert '"neck' not in (folder_of(runs[1], tmp_path) / "result.json").read_text()
    model = build_model(runs[0], make_tasks(runs[0]))
    # the map of stride 32 is the one that fcn reads
    fresh = model.backbone.neck.projections[3][0].weight.detach().clone()
    load_checkpoint(folder, "last", model)
    assert not torch.equal(model.backbone.neck.projections[3][0].weight, fresh)


def test_a_repetition_that_failed_stays_failed_when_others_are_timed(camvid, tmp_path, monkeypatch):
    """The finished result of before is still in the folder."""
    runs = runs_of(camvid)
    run_plan(runs[:1], tmp_path)
    training = runner_module.NetworkTraining

    def diverging(config, *rest):
        if config.decoder == "fcn":
            raise UserError("the loss is nan")
        return training(config, *rest)

    monkeypatch.setattr(runner_module, "NetworkTraining", diverging)
    done = run_plan(runs, tmp_path, overwrite=True)
    assert [result.status for result in done] == ["failed", "finished"]
    assert done[1].speed is not None
    assert load(folder_of(runs[0], tmp_path)).status == "finished"


def test_finished_runs_are_skipped_before_data_is_opened(camvid, tmp_path, monkeypatch):
    runs = runs_of(camvid, ["fcn"])
    run_plan(runs, tmp_path / "runs")

    def never(*_):
        raise AssertionError("data was opened")

    monkeypatch.setattr(runner_module.Data, "open", never)
    assert run_plan(runs, tmp_path / "runs")[0].status == "finished"
    with pytest.raises(AssertionError, match="opened"):
        run_plan(runs, tmp_path / "runs", overwrite=True)


def test_a_failed_run_is_a_result_and_the_others_go_on(camvid, tmp_path, monkeypatch):
    training = runner_module.NetworkTraining

    def diverging(config, *rest):
        if config.decoder == "fcn":
            raise runner_module.UserError("the loss is nan at step 1")
        return training(config, *rest)

    monkeypatch.setattr(runner_module, "NetworkTraining", diverging)
    runs = runs_of(camvid)
    done = run_plan(runs, tmp_path / "runs")
    assert [result.status for result in done] == ["failed", "finished"]
    assert done[0].error == "the loss is nan at step 1"
    stored = load(folder_of(runs[0], tmp_path / "runs"))
    assert stored.status == "failed"
    monkeypatch.setattr(runner_module, "NetworkTraining", training)
    assert run_plan(runs, tmp_path / "runs")[0].status == "finished"


def test_a_defect_keeps_its_trace(camvid, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes do not fit\nat all")

    monkeypatch.setattr(runner_module, "NetworkTraining", broken)
    runs = runs_of(camvid, ["fcn"])
    result = run_plan(runs, tmp_path / "runs")[0]
    assert result.error == "RuntimeError: shapes do not fit"
    trace = folder_of(runs[0], tmp_path / "runs") / "traceback.txt"
    assert "in broken" in trace.read_text()


def test_bad_data_stops_the_plan_and_keeps_what_is_done(camvid, tmp_path):
    good = runs_of(camvid, ["fcn"])
    run_plan(good, tmp_path / "runs")
    (camvid / "testannot" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"testannot/1\.png"):
        run_plan(runs_of(camvid), tmp_path / "runs")
    stored = {result.config.decoder: result.status for result in read_all(tmp_path / "runs")}
    assert stored == {"fcn": "finished"}  # nothing of the other run was started


def test_a_worker_s_error_is_one_line(camvid, tmp_path):
    runs = runs_of(camvid, ["fcn"], workers=1)
    path = camvid / "train" / "3.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"3\.png") as caught:
        run_plan(runs, tmp_path / "runs")
    assert "\n" not in str(caught.value)


def test_results_that_cannot_be_written(camvid, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/runs: cannot be written .* --results"):
        run_plan(runs_of(camvid, ["fcn"]), tmp_path / "file" / "runs")


def test_an_unreadable_result_is_told_and_run_again(camvid, tmp_path):
    runs = runs_of(camvid, ["fcn"])
    results = tmp_path / "runs"
    run_plan(runs, results)
    path = folder_of(runs[0], results) / "result.json"
    path.write_text(path.read_text()[:200])
    with pytest.warns(UserWarning, match="left out"):
        assert run_plan(runs, results)[0].status == "finished"
    assert load(path.parent).status == "finished"


def test_what_is_timed_is_what_was_scored(camvid, tmp_path, monkeypatch):
    timed = {}

    def spy(models, *args, **kwargs):
        timed.update(copy.deepcopy(models))
        return original(models, *args, **kwargs)

    original = timing.time_models
    monkeypatch.setattr(timing, "time_models", spy)
    runs = runs_of(camvid, ["fcn"])
    run_plan(runs, tmp_path / "runs")
    config = runs[0]
    model = build_model(config, make_tasks(config))
    images = torch.rand(2, 3, 32, 64)
    with torch.no_grad():
        fresh = model.eval()(images)["segmentation"]
        load_checkpoint(folder_of(config, tmp_path / "runs"), "last", model)
        trained = model.eval()(images)["segmentation"]
        seen = timed["0"](images)["segmentation"]  # fused: the same but for rounding
    torch.testing.assert_close(seen, trained, rtol=1e-4, atol=1e-4)
    assert float((fresh - trained).abs().max()) > 0.01
    assert load(folder_of(config, tmp_path / "runs")).speed["fused"] is True


def test_same_command_same_metrics(camvid, tmp_path):
    runs = runs_of(camvid, ["sparsemask"])
    first = run_plan(runs, tmp_path / "a")[0]
    second = run_plan(runs, tmp_path / "b")[0]
    assert first.metrics == second.metrics
    assert first.history == second.history


def test_unknown_device(camvid, tmp_path):
    with pytest.raises(UserError, match="--device"):
        run_plan(runs_of(camvid, ["fcn"], device="tpu"), tmp_path / "runs")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="0 CUDA devices"):
            run_plan(runs_of(camvid, ["fcn"], device="cuda"), tmp_path / "runs")


def test_config_is_complete_in_the_result(camvid, tmp_path):
    runs = runs_of(camvid, ["fcn"])
    result = run_plan(runs, tmp_path / "runs")[0]
    assert make_config(result.config.model_dump(), ResolvedRun) == runs[0]
    assert os.fspath(camvid) == os.fspath(result.config.data)


def content(folder):
    """Of a run's files and its pictures; what a training under way has left does not count."""
    files = [*folder.glob("*"), *folder.glob("samples/*")]
    return {path.name: path.read_bytes() for path in files if path.is_file()}


def test_a_failed_repetition_keeps_the_finished_result(camvid, tmp_path, monkeypatch):
    results = tmp_path / "runs"
    runs = runs_of(camvid, ["fcn"])
    run_plan(runs, results)
    folder = folder_of(runs[0], results)
    before = content(folder)
    validate = runner_module.evaluate

    def diverging(*arguments):
        if len(arguments) > 4:  # scoring the test split, after checkpoints were written
            raise UserError("the loss is nan")
        return validate(*arguments)

    monkeypatch.setattr(runner_module, "evaluate", diverging)
    (again,) = run_plan(runs, results, overwrite=True)
    assert again.status == "failed"
    after = content(folder)
    assert after.pop("failed.json")
    assert after == before


def test_one_impossible_run_does_not_stop_the_others(camvid, tmp_path):
    runs = [*runs_of(camvid, ["fcn"], **FIXED), *runs_of(camvid, ["fcn"])]
    done = run_plan(runs, tmp_path / "runs")
    assert [result.status for result in done] == ["failed", "finished"]
    assert "takes images of 224×224 only" in done[0].error


def test_a_run_that_is_wrong_usage_leaves_no_result(camvid, tmp_path):
    with pytest.raises(UserError, match="takes images of 224×224 only"):
        run_plan(runs_of(camvid, ["fcn"], **FIXED), tmp_path / "runs")
    assert list(read_all(tmp_path / "runs")) == []


def test_a_damaged_checkpoint_is_not_timed_and_said(camvid, tmp_path):
    results = tmp_path / "runs"
    runs = runs_of(camvid, ["fcn"])
    run_plan(runs, results)
    folder = folder_of(runs[0], results)
    stored = load(folder)
    stored.speed = None
    save(folder, stored)
    (folder / "last.safetensors").write_bytes(b"damaged")
    said = []

    class Ears(Silent):
        def message(self, text: str) -> None:
            said.append(text)

    (again,) = run_plan(runs, results, listener=Ears())
    assert again.speed is None
    assert len(said) == 1
    assert "last.safetensors" in said[0]


def test_another_folder_of_the_user_s_choice_is_another_run():
    keys = {
        run_key(plan({"dataset": "seven-scenes", "data": folder}, {"decoder": ["fcn"]})[0])
        for folder in ("chess", "heads")
    }
    assert len(keys) == 2


def test_steps_in_place_of_epochs_and_a_score_that_leaves_test_unseen(camvid, tmp_path):
    (short,) = runs_of(camvid, ["fcn"], epochs=None, steps=2, split="val")
    assert (short.epochs, short.validate_every, short.length) == (1, 1, "2 steps")
    (result,) = run_plan([short], tmp_path)
    assert (result.status, result.steps) == ("finished", 2)
    assert len(result.history) == 1
    model = build_model(short, make_tasks(short))
    load_checkpoint(folder_of(short, tmp_path), "last", model)
    (task,) = make_tasks(short)
    data = Data.open(short, [task], Silent())
    assert data.test is data.val
    accumulators = {task: task.accumulator()}
    evaluate(short, model.eval(), accumulators, data.val)
    assert result.metrics["miou"] == pytest.approx(metrics_of(accumulators[task])["miou"])
    assert not [name for name in result.history[0] if name.startswith("val/")]  # not done twice
    best = build_model(short, make_tasks(short))
    load_checkpoint(folder_of(short, tmp_path), "best", best)
    for one, other in zip(best.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert result.best_epoch == 1
    assert result.data["test"] == result.data["val"] != result.data["train"]
    assert "/val/" in result.protocol
    (tested,) = run_plan(runs_of(camvid, ["fcn"], steps=2, epochs=None), tmp_path)
    assert "/test/" in tested.protocol
    assert tested.data["test"] != result.data["test"]
    assert len(boards([result, tested])) == 2


def test_what_does_not_go_with_steps_and_val(camvid):
    with pytest.raises(UserError, match="--epochs: 3: give it or --steps, not both"):
        runs_of(camvid, ["fcn"], epochs=3, steps=2)
    with pytest.raises(UserError, match="--split val: flatters --score best"):
        runs_of(camvid, ["fcn"], split="val", score="best")


def test_pairs_are_timed_in_turns_with_the_runs(camvid, tmp_path, capsys):
    """Once: the second time nothing is to do; --retime times them all anew."""
    runs, results = runs_of(camvid, ["fcn"], seed=0), tmp_path / "runs"
    eager, half = ("eager", "f32"), ("eager", "bf16")
    (plain,) = run_plan(runs, results)
    (found,) = run_plan(runs, results, pairs=[eager])
    (pair,) = found.pairs
    assert pair.speed == found.speed  # it is what the run itself is timed as
    said = []

    class Said(Silent):
        def message(self, text):
            said.append(text)

    possible = timing.unavailable(half, "cpu") is None
    (found,) = run_plan(runs, results, Said(), pairs=[eager, half])
    assert load(folder_of(runs[0], results)) == found
    if possible:
        first, second = found.pairs
        assert second.speed["session"] == first.speed["session"] == found.speed["session"]
        assert found.speed["session"] != plain.speed["session"]
        assert second.speed["interleaved_with"] == ["fcn"]
        assert found.speed["interleaved_with"] == ["fcn in eager bf16"]
        assert second.speed["amp"] is True
        assert "peak_memory_mb" not in second.speed
    (again,) = run_plan(runs, results, pairs=[eager, half])
    assert again.speed["session"] == found.speed["session"]
    (anew,) = run_plan(runs, results, retime=True)
    assert anew.speed["session"] != found.speed["session"]
    assert all(p.speed["session"] == anew.speed["session"] for p in anew.pairs if p.speed)


def test_a_pair_that_cannot_be_timed_leaves_the_others(camvid, tmp_path, monkeypatch):
    runs, results = runs_of(camvid, ["fcn"]), tmp_path / "runs"
    (done,) = run_plan(runs, results, pairs=[("eager", "f32")])
    other = done.pairs[0].model_copy(update={"runtime": "openvino", "speed": None})
    done.pairs.append(other)
    save(folder_of(runs[0], results), done)
    monkeypatch.setattr(timing, "unavailable", lambda *_: "openvino needs openvino")
    said = []

    class Said(Silent):
        def message(self, text):
            said.append(text)

    (found,) = run_plan(runs, results, Said(), pairs=[("openvino", "f32")])
    assert "fcn: not timed in openvino f32: openvino needs openvino" in said
    assert found.pairs[1].untimed == "openvino needs openvino"
    (again,) = run_plan(runs, results, pairs=[("openvino", "f32")])
    assert again.speed == found.speed  # what cannot be timed is not tried again
    assert [pair.speed is None for pair in found.pairs] == [False, True]
    assert found.pairs[0].speed == found.speed


def test_scores_of_a_process_do_not_undo_anothers(camvid, tmp_path, monkeypatch):
    """Scoring takes minutes: what the file says by then is kept, a new training refused."""
    runs, results = runs_of(camvid, ["fcn"]), tmp_path / "runs"
    (done,) = run_plan(runs, results)
    folder = folder_of(runs[0], results)
    original = deployment.deployed
    changes = {"seconds": {**done.seconds, "time": 99.0}}
    other = PairScores(runtime="openvino", precision="f32", tasks={})

    def slow(*arguments):
        found = original(*arguments)
        now = load(folder)
        amend(folder, now.model_copy(update={**changes, "pairs": [other]}))
        return found

    monkeypatch.setattr(deployment, "deployed", slow)
    stamp = (folder / "result.json").stat().st_mtime_ns
    run_plan(runs, results, pairs=[("eager", "f32")], timed=False)
    stored = load(folder)
    assert [pair.runtime for pair in stored.pairs] == ["openvino", "eager"]
    assert stored.seconds["time"] == 99.0
    assert (folder / "result.json").stat().st_mtime_ns == stamp
    changes["metrics"] = {**done.metrics, "miou": 0.9}
    said = []

    class Said(Silent):
        def message(self, text):
            said.append(text)

    run_plan(runs, results, Said(), pairs=[("eager", "bf16")], timed=False)
    assert any("trained anew meanwhile: repeat the command" in text for text in said)
