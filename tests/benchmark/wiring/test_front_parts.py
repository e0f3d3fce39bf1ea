"""The parts of a search for a front: selection, candidates, perturbation."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmark.experiment.network import spec_of
from benchmark.experiment.plan import make_tasks, plan
from benchmark.speed.count import count_macs
from benchmark.wiring.costs import network_costs
from benchmark.wiring.front.candidates import (
    CLOSE,
    Candidate,
    affordable,
    children,
    chosen,
    from_chains,
    from_perturbation,
    from_presets,
    from_search,
    from_subsets,
    macs_of,
    random_candidates,
    wires,
)
from benchmark.wiring.front.race import with_preset
from benchmark.wiring.front.selection import (
    Measured,
    covered,
    gain_over,
    gains_over,
    layers,
    sizes,
    standing_of,
    survivors,
)
from benchmark.wiring.perturb import ranked
from benchmark.wiring.record import Search, SearchConnection
from models.backbones import create_backbone
from models.connected_decoder import ConnectedDecoder
from models.connectivity import Connectivity, candidates, encoder_sum, fully_dense, unet
from models.feature_maps import FeatureSpec
from models.fusion import reparameterised
from models.predictor import DensePredictor
from models.relaxed_decoder import RelaxedDecoder
from tasks.metrics.resampling import SAMPLES
from tests.support import wirings

STRIDES = (2, 4, 8, 16, 32)
FEATURES = tuple(
    FeatureSpec(channels, stride)
    for channels, stride in zip((16, 24, 40, 112, 320), STRIDES, strict=True)
)
POINTS = st.lists(
    st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float)), min_size=1, max_size=14
)


def test_layers_of_points_worked_out_by_hand() -> None:
    points = [(9.0, 5.0), (9.0, 7.0), (4.0, 1.0), (8.0, 6.0), (3.0, 7.0)]
    assert layers(points) == [[0, 2], [1, 3], [4]]


@given(POINTS)
def test_no_point_of_a_layer_is_dominated_in_it_and_each_of_a_later_one_by_an_earlier(
    points: list[tuple[float, float]],
) -> None:
    def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a != b and a[0] >= b[0] and a[1] <= b[1]

    found = layers(points)
    assert sorted(i for layer in found for i in layer) == list(range(len(points)))
    for number, layer in enumerate(found):
        for i in layer:
            assert not any(dominates(points[j], points[i]) for j in layer)
            if number:
                assert any(dominates(points[j], points[i]) for j in found[number - 1])


@given(POINTS, st.integers(1, 14))
def test_survivors_hold_the_most_accurate(points: list[tuple[float, float]], keep: int) -> None:
    chosen = survivors(points, keep)
    assert len(chosen) == min(keep, len(points))
    assert chosen == sorted(set(chosen))
    kept = sorted((points[i][0] for i in chosen), reverse=True)
    half = math.ceil(min(keep, len(points)) / 2)
    assert kept[:half] == sorted((p[0] for p in points), reverse=True)[:half]


def test_the_other_half_of_the_places_goes_to_the_front() -> None:
    # cheap is far behind in accuracy, but nothing is both cheaper and better
    points = [(9.0, 9.0), (8.0, 9.5), (7.0, 9.7), (5.0, 1.0)]
    assert survivors(points, 2) == [0, 3]
    assert survivors(points, 3) == [0, 1, 3]


def test_sizes_of_rungs() -> None:
    assert sizes(16, 2) == [16, 6]
    assert sizes(18, 3) == [18, 6, 2]
    assert sizes(3, 3) == [3, 2, 2]
    assert sizes(1, 2) == [1, 1]


def scored(value: float, spread: float = 0.01, higher: bool = True, draws: int = 400) -> Measured:
    rng = np.random.default_rng(abs(int(value * 1e6)))
    replicates = value + spread * rng.standard_normal(draws)
    ends = float(np.percentile(replicates, 2.5)), float(np.percentile(replicates, 97.5))
    return Measured("m", higher, value, ends, replicates, value)


def shifted(base: Measured, by: float) -> Measured:
    """A score on the same images that is always the same bit away."""
    assert base.replicates is not None
    return Measured(
        "m", base.higher_is_better, base.value + by, None, base.replicates + by, base.value + by
    )


def test_the_cheapest_of_those_that_cannot_be_told_from_the_best_is_found() -> None:
    best = scored(0.50)
    scores = {"best": best, "near": scored(0.499), "paired": shifted(best, -0.002)}
    costs = {"best": 9.0, "near": 5.0, "paired": 1.0}
    standing = standing_of(scores, costs, scores)
    # the images are the same: a small difference that every draw shows is a difference
    assert standing.alike == {"best", "near"}
    assert standing.found == "near"
    assert standing.order == ["best", "near", "paired"]
    assert standing.front == {"best", "near", "paired"}
    # what is found is within the budgets, if anything is
    assert standing_of(scores, costs, {"best"}).found == "best"
    assert standing_of(scores, costs, {"paired"}).found == "paired"


def test_what_is_found_is_dominated_by_nothing() -> None:
    best = scored(0.50)
    scores = {"best": best, "near": scored(0.497), "paired": shifted(best, -0.002)}
    standing = standing_of(scores, {"best": 9.0, "near": 5.0, "paired": 1.0}, scores)
    assert standing.alike == {"best", "near"}  # but near is worse and dearer than paired
    assert standing.found == "best"


def test_lower_is_better_where_the_metric_says_so() -> None:
    scores = {"good": scored(0.1, higher=False), "bad": scored(0.9, higher=False)}
    standing = standing_of(scores, {"good": 2.0, "bad": 3.0}, scores)
    assert (standing.order, standing.front, standing.found) == (["good", "bad"], {"good"}, "good")


def test_gains_are_relative_and_their_intervals_hold_them() -> None:
    first = {str(i): scored(0.2 + i / 100) for i in range(5)}
    gains = gains_over(scored(0.33), scored(0.44), [first, {"0": scored(0.4)}], "0", seed=0)
    assert gains["mean"] == pytest.approx(0.22)
    assert gains["gain"] == pytest.approx((0.33 - 0.22) / 0.22)
    assert gains["best_gain"] == pytest.approx(0.1)
    for name in ("gain", "best_gain"):
        low, high = gains[f"{name}_interval"]
        assert low < gains[name] < high
    # of errors, less is a gain
    errors = {name: scored(m.value, higher=False) for name, m in first.items()}
    gains = gains_over(*[scored(0.11, higher=False)] * 2, [errors] * 2, "0", seed=0)
    assert gains["gain"] == pytest.approx(0.5)


def test_the_best_preset_takes_the_least_accurate_ones_place() -> None:
    names = {"a": "search", "b": "change", "p": "preset", "q": "preset"}
    some = [
        Candidate(name, Connectivity("", STRIDES, {1: ("E1",)}), {"source": source})
        for name, source in names.items()
    ]
    points = [(0.9, 1.0), (0.8, 1.0), (0.2, 1.0), (0.3, 1.0)]
    assert [c.name for c in with_preset(some[:2], some, points)] == ["a", "q"]
    assert [c.name for c in with_preset(some[1:3], some, points)] == ["b", "q"]
    assert [c.name for c in with_preset(some[2:], some, points)] == ["p", "q"]
    assert [c.name for c in with_preset(some[:1], some, points)] == ["a"]
    assert [c.name for c in with_preset(some[:2], some[:2], points[:2])] == ["a", "b"]


def test_a_gain_over_nothing_and_of_a_skill() -> None:
    assert gain_over(scored(0.1), scored(0.0))[0] is None
    assert gain_over(scored(0.1), scored(-0.1))[0] == pytest.approx(2)
    skills = [replace(scored(value), metric="skill") for value in (0.1, -0.1, 0.0)]
    assert gain_over(skills[0], skills[1])[0] == pytest.approx(0.2)
    assert gain_over(skills[0], skills[2])[0] == pytest.approx(0.1)


def test_the_interval_of_a_gain_is_over_the_random_wirings_too() -> None:
    exact = {str(i): scored(v, spread=0.0) for i, v in enumerate((0.1, 0.2, 0.3))}
    low, high = gains_over(*[scored(0.3, 0.0)] * 2, [exact] * 2, "0", seed=0)["gain_interval"]
    assert (low, high) == (pytest.approx(0.0), pytest.approx(2.0))  # all drawn the best, the worst


def test_replicates_of_this_version_give_the_same_intervals() -> None:
    """Only those with random weights meet other random wirings; the rest are of images alone."""

    def measured(value: float) -> Measured:
        return replace(scored(value), replicates=np.full(1 + SAMPLES + 6, value))

    exact = {str(i): measured(v) for i, v in enumerate((0.1, 0.2, 0.3))}
    gains = gains_over(measured(0.3), measured(0.3), [exact] * 2, "0", seed=0)
    assert gains["gain_interval"] == (pytest.approx(0.0), pytest.approx(2.0))
    assert gains["best_gain_interval"] == (pytest.approx(2.0), pytest.approx(2.0))


def test_a_search_that_an_earlier_version_began_goes_on_without_pairs() -> None:
    old, new = scored(0.3), replace(scored(0.31), replicates=np.full(1 + SAMPLES + 6, 0.31))
    assert gain_over(new, old) == (pytest.approx(0.01 / 0.3), None)
    standing = standing_of({"old": old, "new": new}, {"old": 1.0, "new": 2.0}, {"old", "new"})
    # of scores that are not paired, overlapping intervals tell as little
    assert (standing.alike, standing.found) == ({"old", "new"}, "old")
    gains = gains_over(new, new, [{"a": old, "b": new}, {"b": new}], "b", seed=0)
    assert gains["gain_interval"] is None


def test_the_covered_share_worked_out_by_hand() -> None:
    assert covered([(0.5, 0.0)], 10) == pytest.approx(0.5)
    assert covered([(0.5, 5.0)], 10) == pytest.approx(0.25)
    # 0.2 from cost 2 on, 0.4 more from cost 5 on; the third is dominated, the fourth too dear
    points = [(0.6, 5.0), (0.2, 2.0), (0.1, 4.0), (0.9, 11.0)]
    assert covered(points, 10) == pytest.approx(0.2 * 0.8 + 0.4 * 0.5)
    assert covered([(-0.1, 1.0)], 10) == 0


def test_budgets_hold_both_costs() -> None:
    costs = {"a": (1.0, 100.0), "b": (5.0, 10.0)}
    assert affordable(costs, None, None) == {"a", "b"}
    assert affordable(costs, 2, None) == {"a"}
    assert affordable(costs, None, 50) == {"b"}
    assert affordable(costs, 2, 50) == set()


def record(weights: Sequence[Sequence[float]], wiring: Connectivity, **config: object) -> Search:
    pairs = [(stage, source) for stage, inputs in wiring.stages.items() for source in inputs]
    return Search(
        format=1, method="x", task="t", dataset="d", backbone="b", strides=wiring.strides,
        threshold=0.001, config={"lambda_": 1.0, **config},
        connections=[SearchConnection(stage=s, source=n) for s, n in pairs],
        iterations=list(range(len(weights))), weights=[list(row) for row in weights],
        final=list(weights[-1]), losses={"without": [3.0, 1.0, 2.0]},
    )  # fmt: skip


def test_the_course_of_a_search_gives_wirings_of_several_sizes() -> None:
    wiring = encoder_sum(STRIDES)  # E5 … E1
    search = record(
        [[0.5] * 5, [0.5, 0.2, 0.5, 0.5, 0.5], [0.4, 0, 0.4, 0.3, 0.2], [0.9, 0, 0, 0, 0.002]],
        wiring,
    )
    found = from_search("g", search)
    sources = [set(candidate.wiring.stages[1]) for candidate in found]
    # the end by the search's own threshold, then the course by a half of the first weights
    assert sources[0] == {"E5", "E1"}
    assert {"E5", "E3", "E2"} in sources
    assert {"E5", "E3", "E2", "E1"} in sources
    assert found[0].origin["lambda"] == 1.0


def test_the_wirings_of_a_perturbation_are_nested_and_the_least_loss_comes_first() -> None:
    wiring = encoder_sum(STRIDES)
    ranks = (torch.tensor([1, 1, 2, 3, 3]) / 3).tolist()  # single precision, as a search has them
    found = from_perturbation("p", record([ranks], wiring))
    assert [set(c.wiring.stages[1]) for c in found] == [{"E3", "E2", "E1"}, {"E2", "E1"}]


def test_small_subsets_are_drawn_by_the_seed() -> None:
    drawn = from_subsets(STRIDES, 0, 30)
    sizes_ = {len(c.wiring.stages[1]) for c in drawn}
    assert sizes_ == {2, 3, 4}
    assert all(set(c.wiring.stages) == {1} for c in drawn)
    assert [wires(c.wiring) for c in from_subsets(STRIDES, 0, 30)] == [
        wires(c.wiring) for c in drawn
    ]
    assert [wires(c.wiring) for c in from_subsets(STRIDES, 1, 30)] != [
        wires(c.wiring) for c in drawn
    ]


def test_chains_go_from_coarse_to_fine_with_stages_left_out() -> None:
    drawn = from_chains(STRIDES, 0, 30)
    for candidate in drawn:
        stages = candidate.wiring.stages
        chain = sorted(stages, reverse=True)
        assert chain[-1] == 1
        assert len(chain) in (3, 4, 5)
        assert stages[chain[0]] == (f"E{chain[0]}",)
        for before, stage in pairwise(chain[:-1]):
            assert set(stages[stage]) == {f"E{stage}", f"D{before}"}
        assert set(stages[1]) - {"E1"} == {f"D{chain[-2]}"}
    ends = {"E1" in candidate.wiring.stages[1] for candidate in drawn}
    assert ends == {True, False}
    assert from_chains(STRIDES, 0, 30) == drawn
    assert from_chains(STRIDES, 1, 30) != drawn
    assert from_chains((4,), 0, 3) == []
    assert from_chains((4, 8), 0, 1)[0].wiring.stages[2] == ("E2",)


@pytest.mark.parametrize("backbone", ["test_efficientnet", "repghostnet_050"])
def test_costs_of_networks_that_share_a_backbone_are_those_of_each(backbone: str) -> None:
    decoders = ["fcn", "encoder-sum", "unet-connectivity"]
    configs = {
        c.decoder: c
        for c in plan({"task": "depth", "backbone": backbone, "image_size": (64, 96)},
                      {"decoder": decoders})
    }  # fmt: skip
    costs = network_costs(configs, 1)
    for name, config in configs.items():
        model = spec_of(config, make_tasks(config)).build()
        model.backbone.net = reparameterised(model.backbone.net.eval())
        assert costs[name]["macs"] == sum(count_macs(model, (64, 96)).values())
        assert costs[name]["params"] == sum(p.numel() for p in model.parameters())
        assert costs[name]["ms"] > 0


def test_presets_leave_half_of_few_places() -> None:
    presets = from_presets(STRIDES)
    known = {candidate.name for candidate in presets}
    found = from_subsets(STRIDES, 0, 20)

    def names(others: list[Candidate], most: int) -> list[str]:
        return [candidate.name for candidate in chosen(presets, [others], most)]

    for most, expected in ((1, 1), (2, 1), (3, 1), (4, 2), (6, 3)):
        taken = names(found, most)
        assert len(taken) == most
        assert sum(name in known for name in taken) == expected
        assert taken[0] == presets[0].name
    assert known <= set(names(found[:2], len(presets) + 2))  # the others run out


def test_presets_come_first_and_sources_take_turns() -> None:
    presets = from_presets(STRIDES)

    def wiring(*names: str) -> Connectivity:
        return Connectivity("", STRIDES, {1: names})

    a = [Candidate("a", wiring(n), {}) for n in ("E1", "E2", "E3")]
    b = [Candidate("b", wiring(n), {}) for n in ("E1", "E4", "E5")]
    names = [c.name for c in chosen(presets, [a, b], len(presets) + 4)]
    assert names == [*[c.name for c in presets], "a", "a-2", "b", "a-3"]  # b's E1 is a's
    assert len(chosen(presets, [a, b], 100)) == len(presets) + 5


@settings(max_examples=60, deadline=None)
@given(wirings(STRIDES), st.integers(0, 5))
def test_children_are_new_alive_and_one_change_away(wiring: Connectivity, seed: int) -> None:
    if 1 not in wiring.alive().stages:
        return
    parent = Candidate("p", wiring.pruned(), {})
    born = children([parent], [parent], 5, str(seed))
    assert len({wires(c.wiring) for c in (parent, *born)}) == len(born) + 1
    for child in born:
        assert child.wiring.alive().stages == child.wiring.stages
        assert child.origin["of"] == "p"
    assert [wires(c.wiring) for c in children([parent], [parent], 5, str(seed))] == [
        wires(c.wiring) for c in born
    ]


def test_children_of_every_kind_of_change() -> None:
    parent = Candidate("p", unet(STRIDES), {})
    kinds = {
        word
        for c in children([parent], [parent], 40, "0")
        for word in ("without", "with ", " for ", "by way of")
        if word in f"{c.origin['change']} "
    }
    assert kinds == {"without", "with ", " for "} | kinds
    few = Candidate("q", Connectivity("", STRIDES, {1: ("E5",)}), {})
    assert any("by way of" in str(c.origin["change"]) for c in children([few], [few], 20, "0"))


def test_random_wirings_are_of_three_kinds_and_like_those_found() -> None:
    like = [unet(STRIDES), Connectivity("", STRIDES, {1: ("E5", "E4")})]
    drawn = random_candidates(like, FEATURES, (64, 64), 0, 12)
    assert len({wires(c.wiring) for c in drawn}) == 12
    kinds = [c.origin["kind"] for c in drawn]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "subset": 4, "macs": 4, "connections": 4,
    }  # fmt: skip
    for candidate in drawn:
        if candidate.origin["kind"] == "subset":
            assert set(candidate.wiring.stages) == {1}
        if candidate.origin["kind"] == "connections":
            assert candidate.wiring.connections in {w.connections for w in like}
        if candidate.origin["kind"] == "macs":
            near = [macs_of(candidate.wiring, FEATURES, (64, 64)) / macs_of(w, FEATURES, (64, 64))
                    for w in like]  # fmt: skip
            assert min(abs(ratio - 1) for ratio in near) <= CLOSE
    again = random_candidates(like, FEATURES, (64, 64), 0, 12)
    assert [wires(c.wiring) for c in again] == [wires(c.wiring) for c in drawn]
    other = random_candidates(like, FEATURES, (64, 64), 1, 12)
    assert [wires(c.wiring) for c in other] != [wires(c.wiring) for c in drawn]


def test_counted_macs_are_those_of_the_network() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    for wiring in (unet(STRIDES), encoder_sum(STRIDES), fully_dense(STRIDES)):
        decoder = ConnectedDecoder(FEATURES, wiring).eval()
        maps = [torch.zeros(1, f.channels, 64 // f.stride, 64 // f.stride) for f in FEATURES]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            decoder(maps)
        convolutions = sum(
            n for op, n in counter.get_flop_counts()["Global"].items() if "conv" in str(op)
        )
        assert macs_of(wiring, FEATURES, (64, 64)) == convolutions // 2


class OneMap(nn.Module):
    """A task whose loss is the distance from the target."""

    name = target = "t"

    @staticmethod
    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return (logits - target).abs().mean()


def test_perturbation_keeps_the_connection_that_the_loss_needs() -> None:
    torch.manual_seed(0)
    backbone = create_backbone("test_efficientnet")
    decoder = RelaxedDecoder(backbone.features, width=4, noise=0.0)
    model = DensePredictor(backbone, decoder, {"t": 1}).train()
    images = torch.rand(2, 3, 64, 64)
    needed = (decoder.order[-1], f"E{len(decoder.strides)}")
    decoder.kept = {needed}
    with torch.no_grad():
        decoder.raw.fill_(0.05)  # the output's BatchNorm makes much of little where it is alone
        decoder.raw[decoder.connections.index(needed)] = 1.0
        target = model.outputs(images)["t"]
    decoder.kept = None
    ranks, losses = ranked(model, [OneMap()], (images, {"t": target}))  # type: ignore[list-item]
    rank = dict(zip(decoder.connections, ranks, strict=True))
    assert max(rank, key=lambda c: rank[c]) == needed
    assert losses[-1] == pytest.approx(0, abs=1e-5)
    assert losses[0] > 0.01
    assert decoder.kept is None
    assert len(losses) == len(set(ranks))
    # wirings above a threshold are nested, and alive
    for threshold in sorted(set(ranks))[:-1]:
        stages: dict[int, tuple[str, ...]] = {}
        for (stage, source), value in rank.items():
            if value > threshold:
                stages[stage] = (*stages.get(stage, ()), source)
        wiring = Connectivity("", decoder.connectivity.strides, stages)
        assert wiring.alive().stages == wiring.stages


def test_direct_paths_are_left_out_and_the_output_keeps_an_input() -> None:
    torch.manual_seed(0)
    decoder = RelaxedDecoder(FEATURES, width=4, direct_drop=0.5)
    assert set(decoder.connectivity.stages[1]) == set(candidates(1, len(STRIDES)))
    maps = [torch.rand(2, f.channels, 64 // f.stride, 64 // f.stride) for f in FEATURES]
    counts = []
    for _ in range(40):
        decoder.zero_grad()
        decoder(maps).sum().backward()
        assert decoder.raw.grad is not None
        direct = [decoder.connections.index((1, n)) for n in (*("E1", "E2", "E3", "E4", "E5"), "G")]
        counts.append(int((decoder.raw.grad[direct] != 0).sum()))
    assert 1.5 < sum(counts) / len(counts) < 4.5
    assert len(set(counts)) > 2
    only = RelaxedDecoder(FEATURES, encoder_sum(STRIDES), width=4, direct_drop=0.99)
    assert only(maps).shape == (2, 4, 32, 32)
    decoder.eval()
    with torch.no_grad():
        assert torch.equal(decoder(maps), decoder(maps))


def test_a_restricted_relaxed_decoder_is_the_decoder_of_that_wiring() -> None:
    torch.manual_seed(0)
    decoder = RelaxedDecoder(FEATURES, width=4, noise=0.0).train()
    wiring = unet(STRIDES)
    part = RelaxedDecoder(FEATURES, wiring, width=4, noise=0.0).train()
    for source, users in part.consumers.items():
        rows = [decoder.consumers[source].index(stage) for stage in users]
        weight = decoder.convs[source].weight.unflatten(0, (-1, 4))  # type: ignore[operator, union-attr]
        with torch.no_grad():
            part.convs[source].weight.copy_(weight[rows].flatten(0, 1))  # type: ignore[operator, union-attr]
    maps = [torch.randn(2, f.channels, 64 // f.stride, 64 // f.stride) for f in FEATURES]
    decoder.kept = {(stage, n) for stage, inputs in wiring.stages.items() for n in inputs}
    torch.testing.assert_close(decoder(maps), part(maps), rtol=1e-4, atol=1e-5)
