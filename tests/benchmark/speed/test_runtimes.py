"""`speed --runtime --precision`: a row for each, what each costs once, and what cannot run."""

import json

import pytest
import torch

from benchmark.experiment import environment
from benchmark.experiment.environment import processor_features
from benchmark.export import quantize
from benchmark.leaderboard.boards import boards
from benchmark.leaderboard.recommend import recommend, with_latencies
from benchmark.report.recommendation import sentences
from benchmark.results.result import Calibration, PairScores, TaskScores
from benchmark.results.runtimes import pair_of
from benchmark.speed import runtimes
from benchmark.speed.latency import Setup
from benchmark.speed.rows import SpeedOptions
from benchmark.speed.runtimes import Preparation, pairs_of, unavailable
from benchmark.speed.table import speed_rows
from common.errors import UsageError
from tests.benchmark.leaderboard.test_recommend import runs, timing

BRIEF = ("--image-size", "32", "--classes", "2", "--min-time", "0.01", "--threads", "1")


def test_every_runtime_with_every_precision():
    assert pairs_of([], ["bf16"]) == [("eager", "bf16")]
    assert pairs_of(["openvino", "openvino"], []) == [("openvino", "f32")]
    assert pairs_of(["eager", "compiled"], ["f32", "int8"]) == [
        ("eager", "f32"), ("eager", "int8"), ("compiled", "f32"), ("compiled", "int8"),
    ]  # fmt: skip
    assert len(pairs_of(["all"], ["f32", "all"])) == 12


def test_what_pytorch_runs_has_a_name():
    assert pair_of("cpu", False) == ("eager", "f32")
    assert pair_of("cpu", True, compiled=True) == ("compiled", "bf16")
    assert pair_of("cuda:1", True) == ("eager", "f16")


CPUINFO = "processor : 0\nmodel name : T\nflags : fpu avx2 amx_bf16 avx512f\n\nflags : fpu\n"


def test_what_a_processor_offers(monkeypatch, tmp_path):
    (tmp_path / "x86").write_text(CPUINFO)
    (tmp_path / "arm").write_text("Features : fp asimd asimddp\n")
    for name, offered in (
        ("x86", ["avx2", "avx512f", "amx_bf16"]), ("arm", ["asimd", "asimddp"]), ("none", []),
    ):  # fmt: skip
        monkeypatch.setattr(environment, "Path", lambda _, name=name: tmp_path / name)
        assert processor_features() == offered


@pytest.mark.parametrize(
    ("pair", "device", "why"),
    [
        (("eager", "bf16"), "cpu", "has no bf16"),
        (("compiled", "f32"), "cpu", None),
        (("eager", "int8"), "cpu", "eager has no int8: use --runtime onnxruntime or openvino"),
        (("compiled", "int8"), "cpu", "compiled has no int8"),
        (("onnxruntime", "bf16"), "cpu", "no convolution in bf16"),
        (("onnxruntime", "int8"), "cpu", None),
        (("openvino", "bf16"), "cpu", "has no bf16"),
        (("eager", "f32"), "cuda", None),
        (("openvino", "f32"), "cuda", "openvino f32 is of the CPU"),
        (("eager", "bf16"), "cuda", "speed takes --compile and --amp on CUDA"),
    ],
)
def test_why_a_pair_cannot_run(monkeypatch, pair, device, why):
    monkeypatch.setattr(runtimes, "find_spec", lambda _: True)
    monkeypatch.setattr(runtimes, "processor_features", lambda: ["avx2"])
    monkeypatch.setattr("benchmark.export.onnx_files.openvino_offers", lambda: ["FP32", "INT8"])
    found = unavailable(pair, device)
    assert found is None if why is None else why in found


