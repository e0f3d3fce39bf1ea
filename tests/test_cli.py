import json
import re
import subprocess
import sys
import time

import click
import pytest
import torch
from safetensors.torch import save_file

from tests.datasets.fixtures_data import voc2012
from tests.support import ROOT, TINY, line

pytestmark = pytest.mark.filterwarnings("ignore:.*samples in.*")

RUN = ("run", "--task", "segmentation", "--dataset", "camvid", "--image-size", "32x64",
       "--crop-size", "32x32", "--epochs", "1", "--batch-size", "3", "--decoder", "fcn",
       *TINY)  # fmt: skip


def test_help_is_there_for_every_command():
    single = ("run", "evaluate", "predict", "search", "prune", "report", "list", "speed")
    single = (*single, "transfer", "draw", "sweep")
    data = (("data", name) for name in ("preview", "check", "pack"))
    for command in ((), *((name,) for name in single), *data):
        done = subprocess.run(
            [sys.executable, "cli.py", *command, "--help"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0
        assert "Usage" in done.stdout


def test_help_imports_nothing_heavy():
    code = (
        "import sys, cli; from click.testing import CliRunner; "
        "CliRunner().invoke(cli.main, ['run', '--help']); "
        "print([m for m in ('torch', 'timm', 'kornia', 'numpy') if m in sys.modules])"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", time.perf_counter() - start


@pytest.mark.parametrize(
    ("kind", "without"),
    [
        ("datasets", {"torch", "timm", "kornia", "scipy", "segmentation_models_pytorch"}),
        ("tasks", {"timm", "kornia", "segmentation_models_pytorch"}),
    ],
)
def test_list_imports_what_it_lists(kind, without):
    code = (
        "import sys, cli; from click.testing import CliRunner; "
        f"done = CliRunner().invoke(cli.main, ['list', '{kind}', '--json']); "
        "print(done.exit_code, *(m for m in sys.modules if '.' not in m))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    code, *modules = done.stdout.split()
    assert code == "0", done.stderr
    assert not without & set(modules)


def test_run_report_and_skip(cli, camvid, tmp_path):
    results = tmp_path / "runs"
    arguments = (*RUN, "--data", camvid, "--results", results)
    first = cli(*arguments)
    assert first.exit_code == 0, first.stderr
    assert "fcn" in first.stdout
    assert "best constant" in first.stdout
    ended = (
        r"\[1/1\] segmentation on camvid: fcn, test_efficientnet, seed 0: finished in \d+ s, miou"
    )
    assert re.search(ended, first.stderr), first.stderr
    assert "3 scored images" in " ".join(first.stdout.split())
    again = cli(*arguments)
    assert "already finished" in again.stderr
    assert again.exit_code == 0
    report = cli("report", "--results", results)
    assert report.exit_code == 0
    (board,) = json.loads((results / "leaderboard.json").read_text())["boards"]
    assert [row["decoder"] for row in board["rows"]] == ["fcn"]
    assert (results / "leaderboard.md").exists()
    assert (results / "leaderboard.csv").exists()


def test_a_dry_run_refuses_what_the_run_would(cli, camvid, tmp_path):
    options = ("run", "--dry-run", "--task", "segmentation", "--dataset", "camvid")
    assert cli(*options, "--data", camvid).exit_code == 0
    done = cli(*options, "--data", tmp_path)
    assert done.exit_code == 1
    assert f"{tmp_path / 'train.txt'}: list is missing" in line(done)
    done = cli(*options)
    assert done.exit_code == 2
    assert "needs --data DIR" in line(done)
    done = cli(*options, "--data", camvid, *TINY, "--backbone-arg", "drop_ratte=0.1")
    assert done.exit_code == 2
    assert "test_efficientnet does not take --backbone-arg drop_ratte=0.1" in line(done)


def test_dry_run_prints_the_plan_and_does_nothing(cli, tmp_path):
    results = tmp_path / "runs"
    done = cli("run", "--dry-run", "--seed", "0", "--seed", "1", "--results", results)
    assert done.exit_code == 0
    assert done.stdout.count("to do") == 10
    assert "10 runs" in done.stdout
    assert not results.exists()


def test_config_file_and_command_line(cli, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("decoder: [fcn, smp-fpn]\nepochs: 3\nbackbone: resnet18\n")
    done = cli("run", "--config", path, "--epochs", "7", "--dry-run")
    assert done.stdout.count("resnet18") == 2
    assert done.stdout.count(" 7 ") == 2
    path.write_text(f"results: {tmp_path}/other\ndecoder: fcn\nverbose: true\n")
    assert cli("run", "--config", path, "--dry-run").exit_code == 0
    path.write_text("backbone-arg: 5\n")
    assert "expected KEY=VALUE" in line(cli("run", "--config", path, "--dry-run"))
    path.write_text("decoders: fcn\n")
    assert "did you mean decoder?" in line(cli("run", "--config", path))


@pytest.mark.parametrize("kind", ["backbones", "decoders", "tasks", "datasets"])
def test_list(cli, kind):
    rows = json.loads(cli("list", kind, "--json").stdout)
    assert len(rows) >= 3
    assert all(row["name"] for row in rows)
    text = cli("list", kind).stdout
    assert len(text.splitlines()) == len(rows)


def test_list_narrows(cli):
    assert "mobilenetv2_100" in cli("list", "backbones", "mobilenetv2").stdout
    assert "resnet18" not in cli("list", "backbones", "mobilenetv2").stdout
    assert "match" in line(cli("list", "decoders", "zzz"))
    assert [r["name"] for r in json.loads(cli("list", "decoders", "smp-*", "--json").stdout)] == [
        "smp-deeplabv3", "smp-deeplabv3plus", "smp-dpt", "smp-fpn", "smp-linknet", "smp-pspnet",
        "smp-segformer", "smp-unet", "smp-upernet",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("--task", "segmentaton"), 2, "did you mean segmentation"),
        (("--dataset", "camvit"), 2, "did you mean camvid"),
        (("--decoder", "sparsmask"), 2, "did you mean sparsemask"),
        (("--backbone", "mobilnetv2_100"), 2, "did you mean mobilenetv2_100"),
        (("--task", "depth"), 2, "data set camvid has no depth"),
        (("--epochs", "some"), 2, "--epochs"),
        (("--backbone-arg", "pad_type"), 2, "expected KEY=VALUE"),
        (("--backbone-arg", "pad_typo=same"), 2, "--backbone-arg pad_typo=same"),
        (("--backbone-arg", "x=["), 2, "--backbone-arg x=[: not a value (expected the node"),
        (("--backbone-arg", "x=!!binary aGk="), 2, "a bytes cannot be kept in a result"),
        (("--backbone-arg", "x={1: 2}"), 2, "the key 1 is no text"),
        (("--backbone-arg", "x=.inf"), 2, "--backbone-arg x=.inf: inf is not a finite number"),
        (("--backbone-arg", "num_classes=5"), 2, "num_classes=5: is not taken: the classes are"),
        (("--backbone-arg", "features_only=true"), 2, "takes the backbone's feature maps"),
        (("--backbone-arg", "in_chans=4"), 2, "the channels are those of the data set's images"),
        (("--backbone-arg", "pretrained=true"), 2, "is not taken: use --pretrained"),
        (("--backbone-arg", "checkpoint_path=w"), 2, "give a file of weights with --weights"),
        (("--std", "inf"), 2, "--std: expected a finite number (got 'inf')"),
        (("--lr", "nan"), 2, "--lr: expected a finite number (got 'nan')"),
        (("--zoom", "1,1e400"), 2, "--zoom: expected a finite number"),
        (("--backbone", "resnet18.a1_in1kk"), 2, "did you mean resnet18.a1_in1k"),
        (("--image-size", "24x24"), 2, "--image-size"),
        (("--crop-size", "64x64"), 2, "--crop-size"),
        (("--loss", "ce+hinge"), 2, "no term 'hinge'"),
        (("--config", "nowhere.yaml"), 2, "nowhere.yaml: no such"),
        (("--device", "cuda:99"), 2, "--device cuda:99"),
        (("--weights", "nowhere.safetensors"), 1, "nowhere.safetensors: no such weights file"),
        (("--data", "nowhere"), 1, "nowhere: does not exist"),
    ],
)
def test_wrong_options(cli, camvid, tmp_path, arguments, code, part):
    done = cli(*RUN, "--data", camvid, "--results", tmp_path / "runs", *arguments)
    assert part in line(done)
    assert done.exit_code == code


@pytest.mark.parametrize("few", [("--batch-size", "1"), ("--limit", "1")], ids=lambda few: few[0])
def test_a_batch_that_the_decoder_cannot_train_on(cli, camvid, tmp_path, few):
    arguments = ["smp-deeplabv3" if part == "fcn" else part for part in RUN]
    done = cli(*arguments, "--data", camvid, "--results", tmp_path / "runs", *few)
    assert "DeepLabV3 (smp) trains on at least 2 images at a time" in line(done)
    assert done.exit_code == 2


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (("--batch-size", "1"), "use --batch-size 2 or a larger --crop-size"),
        (("--limit", "1"), "use more training images or a larger --crop-size"),
    ],
    ids=lambda x: x[0] if isinstance(x, tuple) else "",
)
def test_one_image_that_a_batch_norm_cannot_train_on(cli, camvid, tmp_path, options, remedy):
    done = cli(*RUN, "--data", camvid, "--results", tmp_path / "runs", *options)
    assert line(done).endswith(remedy)
    assert "one image of 32x32 a step leaves a BatchNorm one value per channel" in line(done)
    assert done.exit_code == 2
    larger = (*options, "--image-size", "64", "--crop-size", "64")
    done = cli(*RUN, "--data", camvid, "--results", tmp_path / "runs", *larger)
    assert done.exit_code == 0, done.stderr


def test_a_backbone_of_one_size(cli, tmp_path):
    backbone = ("--backbone", "coatnet_pico_rw_224", "--backbone-arg", "img_size=224")
    done = cli("run", *backbone, "--image-size", "96x128", "--results", tmp_path / "runs")
    assert "the backbone takes images of 224×224 only, not 96×128" in line(done)
    assert done.exit_code == 2


def test_data_set_without_folder(cli, tmp_path):
    done = cli(*RUN, "--results", tmp_path / "runs")
    assert "needs --data DIR" in line(done)
    assert done.exit_code == 2


def break_data(camvid, how):
    from PIL import Image

    if how == "missing list":
        (camvid / "test.txt").unlink()
    elif how == "list names a missing file":
        (camvid / "train.txt").write_text(
            "train/0.png trainannot/0.png\ntrain/x.png trainannot/x.png"
        )
    elif how == "image without label":
        (camvid / "trainannot" / "2.png").unlink()
    elif how == "truncated image":
        path = camvid / "train" / "2.png"
        path.write_bytes(path.read_bytes()[:80])
    elif how == "unreadable image":
        (camvid / "train" / "2.png").write_text("this is no picture")
    elif how == "label out of range":
        Image.new("L", (64, 48), 37).save(camvid / "trainannot" / "2.png")
    elif how == "sizes differ":
        Image.new("L", (60, 48), 3).save(camvid / "trainannot" / "2.png")
    elif how == "empty split":
        (camvid / "val.txt").write_text("")


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ("missing list", "test.txt: list is missing"),
        ("list names a missing file", "train.txt:2"),
        ("image without label", "trainannot/2.png: label map is missing"),
        ("truncated image", "train/2.png"),
        ("unreadable image", "train/2.png: is not an image"),
        ("label out of range", "trainannot/2.png: label 37 is outside 0…10"),
        ("sizes differ", "60×48"),
        ("empty split", "val.txt: list is empty"),
    ],
)
def test_bad_data_is_one_line_and_loses_nothing(cli, camvid, tmp_path, how, part):
    results = tmp_path / "runs"
    arguments = (*RUN, "--data", camvid, "--results", results)
    assert cli(*arguments, "--seed", "7").exit_code == 0
    written = [p for p in results.glob("*seed7*/**/*") if p.is_file()]
    before = {p: p.read_bytes() for p in written}
    assert before
    break_data(camvid, how)
    done = cli(*arguments)
    assert part in line(done)
    assert done.exit_code == 1
    assert {p: p.read_bytes() for p in written} == before


