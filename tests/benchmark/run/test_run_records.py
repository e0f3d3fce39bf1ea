"""What a run leaves beside its result: scalars, bootstrap replicates, pictures, timings anew."""

import io
import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.experiment.plan import plan
from benchmark.results.replicates import REPLICATES, load_replicates, save_replicates
from benchmark.results.samples import read_strips
from benchmark.results.store import load
from common.progress import Silent
from tasks.metrics.resampling import image_weights
from tasks.metrics.segmentation import SegmentationMetrics
from tests.support import folder_of, line, run_plan

VALUES = {
    "task": "segmentation", "dataset": "camvid", "image_size": "32x64", "crop_size": "32x32",
    "epochs": 2, "batch_size": 3, "backbone": "test_efficientnet",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    warnings.filterwarnings("ignore", message=".*samples in.*")


def trained(camvid, results, **options):
    runs = plan({**VALUES, "data": camvid}, {"decoder": ["fcn"]})
    run_plan(runs, results, **options)
    return folder_of(runs[0], results)


def test_scalars_are_lines_of_json_with_the_scores_at_the_end(camvid, tmp_path):
    folder = trained(camvid, tmp_path)
    rows = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    result = load(folder)
    epochs = [{k: v for k, v in row.items() if k != "step"} for row in rows if "epoch" in row]
    assert epochs == result.history
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    last = rows[-1]
    assert last["step"] == result.steps
    assert last["test/miou"] == result.metrics["miou"]
    assert not list(folder.glob("events.*"))


def test_tensorboard_gets_the_same_scalars(camvid, tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = trained(camvid, tmp_path, tensorboard=True)
    events = reader.EventAccumulator(str(folder))
    events.Reload()
    assert events.Scalars("test/miou")[0].value == pytest.approx(load(folder).metrics["miou"])
    assert [e.value for e in events.Scalars("loss")] == pytest.approx(
        [row["loss"] for row in load(folder).history]
    )
    runs = plan({**VALUES, "data": camvid}, {"decoder": ["fcn"]})
    run_plan(runs, tmp_path, overwrite=True)
    assert not list(folder.glob("events.*"))  # a new run does not keep the old one's curves


def test_tensorboard_that_is_not_installed_is_told(cli, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    done = cli("run", "--task", "depth", "--tensorboard")
    assert "pip install -e .[tensorboard]" in line(done)
    assert done.exit_code == 2


def test_replicates_are_those_of_the_interval(camvid, tmp_path):
    folder = trained(camvid, tmp_path)
    result, replicates = load(folder), load_replicates(folder, "segmentation")
    assert set(replicates) == set(result.columns)
    low, high = np.nanpercentile(replicates["miou"], [2.5, 97.5])
    assert (low, high) == pytest.approx(result.intervals["miou"], abs=1e-6)
    assert load_replicates(folder, "depth") == {}


def test_damaged_replicates_are_as_good_as_none(tmp_path):
    save_replicates(tmp_path, {"depth": {"rmse": np.arange(3.0)}})
    assert load_replicates(tmp_path, "depth")["rmse"].tolist() == [0, 1, 2]
    whole = (tmp_path / REPLICATES).read_bytes()
    flipped = [bytes([*whole[:n], whole[n] ^ 255, *whole[n + 1 :]]) for n in range(0, 200, 3)]
    for content in flipped:
        (tmp_path / REPLICATES).write_bytes(content)
        load_replicates(tmp_path, "depth")  # whatever it finds, it does not stop a report
    for content in (whole[:60], b"", b"PK", b"\x93NUMPY\x01\x00"):
        (tmp_path / REPLICATES).write_bytes(content)
        assert load_replicates(tmp_path, "depth") == {}


def test_replicates_of_two_networks_are_of_the_same_splits():
    """A perfect network has ones; one that errs on one image lacks that image's share."""
    truth = torch.randint(0, 2, (12, 8, 8))

    def scored(wrong):
        metrics = SegmentationMetrics(("a", "b"), ignore_index=255)
        for index, target in enumerate(truth):
            metrics.update(1 - target if index == wrong else target, target)
        return metrics.replicates()["aacc"]

    assert np.array_equal(scored(None), np.ones(1 + 1000 + 12))
    weights = image_weights(12)
    assert scored(4) == pytest.approx(1 - weights[:, 4] / weights.sum(1))


def test_strips_show_the_same_images_for_every_run(camvid, tmp_path):
    strips = read_strips(trained(camvid, tmp_path))
    assert 1 <= len(strips) <= 3
    for strip in strips:
        assert strip.task == "segmentation"
        for data in (strip.image, strip.truth, strip.prediction):
            picture = Image.open(io.BytesIO(data))
            assert picture.format == "WEBP"
            assert picture.size == Image.open(io.BytesIO(strip.truth)).size
            assert max(picture.size) == 192


def test_timed_again_only_where_asked(camvid, tmp_path):
    folder = trained(camvid, tmp_path)
    first = load(folder)
    trained(camvid, tmp_path)
    assert load(folder).speed == first.speed
    trained(camvid, tmp_path, retime=True)
    again = load(folder)
    assert again.speed["session"] != first.speed["session"]
    assert again.metrics == first.metrics


def test_other_machines_latencies_do_not_come_onto_a_runs_board(camvid, tmp_path, monkeypatch):
    folder = trained(camvid, tmp_path)
    speed = load(folder).speed
    assert speed["hardware"] == load(folder).environment["device"]
    told = []
    monkeypatch.setattr(Silent, "message", lambda _, text: told.append(text))
    monkeypatch.setattr("benchmark.run.timing.device_name", lambda _: "a far GPU")
    trained(camvid, tmp_path, retime=True)
    assert load(folder).speed == speed
    assert "a far GPU" in told[0]
    assert "recommend --speed" in told[0]
    monkeypatch.undo()
    (folder / "last.safetensors").unlink()
    monkeypatch.setattr(Silent, "message", lambda _, text: told.append(text))
    trained(camvid, tmp_path, retime=True)
    assert "its checkpoint is not there" in told[1]


def test_a_run_is_timed_with_the_threads_that_it_was_run_with(camvid, tmp_path):
    runs = [c for n in (1, None) for c in plan({**VALUES, "data": camvid, "threads": n}, {})]
    for options in ({}, {"retime": True}):
        run_plan(runs, tmp_path, threads=2, **options)
        for config, threads in zip(runs, (1, 2), strict=True):
            result = load(folder_of(config, tmp_path))
            assert result.speed["threads"] == result.environment["threads"] == threads


def test_pictures_that_cannot_be_drawn_cost_no_training(camvid, tmp_path, monkeypatch):
    def fails(*arguments):
        raise ValueError("no picture")

    monkeypatch.setattr("benchmark.run.runner.save_strips", fails)
    assert load(trained(camvid, tmp_path)).status == "finished"


def test_a_success_removes_what_failures_left(camvid, tmp_path):
    folder = trained(camvid, tmp_path)
    for name in ("failed.json", "traceback.txt"):
        (folder / name).write_text("")
    trained(camvid, tmp_path, overwrite=True)
    assert not (folder / "failed.json").exists()
    assert not (folder / "traceback.txt").exists()


@pytest.mark.memory_pass
def test_a_run_tells_its_peak_memory(camvid, tmp_path):
    speed = load(trained(camvid, tmp_path)).speed
    if speed["peak_memory_mb"] is None:
        pytest.skip(speed["peak_memory_how"])
    # at least the image and the first feature map at half its size
    assert speed["peak_memory_mb"] * 1e6 > 32 * 64 * 4 * 3
    assert speed["weights_mb"] > 0
    assert "fresh process" in speed["peak_memory_how"]
