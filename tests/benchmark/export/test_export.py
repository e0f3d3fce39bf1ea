"""Trained networks as files for other programs: each is run by itself and compared."""

import functools
import importlib.util
import json
import math
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from timm.layers import Conv2dSame
from torch import Tensor, nn

from benchmark.export import export as shipping
from benchmark.export import formats as exporting
from benchmark.export.formats import METADATA, load_exported, sizes_of, write
from benchmark.export.network import ExportableNetwork
from benchmark.export.verify import checks
from benchmark.results.checkpoint import open_checkpoint
from benchmark.speed.count import count_deployed
from models.backbones import create_backbone
from models.create import create_decoder
from models.decoders.base import DECODERS
from models.exportable import Pooling, SameConv
from models.predictor import DensePredictor
from tasks.depth import Depth
from tasks.segmentation import Segmentation
from tests.support import ROOT, line

Cli = Callable[..., Result]
RUN = ("run", "--backbone", "test_resnet", "--image-size", "64", "--limit", "8", "--batch-size",
       "4", "--epochs", "1", "--results")  # fmt: skip
FORMATS = ("onnx", "pt2", "torchscript")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained network of depth, one of two tasks, with a padding decoder."""
    from click.testing import CliRunner

    from cli import main

    results = tmp_path_factory.mktemp("runs")
    two = ("--task", "segmentation", "--task", "saliency", "--decoder", "smp-unet")
    for words in (("--task", "depth", "--decoder", "sparsemask"), two):
        done = CliRunner().invoke(main, [*RUN, str(results), *words])
        assert done.exit_code == 0, done.stderr
    return {path.name.split("_")[0]: path for path in results.iterdir()}


def metadata(form: str, file: Path) -> dict[str, Any]:
    if form == "onnx":
        import onnxruntime

        found = onnxruntime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map
        return json.loads(found[METADATA])
    extra = {METADATA: ""}
    if form == "pt2":
        with file.open("rb") as opened_file:
            torch.export.load(opened_file, extra_files=extra)
    else:
        torch.jit.load(str(file), _extra_files=extra)
    return json.loads(extra[METADATA])


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("postprocessing", [False, True])
def test_a_file_computes_what_the_network_does(
    cli: Cli, runs: dict[str, Path], tmp_path: Path, form: str, postprocessing: bool
) -> None:
    words = ("--with-postprocessing",) if postprocessing else ()
    for name, run in runs.items():
        file = tmp_path / f"{name}.{form}"
        done = cli("export", "--checkpoint", run, "--format", form, "-o", file, *words)
        assert done.exit_code == 0, done.stderr
        found = open_checkpoint(run)
        network = load_exported(form, file)
        images = torch.rand(2, 3, 83, 121)  # a size that the command did not try
        with torch.no_grad():
            expected = found.model(images)
            outputs = network(images)
        assert set(outputs) == {task.name for task in found.tasks}
        for task in found.tasks:
            logits, seen = expected[task.name], outputs[task.name]
            if not postprocessing:
                torch.testing.assert_close(seen, logits, rtol=1e-4, atol=1e-4)
            elif task.name == "segmentation":
                best = logits.gather(1, seen[:, None].long())[:, 0]
                torch.testing.assert_close(best, logits.amax(1), rtol=1e-4, atol=1e-4)
            else:
                torch.testing.assert_close(seen, task.predict(logits), rtol=1e-4, atol=1e-4)
        facts = metadata(form, file)
        assert facts["key"] == found.key
        assert facts["weights"] == "last"
        parts = [file.read_bytes()]
        if form != "onnx":
            with zipfile.ZipFile(file) as packed:
                parts += map(packed.read, packed.namelist())
        assert not [x for x in (str(ROOT), "site-packages", str(tmp_path), f".{file.name}.")
                    if any(x.encode() in part for part in parts)]  # fmt: skip
        assert set(facts["tasks"]) == set(outputs)


@pytest.mark.slow
def test_a_file_that_is_wrong_does_not_stay(
    cli: Cli, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(form: str, path: Path) -> Any:
        run = load_exported(form, path)
        return lambda images: {name: y + 0.1 for name, y in run(images).items()}

    monkeypatch.setattr(shipping, "load_exported", wrong)
    file = tmp_path / "a.onnx"
    file.write_text("earlier")
    done = cli("export", "--checkpoint", runs["depth"], "-o", file)
    assert done.exit_code == 1
    assert "--format onnx: differs from PyTorch by 0.1" in line(done)
    assert file.read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


@pytest.mark.slow
def test_weights_that_were_not_scored_have_no_score(
    cli: Cli, runs: dict[str, Path], tmp_path: Path
) -> None:
    for which, scored in (("last", True), ("best", False)):
        checkpoint = runs["depth"] / f"{which}.safetensors"
        file = tmp_path / f"{which}.ts"
        words = ("--checkpoint", checkpoint, "--format", "torchscript", "-o", file)
        assert cli("export", *words).exit_code == 0
        facts = metadata("torchscript", file)
        assert facts["weights"] == which
        assert ("score" in facts["tasks"]["depth"]) == scored


@pytest.mark.slow
def test_int8_is_scored_beside_the_floats(cli: Cli, runs: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    done = cli("export", "--checkpoint", runs["depth"], "-o", file, "--int8", "--calibrate", 4,
               "--limit", 3)  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "AbsRel ↓" in done.stdout
    int8 = metadata("onnx", file)["int8"]
    assert int8["images"] == 3
    assert int8["calibration_images"] == 4
    scores = {name: found["depth"]["abs_rel"] for name, found in int8["metrics"].items()}
    assert scores.keys() == {"float32", "int8"}
    assert all(math.isfinite(x) for x in scores.values())
    plain = tmp_path / "plain.onnx"
    cli("export", "--checkpoint", runs["depth"], "-o", plain)
    assert file.stat().st_size < 0.5 * plain.stat().st_size
    done = cli("export", "--checkpoint", runs["depth"], "--format", "pt2", "--int8", "-o", file)
    assert done.exit_code == 2
    assert "use --format onnx" in line(done)


BODIES = ("test_resnet", "test_convnext", "test_efficientnet")
EXPORTABLE = [name for name in DECODERS.names() if DECODERS.get(name).info.exportable]


@pytest.mark.slow
@pytest.mark.parametrize("decoder", EXPORTABLE)
def test_every_exportable_decoder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, decoder: str
) -> None:
    """As TorchScript on three backbones, as ONNX and pt2 on the first."""
    # ONNX and pt2 hold the same program, which takes half of the time
    program = functools.lru_cache(maxsize=1)(exporting._program)
    monkeypatch.setattr(exporting, "_program", program)
    strides = set(DECODERS.get(decoder).info.strides)
    torch.manual_seed(0)
    models = {name: create_backbone(name) for name in BODIES}
    models = {n: b for n, b in models.items() if strides <= {f.stride for f in b.features}}
    tasks = [Depth(0.5, 10), Segmentation(("a", "b", "c"))]
    heads = {task.name: task.channels for task in tasks}
    for name, body in models.items():
        model = DensePredictor(body, create_decoder(decoder, body.features), heads).eval()
        shipped = ExportableNetwork(model, tasks)
        for form in FORMATS if name == BODIES[0] else ("torchscript",):
            sizes, file = sizes_of(shipped, form, None), tmp_path / form
            write(shipped, form, file, sizes, {METADATA: "{}"})
            found = list(checks(model, tasks, load_exported(form, file), sizes.shapes((96, 96))))
            assert len({check.shape for check in found}) >= 4
            assert all(check.passed for check in found), (name, form, found)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_a_network_with_a_neck(tmp_path: Path, form: str) -> None:
    torch.manual_seed(0)
    body = create_backbone("test_vit", {"neck": "vitdet"})
    task = Depth(0.5, 10)
    decoder = create_decoder("sparsemask", body.features)
    model = DensePredictor(body, decoder, {task.name: task.channels}).eval()
    shipped = ExportableNetwork(model, [task])
    sizes, file = sizes_of(shipped, form, None), tmp_path / form
    write(shipped, form, file, sizes, {METADATA: "{}"})
    found = list(checks(model, [task], load_exported(form, file), sizes.shapes((96, 96))))
    assert len({check.shape for check in found}) >= 4
    assert all(check.passed for check in found), found


@pytest.mark.slow
def test_a_file_holds_the_re_parameterised_network(tmp_path: Path) -> None:
    """MobileOne-S0 has 4.27 M parameters in training, 1.05 M as deployed without its classifier."""
    import onnx

    torch.manual_seed(0)
    body = create_backbone("mobileone_s0")
    for norm in body.modules():
        if isinstance(norm, nn.BatchNorm2d):  # else biases are 0, and the exporter drops them
            nn.init.normal_(norm.bias)
    model = DensePredictor(body, create_decoder("fcn", body.features), {"depth": 1}).eval()
    shipped = ExportableNetwork(model, [Depth(0.5, 10)])
    file = tmp_path / "net.onnx"
    write(shipped, "onnx", file, sizes_of(shipped, "onnx", None), {METADATA: "{}"})
    graph = onnx.load(str(file)).graph
    numbers = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    weights = sum(numbers[i] for n in graph.node if n.op_type == "Conv" for i in n.input[1:])
    assert weights == count_deployed(model, (64, 64))["params"]
    assert 1.05e6 < weights <= sum(numbers.values()) < 1.06e6
    assert sum(p.numel() for p in model.parameters()) > 4.2e6


def test_a_size_that_is_baked_in_is_seen() -> None:
    """What a trace has written down, or another decision, does not pass the checks."""
    body = create_backbone("test_resnet")
    model = DensePredictor(body, create_decoder("fcn", body.features), {"depth": 1}).eval()
    task = Depth(0.5, 10)
    shipped = ExportableNetwork(model, [task], postprocessing=True)
    shapes = sizes_of(shipped, "onnx", None).shapes((64, 64))
    assert all(check.passed for check in checks(model, [task], shipped, shapes, True))

    def nearly(images: Tensor) -> dict[str, Tensor]:
        return {"depth": shipped(images)["depth"] * 1.001}

    def baked(images: Tensor) -> dict[str, Tensor]:
        return {"depth": shipped(images)["depth"][:, :64, :64]}

    assert not any(check.passed for check in checks(model, [task], nearly, shapes, True))
    with pytest.raises(ValueError, match="depth has shape"):
        list(checks(model, [task], baked, shapes, True))


def test_of_classes_only_ties_may_differ() -> None:
    body = create_backbone("test_resnet")
    model = DensePredictor(body, create_decoder("fcn", body.features), {"segmentation": 3}).eval()
    task = Segmentation(("a", "b", "c"))
    shipped = ExportableNetwork(model, [task], postprocessing=True)

    def other(images: Tensor) -> dict[str, Tensor]:
        return {"segmentation": (shipped(images)["segmentation"] + 1) % 3}

    (same,) = checks(model, [task], shipped, [(2, 64, 64)], True)
    (changed,) = checks(model, [task], other, [(2, 64, 64)], True)
    assert same.passed
    assert not changed.passed


def test_a_package_that_is_missing_is_named_with_its_extra(
    cli: Cli, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "onnxscript" else find(name, *a),
    )
    done = cli("export", "--checkpoint", runs["depth"], "-o", tmp_path / "a.onnx")
    assert done.exit_code == 2
    assert "onnxscript: pip install -e '.[export]'" in line(done)
    done = cli("speed", "--onnx", "--backbone", "test_resnet")
    assert "--onnx needs onnxscript" in line(done)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--limit", 3), "--limit 3: for --int8 only"),
        (("--format", "torchscript", "--int8"), "--int8: onnxruntime quantises ONNX"),
        (("-o", "."), ".: cannot be written (is a folder): choose another place with -o"),
    ],
)
def test_options_that_do_not_go_together(
    cli: Cli, runs: dict[str, Path], tmp_path: Path, words: tuple[object, ...], part: str
) -> None:
    done = cli("export", "--checkpoint", runs["depth"], "-o", tmp_path / "a", *words)
    assert done.exit_code == 2
    assert part in line(done)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"),
    [(3, 1, 1), (3, 2, 1), (5, 2, 1), (1, 1, 1), (3, 1, 2), (2, 2, 1)],
)
@pytest.mark.parametrize("size", [(6, 6), (7, 5), (13, 29), (2, 9)])
def test_padding_is_timms(kernel: int, stride: int, dilation: int, size: tuple[int, int]) -> None:
    conv = Conv2dSame(3, 4, kernel, stride, dilation=dilation)
    x = torch.rand(2, 3, *size)
    torch.testing.assert_close(SameConv(conv)(x), conv(x))


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(6, 6), (7, 5), (13, 29), (2, 9)])
def test_pooling_is_adaptive_average_pooling(bins: int, size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size)
    torch.testing.assert_close(Pooling((bins, bins))(x), nn.AdaptiveAvgPool2d(bins)(x))


@pytest.mark.slow
def test_one_that_takes_one_size_says_so(cli: Cli, runs: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    done = cli("export", "--checkpoint", runs["depth"], "-o", file, "--static")
    assert "takes images of 64×64 only" in done.stdout
    assert load_exported("onnx", file)(torch.rand(3, 3, 64, 64))["depth"].shape[0] == 3
    assert ExportableNetwork(open_checkpoint(runs["depth"]).model, []).fixed_size is None


@pytest.mark.slow
def test_torch_hub_from_anywhere(runs: dict[str, Path], tmp_path: Path) -> None:
    code = (
        "import torch, sys\n"
        "load = lambda **k: torch.hub.load(sys.argv[1], 'sparsemask', source='local', **k)\n"
        "net = load(backbone='resnet18', task='depth+saliency')\n"
        "print({k: tuple(v.shape) for k, v in net(torch.rand(1, 3, 64, 96)).items()})\n"
        "net = load(checkpoint=sys.argv[2])\n"
        "print(net.training, sorted(net(torch.rand(1, 3, 64, 64))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(ROOT), str(runs["depth"])],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "{'depth': (1, 1, 64, 96), 'saliency': (1, 1, 64, 96)}", "False ['depth']",
    ]  # fmt: skip