def test_depth_map_without_a_valid_pixel(cli, tmp_path):
    import numpy as np
    from PIL import Image

    root = tmp_path / "seven"
    root.mkdir()
    for split, frames in {"train": range(4), "test": range(4, 6)}.items():
        (root / f"{split}.txt").write_text("\n".join(f"frame-{i:06d}" for i in frames))
        for i in frames:
            Image.new("RGB", (64, 48), (i * 20, 90, 30)).save(root / f"frame-{i:06d}.color.png")
            depth = np.full((48, 64), 0 if i == 5 else 1500, np.uint16)
            Image.fromarray(depth).save(root / f"frame-{i:06d}.depth.png")
    done = cli("run", "--task", "depth", "--dataset", "seven-scenes", "--data", root, "--epochs",
               "1", "--image-size", "32x64", "--crop-size", "32x64", "--decoder", "fcn", *TINY,
               "--results", tmp_path / "runs")  # fmt: skip
    assert "frame-000005.depth.png: no pixel has a depth" in line(done)
    assert done.exit_code == 1


def test_weights_of_another_architecture(cli, camvid, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"conv.weight": torch.zeros(3)}, path)
    done = cli(*RUN, "--data", camvid, "--results", tmp_path / "runs", "--weights", path)
    assert "other.safetensors: not weights of test_efficientnet" in line(done)
    assert done.exit_code == 1
    path.write_bytes(b"no weights")
    done = cli(*RUN, "--data", camvid, "--results", tmp_path / "runs", "--weights", path)
    assert "not a readable weights file" in line(done)


