"""Trained networks as files for other programs: each is run by itself and compared."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from support import ROOT, line
from torch import nn

from benchmark import shipping
from benchmark.checkpoint import open_checkpoint
from benchmark.exporting import METADATA, Pooling, Shipped, opened

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
        network = opened(form, file)
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
        assert set(facts["tasks"]) == set(outputs)


@pytest.mark.slow
def test_a_file_that_is_wrong_does_not_stay(
    cli: Cli, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(form: str, path: Path) -> Any:
        run = opened(form, path)
        return lambda images: {name: y + 0.1 for name, y in run(images).items()}

    monkeypatch.setattr(shipping, "opened", wrong)
    file = tmp_path / "a.onnx"
    file.write_text("earlier")
    done = cli("export", "--checkpoint", runs["depth"], "-o", file)
    assert done.exit_code == 1
    assert "--format onnx: differs from PyTorch by 0.1" in line(done)
    assert file.read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


@pytest.mark.slow
def test_int8_is_scored_beside_the_floats(cli: Cli, runs: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    done = cli("export", "--checkpoint", runs["depth"], "-o", file, "--int8", "--calibrate", 4,
               "--limit", 3)  # fmt: skip
    assert done.exit_code == 0, done.stderr
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
    assert opened("onnx", file)(torch.rand(3, 3, 64, 64))["depth"].shape[0] == 3
    assert Shipped(open_checkpoint(runs["depth"]).model, []).fixed_size is None


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
