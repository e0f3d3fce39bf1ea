"""Data sets whose images are not RGB, in this one file: every command takes them.

A scanner with five bands of more than 8 bits, and a grey camera. Only the scanner's last band shows
the classes.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import onnxruntime
import pytest
import tifffile
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor

from benchmark.experiment.network import NetworkSpec
from benchmark.export.export import facts_of
from benchmark.export.formats import METADATA
from benchmark.export.model_card import model_card
from benchmark.results.checkpoint import load_model, open_checkpoint
from benchmark.results.store import read
from benchmark.speed.latency import Setup
from benchmark.speed.profile import Peaks, profile
from cli import main
from common.drawing import photograph
from common.errors import DataError
from datasets import hdf5
from datasets.augment import Augment
from datasets.base import DATASETS, DatasetInfo, DenseDataset, Sample
from datasets.own.reader import read_input
from datasets.pipeline import check_image, resize_image
from tests.support import TINY, line

HEIGHT, WIDTH = 32, 48
BANDS = ("blue", "green", "red", "edge", "infrared")
FACTS: dict[str, Any] = {
    "tasks": {"segmentation": {"classes": ("land", "water")}},
    "splits": {"train": 24, "val": 4, "test": 4},
}
DEFAULTS = {"image_size": (HEIGHT, WIDTH), "colour": 0.2, "zoom": (1.0, 1.2)}


class Scanner(DenseDataset):
    """Water is dark in the last band; the other bands are noise of another level each."""

    info: ClassVar[DatasetInfo] = DatasetInfo(
        "scanner", "Scanner", **FACTS, defaults=DEFAULTS, channels=5, channel_names=BANDS
    )

    def __init__(self, root: Path | None, split: str, task: str) -> None:
        assert root is None
        self.split = split

    def __len__(self) -> int:
        return self.info.splits[self.split] or 0

    def image(self, random: np.random.Generator, water: Any) -> Tensor:
        levels = np.array([10, 20, 30, 40, 50])[:, None, None]
        pixels = levels + random.normal(0, 2, (5, HEIGHT, WIDTH))
        pixels[4, water] -= 30
        return torch.from_numpy(pixels.clip(0, 255).astype(np.float32))

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        random = np.random.default_rng([index, len(self.split)])
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        labels[:, random.integers(12, 36) :] = 1
        image = self.image(random, labels == 1)
        target = torch.from_numpy(labels)
        return Sample(image, {"segmentation": target}, f"{self.split}{index}")

    def fingerprint(self) -> str:
        return "5ca44e6"


class Thermal(Scanner):
    """Water is dark in the only band, of 8 bits."""

    info: ClassVar[DatasetInfo] = DatasetInfo(
        "thermal", "Thermal", **FACTS, defaults=DEFAULTS, channels=1
    )

    def image(self, random: np.random.Generator, water: Any) -> Tensor:
        pixels = random.integers(150, 200, (1, HEIGHT, WIDTH))
        pixels[0, water] -= 100
        return torch.from_numpy(pixels.astype(np.uint8))


Cli = Callable[..., Result]
SETS = {"scanner": 5, "thermal": 1}


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    """They are registered for the tests of this file only."""
    with pytest.MonkeyPatch.context() as patch:
        assert DATASETS.names()
        patch.setattr(DATASETS, "_entries", dict(DATASETS._entries))
        DATASETS.register("scanner")(Scanner)
        DATASETS.register("thermal")(Thermal)
        yield


def words(name: str, epochs: int, *more: object) -> list[str]:
    options = ("--task", "segmentation", "--dataset", name, *TINY, "--decoder", "fcn", "--epochs",
               epochs, "--batch-size", "4", "--lr", "0.05", *more)  # fmt: skip
    return ["run", *map(str, options)]


@pytest.fixture(scope="module", params=SETS)
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _registered: None
) -> Path:
    """The results of one run, in a folder of the data set's name."""
    folder: Path = tmp_path_factory.mktemp("runs") / request.param
    done = CliRunner().invoke(main, words(request.param, 8, "--results", folder))
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def run(results: Path) -> Path:
    (file,) = results.glob("*/result.json")
    return file.parent