def test_results_folder_that_cannot_be_written(cli, camvid, tmp_path):
    (tmp_path / "file").write_text("kept")
    done = cli(*RUN, "--data", camvid, "--results", tmp_path / "file")
    assert "cannot be written" in line(done)
    assert done.exit_code == 1
    assert (tmp_path / "file").read_text() == "kept"


def test_report_without_results(cli, tmp_path):
    assert cli("report", "--results", tmp_path / "none").exit_code == 2
    (tmp_path / "empty").mkdir()
    done = cli("report", "--results", tmp_path / "empty")
    assert "no result in it" in line(done)
    assert done.exit_code == 1


def test_preview(cli, camvid, tmp_path):
    from PIL import Image

    path = tmp_path / "sheet.png"
    done = cli("data", "preview", "camvid", "--data", camvid, "--count", "3", "--image-size",
               "48x64", "-o", path)  # fmt: skip
    assert done.exit_code == 0, done.stderr
    with Image.open(path) as sheet:  # the default crop goes with the default size
        assert sheet.size == (4 * 64 + 3 * 4, 48 * 3 + 2 * 4)
    done = cli("data", "preview", "camvid", "--data", camvid, "--target", "depth", "-o", path)
    assert "--target depth: data set camvid has segmentation" in line(done)
    done = cli("data", "preview", "camvid", "--data", camvid, "--count", "2", "-o", path)
    assert done.exit_code == 0, done.stderr
    with Image.open(path) as sheet:
        assert sheet.size == (320 + 4 + 320 + 4 + 256 + 4 + 256, 240 * 2 + 4)


