"""``speed``: counts as published, impossible pairs with a reason, nothing but JSON on stdout."""

import contextlib
import functools
import itertools
import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from benchmark.speed import latency as speed
from benchmark.speed import passes as speed_passes
from benchmark.speed.count import NOT_COUNTED, count_macs, count_parameters
from benchmark.speed.latency import Setup, time_models
from benchmark.speed.passes import Contender
from benchmark.speed.rows import SpeedOptions, network_of
from benchmark.speed.table import speed_rows
from common.errors import UsageError, out_of_memory
from common.progress import Silent
from models.backbones import create_backbone
from models.connectivity import unet
from models.create import create_decoder
from models.predictor import DensePredictor
from tests.support import line

# the paper's table 1
WEIGHTS = {
    "sparsemask": 559_104,
    "fully-dense": 1_931_776,
    "unet-connectivity": 162_304,
    "sparse-acn": 719_360,
    "fcn": 26_880,
    "deeplabv3-light": 666_112,
}


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Timed without a warm-up and in short blocks: what is timed counts here, not how well."""
    for module in (speed, speed_passes):
        calls = functools.partial(module.time_calls, warmup_time=0.0, block=0.001)
        monkeypatch.setattr(module, "time_calls", calls)


def test_the_papers_weights_through_the_command_line(cli):
    options = [part for name in WEIGHTS for part in ("--decoder", name)]
    done = cli("speed", "--no-time", "--backbone", "mobilenetv2_100", *options, "--json", "-")
    rows = json.loads(done.stdout)
    assert {r["decoder"]: r["params"]["decoder_conv_weights"] for r in rows} == WEIGHTS
    for row in rows:
        assert list(row) == ["backbone", "backbone_args", "decoder", "image_size", "batch",
                             "classes", "in_channels", "params", "macs", "macs_exclude",
                             "error", "deployed"]  # fmt: skip
        assert (row["image_size"], row["classes"], row["error"]) == ([512, 512], 21, None)
        assert row["params"]["backbone"] == 2_223_872
        assert row["macs_exclude"] == NOT_COUNTED
    dense, fcn = rows[1], rows[4]
    assert dense["params"]["decoder"] == 1_931_776 + 9 * 2 * 64  # BatchNorm of nine stages
    assert dense["params"]["head"] == 64 * 21 + 21
    assert dense["macs"]["head"] == 64 * 21 * 256 * 256
    assert fcn["macs"] == {
        "backbone": dense["macs"]["backbone"], "decoder": 0, "head": 1280 * 21 * 16 * 16,
    }  # fmt: skip


@pytest.mark.parametrize("decoder", ["sparse-acn", "smp-fpn", "deeplabv3-light"])
@pytest.mark.parametrize("backbone", ["test_resnet", "dla46_c"])
def test_counts_equal_those_of_the_whole_network(backbone, decoder):
    options = SpeedOptions(classes=5, timed=False)
    (row,) = speed_rows([backbone], [decoder], [(97, 131)], options)
    net = create_backbone(backbone)
    model = DensePredictor(net, create_decoder(decoder, net.features), {"x": 5})
    assert row["macs"] == count_macs(model, (97, 131))
    assert {k: row["params"][k] for k in ("backbone", "decoder", "head")} == count_parameters(model)


def test_a_width_reaches_the_counts_and_the_process_that_times(cli):
    arguments = ("--no-time", "--backbone", "test_resnet", "--width", "24")
    done = cli("speed", *arguments, "--decoder", "unet-connectivity", "--json", "-")
    (row,) = json.loads(done.stdout)
    features = create_backbone("test_resnet").features
    # D_l ← E_l, D_{l+1}
    weights = 24 * sum(f.channels for f in features) + 4 * 24 * 24
    assert (row["width"], row["params"]["decoder_conv_weights"]) == (24, weights)
    assert network_of(row).build().decoder.out_channels == 24
    shown = cli("speed", *arguments, "--decoder", "unet-connectivity").stdout
    assert "Decoders of width 24." in shown


def test_a_neck_has_a_column_and_a_key(cli, tmp_path):
    path = tmp_path / "rows.json"
    words = ("speed", "--backbone", "test_vit", "--backbone-arg", "neck=vitdet", "--decoder", "fcn",
             "--decoder", "sparsemask", "--image-size", "64", "--no-memory", "--min-time", "0.01",
             "--json", path)  # fmt: skip
    done = cli(*words)
    assert done.exit_code == 0, done.stderr
    rows = json.loads(path.read_text())
    for row in rows:
        params = row["params"]
        whole = sum(count for part, count in params.items() if part != "decoder_conv_weights")
        assert whole == 306_240 + 2_427_024 + params["decoder"] + params["head"]
        assert params["neck"] == row["neck"]["params"] == 2_427_024
        assert row["macs"]["neck"] == row["neck"]["macs"] > 0
        assert list(row["neck"]) == ["params", "macs", "ms"]
        assert row["neck"]["ms"] > 0
    assert rows[0]["neck"] == rows[1]["neck"]  # timed once
    net = create_backbone("test_vit", {"neck": "vitdet"})
    model = DensePredictor(net, create_decoder("fcn", net.features), {"x": 21})
    assert rows[0]["macs"] == count_macs(model, (64, 64))
    assert "neck ms: of all maps of the backbone's neck alone" in " ".join(done.stdout.split())
    heads = [text.split() for text in done.stdout.splitlines() if text.split()[:1] == ["backbone"]]
    assert [words.count("neck") for words in heads] == [2, 0]  # sizes; times: in the line above
    assert heads[0][3:] == [
        *("backbone", "neck", "decoder", "conv", "head"), *("backbone", "neck", "decoder", "head"),
    ]  # fmt: skip
    counted = cli(*words, "--no-time")
    assert counted.exit_code == 0, counted.stderr
    assert [row["neck"]["ms"] for row in json.loads(path.read_text())] == [None, None]
    done = cli("speed", "--no-time", "--backbone", "test_vit", "--decoder", "fcn", "--json", path)
    assert "neck" not in done.stdout
    assert "neck" not in path.read_text()


def test_impossible_pairs_are_rows_with_a_reason(cli, tmp_path):
    path = tmp_path / "rows.json"
    done = cli("speed", "--no-time", "--backbone", "test_vit", "--backbone", "test_resnet",
               "--decoder", "fcn", "--decoder", "smp-unet", "--image-size", "64", "--image-size",
               "64x96", "--backbone-arg", "output_stride=16", "--json", path)  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "smp-unet failed" in " ".join(done.stdout.split())
    rows = json.loads(path.read_text())
    product = itertools.product(("test_vit", "test_resnet"), ("fcn", "smp-unet"), (64, 96))
    assert [(r["backbone"], r["decoder"], r["image_size"][1]) for r in rows] == list(product)
    assert [r["error"] is None for r in rows] == [False] * 4 + [True] * 2 + [False] * 2
    assert "needs features of stride 32" in rows[-1]["error"]
    for row in rows:
        assert (row["params"] is None) == (row["macs"] is None) == (row["error"] is not None)


def test_a_size_that_a_backbone_cannot_take_is_told(cli):
    done = cli("speed", "--no-time", "--backbone", "coatnet_pico_rw_224", "--backbone-arg",
               "img_size=96", "--decoder", "fcn", "--json", "-")  # fmt: skip
    assert done.exit_code == 1  # no row could be counted
    (row,) = json.loads(done.stdout)
    assert "96×96 only, not 512×512" in row["error"]


def test_a_backbone_of_one_size_is_built_for_each(cli):
    done = cli("speed", "--no-time", "--backbone", "coatnet_pico_rw_224", "--decoder", "fcn",
               "--image-size", "64x96", "--image-size", "224", "--json", "-")  # fmt: skip
    small, own = json.loads(done.stdout)
    assert (small["backbone_args"], own["backbone_args"]) == ({"img_size": [64, 96]}, {})
    assert small["error"] is own["error"] is None
    # its position tables have one column for each pair of places in a map
    assert small["params"]["backbone"] < own["params"]["backbone"]


def test_a_wiring_from_a_file_and_timing_in_turns(cli, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(unet((2, 4, 8, 16, 32)).to_json()))
    done = cli("speed", "--backbone", "test_resnet", "--decoder", f"connectivity:{path}",
               "--decoder", "unet-connectivity", "--image-size", "32", "--batch-size", "2",
               "--min-time", "0.01", "--threads", "1", "--no-memory", "--json", "-")  # fmt: skip
    mine, preset = json.loads(done.stdout)
    assert mine["params"] == preset["params"]
    latency = mine["latency"]
    assert latency["session"] == preset["latency"]["session"]
    assert latency["interleaved_with"] == ["test_resnet + unet-connectivity"]
    assert (latency["batch"], latency["size"], latency["threads"]) == (2, [32, 32], 1)
    assert latency["fps"] == pytest.approx(2000 / latency["median_ms"])


def test_batches_and_the_setup_are_in_the_rows(cli):
    done = cli("speed", "--backbone", "test_resnet", "--decoder", "fcn", "--image-size", "32",
               "--batch-size", "1", "--batch-size", "3", "--no-fused", "--no-channels-last",
               "--amp", "--min-time", "0.01", "--threads", "1", "--no-memory", "--json",
               "-")  # fmt: skip
    rows = json.loads(done.stdout)
    assert [row["batch"] for row in rows] == [row["latency"]["batch"] for row in rows] == [1, 3]
    for row in rows:
        latency = row["latency"]
        seen = [latency[name] for name in ("memory_format", "fused", "compiled", "amp")]
        assert seen == ["contiguous", False, False, True]
        assert row["first_call_s"] > 0
        assert row["postprocessing_ms"] > 0
        assert row["environment"]["versions"]["torch"] == version("torch")
        assert "memory" not in row
        assert latency["interleaved_with"] == []  # the other batch is no rival


def test_a_setup_is_what_runs():
    seen = []

    class Watching(torch.nn.Module):
        def forward(self, x):
            dtype = (x[:, :1, :, :1].movedim(1, 3) @ x.new_ones(1, 1)).dtype
            seen.append((x.is_contiguous(memory_format=torch.channels_last), dtype))
            return x

    plain = Setup(channels_last=False, amp=True)
    time_models({"a": Watching()}, (8, 8), setup=plain, min_time=0.0, min_calls=1, warmup_time=0)
    assert set(seen) == {(False, torch.bfloat16)}
    seen.clear()
    time_models({"a": Watching()}, (8, 8), min_time=0.0, min_calls=1, warmup_time=0.0)
    assert set(seen) == {(True, torch.float32)}


@pytest.mark.slow
def test_compiled_networks_are_told_apart(cli):
    done = cli("speed", "--backbone", "test_resnet", "--decoder", "fcn", "--image-size", "32",
               "--compile", "--min-time", "0.01", "--threads", "1", "--no-memory", "--json",
               "-")  # fmt: skip
    (row,) = json.loads(done.stdout)
    assert row["error"] is None
    assert row["latency"]["compiled"]
    assert row["first_call_s"] * 1000 > 20 * row["latency"]["median_ms"]


def test_a_pair_that_cannot_run_leaves_the_others_their_time(monkeypatch):
    whole = speed_passes.first_call

    def short_of_memory(model, *arguments):
        if model.decoder.info.title == "FCN":
            raise RuntimeError("out of memory\nand more")
        return whole(model, *arguments)

    monkeypatch.setattr(speed_passes, "first_call", short_of_memory)
    options = SpeedOptions(min_time=0.01)
    rows = speed_rows(["test_resnet"], ["fcn", "sparsemask"], [(32, 32)], options)
    assert (rows[0]["error"], rows[0]["latency"]) == ("RuntimeError: out of memory", None)
    assert rows[1]["error"] is None
    assert rows[1]["latency"]["interleaved_with"] == []


def short_of_memory_above(monkeypatch, limit, message):
    """Have first calls and calls in turns of more than ``limit`` images fail."""
    alone, together = speed_passes.first_call, speed_passes.time_models

    def first_call(model, size, device, batch, setup):
        if batch > limit:
            raise RuntimeError(message)
        return alone(model, size, device, batch, setup)

    def time_models(models, size, device, batches, setup, **protocol):
        # side by side, half as many fit
        if max(batches.values()) > limit // 2:
            raise RuntimeError(message)
        return together(models, size, device, batches, setup, **protocol)

    monkeypatch.setattr(speed_passes, "first_call", first_call)
    monkeypatch.setattr(speed_passes, "time_models", time_models)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "could not create a primitive",
    ],
)
def test_words_for_memory_that_has_run_out(message):
    assert out_of_memory(RuntimeError(message))
    assert not out_of_memory(ValueError(message))
    assert out_of_memory(MemoryError())


def test_a_batch_that_memory_does_not_hold_is_halved_and_told(monkeypatch, cli, tmp_path):
    short_of_memory_above(monkeypatch, 4, "CUDA out of memory. Tried to allocate 2.00 GiB")
    path = tmp_path / "rows.json"
    done = cli("speed", "--backbone", "test_resnet", "--decoder", "fcn", "--decoder", "sparsemask",
               "--image-size", "32", "--batch-size", "1", "--batch-size", "9", "--min-time",
               "0.01", "--threads", "1", "--no-memory", "--json", path)  # fmt: skip
    rows = json.loads(path.read_text())
    assert [row["batch"] for row in rows] == [1, 9, 1, 9]
    assert [row["latency"]["batch"] for row in rows] == [1, 2, 1, 2]  # 9, 4 alone, 2 together
    assert all(row["error"] is None for row in rows)
    for row in rows:
        fps = 1000 * row["latency"]["batch"] / row["latency"]["median_ms"]
        assert row["latency"]["fps"] == pytest.approx(fps)
    assert "asked 9, ran 2" in done.stdout
    assert "(n): memory was enough for n images only." in done.stdout


def test_one_image_that_memory_does_not_hold_is_a_row_with_a_reason(monkeypatch, cli):
    short_of_memory_above(monkeypatch, 0, "[enforce fail] can't allocate memory")
    done = cli("speed", "--backbone", "test_resnet", "--decoder", "fcn", "--image-size", "32",
               "--batch-size", "4", "--no-memory")  # fmt: skip
    assert done.exit_code == 1
    text = "test_resnet + fcn failed: RuntimeError: [enforce fail] can't allocate memory"
    assert text in " ".join(done.stdout.split())


def test_an_error_of_another_kind_halves_nothing(monkeypatch):
    short_of_memory_above(monkeypatch, 2, "a shape does not fit")
    options = SpeedOptions(batches=(1, 3), min_time=0.01)
    one, two = speed_rows(["test_resnet"], ["fcn"], [(32, 32)], options)
    assert two["error"] == "RuntimeError: a shape does not fit"
    assert two["latency"] is two["postprocessing_ms"] is None
    assert one["params"] == two["params"]


def test_fresh_processes_by_hand(monkeypatch):
    """Two rows in turns, each three times."""
    medians = iter(((5.0, 0.0), (30.0, None), (1.0, 0.4), (10.0, None), (3.0, 0.2), (20.0, None)))

    class Process(contextlib.nullcontext):
        def __enter__(self):
            return self

        def call(self, function, **arguments):
            return next(medians)

    monkeypatch.setattr(speed_passes, "FreshProcess", Process)
    row = {"backbone": "b", "backbone_args": {}, "decoder": "d", "classes": 3,
           "image_size": [32, 32]}  # fmt: skip
    ran = dict.fromkeys((0, 1), Contender(torch.nn.Identity(), Setup(), 1))
    parts = speed_passes.isolated([row] * 3, ran, SpeedOptions(processes=3), Silent())
    assert [part["isolated"] for part in parts] == [
        {
            "processes": 3,
            "medians_ms": [5, 1, 3],
            "median_ms": 3,
            "min_ms": 1,
            "max_ms": 5,
            "disturbed": 0.4,
        },
        {
            "processes": 3,
            "medians_ms": [30, 10, 20],
            "median_ms": 20,
            "min_ms": 10,
            "max_ms": 30,
            "disturbed": None,
        },
        None,
    ]


@pytest.mark.slow
def test_memory_processes_and_a_profile(cli, tmp_path):
    path = tmp_path / "rows.json"
    done = cli("speed", "--backbone", "test_resnet", "--decoder", "fcn", "--decoder", "smp-unet",
               "--image-size", "64", "--isolate", "2", "--profile", "--min-time", "0.05",
               "--threads", "1", "--json", path)  # fmt: skip
    rows = json.loads(path.read_text())
    for row in rows:
        assert row["memory"]["error"] is None
        assert row["memory"]["forward_bytes"] > 0
        isolated = row["isolated"]
        assert isolated["processes"] == len(isolated["medians_ms"]) == 2
        assert isolated["min_ms"] <= isolated["median_ms"] <= isolated["max_ms"]
        assert row["isolated_error"] is None
        assert [part["name"] for part in row["profile"]["parts"]][:2] == ["normalise", "backbone"]
    for text in ("forward", "Fresh processes", "test_resnet + smp-unet, 64x64, batch 1",
                 "roofline"):  # fmt: skip
        assert text in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 140


@pytest.mark.slow
def test_an_onnx_file_takes_its_turn(cli, tmp_path, monkeypatch):
    from benchmark.export import formats as exporting

    write = exporting.write

    def failing(shipped, *arguments):
        if shipped.net.decoder.info.title == "FCN":
            raise UsageError("--format onnx: cannot hold this network (why)")
        write(shipped, *arguments)

    monkeypatch.setattr(exporting, "write", failing)
    file = tmp_path / "rows.json"
    done = cli("speed", "--backbone", "test_resnet", "--decoder", "fcn", "--decoder", "sparsemask",
               "--image-size", "32x32", "--batch-size", 2, "--min-time", 0.01, "--no-memory",
               "--onnx", "--json", file)  # fmt: skip
    assert done.exit_code == 0, done.stderr
    without, having = json.loads(file.read_text())
    assert without["latency"]["fps"] > 0
    assert without["onnx"] is None
    assert without["onnx_error"] == "--format onnx: cannot hold this network (why)"
    assert having["onnx_error"] is None
    assert having["onnx"]["fps"] == pytest.approx(2000 / having["onnx"]["median_ms"])
    assert "cannot hold this network" in done.stdout


@pytest.mark.slow
def test_more_than_eight_networks_are_compiled(monkeypatch):
    """By default torch runs the ninth that shares a ``forward`` as it is, and says so in a log."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    backbone, x = create_backbone("test_resnet"), torch.rand(1, 3, 64, 64)
    graphs = torch._dynamo.utils.counters["stats"]
    seen = []
    for classes in range(1, 11):
        net = DensePredictor(backbone, create_decoder("fcn", backbone.features), {"x": classes})
        ready, _ = Setup(compiled=True).prepared(net)
        with torch.inference_mode():
            ready(x)
        seen.append(graphs["unique_graphs"])
    assert len(set(seen)) == 10


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--backbone", "mobilnetv2_100"), "did you mean mobilenetv2_100"),
        (("--decoder", "sparsmask"), "did you mean sparsemask"),
        (("--decoder", "connectivity:none.json"), "none.json: no such connectivity file"),
        (("--image-size", "512y512"), "--image-size"),
        (("--image-size", "16"), "--image-size: 16x16 is smaller than 32x32"),
        (("--backbone-arg", "pad_type"), "expected KEY=VALUE"),
        (("--profile",), "--profile: with --no-time nothing is run"),
        (("--isolate", "2"), "--isolate: with --no-time nothing is run"),
        (("--width", "24"), "--width 24: decoder fcn has no width to choose: leave it out, or"),
        (("--onnx",), "--onnx: with --no-time nothing is run"),
        (("--json", "/proc/rows.json"), "/proc/rows.json: cannot be written"),
    ],
)
def test_wrong_options_are_one_line(cli, arguments, part):
    done = cli("speed", "--no-time", "--backbone", "test_resnet", "--decoder", "fcn", *arguments)
    assert part in line(done)
    assert done.exit_code == 2


def test_a_compiled_network_has_no_profile(cli):
    done = cli("speed", "--backbone", "test_resnet", "--decoder", "fcn", "--profile", "--compile")
    assert "--profile: a compiled network has no parts; leave out --compile" in line(done)
    assert done.exit_code == 2


def test_a_device_that_is_not_there(cli):
    done = cli("speed", "--backbone", "test_resnet", "--decoder", "fcn", "--device", "cuda:99")
    assert "--device cuda:99" in line(done)
    assert done.exit_code == 2


def test_files_of_other_places_stay_as_they_are(cli, tmp_path):
    (tmp_path / "rows.json").mkdir()
    kept: Path = tmp_path / "rows.json" / "kept"
    kept.write_text("kept")
    done = cli("speed", "--no-time", "--backbone", "test_resnet", "--decoder", "fcn",
               "--json", tmp_path / "rows.json")  # fmt: skip
    assert "choose another place with --json" in line(done)
    assert kept.read_text() == "kept"