def answer(cli: Cli, *words: object) -> Any:
    done = cli(*words)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_it_is_trained_scored_and_timed(cli: Cli, run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    channels = SETS[result["config"]["dataset"]]
    assert result["status"] == "finished"
    assert result["metrics"]["miou"] > result["constant"]["metrics"]["miou"]
    assert result["config"]["mean"] == pytest.approx([(0.485 + 0.456 + 0.406) / 3] * channels)
    assert result["speed"]["channels"] == channels
    assert result["data"]["test"]["channels"] == channels
    model = load_model(run)
    assert model.in_channels == channels
    assert model(torch.rand(2, channels, 40, 50)).shape == (2, 2, 40, 50)
    assert len(list((run / "samples").glob("*.webp"))) == 9


def test_it_is_scored_again_in_other_views(cli: Cli, run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    again = answer(cli, "evaluate", "--checkpoint", run, "--json", "-")
    assert again["tasks"]["segmentation"]["metrics"] == result["metrics"]
    views = ("--flip", "--scales", "0.75,1", "--window", "32x32", "--image-size", "original")
    other = answer(cli, "evaluate", "--checkpoint", run, *views, "--json", "-")
    assert 0 < other["tasks"]["segmentation"]["metrics"]["miou"] <= 1


def test_it_is_a_row(cli: Cli, results: Path, tmp_path: Path) -> None:
    done = cli("report", "--results", results, "--html", tmp_path)
    assert done.exit_code == 0, done.output
    assert "test_efficientnet" in done.stdout


@pytest.mark.slow  # the oldest supported torch has no such export
def test_it_is_exported(cli: Cli, run: Path, tmp_path: Path) -> None:
    channels = load_model(run).in_channels
    file = tmp_path / "a.onnx"
    done = cli("export", "--checkpoint", run, "-o", file)
    assert done.exit_code == 0, done.output
    session = onnxruntime.InferenceSession(str(file))
    facts = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])["input"]
    assert session.get_inputs()[0].shape[1] == facts["channels"] == channels
    assert facts["layout"] == f"[batch, {channels}, height, width], float32 in 0…1"
    assert facts["channel_names"] == (list(BANDS) if channels == 5 else [])


@pytest.mark.parametrize("form", ["torchscript", pytest.param("pt2", marks=pytest.mark.slow)])
def test_it_is_exported_in_other_formats(cli: Cli, run: Path, tmp_path: Path, form: str) -> None:
    done = cli("export", "--checkpoint", run, "--format", form, "-o", tmp_path / "net")
    assert done.exit_code == 0, done.output
    assert "largest error" in done.stdout


def test_its_model_card_names_the_channels(run: Path) -> None:
    checkpoint = open_checkpoint(run)
    channels = checkpoint.config.channels
    card = model_card(read(run), facts_of(checkpoint), "me/net")
    names = f" (channels: {', '.join(BANDS)})" if channels == 5 else ""
    assert f"Images in 0…1, [batch, {channels}, height, width]{names}; the network" in card
    assert f"net(torch.rand(1, {channels}, {HEIGHT}, {WIDTH}))" in card


