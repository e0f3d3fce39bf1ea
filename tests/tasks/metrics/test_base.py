"""What every accumulator promises, whatever it measures."""

import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from common.annotators import pack
from common.errors import DataError
from tasks.metrics.base import Accumulator, MetricInfo, plane
from tasks.metrics.depth import DepthMetrics
from tasks.metrics.edges import EdgeMetrics
from tasks.metrics.resampling import image_weights
from tasks.metrics.saliency import SaliencyMetrics
from tasks.metrics.segmentation import SegmentationMetrics

Pair = tuple[torch.Tensor, torch.Tensor]


def label_pair(random: torch.Generator) -> Pair:
    target = torch.randint(0, 3, (37, 53), generator=random)
    target[torch.rand(target.shape, generator=random) < 0.1] = 255
    return torch.randint(0, 4, (37, 53), generator=random), target


def depth_pair(random: torch.Generator) -> Pair:
    target = torch.rand(37, 53, generator=random) * 12
    return target * (0.5 + torch.rand(37, 53, generator=random)), target


def saliency_pair(random: torch.Generator) -> Pair:
    target = torch.zeros(37, 53, dtype=torch.uint8)
    target[5:25, 10:35] = 255
    return torch.rand(37, 53, generator=random), target


def edge_pair(random: torch.Generator) -> Pair:
    marks = torch.rand(3, 37, 53, generator=random) < 0.03
    return torch.rand(37, 53, generator=random), pack(marks)


FAMILIES: dict[str, tuple[Callable[[], Accumulator], Callable[[torch.Generator], Pair]]] = {
    "segmentation": (lambda: SegmentationMetrics("abcde", boundary=True), label_pair),
    "depth": (lambda: DepthMetrics(1e-3, 10), depth_pair),
    "depth, median": (lambda: DepthMetrics(1e-3, 10, median_scaling=True), depth_pair),
    "saliency": (SaliencyMetrics, saliency_pair),
    "saliency, curves": (lambda: SaliencyMetrics(keep_curves=True), saliency_pair),
    "edges": (EdgeMetrics, edge_pair),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[Callable[[], Accumulator], list[Pair]]:
    make, draw = FAMILIES[request.param]
    random = torch.Generator().manual_seed(0)
    return make, [draw(random) for _ in range(5)]


def fed(make: Callable[[], Accumulator], pairs: list[Pair]) -> Accumulator:
    accumulator = make()
    for pair in pairs:
        accumulator.update(*pair)
    return accumulator


def test_every_metric_is_declared_and_finite(family):
    make, pairs = family
    accumulator = fed(make, pairs)
    result = accumulator.compute()
    assert all(type(value) is float and math.isfinite(value) for value in result.values())
    for name in [*result, *accumulator.per_image()]:
        info = accumulator.info(accumulator.key(name))
        assert isinstance(info, MetricInfo)
        assert info.name == accumulator.key(name)
        assert all([info.title, info.unit, info.aggregation, info.source])
    assert all(name == info.name for name, info in accumulator.infos.items())


def test_counts_are_whole_numbers_and_start_with_the_images(family):
    make, pairs = family
    counts = fed(make, pairs).counts()
    assert next(iter(counts)) == "images"
    assert counts["images"] == 5
    assert all(type(count) is int for count in counts.values())


def test_rows_average_to_the_result(family):
    make, pairs = family
    accumulator = fed(make, pairs)
    result = accumulator.compute()
    for name, rows in accumulator.per_image().items():
        assert len(rows) == 5
        assert result[name] == pytest.approx(np.mean(rows), rel=1e-12)


def test_workers_merge_into_exactly_the_same_result(family):
    make, pairs = family
    whole = fed(make, pairs)
    for split in (0, 2, 5):
        for first, second in ((pairs[:split], pairs[split:]), (pairs[split:], pairs[:split])):
            merged = fed(make, first)
            merged.merge(pickle.loads(pickle.dumps(fed(make, second))))
            assert merged.compute() == whole.compute()
            assert merged.counts() == whole.counts()


def test_what_was_seen_can_be_replaced(family):
    make, pairs = family
    one, other = fed(make, pairs[:2]), fed(make, pairs[1:])
    one.adopt(other)
    assert one.counts() == other.counts()
    assert one.compute() == other.compute()
    one.merge(fed(make, pairs[:1]))
    assert one.compute() == fed(make, pairs).compute()


def test_resampling_equals_scoring_the_images_again(family):
    make, pairs = family
    accumulator = fed(make, pairs)
    weights = np.array([[1, 1, 1, 1, 1], [2, 0, 1, 0, 2]])
    again = [fed(make, pairs), fed(make, [pairs[i] for i in (0, 0, 2, 4, 4)])]
    for name, values in accumulator.resample(weights).items():
        expected = [other.compute().get(name, math.nan) for other in again]
        assert values == pytest.approx(expected, rel=1e-9, nan_ok=True), name


def test_intervals_enclose_the_result_and_are_repeatable(family):
    make, pairs = family
    accumulator = fed(make, pairs)
    intervals = accumulator.intervals(seed=3)
    assert intervals == accumulator.intervals(seed=3)
    assert intervals != accumulator.intervals(seed=4)
    result = accumulator.compute()
    narrow = accumulator.intervals(seed=3, level=0.5)
    for name, (low, high) in intervals.items():
        assert low <= result[name] <= high
        assert low <= narrow[name][0] <= narrow[name][1] <= high


def test_replicates_are_the_result_then_weighted_then_without_each_image(family):
    make, pairs = family
    accumulator = fed(make, pairs)
    result = accumulator.compute()
    without = [fed(make, pairs[:i] + pairs[i + 1 :]) for i in range(5)]
    left_out = np.argmin(image_weights(5)[-5:], axis=1)
    assert sorted(left_out) == [0, 1, 2, 3, 4]
    for name, values in accumulator.replicates().items():
        assert len(values) == 1 + 1000 + 5
        assert values[0] == pytest.approx(result.get(name, math.nan), nan_ok=True)
        expected = [without[i].compute().get(name, math.nan) for i in left_out]
        # an image that is left out keeps some weight where it alone counts, as at a threshold
        assert values[-5:] == pytest.approx(expected, rel=1e-4, abs=1e-4, nan_ok=True)


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    metrics = DepthMetrics(1e-3, 10)
    random = torch.Generator().manual_seed(1)
    for _ in range(60):
        metrics.update(*depth_pair(random))
    rows = np.array(metrics.per_image()["abs_rel"])
    low, high = metrics.intervals()["abs_rel"]
    half = student.ppf(0.975, 59) * rows.std(ddof=1) / math.sqrt(60)
    # the degrees of freedom are those of this sample's kurtosis, 59 for a normal one
    assert high - low == pytest.approx(2 * half, rel=0.05)


def test_a_class_does_not_vanish_from_replicates():
    """One image of thirty has class 2, which is never found: drawn images often lack it, and the
    score without it is another one, 1."""
    metrics = SegmentationMetrics(("a", "b", "c"), ignore_index=255)
    truth = torch.zeros(30, 4, 4, dtype=torch.long)
    truth[:, :2] = 1
    truth[7, 3] = 2
    for target in truth:
        metrics.update(torch.where(target == 2, 0, target), target)
    value = metrics.compute()["miou"]
    assert value == pytest.approx(2 / 3, abs=0.01)
    replicates = metrics.replicates()["miou"]
    assert abs(replicates - value).max() < 0.04
    low, high = metrics.intervals()["miou"]
    assert value - 0.04 < low < high < value + 0.04
    drawn = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=100)
    assert metrics.resample(drawn)["miou"].max() == 1


