"""What reading a result adds to it."""

import pytest

from benchmark.leaderboard.boards import boards
from benchmark.results.checks import checked
from benchmark.results.result import Result
from tests.support import result

EDGES = "bsds500/edges/test/ods/320x480"
ROOMS = "scenes/depth/test/abs_rel/96x96"


SCORES = {"columns": ["m"], "higher_is_better": {"m": True}, "metrics": {"m": 0.5},
          "constant": {"metrics": {"m": 0.1}}}  # fmt: skip


def read(protocol: str, **fields: object) -> Result:
    return checked(result(protocol=protocol, **{**SCORES, **fields}).model_dump(mode="json"))


@pytest.mark.parametrize(
    ("written", "protocol"),
    [
        (EDGES, f"{EDGES}/largest-pairing"),
        (f"{EDGES}+flip/first4", f"{EDGES}+flip/first4/largest-pairing"),
        (f"{EDGES}/largest-pairing", f"{EDGES}/largest-pairing"),
        (f"{EDGES}/first4/least-distance", f"{EDGES}/first4/least-distance"),
        (ROOMS, ROOMS),
        ("", ""),
    ],
)
def test_a_protocol_names_the_rules_of_scoring(written, protocol):
    assert read(written).protocol == protocol
    several = read("", tasks={"edges": {**SCORES, "protocol": written}})
    assert several.tasks["edges"].protocol == protocol


def test_results_of_other_rules_share_no_board():
    old, new = read(EDGES), read(f"{EDGES}/least-distance")
    assert [len(board.rows) for board in boards([old, new])] == [1, 1]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"runtime": "r" * 9_999}, "pairs: a runtime is longer than"),
        ({"tasks": {"segmentation": {"metrics": {"m": float("inf")}}}}, "pairs: a number above"),
        ({"tasks": {"segmentation": {"metrics": {"other": 1.0}}}}, "pairs: no m"),
        ({"tasks": {"edges": {"metrics": {"m": 1.0}, "intervals": {"m": [0, 1e308]}}}}, "pairs"),
        ({"costs": {"edges": {"metric": "m", "higher_is_better": True, "reference": 0, "value": 0,
                              "difference": float("inf"), "interval": None, "worse": None,
                              "within": True}}}, "pairs"),
    ],
)  # fmt: skip
def test_scores_of_runtimes_are_checked(changed, why):
    pair = {"runtime": "eager", "precision": "f32"}
    assert read(EDGES, pairs=[pair]).pairs[0].runtime == "eager"
    with pytest.raises(ValueError, match=why):
        read(EDGES, pairs=[pair | changed])