@pytest.mark.filterwarnings("ignore:.* samples in '.*' where ")
def test_preview_shows_the_split_that_is_named(cli, tmp_path):
    voc2012(tmp_path)
    options = ("voc2012", "--data", tmp_path, "--image-size", "32x32", "-o", tmp_path / "sheet.png")
    shown = {"val": "2 of 2 samples of voc2012, val",
             "held-out": "1 of 1 samples of voc2012, held out of train"}  # fmt: skip
    for split, text in shown.items():
        done = cli("data", "preview", *options, "--split", split)
        assert done.exit_code == 0, done.stderr
        assert text in done.stderr
    done = cli("data", "preview", "camvid", "--data", tmp_path, "--split", "held-out")
    assert done.exit_code == 2
    assert "choose train, val or test" in line(done)


def test_interrupt_says_how_to_go_on(cli, camvid, tmp_path, monkeypatch):
    from benchmark.run import runner

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "NetworkTraining", interrupted)
    done = cli(*RUN, "--data", camvid, "--results", tmp_path / "runs")
    assert done.exit_code == 130
    assert "the same command goes on with the rest" in done.stderr
    monkeypatch.setattr("benchmark.leaderboard.boards.boards", interrupted)
    done = cli("report", "--results", ROOT / "results", "--output", tmp_path)
    assert done.exit_code == 130
    assert "the same command begins anew" in done.stderr


def test_options_with_a_range_take_finite_numbers_only():
    from cli import main

    commands = [main]
    ranges = 0
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        for parameter in command.params:
            assert parameter.type is not click.FLOAT, (command.name, parameter.name)
            if isinstance(parameter.type, click.FloatRange):
                ranges += 1
                for text in ("nan", "inf", "-inf"):
                    with pytest.raises(click.BadParameter, match=r"finite|range"):
                        parameter.type.convert(text, parameter, None)
    assert ranges > 3
