"""Depth errors against arrays worked out by hand and against a loop over pixels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import DataError, UsageError
from tasks.metrics.depth import CROPS, DepthMetrics, clamp_depth, depth_errors, median_scale

NAN, INF = math.nan, math.inf


def scored(*pairs, min_depth=1e-3, max_depth=10.0, **options) -> DepthMetrics:
    metrics = DepthMetrics(min_depth, max_depth, **options)
    for prediction, target in pairs:
        metrics.update(torch.as_tensor(prediction), torch.as_tensor(target))
    return metrics


def test_one_image_by_hand():
    # p/g: 2/1, 2/2, 2/4; ln 2 = 0.693147; |p − g| = 1, 0, 2; d = ln 2, 0, −ln 2
    result = scored(([[2.0, 2.0, 2.0]], [[1.0, 2.0, 4.0]])).compute()
    assert result == pytest.approx(
        {
            "abs_rel": (1 / 1 + 0 + 2 / 4) / 3,
            "sq_rel": (1 / 1 + 0 + 4 / 4) / 3,
            "rmse": math.sqrt(5 / 3),
            "rmse_log": 0.693147180560 * math.sqrt(2 / 3),
            "log10": 0.301029995664 * 2 / 3,
            "silog": 69.3147180560 * math.sqrt(2 / 3),  # the mean of d is 0
            "delta1": 1 / 3,
            "delta2": 1 / 3,
            "delta3": 1 / 3,  # 1.25³ = 1.953 < 2
            "rmse_pooled": math.sqrt(5 / 3),
        },
        rel=1e-10,
    )


def test_silog_forgives_a_common_factor_and_nothing_else_does():
    target = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    result = scored((target * 1.5, target)).compute()
    assert result["silog"] == pytest.approx(0, abs=1e-5)
    assert result["abs_rel"] == pytest.approx(0.5)
    assert result["rmse_log"] == pytest.approx(math.log(1.5))


def test_delta_is_strict():
    errors = depth_errors(np.array([1.0, 1.0, 1.5625]), np.array([1.25, 1.0, 1.0]))
    assert errors["delta1"] == pytest.approx(1 / 3)
    assert errors["delta2"] == pytest.approx(2 / 3)
    assert errors["delta3"] == 1


def test_images_weigh_alike_and_pixels_only_in_the_pooled_name():
    # image 1: one valid pixel with error 3; image 2: four with error 1
    one = ([[4.0, 9.0, 9.0, 9.0]], [[1.0, 0.0, 0.0, 0.0]])
    two = ([[2.0, 3.0, 4.0, 5.0]], [[1.0, 2.0, 3.0, 4.0]])
    metrics = scored(one, two)
    assert metrics.compute()["rmse"] == pytest.approx((3 + 1) / 2)
    assert metrics.compute()["rmse_pooled"] == pytest.approx(math.sqrt((9 + 4) / 5))
    assert metrics.per_image()["rmse"] == pytest.approx([3, 1])


def test_valid_means_strictly_between_the_bounds():
    target = [[0.0, 1.0, 1.5, 10.0, 11.0, NAN, INF, -1.0]]
    metrics = scored(([[3.0] * 8], target), min_depth=1.0, max_depth=10.0)
    assert metrics.counts()["pixels"] == 1
    assert metrics.counts()["pixels_invalid"] == 7
    assert metrics.compute()["rmse"] == pytest.approx(1.5)


def test_clamp():
    seen = np.array([NAN, INF, -INF, -1.0, 0.0, 5.0, 11.0])
    assert clamp_depth(seen, 0.5, 10).tolist() == [0.5, 10, 0.5, 0.5, 0.5, 5, 10]


def test_predictions_that_are_not_finite_are_scored_and_counted():
    metrics = scored(([[NAN, INF, 2.0, NAN]], [[2.0, 4.0, 2.0, 0.0]]))
    # clamped to 0.001, 10 and 2
    assert metrics.compute()["rmse"] == pytest.approx(math.sqrt((1.999**2 + 36) / 3))
    assert metrics.counts()["pixels_not_finite"] == 2


def test_images_without_a_valid_pixel_are_left_out_and_counted():
    metrics = scored(([[2.0]], [[0.0]]), ([[3.0]], [[2.0]]))
    assert metrics.compute()["abs_rel"] == pytest.approx(0.5)
    assert metrics.counts() == {
        "images": 1,
        "pixels": 1,
        "images_without_valid_pixels": 1,
        "pixels_invalid": 1,
        "pixels_outside_crop": 0,
        "pixels_not_finite": 0,
    }
    with pytest.raises(DataError, match=r"nothing to score.*images_without_valid_pixels 1"):
        scored(([[2.0]], [[0.0]])).compute()


@pytest.mark.parametrize(
    ("crop", "size", "rows", "columns"),
    [
        # KITTI at 375×1242: 0.40810811·375 = 153.04, 0.99189189·375 = 371.96,
        # 0.03594771·1242 = 44.65, 0.96405229·1242 = 1197.35
        ("kitti_garg", (375, 1242), (153, 371), (44, 1197)),
        # 0.40810811·352 = 143.65, 349.15; 0.03594771·1216 = 43.71, 1172.29
        ("kitti_garg", (352, 1216), (143, 349), (43, 1172)),
        # 0.3324324·375 = 124.66, 0.91351351·375 = 342.57
        ("kitti_eigen", (375, 1242), (124, 342), (44, 1197)),
        ("nyu_eigen", (480, 640), (45, 471), (41, 601)),
    ],
)
def test_crops(crop, size, rows, columns):
    assert CROPS[crop].window(*size) == (slice(*rows), slice(*columns))
    target = torch.full(size, 4.0)
    prediction = torch.full(size, 9.0)
    prediction[slice(*rows), slice(*columns)] = 5.0
    metrics = scored((prediction, target), crop=crop)
    area = (rows[1] - rows[0]) * (columns[1] - columns[0])
    assert metrics.compute()["rmse"] == 1.0
    assert metrics.counts()["pixels"] == area
    assert metrics.counts()["pixels_outside_crop"] == size[0] * size[1] - area
    assert metrics.protocol == crop


def test_a_crop_in_pixels_refuses_another_size():
    with pytest.raises(ValueError, match="480×640 pixels, the ground truth has 240×320"):
        scored((torch.ones(240, 320), torch.ones(240, 320)), crop="nyu_eigen")


def test_wrong_settings_are_named():
    with pytest.raises(UsageError, match="did you mean kitti_garg"):
        DepthMetrics(1e-3, 80, crop="kitti-garg")
    for low, high in ((0, 10), (10, 1), (1, INF)):
        with pytest.raises(UsageError, match="bounds"):
            DepthMetrics(low, high)


def test_median_scaling():
    # medians of 2, 4, 6 and 1, 2, 3: the factor is 0.5, and nothing is left of the error
    pairs = [([[2.0, 4.0, 6.0]], [[1.0, 2.0, 3.0]]), ([[2.0, 2.0, 2.0]], [[4.0, 4.0, 4.0]])]
    metrics = scored(*pairs, median_scaling=True)
    result = metrics.compute()
    assert result["rmse"] == 0
    assert metrics.scales == [0.5, 2.0]
    # the scales over their median, 1.25: 0.4 and 1.6, a standard deviation of 0.6
    assert result["scale_spread"] == pytest.approx(0.6)
    assert "scale_spread" not in scored(*pairs).compute()
    assert scored(*pairs).compute()["rmse"] > 1


def test_median_scaling_comes_before_the_clamp_and_skips_what_is_not_finite():
    # finite medians: 30 and 3, so 0.1; 30 would be clamped to 10 if the clamp came first
    metrics = scored(([[20.0, 30.0, 40.0, INF]], [[2.0, 3.0, 4.0, 3.0]]), median_scaling=True)
    assert metrics.scales == pytest.approx([0.1])
    assert metrics.per_image()["rmse"] == pytest.approx([7 / 2])
    assert median_scale(np.array([1.0, 3.0]), np.array([4.0, 4.0])) == 2.0
    assert metrics.counts()["images_unscaled"] == 0


def test_an_image_that_cannot_be_scaled_is_scored_unscaled_and_counted():
    metrics = scored(([[0.0, -1.0, NAN]], [[2.0, 2.0, 2.0]]), median_scaling=True)
    assert metrics.compute()["rmse"] == pytest.approx(1.999)
    assert metrics.counts()["images_unscaled"] == 1
    assert metrics.scales == []
    assert "scale_spread" not in metrics.compute()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int32])
def test_any_real_type(dtype):
    target = torch.tensor([[1, 2, 4]])
    assert scored((target.to(dtype) * 2, target.to(dtype))).compute()["abs_rel"] == 1


def loop(prediction: np.ndarray, target: np.ndarray, low: float, high: float) -> dict[str, float]:
    """The definitions pixel by pixel, in plain floats."""
    sums = dict.fromkeys(
        ["abs_rel", "sq_rel", "square", "d", "dd", "log10", "delta1", "delta2", "delta3"], 0.0
    )
    n = 0
    for p, g in zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True):
        if not low < g < high:
            continue
        n += 1
        p = low if p != p or p < low else min(p, high)
        sums["abs_rel"] += abs(g - p) / g
        sums["sq_rel"] += (g - p) * (g - p) / g
        sums["square"] += (g - p) * (g - p)
        sums["d"] += math.log(p) - math.log(g)
        sums["dd"] += (math.log(p) - math.log(g)) ** 2
        sums["log10"] += abs(math.log10(p) - math.log10(g))
        for k in (1, 2, 3):
            sums[f"delta{k}"] += max(g / p, p / g) < 1.25**k
    means = {name: value / n for name, value in sums.items()}
    square, d, dd = means.pop("square"), means.pop("d"), means.pop("dd")
    means["rmse"], means["rmse_log"] = math.sqrt(square), math.sqrt(dd)
    means["silog"] = 100 * math.sqrt(max(0.0, dd - d * d))
    return means


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_agrees_with_a_loop_over_pixels(seed, images):
    random = np.random.default_rng(seed)
    pairs = []
    for _ in range(images):
        target = random.uniform(-1, 12, (7, 9))
        target[0, 0] = 5
        prediction = target * random.lognormal(0, 0.4, target.shape)
        prediction[random.random(target.shape) < 0.1] = random.choice([NAN, INF, -INF, 0.0])
        target[random.random(target.shape) < 0.1] = random.choice([NAN, INF, 0.0, 10.0])
        target[0, 0] = 5
        pairs.append((prediction, target))
    rows = [loop(*pair, 1e-3, 10) for pair in pairs]
    metrics = scored(*pairs)
    result = metrics.compute()
    for name in rows[0]:
        expected = [row[name] for row in rows]
        assert metrics.per_image()[name] == pytest.approx(expected, rel=1e-9, abs=1e-5)
        assert result[name] == pytest.approx(sum(expected) / images, rel=1e-9, abs=1e-5)
