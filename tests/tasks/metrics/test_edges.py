"""Edge scores by hand, against skimage's thinning and against pyEdgeEval (freeze_edges.py)."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from skimage.morphology import thin as skimage_thin

from common.annotators import IGNORE, pack, unpack
from common.errors import DataError, UsageError, UserError
from tasks.metrics._edge_matching import Pairing, boundary_counts
from tasks.metrics._edge_ridges import PixelGraph, compiled, suppress, thin
from tasks.metrics.edges import (
    EdgeMetrics,
    average_precision,
    optimal_f,
    recall_at_half,
    split_scores,
)
from tests.oracles.freeze_edges import BSDS, FROZEN, boundaries, checksum, names, prediction

HED = BSDS.parent / "references" / "hed_bsds500"
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


def least(pixels: np.ndarray, marks: np.ndarray, reach: float) -> tuple[int, int]:
    """Pairs of a largest pairing and their least total distance in hundredths, by SciPy."""
    between = np.hypot(*np.moveaxis(pixels[:, None] - marks[None], 2, 0))
    far = 10_000_000
    costs = np.where(between <= reach, np.rint(100 * between), far)
    chosen = costs[linear_sum_assignment(costs)]
    return int((chosen < far).sum()), int(chosen[chosen < far].sum())


def paired(pairing: Pairing, graph: PixelGraph, marks: np.ndarray) -> tuple[int, int]:
    """Pairs of a pairing and their total distance in hundredths; each node is in one at most."""
    count, mate = len(pairing.pixels), pairing.network.mate
    pixel = np.flatnonzero(mate[:count] >= 0)
    mark = mate[pixel] - count
    assert len(set(mark.tolist())) == len(pixel)
    places = np.stack([graph.rows, graph.columns], axis=1)[pairing.pixels[pixel]]
    between = np.hypot(*(places - np.argwhere(marks)[mark]).T)
    return len(pixel), int(np.rint(100 * between).sum())


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.6), st.floats(0.02, 0.6), st.floats(0, 5))
def test_the_pairing_is_largest_and_of_least_distance(seed, share, marked, reach):
    random = np.random.default_rng(seed)
    pixels, marks = random.random((12, 15)) < share, random.random((12, 15)) < marked
    graph = PixelGraph(pixels)
    pairing = Pairing(reach, graph, marks)
    # pixels come and go, as from threshold to threshold
    for _ in range(4):
        alive = random.random(graph.count) < random.random()
        matched = pairing.match(alive)
        here = np.argwhere(pixels)[alive]
        assert alive[matched].all()
        assert len(matched) == len(set(matched.tolist()))
        assert paired(pairing, graph, marks) == least(here, np.argwhere(marks), reach)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.6), st.floats(1, 5))
def test_the_matched_pixels_do_not_depend_on_the_way_to_them(seed, share, reach):
    random = np.random.default_rng(seed)
    pixels, marks = random.random((12, 15)) < share, random.random((12, 15)) < share
    graph = PixelGraph(pixels)
    pairing = Pairing(reach, graph, marks)
    for _ in range(4):
        alive = random.random(graph.count) < random.random()
        anew = Pairing(reach, graph, marks).match(alive)
        assert pairing.match(alive).tolist() == anew.tolist()


@pytest.mark.parametrize("marked", [0, 1])
def test_nothing_to_pair_is_no_pair(marked):
    marks = np.zeros((9, 12), bool)
    marks[:marked, :marked] = True
    for pixels in (np.zeros((9, 12), bool), np.eye(9, 12, 5, dtype=bool)):
        graph = PixelGraph(pixels)
        assert Pairing(2, graph, marks).match(np.ones(graph.count, bool)).tolist() == []


def test_a_large_map_keeps_its_distances_within_the_integers():
    graph = PixelGraph(np.indices((300, 400)).sum(axis=0) % 2 == 0)
    marks = np.indices((300, 400)).sum(axis=0) % 2 == 1
    pairing = Pairing(1.0, graph, marks)
    matched = pairing.match(np.ones(graph.count, bool))
    assert len(matched) == 60_000
    assert paired(pairing, graph, marks) == (60_000, 6_000_000)


def test_echoes_of_a_line_are_no_nearer_than_the_line():
    # each of five annotators marks a line, one pixel up or down; a prediction of that line and two
    # echoes three pixels off has 3·200 pixels, all within reach, and 200 at least distance
    ridges, marks = np.zeros((60, 220)), np.zeros((5, 60, 220), bool)
    ridges[[27, 30, 33], 10:210] = 1
    for annotator, row in enumerate((29, 30, 31, 30, 30)):
        marks[annotator, row, 10:210] = True
    reach = 4.3 / math.hypot(60, 220)
    assert boundary_counts(ridges, marks, HALF, reach).tolist() == [[1000, 1000, 200, 600]]


def test_functions_are_compiled_where_no_cache_can_be_written():
    # numba finds no folder for what does not come from a file
    names: dict = {}
    exec("def double(x):\n    return 2 * x", names)
    assert compiled(names["double"])(21) == 42


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
    # ends: 2·0.27/1.2 = 0.45; half-way both are 0.6. The 100 points of the published code have
    # none half-way: at 49/99 they are 0.6 ± 0.6/198, and F = 2·(0.36 - (0.6/198)²)/1.2
    assert optimal_f(recall, precision) == pytest.approx([0.6 - (0.6 / 198) ** 2 / 0.6], abs=1e-12)
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


def of_counts(*rows: tuple[int, int, int, int]) -> dict[str, float]:
    """Scores of one image from its counts: marks matched, marks, pixels matched, pixels."""
    scores = split_scores(np.array([rows]), np.ones((1, 1), dtype=np.int64))
    return {name: float(values[0]) for name, values in scores.items()}


def test_average_precision_is_divided_by_100():
    # from recall 0 (no pixel: precision 0) to recall 1 at precision 0.5, a straight line. Over the
    # 101 recalls it sums to 0.5 · 50.5. Divided by 101 it would be 0.25; without recall 1, as in
    # pyEdgeEval's AUC, 0.2475
    assert of_counts((100, 100, 50, 100), (0, 100, 0, 0))["ap"] == pytest.approx(0.2525)


def test_average_precision_is_0_outside_of_the_curve():
    # precision 0.8 from recall 0.205 to 0.605: at 0.21, …, 0.60, 40 recalls. The published code
    # leaves the others out or makes them 0, the sum is one. A curve drawn on at both ends would
    # give 101 · 0.8 / 100; the best precision at this recall or more, as pyEdgeEval's AP takes it,
    # at 0, …, 0.60 would give 61 · 0.8 / 101
    rows = (605, 1000, 80, 100), (205, 1000, 40, 50)
    assert of_counts(*rows)["ap"] == pytest.approx(40 * 0.8 / 100)
    assert of_counts(rows[0])["ap"] == 0  # one point is no curve


def test_of_one_recall_the_lowest_threshold_counts():
    # recall 0.5 at precision 0.25 and 0.75, then recall 0.25 at 0.75. The lowest threshold's curve
    # falls from 0.75 to 0.25, mean 0.5, at 26 recalls; the last one's would be 26 · 0.75 / 100
    rows = (50, 100, 25, 100), (50, 100, 75, 100), (25, 100, 30, 40)
    scores = of_counts(*rows)
    assert scores["ap"] == pytest.approx(26 * 0.5 / 100)
    # half-way between recall 0.5 and 0.25; the point left out would give 0.5
    assert scores["r50"] == pytest.approx(0.375)


def test_recall_at_half_is_interpolated_over_precision():
    # precision 0.5 is a quarter of the way from 0.4 to 0.8: recall 0.8 - 0.4/4
    assert of_counts((80, 100, 40, 100), (40, 100, 40, 50))["r50"] == pytest.approx(0.7)
    # of recall 0.8 and 0.6 at precision 0.5 the higher
    same = (80, 100, 50, 100), (60, 100, 40, 80), (20, 100, 18, 20)
    assert of_counts(*same)["r50"] == pytest.approx(0.8)


def test_recall_at_half_where_precision_is_never_0_5():
    # always above: the recall at the least precision; always below, NaN in the published code: 0
    assert of_counts((80, 100, 60, 100), (40, 100, 40, 50))["r50"] == pytest.approx(0.8)
    assert of_counts((80, 100, 30, 100), (40, 100, 20, 50))["r50"] == 0


def test_recall_at_half_leaves_out_points_of_next_to_no_recall():
    # 1 of 2000 marks at precision 1 would give 0.8 - 0.7995 · (0.1/0.6)
    assert of_counts((1600, 2000, 800, 2000), (1, 2000, 1, 1))["r50"] == 0
    # 2 of 2000 is 0.001, and counts: 0.8 - 0.799/6
    rows = (1600, 2000, 800, 2000), (2, 2000, 1, 1)
    assert of_counts(*rows)["r50"] == pytest.approx(0.8 - 0.799 / 6)


def test_ratios_of_nothing_are_0():
    assert of_counts((0, 0, 0, 100), (0, 0, 0, 0)) == {"ods": 0, "ois": 0, "ap": 0, "r50": 0}


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


def test_an_annotator_without_a_mark_adds_none_and_takes_none_away():
    p, target = random_pair(0)
    marks = unpack(target)
    more = pack(torch.cat([marks, torch.zeros_like(marks[:1])]))
    alone, other = scored((p, target)), scored((p, more))
    assert other._rows[0].tolist() == alone._rows[0].tolist()
    assert other.counts() == alone.counts()
    assert other.counts()["images_without_boundary"] == 0


def test_images_without_annotators_are_left_out_and_counted():
    pair = random_pair(0)
    nobody = pair[0], torch.full_like(pair[1], IGNORE)
    metrics = scored(pair, nobody, nobody)
    assert metrics.compute() == scored(pair).compute()
    assert metrics.counts()["images"] == 1
    assert metrics.counts()["images_without_annotators"] == 2
    assert metrics.counts()["pixels_ignored"] == 0  # of the images that are scored


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
        ((p * 255).int(), target, ValueError, "expected real numbers, got torch.int32"),
        (p[:-1], target, ValueError, r"size \(59, 80\), ground truth of size \(60, 80\): resize"),
        (p, target > 1, ValueError, "packed as int32, got torch.bool"),
    ):
        with pytest.raises(error, match=message):
            scored((given_p, given_target))


def test_wrong_settings_are_named_and_others_are_in_the_key():
    for options in ({"tolerance": 0}, {"tolerance": 4.3}, {"thresholds": 0}):
        with pytest.raises(UsageError, match=str(next(iter(options.values())))):
            EdgeMetrics(**options)
    assert EdgeMetrics().key("ods") == "ods"
    key = EdgeMetrics(tolerance=0.011, thresholds=9).key("ods")
    assert key == "ods@tolerance0.011+9thresholds"
    assert EdgeMetrics.info(key).higher_is_better


def close_to_published(rows: np.ndarray, expected: np.ndarray) -> None:
    """Counts [I, T, 4] and their scores beside pyEdgeEval's: each column of each image, pooled."""
    assert (rows[..., 1] == expected[..., 1]).all()
    for column in (0, 2, 3):
        assert rows[..., column] == pytest.approx(expected[..., column], rel=0.003), column
    every = np.ones((1, len(rows)), dtype=np.int64)
    ours, theirs = split_scores(rows, every), split_scores(expected, every)
    for name, most in (("ods", 3e-4), ("ois", 3e-4), ("ap", 1e-3)):
        assert ours[name] == pytest.approx(theirs[name], abs=most), name