def test_who_tells_what_a_processor_has(monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda _: True)
    monkeypatch.setattr("benchmark.export.onnx_files.openvino_offers", lambda: ["FP32", "BF16"])
    monkeypatch.setattr(runtimes, "processor_features", list)  # the system does not tell
    assert unavailable(("openvino", "bf16"), "cpu") is None
    assert unavailable(("eager", "bf16"), "cpu") is None
    monkeypatch.setattr(runtimes, "processor_features", lambda: ["amx_bf16"])
    assert unavailable(("compiled", "bf16"), "cpu") is None


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(runtimes, "processor_features", lambda: ["amx_bf16"])
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "openvino" else 1)
    assert unavailable(("onnxruntime", "f32"), "cpu") is None
    assert "needs openvino: pip install -e '.[openvino]'" in unavailable(("openvino", "f32"), "cpu")
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "onnx" else 1)
    assert "openvino needs onnx: pip install" in unavailable(("openvino", "f32"), "cpu")
    assert "pip install -e '.[export]'" in unavailable(("onnxruntime", "f32"), "cpu")


def test_a_row_for_each_and_the_reason_for_none(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "processor_features", lambda: ["amx_bf16"])
    path = tmp_path / "rows.json"
    done = cli("speed", "--backbone", "test_resnet", "--decoder", "fcn", "--decoder", "sparsemask",
               *BRIEF, "--runtime", "eager", "--precision", "f32", "--precision", "bf16",
               "--precision", "int8", "--json", path)  # fmt: skip
    assert done.exit_code == 0
    rows = json.loads(path.read_text())
    assert [(r["decoder"], r["precision"]) for r in rows] == [
        (name, precision) for name in ("fcn", "sparsemask") for precision in ("f32", "bf16", "int8")
    ]
    assert {r["runtime"] for r in rows} == {"eager"}
    assert all(r["isa"] == processor_features() for r in rows)
    assert [r["latency"]["amp"] for r in rows[:2]] == [False, True]
    assert rows[2]["latency"] is None
    assert rows[2]["once"] == rows[0]["once"]
    assert rows[0]["latency"]["interleaved_with"] == [
        "test_resnet + fcn in eager bf16",
        "test_resnet + sparsemask in eager bf16",
        "test_resnet + sparsemask in eager f32",
    ]
    assert rows[0]["once"] == {"export_s": None, "load_s": None, "file_bytes": None}
    assert len({r["latency"]["session"] for r in rows if r["latency"]}) == 1  # all take turns
    text = " ".join(done.stdout.split())
    assert "test_resnet with every decoder in eager int8 failed: eager has no int8" in text
    assert "eager bf16" in text
    assert "argmax" not in text


def test_timed_rows_carry_their_pair():
    brief = SpeedOptions(min_time=0.0, memory=False, setup=Setup(amp=True))
    (row,) = speed_rows(["test_resnet"], ["fcn"], [(32, 32)], brief)
    assert (row["runtime"], row["precision"]) == ("eager", "bf16")
    assert row["isa"] == processor_features()
    assert "once" not in row


@pytest.mark.parametrize(
    "option", [("--compile",), ("--amp",), ("--onnx",), ("--profile",), ("--isolate", "2")]
)
def test_options_that_do_not_go_with_runtimes(cli, option):
    done = cli("speed", "--backbone", "test_resnet", *BRIEF, "--precision", "f32", *option)
    assert done.exit_code == 2
    assert f"{option[0]}: is not for rows of several runtimes" in done.stderr
    done = cli("speed", "--no-time", "--runtime", "eager")
    assert done.exit_code == 2
    assert "--runtime: with --no-time nothing is run" in done.stderr


def in_pair(decoder, ms, runtime, precision, **values):
    return timing(decoder, ms, runtime=runtime, precision=precision, once={}, **values)


def scored_in(value, runtime, precision):
    scores = TaskScores(metrics={"m": value}, intervals={"m": (value - 0.01, value + 0.02)})
    return PairScores(runtime=runtime, precision=precision, tasks={"segmentation": scores})


