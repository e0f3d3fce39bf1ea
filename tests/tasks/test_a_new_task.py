"""A task, its ground truth and its data set in this one file: every command takes them.

Nothing elsewhere knows of shading. What a user writes to add a task is the first half of the file.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor

from benchmark.export.formats import METADATA
from cli import main
from common.drawing import RGB, Palette, Picture, grey
from datasets.augment import Augment
from datasets.base import (
    DATASETS,
    TARGETS,
    DatasetInfo,
    DenseDataset,
    Sample,
    TargetKind,
    TargetStatistics,
)
from tasks.base import TASKS, Task
from tasks.losses.base import Term
from tasks.metrics.base import MetricInfo, RowAccumulator, catalogue, planes
from tasks.metrics.names import SHORT_NAMES
from tests.support import TINY

UNKNOWN = -1
HEIGHT, WIDTH = 32, 48
DARK = 60  # what nothing is known of, as drawn

# --- the ground truth ----------------------------------------------------------------------------


class ShadingStatistics(TargetStatistics):
    """How much light falls on the known pixels."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        super().__init__(facts)
        self.light = 0.0
        self.known = 0

    def add(self, target: Tensor) -> str | None:
        known = target[target != UNKNOWN]
        if ((known < 0) | (known > self.facts["brightest"])).any():
            return f"light outside 0…{self.facts['brightest']}"
        self.maps += 1
        self.light += float(known.double().sum())
        self.known += known.numel()
        return None

    def summary(self) -> dict[str, Any]:
        return {"mean light": self.light / max(self.known, 1)}

    def doubts(self) -> list[str]:
        return ["no light anywhere"] if not self.light else []


class Light(TargetKind):
    """The share of the brightest light that falls on a pixel, in 0…1; -1 = unknown."""

    ignore = UNKNOWN
    dtype = torch.float32
    statistics = ShadingStatistics

    def draw(self, target: Tensor, palette: Palette = ()) -> RGB:
        return grey(np.where(target.numpy() == UNKNOWN, DARK, 255 * target.numpy()))


class Lamps(DenseDataset):
    """Grey walls under a lamp that stands to the left, to the right, or between."""

    info: ClassVar[DatasetInfo] = DatasetInfo(
        name="lamps",
        title="Lamps",
        tasks={"shading": {"brightest": 1.0}},
        splits={"train": 8, "val": 4, "test": 4},
        defaults={"image_size": (HEIGHT, WIDTH)},
    )

    def __init__(self, root: Path | None, split: str, task: str) -> None:
        assert root is None
        assert task == "shading"
        self.split = split

    def __len__(self) -> int:
        return self.info.splits[self.split] or 0

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        random = np.random.default_rng([index, len(self.split)])
        columns = np.linspace(0, 1, WIDTH) - random.random()
        light = np.tile(np.exp(-3 * columns**2), (HEIGHT, 1)).astype(np.float32)
        walls = random.uniform(0.5, 1, (3, 1, 1)) + random.normal(0, 0.02, (3, HEIGHT, WIDTH))
        image = torch.from_numpy((255 * walls * light).clip(0, 255).astype(np.uint8))
        light[:2] = UNKNOWN
        return Sample(image, {"shading": torch.from_numpy(light)}, f"{self.split}{index}")

    def fingerprint(self) -> str:
        return "1a4b5"


# --- the task ------------------------------------------------------------------------------------


class ShadingMetrics(RowAccumulator):
    infos: ClassVar[Mapping[str, MetricInfo]] = catalogue(
        MetricInfo("light_error", "Mean error of the light", "1", False, "mean over images", "here")
    )

    def update(self, prediction: Tensor, target: Tensor) -> None:
        seen, truth = planes(prediction, target)
        known = truth != UNKNOWN
        self._append({"light_error": float((seen - truth)[known].abs().double().mean())})

    def counts(self) -> dict[str, int]:
        return {"images": self.images}

    def _settings(self) -> tuple[object, ...]:
        return ()


class Shading(Task):
    """Logits [B, 1, H, W]; target: light in 0…1, -1 = unknown."""

    name = "shading"
    title = "Shading"
    target = "shading"
    columns = ("light_error",)
    ignore = UNKNOWN
    default_loss = "l1"
    unit = "share of the brightest light"
    formula = "sigmoid(logits)"
    caption = "White is the brightest light."
    pipeline_tag = "image-to-image"
    channels = 1

    def __init__(self, brightest: float, loss: str | None = None) -> None:
        super().__init__(loss)
        self.brightest = brightest

    def loss_terms(self) -> Mapping[str, Term]:
        def l1(logits: Tensor, target: Tensor) -> Tensor:
            known = target != UNKNOWN
            error = (logits[:, 0].sigmoid() - target).abs() * known
            return error.sum() / known.sum().clamp(min=1)

        return {"l1": l1}

    def activate(self, logits: Tensor, scale: float = 1.0) -> Tensor:
        return logits.sigmoid()

    def decide(self, activated: Tensor) -> Tensor:
        return activated[:, 0]

    def accumulator(self) -> ShadingMetrics:
        return ShadingMetrics()

    def best_constant(self, targets: Iterable[Tensor]) -> float:
        return float(torch.cat([t[t != UNKNOWN] for t in targets]).median())

    def draw(self, prediction: Tensor, truth: Tensor, palette: Palette = ()) -> RGB:
        return grey(255 * prediction.numpy())

    def maps(
        self,
        image: Tensor,
        prediction: Tensor,
        palette: Palette = (),
    ) -> Mapping[str, Picture]:
        """The light, and the image without it."""
        light = Image.fromarray(np.rint(255 * prediction.numpy()).astype(np.uint8))
        even = (image / prediction.clamp(min=0.1)).clamp(max=255).to(torch.uint8)
        return {
            self.name: light,
            f"{self.name}_view": Image.fromarray(even.permute(1, 2, 0).numpy()),
        }


