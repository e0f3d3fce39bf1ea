"""What every task promises, and what each makes of its logits and of a constant."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.results.checks import RULES
from common.annotators import pack
from common.errors import UsageError
from datasets.base import TARGETS
from tasks.base import TASKS, Task
from tasks.depth import Depth
from tasks.saliency import Saliency
from tasks.segmentation import Segmentation

CLASSES = ("sky", "road", "tree", "car")
PALETTE = ((70, 130, 180), (128, 64, 128), (107, 142, 35), (0, 0, 142))
H, W = 24, 32


def labels(random: torch.Generator) -> Tensor:
    target = torch.randint(0, 4, (2, H, W), generator=random).to(torch.uint8)
    target[:, :10] = 2  # one class is the commonest
    target[torch.rand(target.shape, generator=random) < 0.1] = 255
    return target


def metres(random: torch.Generator) -> Tensor:
    target = 0.5 + 9 * torch.rand(2, H, W, generator=random) ** 2
    target[torch.rand(target.shape, generator=random) < 0.1] = 0
    return target


def masks(random: torch.Generator) -> Tensor:
    target = torch.zeros(2, H, W, dtype=torch.uint8)
    target[:, 5:15, 8:20] = 1
    target[:, -1] = 255  # padding
    return target


def marks(random: torch.Generator) -> Tensor:
    """Two annotators: a line that both see, one that only one sees, and an ignored row."""
    seen = torch.zeros(2, H, W, dtype=torch.bool)
    seen[:, :, 11] = True
    seen[0, 15] = True
    valid = torch.ones(H, W)
    valid[-1] = 0
    return pack(seen, valid).expand(2, -1, -1).clone()


# task: settings, targets, and whether a prediction is what the task hands out
Case = tuple[dict[str, Any], Callable[[torch.Generator], Tensor], Callable[[Tensor], Tensor]]
CASES: dict[str, Case] = {
    "segmentation": ({"classes": CLASSES}, labels, lambda p: (p >= 0) & (p < 4)),
    "depth": (
        {"min_depth": 0.1, "max_depth": 10.0},
        metres,
        lambda p: (p >= 0.1 - 1e-6) & (p <= 10 + 1e-5),
    ),
    "edges": ({}, marks, lambda p: (p >= 0) & (p <= 1)),
    "saliency": ({}, masks, lambda p: (p >= 0) & (p <= 1)),
}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", TASKS.names())
class TestContract:
    """A new task needs an entry in CASES."""

    @pytest.fixture
    def settings(self, name: str) -> dict[str, Any]:
        assert name in CASES, f"CASES has no entry for the task {name}"
        return CASES[name][0]

    @pytest.fixture
    def task(self, name: str, settings: dict[str, Any]) -> Task:
        return TASKS.get(name)(**settings)

    @pytest.fixture
    def target(self, name: str) -> Tensor:
        return CASES[name][1](seeded())

    @pytest.fixture
    def logits(self, task: Task) -> Tensor:
        return torch.randn(2, task.channels, H, W, generator=seeded())

    def test_it_declares_itself(self, name: str, task: Task) -> None:
        assert task.name == name
        assert task.title
        assert task.target
        assert task.channels >= 1
        assert task.main == task.accumulator().key(task.columns[0])
        # results of before are known by the names of older rules
        assert task.accumulator().rules == RULES.get(name, ("",))[-1]
        for column in task.columns:
            info = task.metric_info(column)
            assert info.name == column
        assert task.loss_text == task.default_loss
        assert task.unit
        assert task.caption.endswith(".")
        assert task.ignore == TARGETS.get(task.target).ignore

    def test_the_formula_is_what_is_predicted(
        self, task: Task, settings: dict[str, Any], logits: Tensor
    ) -> None:
        names = {"sigmoid": torch.sigmoid, "argmax": lambda x, axis: x.argmax(axis)}
        found = eval(task.formula, {**names, **settings, "logits": logits})
        expected = task.predict(logits)
        torch.testing.assert_close(found.reshape(expected.shape), expected)

    def test_a_prediction_is_drawn_and_written(
        self, name: str, task: Task, logits: Tensor, target: Tensor
    ) -> None:
        prediction = task.predict(logits)[0]
        drawn = task.draw(prediction, target[0], PALETTE)
        assert drawn.shape == (H, W, 3)
        assert drawn.dtype == np.uint8
        assert len(np.unique(drawn)) > 1
        image = torch.zeros(3, H, W, dtype=torch.uint8)
        maps = task.maps(image, prediction, PALETTE)
        assert maps[name].size == (W, H)
        assert {suffix.removeprefix(name) for suffix in maps} <= {"", "_view", "_overlay"}

    def test_every_loss_is_finite_and_pulls_at_every_image(
        self, task: Task, settings: dict[str, Any], logits: Tensor, target: Tensor
    ) -> None:
        for term in [*task.loss_terms(), task.default_loss]:
            x = logits.clone().requires_grad_()
            loss = type(task)(**settings, loss=term).loss(x, target)
            assert loss.shape == ()
            assert loss.dtype == torch.float32
            assert float(loss.detach()) > 0
            loss.backward()
            assert x.grad is not None
            assert x.grad.isfinite().all(), term
            assert (x.grad.abs().sum((1, 2, 3)) > 0).all(), term

    def test_one_view_averaged_is_the_prediction(self, task: Task, logits: Tensor) -> None:
        decided = task.decide(task.activate(logits))
        torch.testing.assert_close(decided, task.predict(logits), check_dtype=False)

    def test_ignored_pixels_pull_at_nothing(
        self, task: Task, settings: dict[str, Any], logits: Tensor, target: Tensor
    ) -> None:
        ignored = (target == task.ignore)[:, None].expand_as(logits)
        assert ignored.any()
        for term in task.loss_terms():
            x = logits.clone().requires_grad_()
            type(task)(**settings, loss=term).loss(x, target).backward()
            assert x.grad is not None
            assert not x.grad[ignored].any(), term

    def test_a_batch_without_ground_truth_costs_nothing(
        self, task: Task, settings: dict[str, Any], logits: Tensor, target: Tensor
    ) -> None:
        nothing = torch.full_like(target, task.ignore)
        for term in [*task.loss_terms(), task.default_loss]:
            x = logits.clone().requires_grad_()
            loss = type(task)(**settings, loss=term).loss(x, nothing)
            assert float(loss.detach()) == pytest.approx(0, abs=1e-4), term
            loss.backward()
            assert x.grad is not None, term  # a step of the optimiser must be possible
            assert not x.grad.any(), term

    def test_what_is_said_about_the_image_is_trained_where_there_are_classes(
        self, name: str, task: Task, target: Tensor
    ) -> None:
        logits = torch.randn(2, task.channels, generator=seeded()).bfloat16().requires_grad_()
        loss = task.presence_loss(logits, target)
        assert loss.shape == ()
        assert loss.isfinite()
        assert (float(loss.detach()) > 0) == loss.requires_grad  # 0 where it means nothing
        assert float(task.presence_loss(logits, torch.full_like(target, task.ignore)).detach()) == 0

    def test_half_precision_logits_lose_nothing(self, task: Task, target: Tensor) -> None:
        coarse = torch.randn(2, task.channels, H, W, generator=seeded()).bfloat16()
        assert float(task.loss(coarse, target)) == float(task.loss(coarse.float(), target))

    def test_a_few_steps_reduce_the_loss_of_a_constant(self, task: Task, target: Tensor) -> None:
        start = torch.linspace(-2, -1, task.channels).view(1, -1, 1, 1)
        x = start.clone().requires_grad_()
        losses = []
        for _ in range(20):
            loss = task.loss(x.expand(2, -1, H, W), target)
            losses.append(float(loss.detach()))
            (gradient,) = torch.autograd.grad(loss, x)
            with torch.no_grad():
                x -= 0.5 * gradient
        assert losses[-1] < losses[0] - 0.01
        assert min(losses) == losses[-1]

    def test_predictions_have_the_targets_shape_and_unit(
        self, name: str, task: Task, logits: Tensor
    ) -> None:
        for x in (logits, 100 * logits, torch.zeros_like(logits)):
            prediction = task.predict(x)
            assert prediction.shape == (2, H, W)
            assert CASES[name][2](prediction).all()

    def test_predictions_are_made_at_the_size_of_the_truth(self, task: Task, name: str) -> None:
        logits = torch.randn(task.channels, 6, 8, generator=seeded())
        same = task.predict_at(logits, 6, 8)
        assert torch.equal(same, task.predict(logits[None])[0])
        larger = task.predict_at(logits, 18, 24)
        assert larger.shape == (18, 24)
        assert CASES[name][2](larger).all()
        # the centre of a 3×3 block is the centre of the coarse pixel: nothing is interpolated there
        torch.testing.assert_close(larger[1::3, 1::3], same)
        assert task.predict_at(logits.bfloat16(), 7, 5).shape == (7, 5)

    def test_logits_are_upsampled_not_predictions(self, task: Task) -> None:
        ramp = torch.linspace(-4, 4, 8).view(1, 1, 8).repeat(task.channels, 6, 1)
        ramp[1:] *= -1
        fine = task.predict_at(ramp, 12, 16)
        # half way between two pixels, and a quarter of a pixel beside: weights ¾ and ¼
        between = 0.75 * ramp[:, :, :-1] + 0.25 * ramp[:, :, 1:]
        expected = task.predict(between[None])[0]
        torch.testing.assert_close(fine[::2, 1:-1:2], expected)

    def test_the_main_metric_is_computed(self, task: Task, logits: Tensor, target: Tensor) -> None:
        accumulator = task.accumulator()
        for prediction, truth in zip(task.predict(logits), target, strict=True):
            accumulator.update(prediction, task.truth(truth))
        numbers = {accumulator.key(name): value for name, value in accumulator.compute().items()}
        assert task.main in numbers
        for column in task.columns:
            assert math.isfinite(numbers[accumulator.key(column)])
        assert task.accumulator().images == 0  # a fresh one each time

    def test_the_best_constant_can_be_scored(self, task: Task, target: Tensor) -> None:
        accumulator = task.accumulator()
        value = task.best_constant(iter(target))
        for truth in target:
            prediction = task.constant(value, truth)
            assert prediction.shape == truth.shape
            accumulator.update(prediction, task.truth(truth))
        assert math.isfinite(accumulator.compute()[task.columns[0]])

    def test_an_unknown_term_is_refused(self, name: str, settings: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match=r"--loss nonsense: no term 'nonsense'.*terms: "):
            TASKS.get(name)(**settings, loss="nonsense")


def test_an_unknown_task_lists_near_matches() -> None:
    with pytest.raises(UsageError, match="unknown task 'detph': did you mean depth"):
        TASKS.get("detph")


def test_terms_are_added_as_the_text_says() -> None:
    logits, target = torch.randn(2, 4, H, W, generator=seeded()), labels(seeded())

    def loss(text: str) -> float:
        return float(Segmentation(CLASSES, loss=text).loss(logits, target))

    assert loss("ce+0.5*dice") == pytest.approx(loss("ce") + 0.5 * loss("dice"))
    assert Saliency().loss_text == "bce+iou"
    assert Saliency(loss="ssim").loss_text == "ssim"


# --- depth ---------------------------------------------------------------------------------------


def depth_task(low: float = 0.1, high: float = 10.0) -> Depth:
    return Depth(low, high)


def test_depth_runs_from_the_nearest_to_the_farthest_in_equal_ratios() -> None:
    logits = torch.tensor([-50.0, 0.0, 50.0, -math.log(3), math.log(3)]).view(1, 1, 1, 5)
    seen = depth_task().predict(logits)[0, 0].tolist()
    # log depth is a quarter, a half, three quarters of the way from 0.1 to 10
    assert seen == pytest.approx([0.1, 1.0, 10.0, 10**-0.5, 10**0.5], rel=1e-5)


def test_depth_out_of_range_is_no_ground_truth() -> None:
    task = depth_task(1, 5)
    logits = torch.zeros(1, 1, 1, 4)
    alone = task.loss(logits, torch.tensor([[[3.0, 3.0, 3.0, 3.0]]]))
    mixed = task.loss(logits, torch.tensor([[[3.0, 0.0, 0.5, 7.0]]]))
    assert float(alone) == pytest.approx(float(mixed))
    assert float(alone) > 0.1


def abs_rel(task: Depth, targets: list[Tensor], value: float) -> float:
    accumulator = task.accumulator()
    for target in targets:
        accumulator.update(task.constant(value, target), target)
    return accumulator.compute()["abs_rel"]


@pytest.mark.parametrize("case", ["equal", "holes", "outside"])
def test_no_other_constant_has_a_smaller_abs_rel(case: str) -> None:
    random, task = seeded(), depth_task()
    targets = [0.2 + 9 * torch.rand(11, 13, generator=random) ** 3 for _ in range(3)]
    targets[0] *= 0.6
    if case == "holes":  # each image counts the same, however few of its pixels have a reading
        targets[0][2:] = 0
    if case == "outside":
        targets[1][:6], targets[2][:5] = 50.0, 0.05
    best = task.best_constant(iter(targets))
    least = abs_rel(task, targets, best)
    valid = torch.cat([t[(t > 0.1) & (t < 10)] for t in targets])
    assert min(abs_rel(task, targets, float(v)) for v in valid.unique()) >= least - 1e-9
    assert abs_rel(task, targets, 1.2 * best) > least
    assert abs_rel(task, targets, best / 1.2) > least


def test_the_best_depth_of_a_large_image_is_found_from_some_of_its_pixels() -> None:
    task, target = depth_task(), 0.2 + 9 * torch.rand(300, 400, generator=seeded()) ** 2
    best = task.best_constant([target])
    depths = target.flatten().double().sort().values
    weights = (1 / depths).cumsum(0)
    exact = float(depths[(weights < weights[-1] / 2).sum()])
    assert best == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("name", ["segmentation", "depth"])
def test_a_perfect_prediction_has_the_colours_of_its_truth(name: str) -> None:
    settings, targets, _ = CASES[name]
    task, target = TASKS.get(name)(**settings), targets(seeded())[0]
    known = (target != task.ignore).numpy()
    truth = TARGETS.get(name)().draw(target, PALETTE)
    assert len(np.unique(truth[known], axis=0)) >= 4
    assert np.array_equal(task.draw(target, target, PALETTE)[known], truth[known])


# --- saliency ------------------------------------------------------------------------------------


def test_saliency_is_the_sigmoid() -> None:
    logits = torch.tensor([0.0, math.log(3)]).view(1, 1, 1, 2)
    assert Saliency().predict(logits)[0, 0].tolist() == pytest.approx([0.5, 0.75])


def test_truth_of_saliency_is_what_its_metrics_take() -> None:
    truth = Saliency().truth(torch.tensor([[0, 1, 255]], dtype=torch.uint8))
    assert truth.dtype == torch.bool
    assert truth.tolist() == [[False, True, False]]


def test_no_other_constant_has_a_smaller_absolute_error() -> None:
    targets = [torch.zeros(6, 7, dtype=torch.uint8) for _ in range(2)]
    targets[0][:2] = 1
    targets[1][3, 4] = 1
    best = Saliency().best_constant(iter(targets))
    pixels = torch.cat([t.flatten() for t in targets]).float()
    errors = {c / 20: float((pixels - c / 20).abs().mean()) for c in range(21)}
    assert errors[best] == min(errors.values())
    assert Saliency().best_constant([1 - target for target in targets]) == 1
    assert Saliency().best_constant([]) == 0


# --- segmentation --------------------------------------------------------------------------------


def test_the_class_of_the_largest_logit_is_predicted() -> None:
    logits = torch.tensor([[1.0, 0.0], [2.0, -1.0], [0.0, 3.0], [1.9, 2.9]]).view(1, 4, 1, 2)
    assert Segmentation(CLASSES).predict(logits).tolist() == [[[1, 2]]]


@pytest.mark.parametrize("metric", ["miou", "aacc"])
def test_no_other_class_scores_better_everywhere(metric: str) -> None:
    task, targets = Segmentation(CLASSES), list(labels(seeded()))
    best = task.best_constant(iter(targets))

    def score(value: float) -> float:
        accumulator = task.accumulator()
        for target in targets:
            accumulator.update(task.constant(value, target), target)
        return accumulator.compute()[metric]

    assert best == 2
    assert all(score(best) > score(other) for other in (0, 1, 3))


def test_ignored_pixels_are_no_class() -> None:
    target = torch.full((4, 4), 255, dtype=torch.uint8)
    target[0, 0] = 3
    assert Segmentation(CLASSES).best_constant([target]) == 3
