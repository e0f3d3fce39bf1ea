"""Replicates and intervals over the choice of images."""

import numpy as np
import pytest
from scipy.stats import t as student

from tasks.metrics.resampling import (
    GROUPS,
    LEFT_OUT,
    SAMPLES,
    WEIGHTED,
    image_weights,
    interval,
    is_drawn,
    paired,
    standard_error,
    t_quantile,
)
from tests.studies import coverage


@pytest.mark.parametrize("images", [1, 2, 7, GROUPS, 1203])
def test_every_image_keeps_a_weight_and_is_left_out_once(images: int) -> None:
    weights = image_weights(images)
    groups = min(images, GROUPS) if images > 1 else 0
    assert weights.shape == (1 + SAMPLES + groups, images)
    assert (weights[0] == 1).all()
    assert (weights[WEIGHTED] > 0).all()
    assert weights[WEIGHTED].sum(1) == pytest.approx(images)
    without = weights[1 + SAMPLES :]
    assert set(np.unique(without)) <= {LEFT_OUT, 1}
    if groups:
        assert ((without < 1).sum(0) == 1).all()
        sizes = (without < 1).sum(1)
        assert sizes.max() - sizes.min() <= 1
    assert (image_weights(images) == weights).all()
    assert images == 1 or (image_weights(images, seed=1) != weights).any()


def test_weights_scatter_as_exponentials() -> None:
    """Of n weights with mean 1 from a flat Dirichlet, the variance is (n − 1) / (n + 1)."""
    weights = image_weights(20)[WEIGHTED]
    assert weights.var() == pytest.approx(19 / 21, rel=0.03)


def means(values: np.ndarray) -> np.ndarray:
    weights = image_weights(len(values))
    return weights @ values / weights.sum(1)


def test_the_standard_error_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(size=40)
    error, freedom = standard_error(means(values)) or (0, 0)
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(40), rel=1e-4)
    deviations = np.square(values - values.mean())
    kurtosis = np.square(deviations).mean() / deviations.mean() ** 2
    assert freedom == pytest.approx(min(2 * 40 / (kurtosis - 1), 39), rel=1e-4)


def test_one_image_that_decides_leaves_few_degrees_of_freedom() -> None:
    values = np.zeros(50)
    values[3] = 1
    error, freedom = standard_error(means(values)) or (0, 0)
    assert error == pytest.approx(0.02, rel=1e-4)
    assert 2 <= freedom < 2.2
    low, high = interval(means(values)) or (0, 0)
    # as long as Student's t of so few asks for, t of 2 being 4.30
    assert high - low == pytest.approx(2 * student.ppf(0.975, freedom) * error)


def test_nothing_is_known_from_one_image() -> None:
    assert interval(means(np.array([0.3]))) is None
    assert standard_error(means(np.array([0.3]))) is None
    assert interval(np.full(SAMPLES + 6, np.nan)) is None
    assert interval(means(np.full(5, 0.25))) == pytest.approx((0.25, 0.25))


def test_replicates_of_earlier_versions_have_percentiles() -> None:
    drawn = np.linspace(0, 1, SAMPLES)
    assert is_drawn(drawn)
    assert not is_drawn(means(np.zeros(1)))
    assert interval(drawn) == pytest.approx((0.025, 0.975))
    assert standard_error(drawn) == pytest.approx((drawn.std(ddof=1), np.inf))


def test_only_the_same_images_of_the_same_version_are_paired() -> None:
    some, others, drawn = means(np.zeros(4)), means(np.zeros(5)), np.zeros(SAMPLES)
    assert paired(some, some + 1)
    assert not paired(some, others)
    assert not paired(some, drawn)
    assert not paired(some, None)
    assert not paired(None, None)


@pytest.mark.parametrize("freedom", [1.0, 2.5, 30.0])
def test_students_t(freedom: float) -> None:
    assert t_quantile(0.95, freedom) == pytest.approx(student.ppf(0.975, freedom))
    assert t_quantile(0.95, np.inf) == pytest.approx(1.959964, abs=1e-5)


@pytest.mark.slow
def test_intervals_hold_the_truth() -> None:
    """95 % of them, within 2 %, wherever the rarest class is in ten images or more."""
    rows = [*coverage.depth(1000), *coverage.segmentation(1000)]
    common = [row for row in rows if row["rarest"] >= 10 and row["images"] >= 50]
    assert len(common) >= 9
    for row in common:
        assert 0.93 <= row["weighted"] <= 0.97, row
