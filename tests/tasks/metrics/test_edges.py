"""Edge scores by hand, against skimage's thinning and against pyEdgeEval (freeze_edges.py)."""

import json
import pickle
from concurrent.futures import Future

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import structural_rank
from skimage.morphology import thin as skimage_thin

from common.annotators import pack
from common.errors import DataError, UsageError, UserError
from tasks.metrics._edge_matching import Pairs, PixelGraph, boundary_counts, suppress, thin
from tasks.metrics.edges import (
    EdgeMetrics,
    average_precision,
    optimal_f,
    recall_at_half,
    split_scores,
)
from tests.oracles.freeze_edges import BSDS, FROZEN, boundaries, checksum, names, prediction

HALF = np.array([0.5])


def mask(*lines: str) -> np.ndarray:
    return np.array([[character == "#" for character in line] for line in lines])


def random_pair(seed: int, size: tuple[int, int] = (60, 80)) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth map and two annotators' marks that follow it roughly."""
    random = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(random.random(size), 3)
    field = (field - field.min()) / np.ptp(field)
    marks = np.stack([thin(field + random.random(size) * 0.1 > level) for level in (0.6, 0.7)])
    return torch.from_numpy(field), pack(torch.from_numpy(marks))


def scored(*pairs: tuple[torch.Tensor, torch.Tensor], **options: float) -> EdgeMetrics:
    metrics = EdgeMetrics(**options)
    for pair in pairs:
        metrics.update(*pair)
    return metrics


# thinning


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1), st.integers(1, 25), st.integers(1, 25))
def test_thinning_is_that_of_skimage(seed, share, height, width):
    noise = np.random.default_rng(seed).random((height, width))
    for image in (noise <= share, ndimage.uniform_filter(noise, 5) <= share):
        assert (thin(image) == skimage_thin(image)).all()


def test_maps_are_thinned_anew_at_each_threshold():
    # a bar three pixels wide at 0.3 with its lowest row at 0.8
    ridges = np.zeros((20, 30))
    ridges[8:11, 5:25] = 0.3
    ridges[10, 5:25] = 0.8
    levels = np.array([0.2, 0.5])
    counts = boundary_counts(ridges, np.zeros((1, 20, 30), bool), levels, 0.1)
    assert counts[:, 3].tolist() == [skimage_thin(ridges >= t).sum() for t in levels]
    assert counts[1, 3] == 20


# non-maximum suppression


def test_a_blurred_line_keeps_its_middle():
    line = np.zeros((40, 40))
    line[:, 20] = 1
    ridges = suppress(ndimage.gaussian_filter(line, 2))
    assert np.flatnonzero(ridges[20]).tolist() == [20]
    # faded out over five pixels of each end: 0, 1/5, … 4/5
    fade = ridges[:, 20] / ridges[20, 20]
    assert fade[:6] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert fade == pytest.approx(fade[::-1])


def test_the_published_direction_of_an_exactly_level_line_is_along_it():
    # sign(0) = 0: nothing is suppressed across, which is left to the thinning
    line = np.zeros((40, 40))
    line[20] = 1
    ridges = suppress(ndimage.gaussian_filter(line, 2))
    assert (ridges[15:26, 20] > 0).all()
    assert np.flatnonzero(thin(ridges > 0.01)[:, 20]).tolist() == [20]


def test_a_slanted_line_is_thin_after_suppression():
    y, x = np.mgrid[:60, :60]
    distance = np.abs(y - 0.6 * x - 10) / np.hypot(1, 0.6)
    ridges = suppress(np.exp(-(distance**2) / 8)) > 0.5
    assert distance[ridges].max() < 1
    assert 35 <= ridges[:, 10:50].sum() <= 60


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 3)])
def test_suppression_of_tiny_maps_is_finite(size):
    assert np.isfinite(suppress(np.random.default_rng(0).random(size))).all()


# matching


def test_two_pixels_cannot_share_a_mark():
    # reach 0.1 · √(9² + 12²) = 1.5: both upper pixels see the one mark between them
    ridges, marks = np.zeros((9, 12)), np.zeros((1, 9, 12), bool)
    ridges[3, 4] = ridges[3, 6] = ridges[7, 10] = 1
    marks[0, 3, 5] = True
    assert boundary_counts(ridges, marks, HALF, 0.1).tolist() == [[1, 1, 1, 3]]


def test_a_pairing_is_changed_where_that_pairs_more():
    # a pixel between two marks must leave the nearer one to the pixel that sees no other
    ridges, marks = np.zeros((9, 12)), np.zeros((1, 9, 12), bool)
    ridges[4, 4] = ridges[5, 6] = 1
    marks[0, 4, 5] = marks[0, 5, 7] = True
    assert boundary_counts(ridges, marks, HALF, 0.1).tolist() == [[2, 2, 2, 2]]