@pytest.mark.slow
def test_it_is_quantised(cli: Cli, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    done = cli("export", "--checkpoint", run, "--int8", "--calibrate", "2", "-o", file)
    assert done.exit_code == 0, done.output
    assert "difference" in done.stdout


@pytest.mark.parametrize("name", SETS)
def test_it_is_checked_packed_and_drawn(cli: Cli, name: str, tmp_path: Path) -> None:
    report = answer(cli, "data", "check", name, "--json", "-")
    assert report["problems"] == []
    data = DATASETS.get(name)(None, "train", "segmentation")
    pixels = torch.stack([data[i].image for i in range(len(data))]).double() / 255
    assert report["mean"] == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-4)
    std = pixels.std((0, 2, 3), correction=0)
    assert report["std"] == pytest.approx(std.tolist(), abs=1e-4)
    file = tmp_path / "a.h5"
    assert cli("data", "pack", name, "-o", file).exit_code == 0
    packed = answer(cli, "data", "check", name, "--data", file, "--json", "-")
    assert packed["splits"] == report["splits"]
    with h5py.File(file) as content:
        assert content.attrs["channels"] == SETS[name]
        assert content["train/image/0"].dtype == data[0].image.numpy().dtype
    done = cli(*words(name, 1, "--data", file, "--results", tmp_path / "runs"))
    assert done.exit_code == 0, done.output
    sheet = tmp_path / "sheet.png"
    done = cli("data", "preview", name, "--count", "2", "-o", sheet)
    assert done.exit_code == 0, done.output
    assert np.array(Image.open(sheet))[:HEIGHT, :WIDTH].std() > 10


