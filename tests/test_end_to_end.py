"""The commands of the README as a user gives them, in processes of their own."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.backbones import create_backbone
from models.create import create_decoder
from models.decoders.base import DECODERS
from models.predictor import DensePredictor
from tests.support import ROOT, SHARED, WEIGHTS

pytestmark = pytest.mark.slow


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "cli.py", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def results_of(folder: Path) -> dict[str, dict]:
    stored = (json.loads(path.read_text()) for path in folder.glob("*/result.json"))
    return {result["config"]["decoder"]: result for result in stored}


OTHERS = ("segmentation", "saliency", "edges")
ALL = ("sparsemask", "unet-connectivity", "fcn", "deeplabv3-light", "smp-fpn")


@pytest.mark.parametrize(
    ("task", "decoders"),
    [("depth", ALL), *((task, ("sparsemask", "fcn")) for task in OTHERS)],
)
def test_scenes_teach_every_decoder(task, decoders, tmp_path):
    """The main job. Every decoder beats the best constant; SparseMask beats FCN's coarse maps."""
    results = tmp_path / "runs"
    options = () if decoders == ALL else [w for name in decoders for w in ("--decoder", name)]
    done = run("run", "--task", task, "--results", results, *options)
    assert done.returncode == 0, done.stderr
    found = results_of(results)
    assert set(found) == set(decoders)
    for decoder, result in found.items():
        assert decoder in done.stdout
        main = result["columns"][0]
        constant = result["constant"]["metrics"][main]
        if result["higher_is_better"][main]:
            assert result["metrics"][main] > 1.5 * constant, decoder
        else:
            assert result["metrics"][main] < 0.85 * constant, decoder
        assert result["speed"]["median_ms"] > 0
        assert sorted(result["speed"]["interleaved_with"]) == sorted(set(found) - {decoder})
    if task != "depth":  # where this budget separates decoders less than rounding does
        assert found["sparsemask"]["metrics"][main] > found["fcn"]["metrics"][main]
    again = run("run", "--task", task, "--results", results, *options)
    assert again.stderr.count("already finished") == len(decoders)


@pytest.mark.parametrize(
    ("task", "dataset", "folder"),
    [
        ("segmentation", "camvid", "camvid"),
        ("depth", "seven-scenes", "seven_scenes"),
        ("saliency", "image-masks", "davis_foreground"),
        ("edges", "bsds500", "bsds500"),
    ],
)
def test_real_data_with_pretrained_backbone(task, dataset, folder, tmp_path):
    """Six short epochs at a small size: the pretrained backbone beats the constant."""
    if not (SHARED / folder).is_dir():
        pytest.skip(f"real data {folder} is not in ../shared/data")
    results = tmp_path / "runs"
    done = run(
        "run", "--task", task, "--dataset", dataset, "--data", SHARED / folder, "--backbone",
        "mobilenetv2_100", "--backbone-arg", "pad_type=same", "--weights", WEIGHTS, "--decoder",
        "sparsemask", "--image-size", "96x128", "--crop-size", "96x128", "--epochs", "6",
        "--limit", "96", "--results", results,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (result,) = results_of(results).values()
    assert result["config"]["mean"] == [0.5, 0.5, 0.5]
    main = result["columns"][0]
    constant = result["constant"]["metrics"][main]
    better = result["metrics"][main] > constant
    assert better == result["higher_is_better"][main]
    if task == "edges":  # which no constant has any of
        assert result["metrics"][main] > 0.3
    report = run("report", "--results", results)
    assert report.returncode == 0
    assert "sparsemask" in (results / "leaderboard.md").read_text()


@pytest.mark.parametrize(
    "name",
    ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224", "regnety_002", "ghostnet_100"],
)
def test_every_decoder_runs_on_other_backbones(name):
    backbone = create_backbone(name)
    images = torch.rand(2, 3, 64, 96)
    strides = {f.stride for f in backbone.features}
    names = [n for n in DECODERS.names() if set(DECODERS.get(n).info.strides) <= strides]
    assert len(DECODERS.names()) - len(names) == (0 if 2 in strides else 1)  # LinkNet alone
    for decoder in names:
        body = copy.deepcopy(backbone)
        model = DensePredictor(body, create_decoder(decoder, body.features), {"task": 3}).train()
        model(images)["task"].square().mean().backward()
        gradients = [p.grad for p in model.heads.parameters() if p.grad is not None]
        assert gradients, decoder
        assert all(g.isfinite().all() for g in gradients), decoder
        with torch.no_grad():
            logits = model.eval()(images)["task"]
            fused = model.fuse()(images)["task"]
        assert logits.shape == (2, 3, 64, 96), decoder
        error = float((fused - logits).abs().max())
        assert error <= 1e-3 * float(logits.abs().max()) + 1e-5, decoder


def test_another_backbone_from_the_command_line(tmp_path):
    done = run(
        "run", "--task", "saliency", "--backbone", "ghostnet_100", "--image-size", "64x96",
        "--limit", "8", "--epochs", "1", "--batch-size", "4", "--results", tmp_path / "runs",
        "--decoder", "sparsemask", "--decoder", "hed", "--decoder", "encnet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = results_of(tmp_path / "runs")
    assert {d: r["status"] for d, r in found.items()} == dict.fromkeys(
        ("sparsemask", "hed", "encnet"), "finished"
    )
