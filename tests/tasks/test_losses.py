"""Training losses against numbers worked out by hand."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common.annotators import pack
from common.errors import UsageError
from tasks.edges import Edges
from tasks.losses.base import Loss
from tasks.losses.depth import gradient_matching, silog
from tasks.losses.edges import balanced_bce, summed_bce
from tasks.losses.saliency import bce, iou, ssim
from tasks.losses.segmentation import cross_entropy, dice, lovasz, presence


def two_classes(*first: float) -> Tensor:
    """Logits [1, 2, 1, N] whose softmax gives the first class these probabilities."""
    p = torch.tensor(first)
    return torch.stack([p, 1 - p]).log()[None, :, None, :]


def labels(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8)[None, None, :]


# --- segmentation --------------------------------------------------------------------------------


def test_cross_entropy_is_the_mean_over_labelled_pixels() -> None:
    loss = cross_entropy(two_classes(0.25, 0.25, 0.9), labels(0, 1, 255))
    assert float(loss) == pytest.approx((-math.log(0.25) - math.log(0.75)) / 2)
    # of the batch, not of each image: three labelled pixels in one image and one in the other
    logits = two_classes(0.5, 0.5, 0.5).repeat(2, 1, 1, 1)
    logits[1, :, 0, 0] = torch.tensor([0.1, 0.9]).log()
    target = torch.cat([labels(0, 1, 0), labels(0, 255, 255)])
    assert float(cross_entropy(logits, target)) == pytest.approx(
        (3 * math.log(2) - math.log(0.1)) / 4
    )


def test_cross_entropy_takes_another_ignored_label() -> None:
    loss = cross_entropy(two_classes(0.25, 0.9), labels(0, 1), ignore_index=1)
    assert float(loss) == pytest.approx(-math.log(0.25))


def test_lovasz_by_hand() -> None:
    # class 0 in pixels 0 and 1; errors 0.5, 0.1, 0.3. Sorted: 0.5 (in), 0.3 (out), 0.1 (in);
    # Jaccard losses 1/2, 2/3, 1 → steps 1/2, 1/6, 1/3 → 0.25 + 0.05 + 0.1/3.
    # class 1 in pixel 2, the same errors: 0.5 (out), 0.3 (in), 0.1 (out);
    # Jaccard losses 1/2, 1, 1 → steps 1/2, 1/2, 0 → 0.25 + 0.15.
    expected = (0.25 + 0.05 + 0.1 / 3 + 0.25 + 0.15) / 2
    loss = lovasz(two_classes(0.5, 0.9, 0.3), labels(0, 0, 1))
    assert float(loss) == pytest.approx(expected, abs=1e-6)
    ignored = lovasz(two_classes(0.5, 0.9, 0.3, 0.01), labels(0, 0, 1, 255))
    assert float(ignored) == pytest.approx(expected, abs=1e-6)


def test_dice_by_hand() -> None:
    # class 0: 2 · 0.75 / (0.75 + 0.4 + 1); class 1: 2 · 0.6 / (0.25 + 0.6 + 1)
    expected = ((1 - 1.5 / 2.15) + (1 - 1.2 / 1.85)) / 2
    assert float(dice(two_classes(0.75, 0.4), labels(0, 1))) == pytest.approx(expected, abs=1e-6)
    ignored = dice(two_classes(0.75, 0.4, 0.1), labels(0, 1, 255))
    assert float(ignored) == pytest.approx(expected, abs=1e-6)


def test_the_mean_of_dice_is_over_all_classes_and_that_of_lovasz_over_those_that_occur() -> None:
    logits, target = two_classes(0.75, 0.4), labels(0, 1)
    # ten more classes, which neither occur nor are predicted
    more = torch.cat([logits, torch.full((1, 10, 1, 2), -80.0)], dim=1)
    assert float(dice(more, target)) == pytest.approx(float(dice(logits, target)) * 2 / 12)
    assert float(lovasz(more, target)) == pytest.approx(float(lovasz(logits, target)))


def test_presence_by_hand() -> None:
    """The first image holds classes 0 and 2 of three, the second nothing that is labelled."""
    p = torch.tensor([[0.9, 0.3, 0.6], [0.1, 0.2, 0.3]])
    target = torch.tensor([[[0, 2], [2, 255]], [[255, 255], [255, 255]]], dtype=torch.uint8)
    expected = -(math.log(0.9) + math.log(0.7) + math.log(0.6)) / 3
    assert float(presence(p.logit(), target)) == pytest.approx(expected)
    both = torch.stack([target[0], target[0] * 0 + 1])
    second = -(math.log(0.9) + math.log(0.2) + math.log(0.7)) / 3
    assert float(presence(p.logit(), both)) == pytest.approx((expected + second) / 2)


@pytest.mark.parametrize("loss", [cross_entropy, lovasz, dice])
def test_a_certain_and_right_class_map_costs_nothing(loss: Any) -> None:
    target = torch.tensor([[[0, 1], [2, 255]], [[2, 2], [1, 255]]], dtype=torch.uint8)
    logits = torch.stack([(target == c) * 40.0 for c in range(3)], dim=1)
    assert float(loss(logits, target)) == pytest.approx(0, abs=1e-5)
    assert float(loss(-logits, target)) > 0.5


# --- depth ---------------------------------------------------------------------------------------


def depth_loss(function: Any, differences: Tensor, target: Tensor) -> float:
    """The loss of a prediction whose logarithm is off by ``differences``."""
    safe = torch.where(target > 0, target, torch.ones(()))
    return float(function(safe.log() + differences, target, target > 0))


def test_silog_by_hand() -> None:
    target = torch.tensor([[[1.0, 4.0, 0.0]]])
    # √(mean d² − 0.85 (mean d)²); the third pixel has no reading
    for d, expected in (
        ([0.0, 0.0, 9.0], 0.0),
        ([1.0, 1.0, 9.0], math.sqrt(1 - 0.85)),
        ([0.0, 2.0, 9.0], math.sqrt(2 - 0.85)),
        ([1.0, -1.0, 9.0], 1.0),
    ):
        seen = depth_loss(silog, torch.tensor([[d]]), target)
        assert seen == pytest.approx(expected, abs=2e-4)


def test_silog_forgives_a_scale_but_for_15_percent() -> None:
    random = torch.Generator().manual_seed(0)
    target = 1 + 9 * torch.rand(2, 5, 6, generator=random)
    d = torch.randn(2, 5, 6, generator=random)
    mean = float(d.mean())
    plain = depth_loss(silog, d, target) ** 2
    scaled = depth_loss(silog, d + math.log(3), target) ** 2
    grown = 0.15 * ((mean + math.log(3)) ** 2 - mean**2)
    assert scaled - plain == pytest.approx(grown, rel=1e-3)
    log, valid = target.log() + d, target > 0
    whole = [silog(log + shift, target, valid, variance_focus=1.0) for shift in (0, 2)]
    assert float(whole[0]) == pytest.approx(float(whole[1]), rel=1e-4)  # λ = 1: the scale is free
    assert float(whole[0]) == pytest.approx(float(d.std(correction=0)), rel=1e-4)


def test_gradient_matching_by_hand() -> None:
    target = torch.tensor([[[2.0, 3.0, 5.0]]])
    differences = torch.tensor([[[0.0, 0.1, 0.3]]])
    # steps 0.1 and 0.2, mean 0.15; every second pixel: step 0.3; then a single pixel, twice
    assert depth_loss(gradient_matching, differences, target) == pytest.approx((0.15 + 0.3) / 4)
    upright = target.transpose(1, 2), differences.transpose(1, 2)
    assert depth_loss(gradient_matching, upright[1], upright[0]) == pytest.approx(0.45 / 4)


def test_gradient_matching_leaves_out_neighbours_of_holes() -> None:
    target = torch.tensor([[[2.0, 0.0, 5.0, 5.0]]])
    differences = torch.tensor([[[0.0, 7.0, 0.5, 0.1]]])
    # only the last two are neighbours; of every second pixel 0 and 2: a step of 0.5
    assert depth_loss(gradient_matching, differences, target) == pytest.approx((0.4 + 0.5) / 4)


def test_gradient_matching_is_blind_to_the_scale() -> None:
    target = 1 + 9 * torch.rand(2, 9, 11, generator=torch.Generator().manual_seed(0))
    target[0, 3:5] = 0
    assert depth_loss(gradient_matching, torch.full(target.shape, 1.7), target) < 1e-5
    tilted = torch.linspace(0, 1, 11).expand(2, 9, 11)
    assert depth_loss(gradient_matching, tilted, target) > 0.1


# --- saliency ------------------------------------------------------------------------------------


def foreground(logits: list[float], target: list[float], valid: list[float]) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(x)[None, None] for x in (logits, target, valid))


def test_bce_by_hand() -> None:
    # p = 1/2, 3/4, and one ignored
    case = foreground([0.0, math.log(3), 8.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0])
    assert float(bce(*case)) == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_iou_by_hand() -> None:
    # p = 1/2, 3/4 against 1, 0: intersection 1/2, union 1/2 + 3/4 + 1 − 1/2; one is added to both
    case = foreground([0.0, math.log(3), 8.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0])
    assert float(iou(*case)) == pytest.approx(1 - 1.5 / 2.75)


def test_iou_is_the_mean_over_images() -> None:
    cases = [foreground([0.0], [g], [1.0]) for g in (1.0, 0.0)]
    together = tuple(torch.cat(parts) for parts in zip(*cases, strict=True))
    # 1 − 1.5/2 and 1 − 1/1.5
    assert float(iou(*together)) == pytest.approx((0.25 + 1 / 3) / 2)


def test_ssim_by_hand() -> None:
    # a constant 1/2 against a constant 1: only the means differ, and C1 = 0.01²
    shape = (1, 16, 16)
    expected = (1 - (2 * 0.5 + 1e-4) / (0.25 + 1 + 1e-4)) / 2
    loss = ssim(torch.zeros(shape), torch.ones(shape), torch.ones(shape))
    assert float(loss) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", [bce, iou, ssim])
def test_a_certain_and_right_mask_costs_nothing(loss: Any) -> None:
    target = torch.zeros(2, 16, 16)
    target[:, 4:9, 5:12] = 1
    logits, valid = (target - 0.5) * 60, torch.ones(2, 16, 16)
    assert float(loss(logits, target, valid)) == pytest.approx(0, abs=1e-5)
    assert float(loss(-logits, target, valid)) > 0.3
    # what is ignored does not matter
    valid[:, :, 8:] = 0
    noise = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0)) * (1 - valid)
    assert float(loss(logits + noise, target, valid)) == pytest.approx(
        float(loss(logits, target, valid)), abs=1e-6
    )


# --- sums of losses ------------------------------------------------------------------------------

TERMS = {
    "ce": lambda x, _: x.sum(),
    "dice": lambda x, _: x.max(),
    "lovasz": lambda x, _: x.min(),
}
VALUES = torch.tensor([1.0, 2.0, 4.0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ce", 7.0),
        ("ce+dice", 11.0),
        (" ce + 0.5*dice ", 9.0),
        ("2*ce+1e-1*dice+3*lovasz", 17.4),
        ("ce+ce", 14.0),
        ("0*ce", 0.0),
    ],
)
def test_a_text_is_a_weighted_sum(text: str, expected: float) -> None:
    assert float(Loss(text, TERMS)(VALUES, VALUES)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dise", "--loss dise: no term 'dise': did you mean dice? terms: ce, dice, lovasz"),
        ("xyz", "--loss xyz: no term 'xyz': terms: ce, dice, lovasz"),
        ("ce+", "--loss ce+: no term '': terms"),
        ("", "--loss : no term ''"),
        ("dice*2", "no term '2'"),
        ("a*ce", "--loss a*ce: the weight 'a' is no number"),
        ("2*3*ce", "the weight '2*3' is no number"),
        ("nan*ce", "the weight 'nan' is no number"),
        ("inf*ce", "the weight 'inf' is no number"),
        ("*ce", "the weight '' is no number"),
    ],
)
def test_a_text_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Loss(text, TERMS)
    assert message in str(caught.value)


def test_balanced_bce_by_hand():
    # one edge pixel, three without, one in dispute, one ignored; all logits 0 → log 2 whatever
    # the weights, then an edge logit of 2
    share = torch.tensor([[[1.0, 0, 0, 0, 0.25, -1]]])
    logits = torch.zeros(1, 1, 6)
    assert float(balanced_bce(logits, share)) == pytest.approx(math.log(2), rel=1e-6)
    logits[0, 0, 0] = 2
    # weights: the edge 3/4, each other 1.1 · 1/4
    right = 0.75 * math.log1p(math.exp(-2)) + 3 * 1.1 / 4 * math.log(2)
    assert float(balanced_bce(logits, share)) == pytest.approx(right / (0.75 + 3.3 / 4), rel=1e-6)
    logits[0, 0, 4:] = torch.tensor([9.0, -9.0])
    assert float(balanced_bce(logits, share)) == pytest.approx(right / (0.75 + 3.3 / 4), rel=1e-6)


def test_balanced_bce_of_an_image_without_labels_leaves_the_others():
    share = torch.tensor([[[1.0, 0, 0]], [[-1.0, -1, -1]]])
    logits = torch.tensor([[[0.3, -1.0, 2.0]], [[1.0, 1.0, 1.0]]])
    assert float(balanced_bce(logits, share)) == float(balanced_bce(logits[:1], share[:1]))


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_balanced_bce_of_one_class_is_finite(value):
    logits = torch.full((2, 3, 3), 1.5, requires_grad=True)
    loss = balanced_bce(logits, torch.full((2, 3, 3), value))
    loss.backward()
    expected = {0.0: math.log1p(math.exp(1.5)), 1.0: math.log1p(math.exp(-1.5)), -1.0: 0.0}
    assert float(loss.detach()) == pytest.approx(expected[value], rel=1e-5)
    assert torch.isfinite(logits.grad).all()


def test_summed_bce_by_hand():
    """Two images of 2×3: one edge, one disputed pixel (background here), one ignored; none."""
    share = torch.tensor([[[1.0, 0.0, 0.0], [0.25, 0.0, -1.0]], [[0.0] * 3, [0.0] * 3]])
    logits = torch.zeros(2, 2, 3)
    logits[0, 0, 0] = 2.0  # the edge
    logits[0, 1, 0] = -1.0  # the disputed one
    logits[0, 1, 2] = 50.0  # the ignored one
    edge = 4 / 5 * math.log1p(math.exp(-2))
    background = 1 / 5 * (3 * math.log(2) + math.log1p(math.exp(-1)))
    # an image without edges weighs nothing, and counts in the mean over images
    assert float(summed_bce(logits, share)) == pytest.approx((edge + background) / 2, rel=1e-6)


@given(st.integers(0, 2**31))
def test_summed_bce_of_two_classes_is_the_published_sum(seed):
    """Pixel by pixel: −(β y log p + (1 − β)(1 − y) log(1 − p)), β the share of background."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 4, 5, generator=generator, dtype=torch.float64)
    share = (torch.rand(1, 4, 5, generator=generator) < 0.3).double()
    beta = float((share == 0).double().mean())
    total = 0.0
    for z, y in zip(logits.flatten().tolist(), share.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        total -= beta * y * math.log(p) + (1 - beta) * (1 - y) * math.log(1 - p)
    assert float(summed_bce(logits, share)) == pytest.approx(total, rel=1e-9)


def test_edges_train_by_either_loss():
    target = pack(torch.tensor([[[1, 0], [0, 0]]], dtype=torch.bool))[None]
    logits = torch.zeros(1, 1, 2, 2)
    assert float(Edges("bce-sum").loss(logits, target)) == pytest.approx(1.5 * math.log(2))
    assert float(Edges().loss(logits, target)) == pytest.approx(math.log(2))
