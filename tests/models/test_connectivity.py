"""Wirings: what is refused, what a file holds, and how they move to other backbones."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UsageError
from models.connectivity import (
    ARCHITECTURES,
    PRESETS,
    Connectivity,
    candidates,
    find,
    preset,
    random_wiring,
    unet,
)
from tests.support import wirings

MOBILENETV2 = (2, 2, 4, 8, 16, 16, 32, 32, 32)
# the list in the paper's figure 3
SPARSEMASK = {
    8: {"E9", "G"},
    7: {"E7", "G"},
    6: {"E6", "G"},
    1: {"E9", "G", "E8", "E7", "D8", "E6", "D7", "D6", "E1"},
}


def wiring(stages: Mapping[int, tuple[str, ...]], strides: tuple[int, ...] = (2, 4, 8, 16, 32)):
    return Connectivity("test", strides, stages)


def as_sets(connectivity: Connectivity) -> dict[int, set[str]]:
    return {stage: set(inputs) for stage, inputs in connectivity.stages.items()}


@st.composite
def stride_lists(draw: st.DrawFn) -> tuple[int, ...]:
    strides = draw(st.lists(st.sampled_from([1, 2, 4, 8, 16, 32, 64]), min_size=1, max_size=9))
    return tuple(sorted(strides))


def any_wirings() -> st.SearchStrategy[Connectivity]:
    return stride_lists().flatmap(wirings)


# --- what a stage may take -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_candidates_are_the_papers(count: int) -> None:
    for stage in range(1, count + 1):
        names = candidates(stage, count)
        assert len(names) == len(set(names)) == 2 * (count - stage + 1)
        encoder = {f"E{i}" for i in range(1, count + 1) if i >= stage}
        decoder = {f"D{i}" for i in range(1, count + 1) if i > stage}
        assert set(names) == encoder | decoder | {"G"}
    assert sum(len(candidates(s, count)) for s in range(1, count + 1)) == count * (count + 1)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({}, "stage 1, the output, has no input"),
        ({1: ()}, "stage 1, the output, has no input"),
        ({2: ("E2",)}, "stage 1, the output, has no input"),
        ({1: ("E1",), 6: ("E5",)}, "stage 6 of an encoder with 5 features"),
        ({1: ("E1",), 0: ("E5",)}, "stage 0 of an encoder with 5 features"),
        ({1: ("E6",)}, "stage 1 cannot take E6"),
        ({1: ("E0",)}, "stage 1 cannot take E0"),
        ({1: ("X1",)}, "stage 1 cannot take X1"),
        ({1: ("",)}, "stage 1 cannot take "),
        ({1: ("G1",)}, "stage 1 cannot take G1"),
        ({1: ("E1",), 3: ("E2",)}, "stage 3 cannot take E2; it may take E5, E4, E3, G, D5, D4"),
        ({1: ("D2",)}, "stage 1 takes D2, but that stage has no input"),
        ({1: ("E1", "G", "E1")}, "stage 1 has an input twice"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    stages: dict[int, tuple[str, ...]], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        wiring(stages)
    assert str(caught.value).startswith(f"connectivity test: {message}")


@pytest.mark.parametrize("source", ["D1", "D2", "D3"])
def test_a_cycle_is_impossible(source: str) -> None:
    """Every stage takes stages above it only, so that no wiring that is accepted has a cycle."""
    with pytest.raises(UsageError, match=f"stage 3 cannot take {source}"):
        wiring({1: ("D3",), 2: ("D3",), 3: ("E3", source)})


# --- presets -------------------------------------------------------------------------------------


def test_unet_connects_each_stage_with_its_feature_and_the_stage_above() -> None:
    connectivity = unet(MOBILENETV2)
    assert connectivity.connections == 17
    assert as_sets(connectivity) == {9: {"E9"}} | {i: {f"E{i}", f"D{i + 1}"} for i in range(1, 9)}
    assert as_sets(unet((4,))) == {1: {"E1"}}


def test_the_shipped_architecture_is_the_papers() -> None:
    shipped = Connectivity.load(ARCHITECTURES / "sparsemask-voc2012.json")
    assert as_sets(shipped) == SPARSEMASK
    assert shipped.connections == 15
    assert shipped.strides == MOBILENETV2
    assert shipped.backbone == "mobilenetv2_100"
    assert as_sets(shipped.alive()) == SPARSEMASK  # every stage is used
    assert as_sets(preset("sparsemask", MOBILENETV2)) == SPARSEMASK


def test_an_unknown_preset_lists_near_matches() -> None:
    with pytest.raises(UsageError, match="unknown connectivity 'sparsmask': did you mean sparse"):
        preset("sparsmask", MOBILENETV2)


def test_sparse_acn_takes_what_stands_a_power_of_two_before() -> None:
    # E1 E2 E3 G D3 D2 D1: D2 stands at 5, so that 4, 3 and 1 are D3, G and E2
    assert as_sets(preset("sparse-acn", (2, 4, 8))) == {
        3: {"G", "E3"},
        2: {"D3", "G", "E2"},
        1: {"D2", "D3", "E3"},
    }


def test_the_encoder_sum_reads_every_feature_once() -> None:
    assert as_sets(preset("encoder-sum", (4, 8, 16))) == {1: {"E1", "E2", "E3"}}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("strides", [(4,), (2, 4), (4, 8, 16, 32), MOBILENETV2])
def test_every_preset_is_alive_on_every_backbone(name: str, strides: tuple[int, ...]) -> None:
    connectivity = preset(name, strides)
    assert connectivity.strides == strides
    assert connectivity.alive().stages == connectivity.stages


@given(stride_lists(), st.integers(1, 90), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_random_wiring_has_as_many_live_connections_as_asked(
    strides: tuple[int, ...], connections: int, seed: int
) -> None:
    most = len(strides) * (len(strides) + 1)
    if connections > most:
        with pytest.raises(UsageError, match=f"{connections} connections.*1…{most}"):
            random_wiring(strides, connections, seed)
        return
    wired = random_wiring(strides, connections, seed)
    assert wired.connections == wired.alive().connections == connections
    assert random_wiring(strides, connections, seed).stages == wired.stages


def test_random_wirings_of_other_seeds_differ() -> None:
    drawn = {str(as_sets(random_wiring(MOBILENETV2, 10, seed))) for seed in range(10)}
    assert len(drawn) == 10


def test_a_wiring_is_found_by_preset_and_by_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(unet(MOBILENETV2).to_json()))
    assert find("sparse-acn", (2, 4)).stages == preset("sparse-acn", (2, 4)).stages
    assert find(str(path), (2, 4)).stages == unet(MOBILENETV2).transfer((2, 4)).stages
    with pytest.raises(UsageError, match=r"nothing\.json: no such connectivity file"):
        find(str(tmp_path / "nothing.json"), (2, 4))
    with pytest.raises(UsageError, match="unknown connectivity 'spars-acn': did you mean"):
        find("spars-acn", (2, 4))


# --- pruned --------------------------------------------------------------------------------------


def test_of_two_stages_with_the_same_inputs_the_deeper_stays() -> None:
    wired = wiring({4: ("E5", "G"), 3: ("E5", "G"), 2: ("D4", "E2"), 1: ("D3", "D4", "D2")})
    assert as_sets(wired.pruned(absorb=False)) == {
        4: {"E5", "G"}, 2: {"D4", "E2"}, 1: {"D4", "D2"},
    }  # fmt: skip
    handed = wiring({4: ("E5",), 3: ("E5",), 2: ("D4", "E2"), 1: ("D3", "D2")})
    assert as_sets(handed.pruned(absorb=False)) == {
        4: {"E5"}, 2: {"D4", "E2"}, 1: {"D4", "D2"},
    }  # fmt: skip


def test_a_stage_within_another_is_absorbed() -> None:
    wired = wiring({4: ("E5", "G", "E4"), 3: ("E5", "E4"), 1: ("D3", "D4", "E1")})
    assert as_sets(wired.pruned(merge=False)) == {4: {"E5", "G", "E4"}, 1: {"D4", "E1"}}
    apart = wiring({4: ("E5", "E4"), 3: ("E5", "E4", "E3"), 2: ("D4", "E2"), 1: ("D3", "D2")})
    assert apart.pruned().stages == apart.stages  # D3 does not serve D2


def test_nothing_merges_into_the_output() -> None:
    wired = wiring({2: ("E5", "E2"), 1: ("E5", "E2", "D2")})
    assert wired.pruned().stages == wired.stages
    twin = wiring({3: ("E5",), 2: ("E5", "D3"), 1: ("E5", "D3", "D2")})
    assert twin.pruned().stages[1][0] == "E5"


@pytest.mark.parametrize(("merge", "absorb"), [(True, True), (True, False), (False, True)])
@given(wired=any_wirings())
@settings(max_examples=60, deadline=None)
def test_pruned_is_a_fixed_point_without_repeats(
    wired: Connectivity, merge: bool, absorb: bool
) -> None:
    pruned = wired.pruned(merge, absorb)
    assert pruned.alive() == pruned == pruned.pruned(merge, absorb)
    assert pruned.connections <= wired.alive().connections
    inputs = [frozenset(i) for s, i in pruned.stages.items() if s != 1]
    if merge:
        assert len(set(inputs)) == len(inputs)
    assert wired.pruned(merge=False, absorb=False) == wired.alive()


# --- alive ---------------------------------------------------------------------------------------


def test_alive_drops_what_is_empty_or_unused_to_a_fixed_point() -> None:
    connectivity = wiring(
        {
            5: ("E5",),  # used by D4 only, which nobody uses
            4: ("D5", "E4"),
            3: (),  # has no input
            2: ("D3", "E2"),  # goes on without D3
            1: ("D2", "D3", "E1"),
        }
    )
    assert as_sets(connectivity.alive()) == {2: {"E2"}, 1: {"D2", "E1"}}
    chain = wiring({5: (), 4: ("D5",), 3: ("D4",), 2: ("D3", "E2"), 1: ("D2",)})
    assert as_sets(chain.alive()) == {2: {"E2"}, 1: {"D2"}}


def test_alive_refuses_an_output_that_nothing_reaches() -> None:
    with pytest.raises(UsageError, match="stage 1, the output, has no input"):
        wiring({3: (), 2: ("D3",), 1: ("D2",)}).alive()


@given(any_wirings())
@settings(max_examples=60, deadline=None)
def test_alive_keeps_exactly_what_reaches_the_output(connectivity: Connectivity) -> None:
    reached, todo = {1}, [1]
    while todo:
        for name in connectivity.stages[todo.pop()]:
            if name[0] == "D" and int(name[1:]) not in reached:
                reached.add(int(name[1:]))
                todo.append(int(name[1:]))
    alive = connectivity.alive()
    assert dict(alive.stages) == {s: i for s, i in connectivity.stages.items() if s in reached}
    assert alive.alive() == alive


# --- files ---------------------------------------------------------------------------------------


@given(any_wirings())
@settings(max_examples=30, deadline=None)
def test_a_file_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, connectivity: Connectivity
) -> None:
    path = tmp_path_factory.mktemp("wiring") / "found.json"
    path.write_text(json.dumps(connectivity.to_json()))
    assert Connectivity.load(path) == connectivity


def test_a_file_keeps_backbone_and_origin(tmp_path: Path) -> None:
    origin = {"threshold": 0.001, "seed": 3}
    connectivity = Connectivity("x", (2, 4), {1: ("E2", "G")}, "resnet10t", origin)
    (tmp_path / "x.json").write_text(json.dumps(connectivity.to_json()))
    loaded = Connectivity.load(tmp_path / "x.json")
    assert (loaded.name, loaded.backbone, loaded.origin) == ("x", "resnet10t", origin)


VALID: dict[str, Any] = {
    "format": 1,
    "name": "x",
    "encoder": {"backbone": "b", "strides": [2, 4]},
    "stages": {"1": ["E1", "E2"]},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": {"1": ["E3"]}}, "stage 1 cannot take E3"),
        ({"stages": {"1": []}}, "stage 1, the output, has no input"),
        ({"stages": {"one": ["E1"]}}, "'one'"),
        ({"stages": ["E1"]}, "not a connectivity"),
        ({"stages": {"1": 5}}, "not a connectivity"),
        ({"encoder": {"backbone": "b"}}, "strides"),
        ({"encoder": 3}, "not a connectivity"),
        ({"encoder": {"strides": ["two"]}}, "two"),
        ({"format": 2}, "not format 1"),
        ({"fromat": 1}, "unknown key fromat; the keys are encoder, format, name, origin, stages"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(VALID | change))
    with pytest.raises(UsageError) as caught:
        Connectivity.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("missing", ["format", "name", "encoder", "stages"])
def test_a_missing_key_is_an_error(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps({k: v for k, v in VALID.items() if k != missing}))
    with pytest.raises(
        UsageError, match="wrong.json.*" + ("format 1" if missing == "format" else missing)
    ):
        Connectivity.load(path)


@pytest.mark.parametrize("content", [json.dumps(VALID)[:-9], "", "[1, 2]", "7", "\udcff"])
def test_a_truncated_file_and_one_without_an_object_are_errors(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "wrong.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UsageError) as caught:
        Connectivity.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.json: no such connectivity file"):
        Connectivity.load(tmp_path / "no.json")
    with pytest.raises(UsageError, match="not a readable connectivity file"):
        Connectivity.load(tmp_path)


# --- transfer ------------------------------------------------------------------------------------


def test_transfer_to_the_same_strides_changes_nothing() -> None:
    connectivity = preset("sparsemask", MOBILENETV2)
    moved = connectivity.transfer(MOBILENETV2, "another")
    assert moved.stages == connectivity.stages
    assert moved.backbone == "another"


def test_transfer_to_a_map_a_stride_merges_the_stages_of_one_stride() -> None:
    # ResNet: E9, E8 and E7 all become E5, and so D8 and D7 become D5; E6 → E4, D6 → D4; E1 → E1
    moved = preset("sparsemask", (2, 4, 8, 16, 32))
    assert as_sets(moved) == {
        5: {"E5", "G"},
        4: {"E4", "G"},
        1: {"E5", "G", "D5", "E4", "D4", "E1"},
    }


def test_transfer_drops_the_stride_that_the_backbone_lacks() -> None:
    # ConvNeXt has no stride 2: E1 is gone, and D1 has the size of stride 4
    moved = preset("sparsemask", (4, 8, 16, 32))
    assert as_sets(moved) == {
        4: {"E4", "G"},
        3: {"E3", "G"},
        1: {"E4", "G", "D4", "E3", "D3"},
    }


def test_transfer_to_more_maps_a_stride_matches_from_the_deepest() -> None:
    moved = preset("sparsemask", (2, 2, 2, 4, 8, 16, 16, 16, 32, 32, 32, 32))
    # E9, E8, E7 → E12, E11, E10; E6 → E8; E1, the second of stride 2 from below, → E2
    assert as_sets(moved) == {
        11: {"E12", "G"},
        10: {"E10", "G"},
        8: {"E8", "G"},
        1: {"E12", "G", "E11", "E10", "D11", "E8", "D10", "D8", "E2"},
    }


def test_transfer_leaves_something_to_read_where_no_stride_fits() -> None:
    moved = wiring({1: ("E1", "D2"), 2: ("E2",)}, (2, 4)).transfer((8, 16))
    assert as_sets(moved) == {1: {"E2"}}
    # D1 keeps a stage of its stride, but that one has nothing to read
    chain = wiring({1: ("D2",), 2: ("D3",), 3: ("E4",)}, (2, 4, 8, 16))
    assert as_sets(chain.transfer((2, 4, 8, 32))) == {1: {"E4"}}


def test_transfer_tells_what_became_of_every_connection() -> None:
    carried = preset("unet-connectivity", (2, 2, 4, 8)).carry((4, 4, 8, 16), "other")
    assert carried.partner == {3: 2, 4: 3}
    # D3 → D2 and D4 → D3; D1 loses E1 (stride 2) and D2, which is dropped with its inputs
    assert carried.lost == {
        (1, "E1"): "no feature of stride 2",
        (1, "D2"): "no feature of stride 2",
        (2, "E2"): "no feature of stride 2",
        (2, "D3"): "no feature of stride 2",
        (3, "E3"): "nothing reaches D1 through D2",
        (3, "D4"): "nothing reaches D1 through D2",
        (4, "E4"): "nothing reaches D1 through D3",
    }
    assert carried.moved == {}
    assert as_sets(carried.wiring) == {1: {"E4"}}
    assert carried.wiring.backbone == "other"


def test_transfer_tells_of_stages_that_fall_together() -> None:
    source = wiring({5: ("E5",), 4: ("D5", "E4"), 1: ("D4", "G")}, (2, 4, 8, 16, 16))
    carried = source.carry((2, 4, 8, 16))
    assert carried.lost == {(4, "D5"): "both ends are D4 now"}
    assert carried.moved == {
        (5, "E5"): (4, "E4"), (4, "E4"): (4, "E4"), (1, "D4"): (1, "D4"), (1, "G"): (1, "G"),
    }  # fmt: skip
    dead = wiring({3: (), 1: ("D3", "E1")})
    assert dead.carry(dead.strides).wiring.stages == dead.stages
    cut = wiring({3: ("D4",), 4: ("E5",), 1: ("D3", "E1")}, (2, 4, 8, 16, 32))
    assert cut.carry((2, 4, 8, 16)).lost == {
        (3, "D4"): "nothing reaches D1 through D3",
        (4, "E5"): "no feature of stride 32",
        (1, "D3"): "nothing reaches D1 through D3",
    }


@given(any_wirings(), stride_lists())
@settings(max_examples=100, deadline=None)
def test_every_connection_is_moved_or_lost_with_a_reason(
    connectivity: Connectivity, strides: tuple[int, ...]
) -> None:
    def pairs(c: Connectivity) -> set[tuple[int, str]]:
        return {(s, n) for s, inputs in c.stages.items() for n in inputs}

    carried = connectivity.carry(strides)
    assert set(carried.moved) | set(carried.lost) == pairs(connectivity)
    assert not set(carried.moved) & set(carried.lost)
    fallback = set() if carried.moved else {(1, f"E{len(strides)}")}
    assert set(carried.moved.values()) | fallback == pairs(carried.wiring)
    assert all(carried.lost.values())


@given(any_wirings(), stride_lists())
@settings(max_examples=150, deadline=None)
def test_transfer_gives_a_valid_wiring_that_adds_nothing(
    connectivity: Connectivity, strides: tuple[int, ...]
) -> None:
    moved = connectivity.transfer(strides)
    assert moved.strides == strides
    assert moved.stages[1]
    assert Connectivity("again", strides, moved.stages).connections == moved.connections
    if strides == connectivity.strides:
        assert moved.stages == connectivity.stages
        return
    assert moved.alive() == moved
    assert moved.connections <= connectivity.connections

    def kinds(c: Connectivity) -> set[tuple[int, str, int]]:
        """Stride of the stage (0: the output), kind and stride of its input."""
        return {
            (0 if s == 1 else c.strides[s - 1], n[0], 0 if n == "G" else c.strides[int(n[1:]) - 1])
            for s, inputs in c.stages.items()
            for n in inputs
        }

    # a stage of the source may become the output where the backbone has no finer map
    known = kinds(connectivity) | {(0, kind, stride) for _, kind, stride in kinds(connectivity)}
    fallback = {(0, "E", strides[-1])}
    assert kinds(moved) <= known | (fallback if moved.connections == 1 else set())
