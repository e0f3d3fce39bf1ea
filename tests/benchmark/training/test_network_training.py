import math
import sys

import pytest
import torch
from torch import nn

from benchmark.experiment.config import make_config
from benchmark.experiment.plan import make_task, resolve
from benchmark.scoring.evaluate import evaluate
from benchmark.training.batches import Batches, check_batch
from benchmark.training.learner import NotFinite
from benchmark.training.network_training import NetworkTraining, total_loss
from benchmark.training.optimizer import make_optimizer, rate
from common.errors import UsageError
from common.progress import Silent
from datasets.base import DatasetInfo, Sample
from datasets.pipeline import Resized, Split
from models.backbones import create_backbone
from models.create import create_decoder
from models.decoders.base import DecoderInfo
from models.predictor import DensePredictor

CLASSES = 11


class Halves:
    """Left half dark and of class 1, right half bright and of class 3: learnable by one pixel."""

    info = DatasetInfo("halves", "halves", {}, {})

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Sample:
        image = torch.zeros(3, 32, 32, dtype=torch.uint8)
        image[:, :, 16:] = 200
        image += index
        labels = torch.full((32, 32), 1, dtype=torch.uint8)
        labels[:, 16:] = 3
        return Sample(image, {"segmentation": labels}, str(index))


class Pixelwise(nn.Module):
    """The smallest network with the parts that the loop knows by name."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.decoder = nn.Conv2d(8, CLASSES, 1)
        self.decoder.info = DecoderInfo("pixelwise", "")
        self.factor = factor

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.decoder(self.norm(self.backbone(x)).relu())
        return {"segmentation": logits * self.factor}


def config_of(**values):
    base = {"task": "segmentation", "dataset": "camvid", "image_size": "32", "crop_size": "32",
            "batch_size": 4, "epochs": 3, "lr": 0.01, "colour": 0, "zoom": "1,1"}  # fmt: skip
    return resolve(make_config({**base, **values}))


def fit(config, model=None):
    torch.manual_seed(config.seed)
    model = model or Pixelwise()
    data = Resized(Split(Halves(), range(8), "train"), (32, 32), "segmentation", targets=True)
    saved = []

    def validate(network):
        with torch.no_grad():
            logits = network.eval()(torch.stack([data[0].image]).float() / 255)["segmentation"]
        truth = data[0].targets["segmentation"]
        return {"miou": float((logits.argmax(1)[0] == truth).float().mean())}

    def save(which, network, facts):
        state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        saved.append((which, state, facts))

    training = NetworkTraining(config, model, [make_task(config)], data, validate, save)
    return model, training.fit(lambda *_: None, Silent()), saved


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 12},
        {"epochs": 12, "optimizer": "adamw", "lr": 0.003},
        {"epochs": 12, "schedule": "cosine", "warmup": 0.2, "clip_grad": 1.0},
        {"epochs": 12, "loss": "ce+dice"},
        {"epochs": 12, "loss": "0.5*ce+lovasz"},
        {"epochs": 12, "ema": 0.5},
        {"epochs": 12, "amp": True},
    ],
    ids=lambda values: "-".join(values),
)
def test_learns(values):
    _, history, saved = fit(config_of(**values))
    losses = [row["loss"] for row in history.epochs]
    assert losses[-1] < 0.7 * losses[0]
    assert history.epochs[-1]["val/miou"] == 1.0
    assert history.steps == 12 * 2
    assert [which for which, _, _ in saved].count("last") == 1
    assert "best" in [which for which, _, _ in saved]


def test_same_seed_same_bits_and_other_seed_others():
    def final(seed):
        return fit(config_of(seed=seed, colour=0.3, zoom="1,1.5"))[0].decoder.weight

    first, again, other = final(1), final(1), final(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_best_epoch_is_the_best_validated():
    _, history, saved = fit(config_of(epochs=6))
    values = [row["val/miou"] for row in history.epochs]
    assert values[history.best_epoch - 1] == max(values)
    assert history.best_epoch == 1 + values.index(max(values))
    best = [facts for which, _, facts in saved if which == "best"][-1]
    assert best["val/miou"] == max(values)


def test_ema_ends_as_the_average():
    """Decay (1 + n) / (10 + n) at first: the average follows, but lies behind the last weights."""
    torch.manual_seed(0)
    initial = Pixelwise()
    weight = initial.decoder.weight.detach().clone()
    averaged, _, saved = fit(config_of(ema=0.999), initial)
    torch.manual_seed(0)
    plain, _, _ = fit(config_of(), Pixelwise())
    moved = (plain.decoder.weight - weight).norm()
    assert 0.3 * moved < (averaged.decoder.weight - weight).norm() < 0.95 * moved
    assert torch.equal(saved[-1][1]["decoder.weight"], averaged.decoder.weight)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks")
def test_processes_that_read_images_are_forked():
    """Whatever Python's default: a process started otherwise could not have this class."""

    class Here(Halves):
        pass

    def read(workers: int) -> tuple[torch.Tensor, dict[str, float]]:
        config = config_of(workers=workers)
        data = Resized(Split(Here(), range(8), "train"), (32, 32), "segmentation", targets=True)
        images = torch.cat([images for images, _ in Batches(config, data)])
        task = make_task(config)
        accumulator = task.accumulator()
        torch.manual_seed(0)
        evaluate(config, Pixelwise(), {task: accumulator}, data)
        return images, accumulator.compute()

    (images, scores), (expected, expected_scores) = read(1), read(0)
    assert torch.equal(images, expected)
    assert scores == expected_scores