def test_recall_adds_annotators_and_precision_takes_any():
    # row 3 marked by both annotators, row 8 by the second alone, row 13 by none
    ridges, marks = np.zeros((20, 20)), np.zeros((2, 20, 20), bool)
    ridges[[3, 8, 13], 5:15] = 1
    marks[:, 3, 5:15] = marks[1, 8, 5:15] = marks[0, 18, 5:15] = True
    assert boundary_counts(ridges, marks, HALF, 0.05).tolist() == [[30, 40, 20, 30]]


def test_the_reach_is_inclusive():
    ridges, marks = np.zeros((30, 40)), np.zeros((1, 30, 40), bool)
    ridges[10, 10] = 1
    marks[0, 13, 14] = True  # five pixels away; the diagonal is 50
    assert boundary_counts(ridges, marks, HALF, 0.1)[0, 0] == 1
    assert boundary_counts(ridges, marks, HALF, 0.0999)[0, 0] == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.4), st.floats(0.02, 0.4), st.floats(0, 5))
def test_the_pairing_is_largest(seed, share, marked, reach):
    random = np.random.default_rng(seed)
    pixels, marks = random.random((12, 15)) < share, random.random((12, 15)) < marked
    graph = PixelGraph(pixels)
    matched = Pairs.within(reach, graph, marks).match(np.ones(graph.count, dtype=bool))
    assert len(set(matched.tolist())) == len(matched)
    one, other = np.argwhere(pixels), np.argwhere(marks)
    near = ((one[:, None] - other[None]) ** 2).sum(axis=2) <= reach**2
    assert len(matched) == (structural_rank(coo_array(near)) if near.any() else 0)


def test_a_threshold_alone_gives_what_it_gives_among_others():
    field, _ = random_pair(0)
    ridges = suppress(field.numpy())
    marks = np.stack([thin(field.numpy() > 0.5), thin(field.numpy() > 0.55)])
    levels = np.arange(1, 10) / 10
    whole = boundary_counts(ridges, marks, levels, 0.03)
    alone = [boundary_counts(ridges, marks, levels[k : k + 1], 0.03)[0] for k in range(9)]
    assert whole[:, [0, 1, 3]].tolist() == [row[[0, 1, 3]].tolist() for row in alone]
    assert whole.tolist() == np.array(alone).tolist()


# scores


def test_ods_interpolates_between_thresholds():
    recall, precision = np.array([[0.9, 0.3]]), np.array([[0.3, 0.9]])
    # ends: 2·0.27/1.2 = 0.45; half-way both are 0.6
    assert optimal_f(recall, precision) == pytest.approx([0.6])
    assert optimal_f(recall[:, :1], precision[:, :1]) == pytest.approx([0.45])


def test_average_precision_by_hand():
    # precision 0.5 from recall 0.25 to 0.75: 51 of the values 0, 0.01, …, 1
    recall, precision = np.array([0.75, 0.5, 0.25]), np.array([0.5, 0.5, 0.5])
    assert average_precision(recall, precision) == pytest.approx(51 * 0.5 / 100)
    assert average_precision(recall[:1], precision[:1]) == 0
    # two thresholds of one recall: the lower one's precision
    assert average_precision(np.array([0.4, 0.4, 0]), np.array([0.2, 0.8, 0.2])) == pytest.approx(
        41 * 0.2 / 100
    )


def test_recall_at_half_by_hand():
    assert recall_at_half(np.array([0.8, 0.4]), np.array([0.4, 0.8])) == pytest.approx(0.7)
    assert recall_at_half(np.array([0.8, 0.4]), np.array([0.6, 0.8])) == 0.8
    assert recall_at_half(np.array([0.8, 0.4]), np.array([0.1, 0.4])) == 0
    # precision 1 of next to nothing does not count
    assert recall_at_half(np.array([0.8, 0.0005]), np.array([0.4, 1])) == 0


def test_ois_lets_each_image_choose():
    # image 1 is perfect at the first threshold, image 2 at the second
    rows = np.array([[[10, 10, 10, 10], [0, 10, 0, 10]], [[0, 10, 0, 10], [10, 10, 10, 10]]])
    scores = split_scores(rows, np.ones((1, 2), dtype=np.int64))
    assert scores["ois"] == 1
    assert scores["ods"] == pytest.approx(0.5)
    assert np.isnan(split_scores(rows, np.zeros((1, 2), dtype=np.int64))["ods"])


# the accumulator