def test_recommend_chooses_over_runtimes_and_precisions(tmp_path):
    found = runs(options={"image_size": (64, 64)})  # small: 0.4, large: 0.6
    for run in found:
        if run.config.decoder == "large":
            run.folder = tmp_path / "a run"
            run.speed["peak_memory_mb"] = 7.0
            eight = Calibration(asked=8, images=8, split="train", kept_in_float=[])
            int8 = scored_in(0.3, "openvino", "int8").model_copy(update={"calibration": eight})
            run.pairs = [scored_in(0.59, "openvino", "bf16"), int8,
                         PairScores(runtime="eager", precision="bf16", reason="none")]  # fmt: skip
    (board,) = boards(found)
    path = tmp_path / "speed.json"
    rows = [in_pair("large", 20, "eager", "f32"), in_pair("large", 9, "compiled", "bf16"),
            in_pair("large", 12, "openvino", "f32"), in_pair("large", 6, "openvino", "bf16"),
            in_pair("large", 4, "openvino", "int8"), in_pair("large", 1, "eager", "bf16"),
            in_pair("small", 5, "openvino", "f32"),
            in_pair("tiny", 1, "eager", "bf16")]  # fmt: skip
    rows[3]["latency"]["memory_format"] = "contiguous"
    path.write_text(json.dumps(rows))
    moved = with_latencies(board, path)
    assert moved.machine == "cpu T, 1 thread"

    def best(most):
        row = recommend(moved, {"latency": most}).best
        return row and (row.decoder, row.runtime, row.precision, row.metrics["m"])

    assert best(30) == ("large", "openvino", "f32", 0.6)  # as good as eager, and faster
    assert best(11) == ("large", "openvino", "bf16", 0.59)  # compiled bf16 was not scored
    assert best(5.5) == ("small", "openvino", "f32", 0.4)
    assert best(4.5) == ("large", "openvino", "int8", 0.3)
    assert best(2) is None  # nor were any in eager bf16
    memory = {(row.runtime, row.precision): row.memory_mb for row in moved.rows
              if row.decoder == "large"}  # fmt: skip
    assert memory.pop(("eager", "f32")) == 7.0
    assert set(memory.values()) == {None}  # not measured
    row = recommend(moved, {"latency": 11}).best
    assert row.interval == pytest.approx((0.58, 0.61))
    text = " ".join(sentences(recommend(moved, {"latency": 11}), {"latency": 11}))
    assert "Left out in compiled bf16 because no score tells" in text
    assert "(run --runtime eager --precision bf16): large on b, tiny on b." in text
    assert "a cost was not measured: huge on b, odd on b." in text
    assert "The file of large in openvino bf16 on b, to be compiled" in text
    assert "INFERENCE_PRECISION_HINT=bf16: python" in text
    assert "take large in openvino bf16 on b: m 0.590" in text
    assert f"export --checkpoint '{tmp_path / 'a run'}' --static -o net.onnx" in text
    text = " ".join(sentences(recommend(moved, {"latency": 4.5}), {}))
    assert "INFERENCE_PRECISION_HINT=f32: python" in text
    assert "--static --int8 --calibrate 8 -o" in text


def test_timings_of_what_was_not_scored(tmp_path):
    (board,) = boards(runs(options={"image_size": (64, 64)}))
    path = tmp_path / "speed.json"
    path.write_text(json.dumps([in_pair("large", 2, "openvino", "int8")]))
    with pytest.raises(UsageError, match="with --runtime openvino --precision int8"):
        with_latencies(board, path)
    path.write_text(json.dumps([in_pair("large", 2, "openvino", "f32"),
                                in_pair("tiny", 2, "openvino", "f32", threads=2)]))  # fmt: skip
    with pytest.raises(UsageError, match="timings of 2 devices or setups"):
        with_latencies(board, path)
    path.write_text(json.dumps([timing("large", 2, runtime="eager", precision="bf16")]))
    (row,) = (row for row in with_latencies(board, path).rows if row.latency_ms)
    assert (row.runtime, row.precision) == ("", "")  # timed with --amp, as the runs may be


@pytest.fixture
def network():
    from benchmark.experiment.network import NetworkSpec

    return NetworkSpec("test_resnet", "sparsemask", {"classes": 2}).build()


