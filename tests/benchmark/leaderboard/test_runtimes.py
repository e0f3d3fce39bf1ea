"""Rows of a board in the runtimes and precisions that their runs were scored and timed in."""

import csv
import io
import json

import pytest

from benchmark.leaderboard.boards import boards
from benchmark.leaderboard.overall import overall
from benchmark.leaderboard.recommend import recommend
from benchmark.leaderboard.runtimes import in_pair, with_runtimes
from benchmark.report.files import as_csv, as_json, markdown
from benchmark.results.light import Lightener
from benchmark.results.result import Calibration, PairScores, TaskScores
from tests.support import result

PAIRS = [("eager", "f32"), ("openvino", "f32"), ("openvino", "int8")]


def pair(runtime, precision, value, ms=None, task="segmentation", **values):
    scores = TaskScores(
        columns=["m"],
        higher_is_better={"m": True},
        metrics={"m": value, "other": 0.25},
        intervals={"m": (value - 0.01, value + 0.01)},
    )
    speed = None if ms is None else {"median_ms": ms, "fps": 1000 / ms, "session": "s"}
    return PairScores(
        runtime=runtime, precision=precision, tasks={task: scores}, speed=speed, **values
    )


def shipped(decoder, value, ms, seed=0, **values):
    """A run of ``ms``, its pairs three and four times as fast, int8 0.05 worse."""
    return result(
        decoder, seed, value=value,
        intervals={"m": (value - 0.01, value + 0.01)},
        speed={"median_ms": ms, "fps": 1000 / ms, "session": "s"},
        pairs=[pair("eager", "f32", value, ms), pair("openvino", "f32", value, ms / 3),
               pair("openvino", "int8", value - 0.05, ms / 4),
               PairScores(runtime="onnxruntime", precision="bf16", reason="no")],
        **values,
    )  # fmt: skip


def named(board):
    return [(row.decoder, row.runtime, row.precision) for row in board.rows]


def test_a_row_for_each_pair_ranked_among_the_others():
    (plain,) = boards([shipped("a", 0.6, 12), shipped("b", 0.4, 6)])
    board = with_runtimes(plain)
    assert named(board) == [("a", *PAIRS[0]), ("a", *PAIRS[1]), ("a", *PAIRS[2]),
                            ("b", *PAIRS[0]), ("b", *PAIRS[1]), ("b", *PAIRS[2])]  # fmt: skip
    assert [row.rank for row in board.rows] == [1, 1, 3, 4, 4, 6]
    assert [row.latency_ms for row in board.rows] == [12, 4, 3, 6, 2, 1.5]
    assert [row.fps for row in board.rows][:3] == pytest.approx([1000 / 12, 250, 1000 / 3])
    assert [row.metrics["m"] for row in board.rows][:3] == pytest.approx([0.6, 0.6, 0.55])
    assert ["latency" in row.pareto for row in board.rows] == [False, True, True, False, True, True]
    assert [row.name for row in board.rows][1:3] == ["a in openvino f32", "a in openvino int8"]
    # and the board of the runs stays as it was
    assert named(plain) == [("a", "", ""), ("b", "", "")]
    assert [row.pareto for row in plain.rows] == [["latency", "params", "macs"], ["latency"]]


def test_the_command_repeats_the_row():
    run = shipped("a", 0.6, 12, command="python cli.py run --decoder a")
    run.pairs[2].calibration = Calibration(asked=9, images=8, split="train", kept_in_float=[])
    rows = with_runtimes(boards([run])[0]).rows
    assert [row.command.partition(" a")[2] for row in rows] == [
        "", " --runtime openvino --precision f32",
        " --runtime openvino --precision int8 --calibrate 9",
    ]  # fmt: skip


def test_a_pair_that_a_seed_lacks_has_no_row():
    """A mean over one of two seeds would stand beside means over both."""
    runs = [shipped("a", 0.6, 12), shipped("a", 0.62, 12, seed=1)]
    board = with_runtimes(boards(runs)[0])
    assert [row.seeds for row in board.rows] == [[0, 1]] * 3
    assert board.rows[1].metrics["m"] == pytest.approx(0.61)
    assert board.rows[1].spread["m"] == pytest.approx(0.02 / 2**0.5)
    runs[1].pairs = runs[1].pairs[:1]
    assert named(with_runtimes(boards(runs)[0])) == [("a", "", "")]