def test_a_good_prediction_scores_high_and_a_shifted_one_low():
    y, x = np.mgrid[:80, :80] - 40
    ring = thin(np.abs(np.hypot(y, x) - 24) < 1)
    target = pack(torch.from_numpy(ring[None]))
    blurred = 5 * ndimage.gaussian_filter(ring.astype(np.float64), 2)
    good = scored((torch.from_numpy(blurred), target), tolerance=0.02).compute()
    assert min(good["ods"], good["ois"], good["r50"]) > 0.95
    shifted = torch.from_numpy(np.roll(blurred, 9, axis=1))
    assert scored((shifted, target), tolerance=0.02).compute()["ods"] < 0.5


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_predictions_give_numbers(value):
    target = random_pair(0)[1]
    metrics = scored((torch.full(target.shape, value), target))
    assert np.isfinite(list(metrics.compute().values())).all()
    assert metrics.counts()["images_without_prediction"] == (value == 0)
    if value == 0:
        assert set(metrics.compute().values()) == {0}


def test_an_image_without_a_mark_adds_false_pixels_and_is_counted():
    p, target = random_pair(0)
    empty = pack(torch.zeros(1, *p.shape, dtype=torch.bool))
    alone = scored((p, empty))
    assert set(alone.compute().values()) == {0}
    both = scored((p, target), (p, empty))
    assert both.compute()["ods"] < scored((p, target)).compute()["ods"]
    assert both.counts()["images_without_boundary"] == 1


def test_ignored_pixels_are_not_predicted():
    p, target = random_pair(0)
    valid = torch.ones(p.shape, dtype=torch.bool)
    valid[:, 40:] = False
    metrics = scored((p, torch.where(valid, target, 0)))
    assert metrics.counts()["pixels_ignored"] == 60 * 40
    ridges = np.where(valid, suppress(p.numpy()), 0)
    assert metrics._rows[0][:, 3].tolist() == [
        skimage_thin(ridges >= k / 100).sum() for k in range(1, 100)
    ]
    ignored = scored((p, torch.zeros_like(target)))
    assert ignored.counts()["images_without_annotators"] == 1
    with pytest.raises(DataError, match="images_without_annotators 1"):
        ignored.compute()


def test_wrong_maps_are_named():
    p, target = random_pair(0)
    for given_p, given_target, error, message in (
        (p * 8, target, ValueError, "outside 0…1: apply the sigmoid first"),
        (p * torch.nan, target, UserError, "NaN"),
        ((p * 255).byte(), target, ValueError, "got torch.uint8"),
        (p, target > 1, ValueError, "packed as int32, got torch.bool"),
    ):
        with pytest.raises(error, match=message):
            scored((given_p, given_target))


def test_wrong_settings_are_named_and_others_are_in_the_key():
    for options in ({"tolerance": 0}, {"tolerance": 4.3}, {"thresholds": 0}, {"processes": -1}):
        with pytest.raises(UsageError, match=str(next(iter(options.values())))):
            EdgeMetrics(**options)
    assert EdgeMetrics().key("ods") == "ods"
    assert EdgeMetrics(processes=2).protocol == ""
    key = EdgeMetrics(tolerance=0.011, thresholds=9).key("ods")
    assert key == "ods@tolerance0.011+9thresholds"
    assert EdgeMetrics.info(key).higher_is_better


def test_processes_change_nothing():
    pairs = [random_pair(seed) for seed in range(6)]
    alone, pooled = scored(*pairs), scored(*pairs, processes=1)
    assert pooled.images == 6
    copied = pickle.loads(pickle.dumps(pooled))
    for metrics in (pooled, copied):
        assert metrics.compute() == alone.compute()
        assert metrics.counts() == alone.counts()
        assert [row.tolist() for row in metrics._rows] == [row.tolist() for row in alone._rows]


def test_an_error_in_a_process_reaches_the_caller():
    metrics = EdgeMetrics(processes=1)
    failed: Future = Future()
    failed.set_exception(MemoryError("no memory for the image"))
    metrics._waiting.append(failed)
    with pytest.raises(MemoryError, match="no memory"):
        metrics.compute()


@pytest.mark.slow
@pytest.mark.skipif(not BSDS.is_dir(), reason="needs ../shared/data/bsds500")
def test_agrees_with_pyedgeeval_on_real_images():
    frozen = json.loads(FROZEN.read_text(encoding="utf-8"))
    assert list(frozen["images"]) == names()[::10]
    metrics = EdgeMetrics(processes=2)
    for name, image in frozen["images"].items():
        p, marks = prediction(name), boundaries(name)
        assert checksum(p, marks) == image["checksum"], f"{name}: not the frozen pair"
        metrics.update(torch.from_numpy(p / 255), pack(torch.from_numpy(marks)))
    result = metrics.compute()
    for name in ("ods", "ois", "ap"):
        assert result[name] == pytest.approx(frozen["split"][name], abs=0.002), name
    counts, expected = np.sum(metrics._rows, axis=0).T, np.array(frozen["counts"])
    assert (counts[1] == expected[1]).all()
    # of all pixels and marks: suppression, thinning and matching each by themselves
    assert counts[3] == pytest.approx(expected[3], rel=0.002, abs=5)
    assert counts[0] == pytest.approx(expected[0], rel=0.002, abs=10)
