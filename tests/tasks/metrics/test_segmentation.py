"""The mIoU family against torchmetrics, plain counting and maps worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from common.errors import DataError
from tasks.metrics.segmentation import (
    SegmentationMetrics,
    boundary_counts,
    boundary_width,
    confusion_matrix,
    overlap,
    scores,
)


@st.composite
def splits(draw):
    """Class count and image pairs in which classes may be absent and pixels ignored."""
    classes = draw(st.integers(2, 7))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    present = st.lists(st.integers(0, classes - 1), min_size=1, max_size=classes)
    pairs = []
    for _ in range(draw(st.integers(1, 3))):
        size = random.integers(1, 30, 2)
        prediction = random.choice(draw(present), size)
        target = random.choice(draw(present), size)
        target[random.random(size) < draw(st.sampled_from([0, 0.3, 1]))] = 255
        pairs.append((torch.tensor(prediction), torch.tensor(target)))
    return classes, pairs


def scored(classes: int, pairs, **options) -> SegmentationMetrics:
    metrics = SegmentationMetrics([f"c{c}" for c in range(classes)], **options)
    for pair in pairs:
        metrics.update(*pair)
    return metrics


@settings(max_examples=60, deadline=None)
@given(splits())
def test_agrees_with_torchmetrics(split):
    classes, pairs = split
    metrics = scored(classes, pairs)
    if all((target == 255).all() for _, target in pairs):
        with pytest.raises(DataError, match="images_without_labels"):
            metrics.compute()
        return
    jaccard = MulticlassJaccardIndex(classes, ignore_index=255, average="macro")
    each = MulticlassJaccardIndex(classes, ignore_index=255, average="none")
    accuracy = MulticlassAccuracy(classes, ignore_index=255, average="micro")
    for prediction, target in pairs:
        for oracle in (jaccard, each, accuracy):
            oracle.update(prediction[None], target[None])
    result = metrics.compute()
    assert result["miou"] == pytest.approx(jaccard.compute().item(), abs=1e-6)
    assert result["aacc"] == pytest.approx(accuracy.compute().item(), abs=1e-6)
    for c, value in enumerate(each.compute().tolist()):
        assert result.get(f"iou/c{c}", 0.0) == pytest.approx(value, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(splits())
def test_agrees_with_counting_pixel_by_pixel(split):
    classes, pairs = split
    if all((target == 255).all() for _, target in pairs):
        return
    both, predicted, true = ([0] * classes for _ in range(3))
    for prediction, target in pairs:
        for p, g in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
            if g != 255:
                predicted[p] += 1
                true[g] += 1
                both[g] += p == g
    metrics = scored(classes, pairs)
    result, counts = metrics.compute(), metrics.counts()
    recalls = [both[c] / true[c] for c in range(classes) if true[c]]
    assert result["macc"] == pytest.approx(sum(recalls) / len(recalls))
    assert counts["classes_scored"] == sum(p + g > 0 for p, g in zip(predicted, true, strict=True))
    assert counts["classes_in_ground_truth"] == len(recalls)
    assert counts["pixels"] == sum(true)
    assert counts["pixels"] + counts["pixels_ignored"] == sum(t.numel() for _, t in pairs)
    assert counts["images"] + counts["images_without_labels"] == len(pairs)


def test_worked_out_by_hand():
    # pixels (g, p): (0,0) (0,0) (0,1) (1,1) (1,2) and one ignored; class 3 occurs nowhere
    target = torch.tensor([[0, 0, 0], [1, 1, 255]])
    prediction = torch.tensor([[0, 0, 1], [1, 2, 3]])
    metrics = scored(4, [(prediction, target)])
    assert metrics.compute() == pytest.approx(
        {
            "iou/c0": 2 / 3,  # I 2, P 2, G 3
            "iou/c1": 1 / 3,  # I 1, P 2, G 2
            "iou/c2": 0.0,  # I 0, P 1, G 0: predicted, so scored
            "miou": 1 / 3,
            "macc": (2 / 3 + 1 / 2) / 2,
            "aacc": 3 / 5,
        }
    )
    assert metrics.image_counts().tolist() == [[[2, 1, 0, 0], [2, 2, 1, 0], [3, 2, 0, 0]]]
    assert metrics.counts() == {
        "images": 1,
        "images_without_labels": 0,
        "pixels": 5,
        "pixels_ignored": 1,
        "classes_scored": 3,
        "classes_in_ground_truth": 2,
    }


def test_the_confusion_matrix_has_ground_truth_in_rows():
    matrix = confusion_matrix(torch.tensor([1, 1, 2]), torch.tensor([0, 0, 255]), 3)
    assert matrix.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_any_integer_type_counts_alike(dtype):
    random = torch.Generator().manual_seed(0)
    target = torch.randint(0, 100, (20, 20), generator=random)
    prediction = torch.randint(0, 100, (20, 20), generator=random)
    assert torch.equal(
        confusion_matrix(prediction.to(dtype), target.to(torch.uint8), 100),
        confusion_matrix(prediction, target, 100),
    )


def test_a_negative_ignore_index():
    target, prediction = torch.tensor([[0, -100, 1]]), torch.tensor([[0, 1, 0]])
    result = scored(2, [(prediction, target)], ignore_index=-100).compute()
    assert result == pytest.approx(
        {"miou": 0.25, "macc": 0.5, "aacc": 0.5, "iou/c0": 0.5, "iou/c1": 0.0}
    )


def test_wrong_labels_are_named():
    good = torch.tensor([[0, 1]])
    with pytest.raises(DataError, match=r"ground truth: label 37 is outside 0…10 and 255"):
        confusion_matrix(good, torch.tensor([[3, 37]]), 11)
    with pytest.raises(DataError, match=r"label -1 "):
        confusion_matrix(good, torch.tensor([[-1, 0]]), 11)
    with pytest.raises(ValueError, match=r"prediction: class 255 is outside 0…10"):
        confusion_matrix(torch.tensor([[255, 0]]), good, 11)
    assert confusion_matrix(torch.tensor([[255, 0]]), torch.tensor([[255, 0]]), 11).sum() == 1
    with pytest.raises(ValueError, match=r"prediction: expected a map of integer classes"):
        confusion_matrix(good.float(), good, 11)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="ignore_index 1 is the class 'b'"):
        SegmentationMetrics("abc", ignore_index=1)
    for classes in ("", "aba"):
        with pytest.raises(ValueError, match="distinct"):
            SegmentationMetrics(classes)


def test_scores_of_many_splits_at_once():
    counts = np.random.default_rng(0).integers(1, 9, (4, 5, 3, 6))
    counts[..., 0, :] = counts.min(axis=-2)
    assert overlap(counts).shape == (4, 5, 6)
    many = scores(counts)
    for index in np.ndindex(4, 5):
        for name, value in scores(counts[index]).items():
            assert many[name][index] == pytest.approx(float(value))
    assert all(math.isnan(value) for value in scores(np.zeros((3, 6))).values())


def eroded_by_the_letter(mask: np.ndarray, times: int) -> np.ndarray:
    padded = np.pad(mask, 1)
    for _ in range(times):
        padded = ndimage.binary_erosion(padded, np.ones((3, 3)), border_value=1)
    return padded[1:-1, 1:-1]


@pytest.mark.parametrize("size", [(40, 60), (1, 30), (97, 131), (200, 160)])
def test_boundary_counts_against_erosion_class_by_class(size):
    random = np.random.default_rng(sum(size))
    coarse = random.integers(0, 4, (2, size[0] // 12 + 1, size[1] // 12 + 1))
    prediction, target = coarse.repeat(12, 1).repeat(12, 2)[:, : size[0], : size[1]]
    target = np.where(random.random(size) < 0.002, 255, target)
    times = max(1, round(0.02 * math.sqrt(size[0] ** 2 + size[1] ** 2)))
    assert boundary_width(*size) == times
    counts = boundary_counts(torch.tensor(prediction), torch.tensor(target), 5)
    for c in range(5):
        masks = [(labels == c) & (target != 255) for labels in (prediction, target)]
        bands = [mask & ~eroded_by_the_letter(mask, times) for mask in masks]
        expected = [(bands[0] & bands[1]).sum(), bands[0].sum(), bands[1].sum()]
        assert counts[:, c].tolist() == expected


def test_boundary_iou_by_hand():
    # 5×5, band of 1 pixel: of the full square (class 1) only the 16 pixels of its rim count
    target = torch.ones(5, 5, dtype=torch.int64)
    prediction = target.clone()
    prediction[0] = 0
    # prediction: class 0 is the row of 5; class 1 is 4×5, its rim has 14 pixels, 11 of them shared:
    # 5 in the last row, 3 on each side
    result = scored(2, [(prediction, target)], boundary=True).compute()
    assert result["boundary_iou"] == pytest.approx((0 / 5 + 11 / (16 + 14 - 11)) / 2)
    assert "boundary_iou" not in scored(2, [(prediction, target)]).compute()


def test_boundary_iou_sees_what_iou_hardly_does():
    target = torch.zeros(200, 200, dtype=torch.int64)
    target[20:180, 20:180] = 1
    prediction = torch.zeros_like(target)
    prediction[23:177, 23:177] = 1
    result = scored(2, [(prediction, target)], boundary=True).compute()
    assert result["boundary_iou"] < result["miou"] - 0.1
    assert scored(2, [(target, target)], boundary=True).compute()["boundary_iou"] == 1