def test_a_board_without_pairs_stays_the_same():
    (board,) = boards([result("a"), result("b", status="failed", error="no")])
    assert with_runtimes(board) is board
    (board,) = boards([shipped("a", 0.6, 12), result("b", status="failed", error="no")])
    last = with_runtimes(board).rows[-1]
    assert (last.decoder, last.error, last.runtime) == ("b", "no", "")


def test_a_pair_that_is_not_timed_is_in_no_front_of_latency():
    run = shipped("a", 0.6, 12)
    run.pairs = [pair("openvino", "f32", 0.7)]
    board = with_runtimes(boards([run])[0])
    assert [(row.runtime, row.latency_ms) for row in board.rows] == [
        ("openvino", None), ("eager", 12)
    ]  # fmt: skip
    assert "latency" not in board.rows[0].pareto


def test_recommend_takes_the_timed_pair():
    (board,) = boards([shipped("a", 0.6, 12), shipped("b", 0.4, 6)])

    def best(most):
        row = recommend(with_runtimes(board), {"latency": most}).best
        return row and (row.decoder, row.runtime, row.precision)

    assert best(12) == ("a", "openvino", "f32")  # as good as eager, and faster
    assert best(3.5) == ("a", "openvino", "int8")
    assert best(2.5) == ("b", "openvino", "f32")
    assert best(1) is None


def test_files_hold_the_rows_and_what_they_run_in():
    tables = [with_runtimes(board) for board in boards([shipped("a", 0.6, 12)])]
    rows = list(csv.DictReader(io.StringIO(as_csv(tables))))
    assert [(row["runtime"], row["precision"]) for row in rows] == PAIRS
    (board,) = json.loads(as_json(tables))["boards"]
    assert [row["latency ms"] for row in board["rows"]] == [12, 4, 3]
    assert "| a in openvino int8 |" in markdown(tables)


def test_tables_across_boards_are_of_the_runs():
    """A runtime is not another network: it must not move the mean rank of the others."""
    runs = [shipped("a", 0.6, 12), shipped("b", 0.4, 6)]
    other = [
        shipped("a", 0.6, 12, protocol="q", options={"dataset": "voc2012"}),
        shipped("b", 0.4, 6, protocol="q", options={"dataset": "voc2012"}),
    ]
    (table,) = overall(boards([*runs, *other]))
    assert [(row.label, row.mean_rank) for row in table.rows] == [("a", 1.0), ("b", 2.0)]


def test_light_copies_give_the_same_rows():
    runs = [shipped("a", 0.6, 12), shipped("b", 0.4, 6)]
    light = Lightener()
    tables = [[with_runtimes(board) for board in boards(some)] for some in (runs, map(light, runs))]
    assert as_json(tables[0]) == as_json(tables[1])


def test_pairs_have_no_vote_on_the_session():
    """One network that was timed in nine ways must not make those of the others stand apart."""
    plain = [
        result(name, value=value, speed={"median_ms": 10.0, "fps": 100.0, "session": "first"})
        for name, value in (("b", 0.5), ("c", 0.45))
    ]
    board = with_runtimes(boards([*plain, shipped("a", 0.6, 12)])[0])
    assert board.sessions == ["first"]
    marked = {row.decoder for row in board.rows if board.other_session(row)}
    assert marked == {"a"}


def test_scores_of_the_cpu_have_no_row_on_a_gpus_board():
    run = shipped("a", 0.6, 12, options={"device": "cuda"})
    for one in run.pairs:
        one.speed = None
    assert named(with_runtimes(boards([run])[0])) == [("a", "", "")]


def test_memory_is_of_the_runs_and_the_dearer_row_is_of_another_network():
    runs = [shipped("a", 0.6, 12), shipped("b", 0.8, 60)]
    for run in runs:
        run.speed["peak_memory_mb"] = 5.0
    board = with_runtimes(boards(runs)[0])
    choice = recommend(board, {"memory": 9})
    assert (choice.best.decoder, choice.unknown) == ("b", [])
    choice = recommend(board, {"latency": 3.5})
    assert (choice.best.name, choice.dearer.name) == ("a in openvino int8", "b in openvino int8")


def test_what_ships_is_no_better_than_a_constant_either():
    """The best constant is 0.125; `recommend --speed` takes such a row without ranking it anew."""
    (board,) = boards([shipped("a", 0.1, 12)])
    assert in_pair(board, board.rows[0], PAIRS[1]).beats_constant is False
