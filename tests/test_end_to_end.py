"""The commands of the README as a user gives them, in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, SHARED, WEIGHTS

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


ALL = ("sparsemask", "unet-connectivity", "fcn", "deeplabv3-light", "smp-fpn")


@pytest.mark.parametrize(
    ("task", "decoders"),
    [("depth", ALL), ("segmentation", ("sparsemask", "fcn")), ("saliency", ("sparsemask", "fcn"))],
)
def test_scenes_teach_every_decoder(task, decoders, tmp_path):
    """The main job. Every decoder beats the best constant; FCN, whose maps are coarse, is last."""
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
    sign = 1 if found["fcn"]["higher_is_better"][main] else -1
    for decoder in {"sparsemask", "unet-connectivity", "smp-fpn"} & set(found):
        assert sign * found[decoder]["metrics"][main] > sign * found["fcn"]["metrics"][main]
    again = run("run", "--task", task, "--results", results, *options)
    assert again.stderr.count("already finished") == len(decoders)


@pytest.mark.parametrize(
    ("task", "dataset", "folder"),
    [
        ("segmentation", "camvid", "camvid"),
        ("depth", "seven-scenes", "seven_scenes"),
        ("saliency", "image-masks", "davis_foreground"),
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
    report = run("report", "--results", results)
    assert report.returncode == 0
    assert "sparsemask" in (results / "leaderboard.md").read_text()


@pytest.mark.parametrize(
    "backbone",
    ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224", "regnety_002", "ghostnet_100"],
)
def test_every_decoder_runs_on_other_backbones(backbone, tmp_path):
    results = tmp_path / "runs"
    decoders = json.loads(run("list", "decoders", "--json").stdout)
    names = [row["name"] for row in decoders]
    options = [word for name in names for word in ("--decoder", name)]
    done = run(
        "run", "--task", "saliency", "--backbone", backbone, "--image-size", "64x96", "--limit",
        "8", "--epochs", "1", "--batch-size", "4", "--results", results, *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {d: r["status"] for d, r in results_of(results).items()} == dict.fromkeys(
        names, "finished"
    )