def test_an_unfed_accumulator_says_so(family):
    accumulator = family[0]()
    for ask in (
        accumulator.compute,
        accumulator.intervals,
        accumulator.replicates,
        lambda: accumulator.resample(np.ones((1, 0), dtype=np.int64)),
    ):
        with pytest.raises(DataError, match=r"nothing to score \(no image\)"):
            ask()


def test_maps_may_have_a_leading_one_but_must_agree_in_size(family):
    make, pairs = family
    prediction, target = pairs[0]
    assert fed(make, [(prediction[None], target[None])]).compute() == fed(make, pairs[:1]).compute()
    with pytest.raises(ValueError, match=r"\(36, 53\).*\(37, 53\)"):
        make().update(prediction[1:], target)
    with pytest.raises(ValueError, match="ground truth: expected one map"):
        make().update(prediction, torch.stack([target, target]))


def test_only_equal_settings_merge():
    for one, other in (
        (DepthMetrics(1e-3, 10), DepthMetrics(1e-3, 80)),
        (DepthMetrics(1e-3, 10), SaliencyMetrics()),
        (SegmentationMetrics("ab"), SegmentationMetrics("ac")),
        (SegmentationMetrics("ab"), SegmentationMetrics("ab", boundary=True)),
        (SaliencyMetrics(), SaliencyMetrics(keep_curves=True)),
        (EdgeMetrics(), EdgeMetrics(tolerance=0.011)),
        (EdgeMetrics(), EdgeMetrics(thresholds=9)),
    ):
        with pytest.raises(ValueError, match="cannot take in"):
            one.merge(other)
        with pytest.raises(ValueError, match="cannot take in"):
            one.adopt(other)


def test_an_empty_map_is_refused():
    with pytest.raises(ValueError, match=r"target.*\(0, 5\)"):
        plane(torch.zeros(0, 5), "target")


def test_keys_carry_the_protocol():
    metrics = DepthMetrics(1e-3, 80, crop="kitti_garg", median_scaling=True)
    assert metrics.key("rmse") == "rmse@kitti_garg+median"
    assert metrics.info("rmse@kitti_garg+median").unit == "m"
    assert SegmentationMetrics("ab").key("miou") == "miou"
    assert SegmentationMetrics.info("iou/a").title == "IoU of one class"
    with pytest.raises(KeyError):
        DepthMetrics.info("rsme")