# --- what every command makes of them ------------------------------------------------------------

Cli = Callable[..., Result]


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    """They are registered for the tests of this file only."""
    with pytest.MonkeyPatch.context() as patch:
        for registry in (TASKS, TARGETS, DATASETS):
            assert registry.names()
            patch.setattr(registry, "_entries", dict(registry._entries))
        TARGETS.register("shading")(Light)
        DATASETS.register("lamps")(Lamps)
        TASKS.register("shading")(Shading)
        patch.setitem(SHORT_NAMES, "light_error", "Light")
        yield


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, _registered: None) -> Path:
    """The results of one run."""
    folder = tmp_path_factory.mktemp("runs")
    words = ("run", "--task", "shading", "--dataset", "lamps", *TINY, "--decoder", "fcn",
             "--epochs", "1", "--limit", "4", "--batch-size", "2",
             "--results", str(folder))  # fmt: skip
    done = CliRunner().invoke(main, words)
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


def test_it_is_listed(cli: Cli) -> None:
    (row,) = answer(cli, "list", "tasks", "shading", "--json")
    assert row["metrics"] == ["light_error"]
    assert row["datasets"] == ["lamps"]


def test_it_is_trained_and_scored(cli: Cli, run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["protocol"] == f"lamps/shading/test/light_error/{HEIGHT}x{WIDTH}/first4"
    assert 0 < result["metrics"]["light_error"] < 1
    assert 0 < result["constant"]["metrics"]["light_error"] < 1
    again = answer(cli, "evaluate", "--checkpoint", run, "--json", "-")
    assert again["tasks"]["shading"]["metrics"] == result["metrics"]


def test_it_is_reported(cli: Cli, results: Path, tmp_path: Path) -> None:
    done = cli("report", "--results", results, "--html", tmp_path)
    assert done.exit_code == 0, done.output
    assert "Light ↓" in done.stdout
    page = (tmp_path / "index.html").read_text()
    assert Shading.caption in page
    assert page.count("data:image/webp;base64,") == 3 * 3  # image, truth and prediction of three


def test_its_data_are_drawn_and_checked(cli: Cli, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    assert cli("data", "preview", "lamps", "--count", "2", "-o", sheet).exit_code == 0
    second = np.array(Image.open(sheet))[:HEIGHT, WIDTH + 4 : 2 * WIDTH + 4]
    assert (second[:2] == DARK).all()
    assert second[2:].max() > 200
    report = answer(cli, "data", "check", "lamps", "--json", "-")
    assert report["problems"] == []
    assert 0 < report["splits"]["train"]["targets"]["shading"]["mean light"] < 1


def test_its_data_are_packed(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "lamps.h5"
    assert cli("data", "pack", "lamps", "-o", file).exit_code == 0
    packed = answer(cli, "data", "check", "lamps", "--data", file, "--json", "-")
    assert packed["splits"] == answer(cli, "data", "check", "lamps", "--json", "-")["splits"]


def test_its_values_stay_what_they_are_under_augmentation() -> None:
    sample = Lamps(None, "train", "shading")[0]
    augment = Augment((HEIGHT, WIDTH), zoom=(0.5, 0.5), flip=False)
    torch.manual_seed(0)
    _, moved = augment(sample.image[None] / 255, {"shading": sample.targets["shading"][None]})
    known = moved["shading"][moved["shading"] != UNKNOWN]
    assert 0.2 * WIDTH * HEIGHT < known.numel() < 0.3 * WIDTH * HEIGHT  # the rest lies outside
    before = sample.targets["shading"].unique()
    assert all((before - value).abs().min() < 1e-6 for value in known.unique())


def test_it_is_predicted(cli: Cli, run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (90, 90, 90)).save(tmp_path / "wall.png")
    output = tmp_path / "maps"
    done = cli("predict", "--checkpoint", run, tmp_path / "wall.png", "-o", output)
    assert done.exit_code == 0, done.output
    assert {path.name for path in output.iterdir()} == {"wall_shading.png", "wall_shading_view.png"}
    light = Image.open(output / "wall_shading.png")
    assert (light.mode, light.size) == ("L", (40, 30))


def test_an_exported_file_says_what_it_gives(cli: Cli, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.ts"
    words = ("--format", "torchscript", "-o", file)
    assert cli("export", "--checkpoint", run, *words).exit_code == 0
    extra = {METADATA: ""}
    torch.jit.load(str(file), _extra_files=extra)
    facts = json.loads(extra[METADATA])["tasks"]["shading"]
    assert facts["unit"] == Shading.unit
    assert facts["from_logits"] == Shading.formula
    assert facts["brightest"] == 1.0
    assert facts["score"]["metric"] == "light_error"
