"""A trained network from its run's folder: scored again, and applied to a user's images."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.results.checkpoint import open_checkpoint
from common.errors import UserError
from datasets.pipeline import Readable
from tasks import depth
from tests.datasets.fixtures_data import voc2012
from tests.support import TINY, line

pytestmark = pytest.mark.filterwarnings("ignore:.*samples in")


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    """A run of three tasks on rendered rooms."""
    from click.testing import CliRunner

    from cli import main

    results = tmp_path_factory.mktemp("joint")
    tasks = [part for task in ("segmentation", "depth", "saliency") for part in ("--task", task)]
    done = CliRunner().invoke(
        main,
        ["run", *tasks, *TINY, "--image-size", "32x48", "--epochs", "1", "--limit", "4",
         "--batch-size", "2", "--decoder", "unet-connectivity", "--results", str(results)],
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    (folder,) = results.iterdir()
    return folder


@pytest.fixture
def run(cli, camvid, tmp_path, request) -> Path:
    """A run on CamVid's fixture, with the further options that a test's parameter has."""
    options = ("--task", "segmentation", "--dataset", "camvid", "--data", camvid, *TINY,
               "--image-size", "32x64", "--crop-size", "32x32", "--epochs", "1",
               "--batch-size", "3", "--decoder", "fcn")  # fmt: skip
    options += getattr(request, "param", ())
    assert cli("run", *options, "--results", tmp_path / "runs").exit_code == 0
    (folder,) = (tmp_path / "runs").glob("segmentation*")
    return folder


def scored(cli, *arguments):
    done = cli("evaluate", *arguments, "--json", "-")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_the_same_split_gives_the_same_numbers(cli, run):
    result = json.loads((run / "result.json").read_text())
    again = scored(cli, "--checkpoint", run)
    found = again["tasks"]["segmentation"]
    assert found["metrics"] == result["metrics"]
    assert found["intervals"] == result["intervals"]
    assert found["protocol"] == result["protocol"]
    assert again["key"] == result["key"]
    best = scored(cli, "--checkpoint", run / "best.safetensors")
    assert best["tasks"]["segmentation"]["metrics"] == found["metrics"]  # one epoch


def test_what_was_used_is_in_the_protocol(cli, run):
    options = ("--flip", "--scales", "0.75,1", "--window", "32x32", "--image-size", "original",
               "--split", "val", "--limit", "1")  # fmt: skip
    found = scored(cli, "--checkpoint", run, *options)
    views = "original+flip+scales0.75,1+window32x32"
    expected = f"camvid/segmentation/val/miou/{views}/first1"
    assert found["tasks"]["segmentation"]["protocol"] == expected
    assert found["data"]["images"] == 1


@pytest.mark.parametrize("run", [("--limit", "2", "--batch-size", "2")], indirect=True)
def test_the_limit_of_the_run_is_said_and_can_be_lifted(cli, run):
    def evaluate(*options):
        done = cli("evaluate", "--checkpoint", run, *options, "--json", "-")
        assert done.exit_code == 0, done.stderr
        scores = json.loads(done.stdout)
        return done.stderr, scores["data"], scores["tasks"]["segmentation"]["protocol"]

    said, data, protocol = evaluate()
    assert "test: the first 2 of 3 images (the run's --limit; --limit all scores all)\n" in said
    assert (data["images"], data["of"]) == (2, 3)
    assert protocol.endswith("/first2")
    assert "test: the first 1 of 3 images\n" in evaluate("--limit", "1")[0]
    said, data, protocol = evaluate("--limit", "all")
    assert "first" not in said + protocol
    assert data["images"] == 3
    assert "of" not in data
    assert cli("evaluate", "--checkpoint", run, "--limit", "some").exit_code == 2


@pytest.mark.parametrize("times", [1, 9])
def test_a_process_that_reads_and_dies(cli, joint, tmp_path, monkeypatch, times):
    expected = scored(cli, "--checkpoint", joint)["tasks"]
    read, me, marks = Readable.__getitem__, os.getpid(), tmp_path / "deaths"
    marks.mkdir()

    def die(self, index):
        if os.getpid() != me and len(list(marks.iterdir())) < times:
            (marks / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, index)

    monkeypatch.setattr(Readable, "__getitem__", die)
    done = cli("evaluate", "--checkpoint", joint, "--workers", "1", "--json", "-")
    assert "a process that reads images died" in done.stderr
    if times == 1:
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["tasks"] == expected
    else:
        assert done.exit_code == 1
        *_, last = done.stderr.splitlines()
        assert last.startswith("error: a process that reads images died")
        assert last.endswith("for the 4th time: memory may be short: use fewer --workers")


@pytest.mark.filterwarnings("ignore:.* samples in '.*' where ")
def test_splits_are_scored_under_the_names_they_are_published_by(cli, tmp_path):
    voc2012(tmp_path / "voc")
    done = cli("run", "--task", "segmentation", "--dataset", "voc2012", "--data", tmp_path / "voc",
               *TINY, "--decoder", "fcn", "--epochs", "1", "--batch-size", "1", "--image-size",
               "64x64", "--results", tmp_path / "runs")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    (run,) = (tmp_path / "runs").glob("segmentation*")
    for split, name in {"val": "val", "test": "val", "held-out": "held-out-of-train"}.items():
        scores = scored(cli, "--checkpoint", run, "--split", split)
        assert scores["data"]["from"] == name.replace("-", " ")
        assert (
            scores["tasks"]["segmentation"]["protocol"] == f"voc2012/segmentation/{name}/miou/64x64"
        )
    assert scored(cli, "--checkpoint", run)["data"]["from"] == "val"


def test_scores_as_a_table_and_a_file(cli, joint, tmp_path):
    done = cli("evaluate", "--checkpoint", joint, "--flip", "--json", tmp_path / "scores.json")
    assert done.exit_code == 0, done.stderr
    assert "abs_rel" in done.stdout
    assert "scenes/saliency/test/maxf/32x48+flip/first4" in done.stdout
    tasks = json.loads((tmp_path / "scores.json").read_text())["tasks"]
    assert list(tasks) == ["segmentation", "depth", "saliency"]


def test_a_moved_folder_is_enough(cli, run, camvid, tmp_path):
    elsewhere = tmp_path / "resnet50.a1_in1k_seed0"  # a dot is no ending
    shutil.copytree(run, elsewhere)
    found = scored(cli, "--checkpoint", elsewhere, "--data", camvid)
    assert found["tasks"]["segmentation"]["metrics"]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--dataset", "scenes"), "has 11 classes"),
        (("--dataset", "seven-scenes"), "has no segmentation"),
        (("--scales", "1,x"), "--scales 1,x: write numbers"),
        (("--scales", "0"), "between 0.1 and 10"),
        (("--window", "8"), "--window: 8x8 is smaller than 32x32"),
        (("--device", "tpu"), "--device tpu: use cpu"),
    ],
)
def test_wrong_options(cli, run, options, part):
    done = cli("evaluate", "--checkpoint", run, *options)
    assert done.exit_code == 2
    assert part in line(done)


def test_wrong_checkpoints(cli, run, tmp_path):
    def failure(path):
        done = cli("evaluate", "--checkpoint", path)
        return done.exit_code, line(done)

    assert failure(tmp_path / "none")[1].startswith(f"error: --checkpoint {tmp_path}/none: no such")
    assert "no result.json" in failure(tmp_path)[1]
    assert "no weights there" in failure(run / "best.json")[1]
    (run / "last.safetensors").write_bytes(b"damaged")
    code, text = failure(run)
    assert code == 1
    assert "last.safetensors: not this run's weights" in text
    (run / "result.json").write_text("{")
    assert "result.json: not a result" in failure(run)[1]
    with pytest.raises(UserError):
        open_checkpoint(run)


@pytest.fixture
def photographs(tmp_path) -> Path:
    """One image of each kind, of other sizes than the network was trained at."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    random = np.random.default_rng(0)
    colour = random.integers(0, 256, (45, 70, 3), np.uint8)
    Image.fromarray(colour).save(folder / "colour.jpg")
    Image.fromarray(colour[..., 0]).save(folder / "grey.png")
    alpha = np.dstack([colour, random.integers(0, 256, (45, 70), np.uint8)])
    Image.fromarray(alpha).save(folder / "alpha.png")
    Image.fromarray(colour[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(colour).convert("P").save(folder / "palette.gif")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(colour).save(folder / "turned größe.jpg", exif=exif)
    Image.fromarray(colour[:1, :1]).save(folder / "pixel.png")
    return folder


def test_maps_of_any_image(cli, joint, photographs, tmp_path):
    output = tmp_path / "maps"
    done = cli("predict", "--checkpoint", joint, photographs, "-o", output)
    assert done.exit_code == 0, done.stderr
    assert "wrote the maps of 7 images" in done.stderr
    kinds = ("segmentation", "segmentation_overlay", "depth", "depth_view", "saliency")
    names = {path.stem for path in photographs.iterdir()}
    assert {p.name for p in output.iterdir()} == {f"{n}_{k}.png" for n in names for k in kinds}
    sizes = {"turned größe": (45, 70), "pixel": (1, 1)}  # width, height
    for name in names:
        classes = Image.open(output / f"{name}_segmentation.png")
        assert classes.mode == "P"
        assert classes.size == sizes.get(name, (70, 45))
        assert np.array(classes).max() < 11
        metres = np.array(Image.open(output / f"{name}_depth.png")) / 1000
        assert metres.min() >= 0.1  # the data set's range
        assert metres.max() <= 10.001
        assert Image.open(output / f"{name}_saliency.png").mode == "L"
        overlay = Image.open(output / f"{name}_segmentation_overlay.png")
        assert overlay.width > classes.width
    grey, deep = (np.array(Image.open(output / f"{n}_depth.png")) for n in ("grey", "deep"))
    assert np.array_equal(grey, deep)
    assert Image.open(output / "grey_depth.png").text == {"metres_per_unit": "0.001"}
    assert "NAME_depth.png: 16 bits, 0.001 m a unit\n" in done.stderr


def test_maps_as_floats(cli, joint, photographs, tmp_path):
    rounded, exact = tmp_path / "rounded", tmp_path / "exact"
    arguments = ("predict", "--checkpoint", joint, photographs / "colour.jpg", "-o")
    assert cli(*arguments, rounded).exit_code == 0
    done = cli(*arguments, exact, "--float")
    assert done.exit_code == 0, done.stderr
    assert "NAME_depth.tiff: 32-bit float, m\n" in done.stderr
    names = ("segmentation.png", "segmentation_overlay.png", "depth.tiff", "depth_view.png",
             "saliency.tiff")  # fmt: skip
    assert {p.name for p in exact.iterdir()} == {f"colour_{name}" for name in names}
    for task, unit in (("depth", 0.001), ("saliency", 1 / 255)):
        values = np.array(Image.open(exact / f"colour_{task}.tiff"))
        assert values.dtype == np.float32
        whole = np.array(Image.open(rounded / f"colour_{task}.png"))
        assert np.abs(values - whole * unit).max() <= unit / 2 + 1e-6


def test_depth_beyond_the_file_is_counted(cli, joint, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(depth, "MOST", 50)
    monkeypatch.setattr(depth, "UNITS", (0.001,))
    arguments = ("--checkpoint", joint, photographs / "colour.jpg", "-o", tmp_path / "maps")
    done = cli("predict", *arguments)
    assert done.exit_code == 0
    expected = "colour.jpg: depth: 3150 pixels beyond 0.05 m are written as it (--float keeps them)"
    assert expected in done.stderr
    assert "pixels beyond" not in cli("predict", *arguments, "--float").stderr


def test_original_size_flip_and_scales(cli, joint, photographs, tmp_path):
    options = ("--image-size", "original", "--flip", "--scales", "0.75,1", "-o", tmp_path / "maps")
    done = cli("predict", "--checkpoint", joint, photographs / "colour.jpg", *options)
    assert done.exit_code == 0, done.stderr
    assert Image.open(tmp_path / "maps" / "colour_depth.png").size == (70, 45)


def test_a_bad_image_is_named_and_the_others_are_done(cli, joint, photographs, tmp_path):
    (photographs / "broken.png").write_bytes(b"\x89PNG")
    done = cli("predict", "--checkpoint", joint, photographs, "-o", tmp_path / "maps")
    assert done.exit_code == 1
    assert "broken.png: is not an image" in done.stderr
    assert len(list((tmp_path / "maps").iterdir())) == 35


def test_wrong_images(cli, joint, photographs, tmp_path):
    def failure(*images):
        done = cli("predict", "--checkpoint", joint, *images, "-o", tmp_path / "maps")
        assert done.exit_code == 2
        return line(done)

    assert "nowhere.jpg: no such image" in failure(photographs / "nowhere.jpg")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no image in it" in failure(empty)
    shutil.copy(photographs / "colour.jpg", empty / "colour.jpg")
    assert "would be written as one" in failure(photographs, empty)
    assert not (tmp_path / "maps").exists()


def test_two_of_one_name_keep_their_endings(cli, joint, photographs, tmp_path):
    shutil.copy(photographs / "grey.png", photographs / "colour.png")
    done = cli("predict", "--checkpoint", joint, photographs, "-o", tmp_path / "maps")
    assert done.exit_code == 0, done.stderr
    names = {path.name for path in (tmp_path / "maps").iterdir()}
    assert {"colour.jpg_depth.png", "colour.png_depth.png", "grey_depth.png"} <= names
    assert "colour_depth.png" not in names


def test_a_packed_file_is_not_original(cli, run, camvid, tmp_path):
    packed = tmp_path / "camvid.h5"
    assert cli("data", "pack", "camvid", "--data", camvid, "--image-size", "32x64",
               "-o", packed).exit_code == 0  # fmt: skip
    same = scored(cli, "--checkpoint", run, "--data", packed)["tasks"]["segmentation"]
    assert same["metrics"] == json.loads((run / "result.json").read_text())["metrics"]
    done = cli("evaluate", "--checkpoint", run, "--data", packed, "--image-size", "original")
    assert done.exit_code == 2
    assert "holds this resized: name the folder" in line(done)


def test_output_that_cannot_be_written(cli, joint, photographs, tmp_path):
    (tmp_path / "file").write_text("")
    done = cli("predict", "--checkpoint", joint, photographs, "-o", tmp_path / "file")
    assert done.exit_code == 1
    assert "-o" in line(done)


def test_a_packed_file_must_hold_all_tasks(cli, tmp_path):
    packed = tmp_path / "scenes.h5"
    assert cli("data", "pack", "scenes", "--task", "segmentation", "--image-size", "32x32",
               "-o", packed).exit_code == 0  # fmt: skip
    tasks = ("--task", "segmentation", "--task", "depth")
    done = cli("run", *tasks, *TINY, "--data", packed, "--image-size", "32x32", "--decoder", "fcn",
               "--results", tmp_path / "runs")  # fmt: skip
    assert done.exit_code == 2
    assert "holds segmentation, no depth" in line(done)
    assert not list((tmp_path / "runs").iterdir())