@pytest.mark.slow
@pytest.mark.skipif(not HED.is_dir(), reason="needs ../shared/data/references/hed_bsds500")
def test_counts_of_a_trained_network_are_those_of_pyedgeeval():
    files = sorted(HED.glob("*.npz"))
    assert len(files) == 16
    rows, expected = [], []
    for file in files:
        reference = np.load(file)
        ridges = np.zeros(reference["shape"])
        ridges[tuple(reference["at"].T)] = reference["value"]
        rows.append(boundary_counts(ridges, boundaries(file.stem), reference["thresholds"], 0.0075))
        expected.append(reference["counts"])
    close_to_published(np.array(rows), np.array(expected))


@pytest.mark.slow
@pytest.mark.skipif(not BSDS.is_dir(), reason="needs ../shared/data/bsds500")
def test_scores_of_gradient_maps_are_those_of_pyedgeeval():
    frozen = json.loads(FROZEN.read_text(encoding="utf-8"))
    assert list(frozen["images"]) == names()[::10]
    metrics = EdgeMetrics()
    for name, image in frozen["images"].items():
        p, marks = prediction(name), boundaries(name)
        assert checksum(p, marks) == image["checksum"], f"{name}: not the frozen pair"
        metrics.update(torch.from_numpy(p / 255), pack(torch.from_numpy(marks)))
    result = metrics.compute()
    for name, most in (("ods", 3e-4), ("ois", 3e-4), ("ap", 1e-3)):
        assert result[name] == pytest.approx(frozen["split"][name], abs=most), name
    counts, expected = np.sum(metrics._rows, axis=0).T, np.array(frozen["counts"])
    assert (counts[1] == expected[1]).all()
    for column in (0, 2, 3):
        assert counts[column] == pytest.approx(expected[column], rel=0.002, abs=10), column