def test_a_packed_file_of_other_channels_is_refused(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "a.h5"
    assert cli("data", "pack", "scanner", "-o", file).exit_code == 0
    with h5py.File(file, "a") as content:
        content.attrs["channels"] = 3
    done = cli("data", "check", "scanner", "--data", file)
    assert done.exit_code != 0
    assert "its images have 3 channels, those of scanner have 5" in done.output


def test_a_large_image_is_packed_by_its_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Scanner(None, "test", "segmentation")[0]
    for limit, chunks in ((10**6, (5, HEIGHT, WIDTH)), (10**4, (1, HEIGHT, WIDTH))):
        monkeypatch.setattr(hdf5, "LARGEST_CHUNK", limit)
        with hdf5.PackWriter(tmp_path / "a.h5", "lzf") as writer:
            writer.sample("test", 0, sample)
        with h5py.File(tmp_path / "a.h5") as content:
            array = content["test/image/0"]
            assert array.chunks == chunks
            assert (array[()] == sample.image.numpy()).all()


def test_a_wiring_is_searched(cli: Cli, tmp_path: Path) -> None:
    done = cli("search", "--task", "segmentation", "--dataset", "scanner", *TINY, "--iterations",
               "3", "--batch-size", "2", "--lambda", "0", "--output", tmp_path)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert len(json.loads((tmp_path / "search.json").read_text())["config"]["mean"]) == 5


SPEED = ("speed", *TINY, "--decoder", "fcn", "--image-size", "64", "--json", "-")


def test_its_work_is_counted(cli: Cli) -> None:
    (five,) = answer(cli, *SPEED, "--no-time", "--in-channels", 5)
    (three,) = answer(cli, *SPEED, "--no-time")
    first = 24 * 3 * 3  # weights of the first convolution for each channel
    assert five["params"]["backbone"] - three["params"]["backbone"] == 2 * first
    assert five["macs"]["backbone"] - three["macs"]["backbone"] == 2 * first * 32 * 32
    assert five["in_channels"] == 5


@pytest.mark.slow
def test_its_speed_is_measured(cli: Cli) -> None:
    options = ("--min-time", "0.01", "--onnx", "--isolate", "1", "--in-channels", 5)
    (five,) = answer(cli, *SPEED, *options)
    assert five["latency"]["channels"] == 5
    assert five["isolated_error"] is None
    assert five["memory"]["error"] is None
    assert five["onnx"]["median_ms"] > 0
    network = NetworkSpec("test_efficientnet", "fcn", {"a": 2}, in_channels=5).build()
    peaks = Peaks(1e9, 1e9, "float32")
    assert profile(network, (64, 64), "cpu", 1, Setup(), peaks, 0.01)["whole_ms"] > 0


def test_mean_and_std_are_one_number_or_one_for_each_band(cli: Cli, tmp_path: Path) -> None:
    wrong = cli(*words("scanner", 1, "--results", tmp_path, "--mean", "0.5,0.5,0.5"))
    assert wrong.exit_code == 2
    assert "--mean: 3 numbers, the images of scanner have 5 channels" in line(wrong)
    right = cli(*words("scanner", 1, "--results", tmp_path, "--std", "0.1,0.2,0.3,0.4,0.5",
                       "--mean", "0.5"))  # fmt: skip
    assert right.exit_code == 0, right.output
    (file,) = tmp_path.glob("*/result.json")
    config = json.loads(file.read_text())["config"]
    assert (config["mean"], config["std"]) == ([0.5] * 5, [0.1, 0.2, 0.3, 0.4, 0.5])


def test_the_data_set_has_its_own_mean(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = (0.1, 0.2, 0.3, 0.4, 0.5)
    info = DatasetInfo(
        "scanner",
        "Scanner",
        **FACTS,
        channels=5,
        defaults={**DEFAULTS, "mean": own, "std": (0.25,)},
    )
    monkeypatch.setattr(Scanner, "info", info)
    done = cli(*words("scanner", 1, "--results", tmp_path))
    assert done.exit_code == 0, done.output
    (file,) = tmp_path.glob("*/result.json")
    config = json.loads(file.read_text())["config"]
    assert (config["mean"], config["std"]) == (list(own), [0.25] * 5)


def test_rgb_images_are_refused(cli: Cli, run: Path, tmp_path: Path) -> None:
    channels = load_model(run).in_channels
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.png")
    done = cli("predict", "--checkpoint", run, tmp_path / "photo.png", "-o", tmp_path / "maps")
    assert done.exit_code == 1
    bands = "5 bands" if channels == 5 else "1 band"
    assert f"photo.png: the network takes {bands}, the image has 3" in done.stderr
    done = cli("serve", "--checkpoint", run)
    assert done.exit_code == 2
    assert "the page takes RGB" in line(done)
    done = cli("evaluate", "--checkpoint", run, "--dataset", "scenes")
    assert done.exit_code == 2


def test_an_image_that_differs_is_named(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Scanner.image

    def image(self: Scanner, random: np.random.Generator, water: Any) -> Tensor:
        whole = original(self, random, water)
        return whole if self.split != "test" else whole[:4]

    monkeypatch.setattr(Scanner, "image", image)
    report = json.loads(cli("data", "check", "scanner", "--json", "-").stdout)
    assert "has 4 channels, Scanner has 5" in report["problems"][0]
    done = cli(*words("scanner", 1, "--results", tmp_path))
    assert done.exit_code == 1
    assert "test0: has 4 channels, Scanner has 5" in line(done)


def test_values_that_are_no_numbers_are_named() -> None:
    image = torch.zeros(5, 4, 4)
    image[2, 1, 1] = torch.nan
    with pytest.raises(DataError, match="a: 1 values of the image are NaN or infinite"):
        check_image(Sample(image, {}, "a"), Scanner.info)


def test_floats_are_resized_without_rounding() -> None:
    image = torch.rand(5, 8, 8) * 255
    small = resize_image(image, (4, 4))
    assert small.dtype == torch.float32
    torch.testing.assert_close(small.mean(), image.mean(), rtol=0.05, atol=0)
    assert (small != small.round()).any()
    assert resize_image(image.to(torch.uint8), (4, 4)).dtype == torch.uint8


def test_colour_changes_all_bands_alike() -> None:
    levels = torch.tensor([0.01, 0.02, 0.1, 0.2, 0.4])
    images = levels[None, :, None, None].expand(3, 5, 16, 16)
    torch.manual_seed(0)
    changed, _ = Augment((16, 16), flip=False, colour=0.4, channels=5)(images, {})
    factors = changed / images
    torch.testing.assert_close(factors, factors[:, :1, :1, :1].expand_as(factors))
    assert len(factors[:, 0, 0, 0].unique()) == 3


def test_pictures_show_the_first_bands() -> None:
    image = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4)
    assert (photograph(image) == image[:3].transpose(1, 2, 0)).all()
    assert (photograph(image[:2]) == image[0][:, :, None]).all()
    dark = photograph(image.astype(np.float32) / 100)  # stretched to be seen
    assert (dark.min(), dark.max()) == (0, 255)


def five_bands(folder: Path, names: str = "b, g, r, e, n") -> Path:
    """A folder of 16-bit TIFFs of five bands, label maps, and its ``dataset.yaml``."""
    random = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for index in range(12):
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        labels[:, random.integers(12, 36) :] = 1
        pixels = random.normal(3000, 300, (HEIGHT, WIDTH, 5))
        pixels[labels == 1, 4] -= 2500
        pixels = pixels.clip(0, 10000).astype(np.uint16)
        tifffile.imwrite(folder / f"images/{index:02}.tif", pixels)
        Image.fromarray(labels).save(folder / f"labels/{index:02}.png")
    (folder / "dataset.yaml").write_text(
        f"name: five\nimages: images/*.tif\nbands: {{names: [{names}], max: 10000}}\n"
        "targets:\n  segmentation: {files: labels/*.png, classes: [land, water]}\n"
        "splits: {val: 0.2, test: 0.3, seed: 0}\n"
    )
    return folder


def test_a_users_folder_of_five_bands(cli: Cli, tmp_path: Path) -> None:
    folder, results = five_bands(tmp_path / "five"), tmp_path / "runs"
    report = answer(cli, "data", "check", "own", "--data", folder, "--json", "-")
    assert report["problems"] == []
    assert report["mean"][:4] == pytest.approx([0.3] * 4, abs=0.01)  # 3000 of 10000
    done = cli(*words("own", 2, "--data", folder, "--image-size", f"{HEIGHT}x{WIDTH}",
                      "--results", results))  # fmt: skip
    assert done.exit_code == 0, done.output
    (file,) = results.glob("*/result.json")
    score = json.loads(file.read_text())["metrics"]
    packed = tmp_path / "five.h5"
    size = ("--image-size", f"{HEIGHT}x{WIDTH}")
    assert cli("data", "pack", "own", "--data", folder, *size, "-o", packed).exit_code == 0
    for data in (folder, packed):
        again = answer(cli, "evaluate", "--checkpoint", file.parent, "--data", data, "--json", "-")
        assert again["tasks"]["segmentation"]["metrics"] == score
    output = tmp_path / "maps"
    done = cli("predict", "--checkpoint", file.parent, folder / "images", "-o", output)
    assert done.exit_code == 0, done.output
    assert len(list(output.glob("*_overlay.png"))) == 12
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.png")
    done = cli("predict", "--checkpoint", file.parent, tmp_path / "photo.png", "-o", output)
    assert done.exit_code == 1
    assert "3 bands, not the 5 (b, g, r, e, n) that the network takes: use images of" in done.stderr
    (file_of_five, *_) = (folder / "images").iterdir()
    with pytest.raises(DataError, match="5 bands where the network takes RGB or grey: use images"):
        read_input(file_of_five, None)
    begun = cli("run", "--task", "segmentation", "--init", file.parent, *TINY, "--decoder", "fcn",
                "--results", tmp_path / "begun")  # fmt: skip
    assert begun.exit_code == 2
    assert line(begun).endswith(
        "its images have 5 channels, those of scenes 3: name a run on images of 3"
    )
    other = five_bands(tmp_path / "other", "n, b, g, r, e")
    done = cli("evaluate", "--checkpoint", file.parent, "--data", other)
    assert done.exit_code == 2
    assert "its channels are n, b, g, r, e, those of the network are b, g, r, e, n" in line(done)
