"""`evaluate --runtime --precision`: what ships is scored, beside eager f32 on the same images."""

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from torch import Tensor, nn

from benchmark.export import quantize
from benchmark.export.quantize import worse_by
from benchmark.report.tables import costs_tables
from benchmark.results.checkpoint import open_checkpoint
from benchmark.results.result import Cost, PairScores
from benchmark.scoring.rescore import Rescore, opened, rescored
from benchmark.scoring.views import Views
from benchmark.speed import accuracy
from benchmark.speed.accuracy import deployed
from benchmark.speed.latency import Setup
from benchmark.speed.runtimes import NOTHING, Preparation, Ready
from cli import main
from common.progress import Silent
from tests.datasets.fixtures_data import voc2012
from tests.support import line

Cli = Callable[..., Result]
PAIRS = [("eager", "f32"), ("eager", "bf16"), ("onnxruntime", "f32"), ("openvino", "int8")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of rooms' depth, trained enough to lose something."""
    results = tmp_path_factory.mktemp("runs")
    done = CliRunner().invoke(
        main,
        ["run", "--task", "depth", "--backbone", "test_resnet", "--decoder", "sparsemask",
         "--image-size", "32x48", "--limit", "16", "--batch-size", "4", "--epochs", "6",
         "--results", str(results)],
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    (folder,) = results.glob("depth*")
    return folder


class Moved(nn.Module):
    """A network whose logits a runtime has moved by a share of their size."""

    def __init__(self, net: nn.Module, share: float) -> None:
        super().__init__()
        self.net, self.share = net, share

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {name: y - self.share * y.abs() for name, y in self.net(images).items()}


@pytest.mark.parametrize(
    ("reference", "value", "higher", "share"),
    [(0.5, 0.4, True, 0.2), (0.5, 0.6, True, -0.2), (0.5, 0.6, False, 0.2), (0, 0, True, 0),
     (-2.0, -3.0, True, 0.5), (0, 1, True, math.nan), (math.nan, 1, False, math.nan)],
)  # fmt: skip
def test_by_which_share_a_metric_is_worse(
    reference: float, value: float, higher: bool, share: float
) -> None:
    assert worse_by(reference, value, higher) == pytest.approx(share, nan_ok=True)


def scored(run: Path, monkeypatch: pytest.MonkeyPatch, shares: dict[Any, float]) -> Rescore:
    """The result of pairs whose logits are moved; one that is not in ``shares`` fails."""

    def prepared(self: Any, name: str, model: Any, pair: Any, *_: Any) -> Ready:
        return Ready(Moved(model, shares[pair]), Setup(), NOTHING)

    monkeypatch.setattr(accuracy, "unavailable", lambda *_: None)
    monkeypatch.setattr(Preparation, "__call__", prepared)
    return deployed(opened(run, {}, Views()), PAIRS[:3], 4)


def test_each_pair_stands_beside_eager_f32(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scored(run, monkeypatch, {PAIRS[0]: 0.0, PAIRS[1]: 0.2})
    same, moved, failed = found.pairs
    assert found.tasks == rescored(opened(run, {}, Views())).tasks
    assert same.tasks == found.tasks
    cost = same.costs["depth"]
    assert (cost.difference, cost.worse, cost.within) == (0, 0, True)
    assert cost.interval == (0, 0)
    cost = moved.costs["depth"]
    assert cost.metric == found.tasks["depth"].columns[0]
    assert cost.value == moved.tasks["depth"].metrics[cost.metric]
    assert cost.reference == found.tasks["depth"].metrics[cost.metric]
    assert cost.difference == cost.value - cost.reference != 0
    assert cost.interval is not None
    assert cost.interval[0] <= cost.difference <= cost.interval[1]
    assert cost.worse is not None
    assert cost.within == (cost.worse <= 0.005)
    assert failed.reason is not None
    assert failed.tasks == failed.costs == {}


def test_paired_intervals_are_narrower(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images differ more from each other than a pair from eager f32 on the same image."""
    found = scored(run, monkeypatch, dict.fromkeys(PAIRS, 0.01))
    cost = found.pairs[1].costs["depth"]
    alone = found.tasks["depth"].intervals[cost.metric]
    assert cost.interval is not None
    assert 0 < cost.interval[1] - cost.interval[0] < 0.5 * (alone[1] - alone[0])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--flip",), "--runtime and --precision score the network as it ships: leave out --flip"),
        (("--window", "32x32"), "leave out --flip, --scales, --window"),
        (("--amp",), "--amp: with --runtime or --precision say --precision bf16 or f32"),
    ],
)
def test_options_that_leave_no_room(
    cli: Cli, run: Path, options: tuple[str, ...], why: str
) -> None:
    done = cli("evaluate", "--checkpoint", run, "--runtime", "eager", *options)
    assert done.exit_code == 2
    assert why in line(done)


def test_a_pair_that_nothing_runs_is_a_row_with_the_reason(cli: Cli, run: Path) -> None:
    done = cli("evaluate", "--checkpoint", run, "--precision", "int8", "--json", "-")
    assert done.exit_code == 2
    assert "--precision int8: add --runtime onnxruntime or openvino" in done.stderr
    done = cli("evaluate", "--checkpoint", run, "--precision", "int8", "--precision", "f32")
    assert done.exit_code == 0
    text = " ".join(done.stdout.split())
    assert "No eager int8: eager has no int8: use --runtime onnxruntime or openvino." in text
    assert "0.0000 0.0000 to 0.0000" in text  # eager f32 beside itself, without signs


def test_a_run_carries_the_scores(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs that have scores are not scored again; others are added."""
    words = ("run", "--task", "saliency", "--backbone", "test_resnet", "--decoder", "fcn",
             "--image-size", "32", "--limit", "4", "--epochs", "1", "--batch-size", "2",
             "--results", tmp_path)  # fmt: skip

    def pairs_after(*more: str) -> list[dict[str, Any]]:
        done = cli(*words, *more)
        assert done.exit_code == 0, done.stderr
        assert ("eager f32" in done.stdout) == bool(more)
        (folder,) = tmp_path.glob("saliency*")
        rows = json.loads((folder / "result.json").read_bytes())["pairs"]
        assert isinstance(rows, list)
        return rows

    assert pairs_after() == []
    (first,) = pairs_after("--runtime", "eager")
    assert first["costs"]["saliency"]["difference"] == 0
    asked: list[Any] = []
    monkeypatch.setattr("benchmark.speed.accuracy.unavailable", lambda *a: asked.append(a) or "no")
    same, second = pairs_after("--runtime", "eager", "--precision", "f32", "--precision", "int8")
    assert same == first
    assert [pair for pair, _ in asked] == [("eager", "int8")]
    assert (second["precision"], second["reason"]) == ("int8", "no")
    assert pairs_after() == [same, second]
    path = next(tmp_path.glob("saliency*")) / "result.json"  # as if int8 had once been scored
    eight = {"asked": 8, "images": 8, "split": "train", "kept_in_float": []}
    written = json.loads(path.read_bytes())
    written["pairs"][1] |= {"reason": None, "tasks": same["tasks"], "calibration": eight}
    path.write_text(json.dumps(written))
    both = pairs_after("--precision", "f32", "--precision", "int8")
    assert both[1]["calibration"] == eight  # 64 asked: it failed
    failing = cli(*words, "--precision", "bf16", "--overwrite")  # a run of nothing but reasons
    assert failing.exit_code == 1


def test_several_processes_leave_it_to_evaluate(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = cli("run", "--runtime", "eager")
    assert done.exit_code == 2
    assert "are of one process: take evaluate afterwards" in done.stderr


def test_the_split_that_a_run_chose_by(
    cli: Cli, tmp_path: Path, voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VOC's published val is what `--split test` scores; a run with --split val holds out train."""
    words = ("run", "--task", "segmentation", "--dataset", "voc2012", "--backbone", "test_resnet",
             "--decoder", "fcn", "--image-size", "64", "--epochs", "1", "--batch-size", "1",
             "--split", "val", "--results", tmp_path / "runs")  # fmt: skip
    assert cli(*words, "--data", voc).exit_code == 0
    moved = voc.rename(tmp_path / "moved")  # the command says where
    done = cli(*words, "--data", moved, "--runtime", "eager")
    assert done.exit_code == 0, done.stderr
    (folder,) = (tmp_path / "runs").glob("segmentation*")
    result = json.loads((folder / "result.json").read_bytes())
    (pair,) = result["pairs"]
    assert pair["tasks"]["segmentation"]["metrics"] == result["metrics"]
    monkeypatch.setattr("benchmark.scoring.rescore.Scoring.facts", lambda _: {"fingerprint": "x"})
    done = cli(*words, "--data", moved, "--precision", "f32", "--precision", "int8")
    assert done.exit_code == 0
    assert "not those that it was scored on: repeat the run with --overwrite" in done.stderr


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    voc2012(tmp_path / "voc")
    return tmp_path / "voc"


def cost_row(runtime: str, *tasks: str, reason: str | None = None) -> PairScores:
    cost = Cost(metric="rmse", higher_is_better=False, reference=0, value=1, difference=1,
                interval=None, worse=None, within=False)  # fmt: skip
    costs = dict.fromkeys(tasks, cost)
    return PairScores(runtime=runtime, precision="f32", costs=costs, reason=reason)


def test_a_table_for_each_task_and_none_for_reasons() -> None:
    rows = [cost_row("eager", "depth", "height"), cost_row("a[/b]", reason="pip install '.[x]'")]
    tables = list(costs_tables(rows, "fcn on b"))
    assert [str(table.title) for table in tables] == ["fcn on b, depth", "fcn on b, height"]
    texts = []
    for table in tables:
        file = io.StringIO()
        Console(width=200, file=file).print(table)
        texts.append(" ".join(file.getvalue().split()))
    assert all("No a[/b] f32: pip install '.[x]'." in text for text in texts)
    assert all("‡" in text.split("Differences")[0] for text in texts)
    (alone,) = costs_tables([cost_row("eager", reason="no")], "fcn")
    assert str(alone.title) == "fcn"


@pytest.mark.slow
def test_int8_at_another_size(cli: Cli, run: Path) -> None:
    done = cli("evaluate", "--checkpoint", run, "--image-size", "64x64", "--runtime",
               "onnxruntime", "--precision", "int8", "--json", "-")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "int8: calibrated on all 16 images trained on" in done.stderr
    (row,) = json.loads(done.stdout)["pairs"]
    assert (row["calibration"]["asked"], row["calibration"]["images"]) == (64, 16)


@pytest.mark.slow
def test_the_very_files_are_scored(cli: Cli, run: Path, tmp_path: Path) -> None:
    """int8 as `export --int8` makes and scores it, f32 within rounding, for any runtime."""
    pytest.importorskip("openvino")
    done = cli("evaluate", "--checkpoint", run, "--runtime", "onnxruntime", "--runtime", "openvino",
               "--precision", "f32", "--precision", "int8", "--calibrate", 8,
               "--json", tmp_path / "scores.json")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    rows = {
        (row["runtime"], row["precision"]): row
        for row in json.loads((tmp_path / "scores.json").read_bytes())["pairs"]
    }
    assert [row["reason"] for row in rows.values()] == [None] * 4
    for runtime in ("onnxruntime", "openvino"):
        assert abs(rows[runtime, "f32"]["costs"]["depth"]["worse"]) < 1e-4
    made = cli("export", "--checkpoint", run, "--static", "--int8", "--calibrate", 8,
               "--limit", 16, "-o", tmp_path / "a.onnx")  # fmt: skip
    assert made.exit_code == 0, made.stderr
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    texts = session.get_modelmeta().custom_metadata_map
    int8 = json.loads(texts["sparsemask.json"])["int8"]
    row = rows["onnxruntime", "int8"]
    assert row["calibration"] == {
        "asked": 8, "images": 8, "split": "train", "kept_in_float": int8["kept_in_float"]
    }  # fmt: skip
    cost = row["costs"]["depth"]
    expected = int8["metrics"]["int8"]["depth"][cost["metric"]]
    assert cost["value"] == pytest.approx(expected, rel=1e-6)
    assert row["once"]["file_bytes"] < rows["onnxruntime", "f32"]["once"]["file_bytes"]


@pytest.mark.slow
def test_layers_that_cost_most_stay_in_float(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as bring the loss, told by the training images, within the tolerance."""
    import onnx

    checkpoint = open_checkpoint(run)
    data = quantize.open_data(checkpoint.config, checkpoint.tasks, "train", 8)
    losses = iter([0.5, 0.4, 0.005, 0.0])
    monkeypatch.setattr(quantize, "_loss", lambda *_: next(losses))
    with Preparation(Setup()) as prepare:
        source, _ = prepare._file("n", checkpoint.model, (32, 48), None)
        kept = quantize.quantize(checkpoint, source, tmp_path / "a.onnx", data, Silent())
    assert len(kept) == 2  # of 0, 1 and 2 layers in float, the first within the tolerance
    assert next(losses) == 0.0
    graph = onnx.load(str(tmp_path / "a.onnx")).graph
    stored = {tensor.name for tensor in graph.initializer}
    weights = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    # others come from integers by DequantizeLinear
    assert weights & stored == {f"net.{name}.weight" for name in kept}


@pytest.mark.slow
def test_from_a_run_to_the_file_that_ships(cli: Cli, tmp_path: Path) -> None:
    """One command trains, scores and times; the board, the page and the advice follow from it."""
    pytest.importorskip("openvino")
    words = ("run", "--task", "depth", "--backbone", "test_resnet", "--decoder", "fcn",
             "--image-size", "64", "--limit", "8", "--epochs", "1", "--batch-size", "4",
             "--results", tmp_path, "--runtime", "onnxruntime", "--runtime", "openvino",
             "--precision", "f32", "--precision", "int8", "--calibrate", 4)  # fmt: skip
    done = cli(*words)
    assert done.exit_code == 0, done.stderr
    assert "fcn in openvino int8" in done.stdout
    (folder,) = tmp_path.glob("depth*")
    result = json.loads((folder / "result.json").read_bytes())
    speeds = [result["speed"], *(pair["speed"] for pair in result["pairs"])]
    assert len(speeds) == 5
    assert len({speed["session"] for speed in speeds}) == 1
    assert all(speed["median_ms"] > 0 for speed in speeds)
    assert "not timed" not in done.stderr
    again = cli(*words)
    assert json.loads((folder / "result.json").read_bytes()) == result, again.stderr
    page = cli("report", "--results", tmp_path, "--html", tmp_path / "page")
    assert page.exit_code == 0, page.stderr
    (board,) = json.loads((tmp_path / "page" / "leaderboard.json").read_bytes())["boards"]
    rows, main = board["rows"], board["columns"][0]
    shown = {(row["runtime"], row["precision"]): row["latency ms"] for row in rows}
    timed = {(p["runtime"], p["precision"]): p["speed"]["median_ms"] for p in result["pairs"]}
    assert shown == timed | {("eager", "f32"): result["speed"]["median_ms"]}
    advice = cli("recommend", "--task", "depth", "--results", tmp_path, "--disturbed")
    assert advice.exit_code == 0, advice.stderr
    sign = 1 if board["higher_is_better"][main] else -1
    best = max(rows, key=lambda row: (sign * row[main], -row["latency ms"]))
    assert f"take {best['label']} in {best['runtime']} {best['precision']} " in advice.stdout