def test_a_network_sees_colours_from_0_to_1():
    """In training and in scoring alike."""
    config, seen = config_of(colour=0, workers=0), []

    class Watching(Pixelwise):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            seen.append((x.dtype, round(x.max().item() * 255, 3), x.min().item()))
            return super().forward(x)

    data = Resized(Split(Halves(), range(4, 8), "train"), (32, 32), "segmentation", targets=True)
    for images, _ in Batches(config, data):
        seen.append((images.dtype, round(images.max().item() * 255, 3), images.min().item()))
    task = make_task(config)
    evaluate(config, Watching(), {task: task.accumulator()}, data)
    assert len(seen) == 2
    for dtype, high, low in seen:
        assert (dtype, high, low) == (torch.float32, 207.0, pytest.approx(4 / 255))


@pytest.mark.parametrize("factor", [math.inf, math.nan])
def test_loss_that_is_not_finite_stops(factor):
    with pytest.raises(NotFinite, match=r"step 1 \(epoch 1\): try a smaller --lr"):
        fit(config_of(), Pixelwise(factor))


def test_two_learning_rates_and_no_decay_on_norms():
    config = config_of(lr=0.01, decoder_lr_factor=10, weight_decay=0.1)
    model = Pixelwise()
    optimizer = make_optimizer(config, model)
    by_id = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(by_id) == len(list(model.parameters()))
    assert by_id[id(model.backbone.weight)]["lr"] == 0.01
    assert by_id[id(model.decoder.weight)]["lr"] == pytest.approx(0.1)
    assert by_id[id(model.decoder.weight)]["weight_decay"] == 0.1
    assert by_id[id(model.norm.weight)]["weight_decay"] == 0
    assert by_id[id(model.decoder.bias)]["weight_decay"] == 0


def test_a_neck_is_trained_as_the_decoder():
    config = config_of(lr=0.01, decoder_lr_factor=10, weight_decay=0.1)
    backbone = create_backbone("test_vit", {"neck": "vitdet"})
    decoder = create_decoder("fcn", backbone.features)
    model = DensePredictor(backbone, decoder, {"segmentation": 2})
    optimizer = make_optimizer(config, model)
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    groups = {name: group_of[id(p)] for name, p in model.named_parameters()}
    for name, group in groups.items():
        fresh = name.startswith(("backbone.neck.", "heads."))
        assert group["lr"] == pytest.approx(0.1 if fresh else 0.01), name
    assert groups["backbone.neck.projections.0.2.weight"]["weight_decay"] == 0.1
    assert groups["backbone.neck.projections.0.3.weight"]["weight_decay"] == 0


def test_schedules_by_hand():
    poly = config_of(schedule="poly")
    assert rate(poly, 0, 100) == 1
    assert rate(poly, 50, 100) == pytest.approx(0.5**0.9)
    cosine = config_of(schedule="cosine")
    assert rate(cosine, 50, 100) == pytest.approx(0.5)
    warm = config_of(schedule="cosine", warmup=0.1)
    assert [rate(warm, step, 100) for step in (0, 9)] == pytest.approx([1 / 11, 10 / 11])
    assert rate(warm, 10, 100) == 1


def test_the_loss_adds_the_weighted_sides_of_its_task():
    torch.manual_seed(0)
    task = make_task(config_of())
    outputs = {
        "segmentation": torch.randn(2, CLASSES, 4, 4),
        "segmentation/side1": torch.randn(2, CLASSES, 4, 4),
        "segmentation/side2": torch.randn(2, CLASSES),
        "depth": torch.full((2, 1, 4, 4), math.nan),  # another task's
        "depth/side1": torch.full((2, 1, 4, 4), math.nan),
    }
    target = torch.randint(0, CLASSES, (2, 4, 4))
    final = task.loss(outputs["segmentation"], target)
    side = task.loss(outputs["segmentation/side1"], target)
    presence = task.presence_loss(outputs["segmentation/side2"], target)
    assert min(final, side, presence) > 0
    for weight in (1.0, 0.2):
        expected = final + weight * side + weight * presence
        torch.testing.assert_close(total_loss(task, outputs, target, weight), expected)


class WithSide(Pixelwise):
    """The final logits are cut off from the parameters: what is learned comes from the side."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = super().forward(x)["segmentation"]
        if not self.training:
            return {"segmentation": logits}
        return {"segmentation": logits.detach(), "segmentation/side1": logits}


def test_sides_are_trained():
    _, history, _ = fit(config_of(epochs=12), WithSide())
    assert history.epochs[-1]["val/miou"] == 1.0


def test_a_batch_too_small_in_each_process_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    two = DecoderInfo("Pyramid", "test", min_train_batch=2)
    check_batch(config_of(batch_size=4), two, 4)
    with pytest.raises(UsageError, match="in each of 2 processes: use --batch-size 4 or more"):
        check_batch(config_of(batch_size=2), two, None)
    with pytest.raises(UsageError, match="the training split has 1"):
        check_batch(config_of(batch_size=2), DecoderInfo("Plain", "test"), 1)


def test_a_batch_too_small_for_the_decoder_is_refused():
    two = DecoderInfo("Pyramid", "test", min_train_batch=2)
    check_batch(config_of(batch_size=2), two, None)
    check_batch(config_of(batch_size=2), two, 2)
    check_batch(config_of(batch_size=1), DecoderInfo("Plain", "test"), 1)
    with pytest.raises(UsageError, match=r"Pyramid trains on at least 2 .*: use --batch-size 2"):
        check_batch(config_of(batch_size=1), two, None)
    with pytest.raises(UsageError, match="the training split has 1"):
        check_batch(config_of(batch_size=8), two, 1)