@pytest.mark.slow
def test_files_compute_what_the_network_does(network):
    """In bf16 and int8 too, roughly; one file serves both runtimes."""
    pytest.importorskip("openvino")
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network.eval()(images)["classes"]
    largest = float(expected.abs().max())
    errors = {}
    with Preparation(Setup()) as prepare:
        for pair in reversed(pairs_of(["onnxruntime", "openvino"], ["all"])):  # int8 first
            if unavailable(pair, "cpu"):
                continue
            ready = prepare("network", network, pair, (64, 96), 2)
            assert ready.once["export_s"] > 0
            assert ready.once["load_s"] > 0
            output = ready.model(images)["classes"].clone()
            assert ready.model(images[:1])["classes"].shape == (1, 2, 64, 96)
            errors[pair] = float((output - expected).abs().max()) / largest
        sizes = {kept: path.stat().st_size for (_, _, kept), (path, _) in prepare.files.items()}
    assert len(errors) >= 4
    assert sizes[()] < sizes[None]  # in int8, with no layer in float
    assert errors["onnxruntime", "f32"] < 1e-4
    assert errors["openvino", "f32"] < 1e-4  # not in bf16, its own choice
    assert all(1e-4 < error < 0.5 for (_, kind), error in errors.items() if kind != "f32")


def test_what_cannot_be_exported_is_not_tried_again(network, monkeypatch):
    tried = []

    def fail(*_):
        tried.append(1)
        raise ValueError("no such operator")

    monkeypatch.setattr("benchmark.export.formats.write", fail)
    with Preparation(Setup()) as prepare:
        for pair in pairs_of(["onnxruntime", "openvino"], ["f32", "int8"]):
            with pytest.raises(ValueError, match="no such operator"):
                prepare("network", network, pair, (64, 96), 2)
    assert len(tried) == 1


@pytest.mark.slow
def test_layers_that_stayed_in_float_are_timed_so(network, tmp_path):
    """A file for the time has the layers in float that the scored one has."""
    import onnx

    with Preparation(Setup()) as prepare:
        prepare("network", network, ("onnxruntime", "f32"), (64, 96), 1)
        ((path, _),) = prepare.files.values()
        layer = list(quantize._layers(quantize._prepared(path, tmp_path)))[3]
        for kept in ((), (layer,)):
            prepare("network", network, ("onnxruntime", "int8"), (64, 96), 1, kept)
        graphs = [
            onnx.load(str(path)).graph
            for (_, _, kept), (path, _) in prepare.files.items()
            if kept is not None
        ]
    stored = [{t.name for t in graph.initializer if t.data_type == 1} for graph in graphs]
    weights = [
        {node.input[1] for node in graph.node if node.op_type == "Conv"} & names
        for graph, names in zip(graphs, stored, strict=True)
    ]
    assert weights == [set(), {f"net.{layer}.weight"}]


@pytest.mark.slow
def test_a_neck_is_timed_alone_only_where_pytorch_runs_it(cli, tmp_path):
    path = tmp_path / "rows.json"
    done = cli("speed", "--backbone", "test_vit", "--backbone-arg", "neck=vitdet",
               "--decoder", "fcn", "--image-size", "64", "--classes", "2", "--min-time", "0.01",
               "--threads", "1", "--runtime", "eager", "--runtime", "onnxruntime",
               "--json", path)  # fmt: skip
    assert done.exit_code == 0, done.output
    eager, file = json.loads(path.read_text())
    assert eager["neck"]["ms"] > 0
    assert file["latency"]["median_ms"] > 0
    assert file["neck"] == {**eager["neck"], "ms": None}


@pytest.mark.slow
def test_the_matrix_from_the_command_line(cli, tmp_path):
    pytest.importorskip("openvino")
    path = tmp_path / "rows.json"
    done = cli("speed", "--backbone", "test_resnet", "--decoder", "sparsemask", *BRIEF,
               "--runtime", "all", "--json", path)  # fmt: skip
    assert done.exit_code == 0, done.output
    rows = {r["runtime"]: r for r in json.loads(path.read_text())}
    assert list(rows) == ["eager", "compiled", "onnxruntime", "openvino"]
    assert all(r["latency"]["median_ms"] > 0 for r in rows.values())
    assert rows["compiled"]["once"]["load_s"] > rows["eager"]["first_call_s"]
    assert rows["onnxruntime"]["once"]["file_bytes"] == rows["openvino"]["once"]["file_bytes"] > 0
    assert rows["openvino"]["latency"]["memory_format"] == "contiguous"
    assert "memory" not in rows["eager"]
    text = " ".join(done.stdout.split())
    assert "openvino f32" in text
    assert "load s: to read and compile it" in text
