"""Rows of a board in the runtimes and precisions that their runs were scored and timed in."""

from collections.abc import Sequence
from dataclasses import replace

from benchmark.leaderboard.boards import place_fronts, rank, row_of
from benchmark.leaderboard.rows import Board, Row
from benchmark.results.result import PairScores, Result
from benchmark.results.runtimes import Pair, pair_of


def with_runtimes(board: Board) -> Board:
    """``board`` with a further row for each runtime and precision, ranked among the others.

    A board without such scores is returned as it is. Scores of the CPU have no row on the board of
    another device, which did not time them.
    """
    further = [
        found
        for row in board.measured
        for pair in dict.fromkeys(pair.pair for run in row.runs for pair in run.pairs)
        if pair != plain_pair(row)
        and (found := in_pair(board, row, pair)) is not None
        and (found.latency_ms is not None or row.runs[0].config.device == "cpu")
    ]
    if not further:
        return board
    own = []
    for row in board.measured:
        runtime, precision = plain_pair(row)
        own.append(replace(row, runtime=runtime, precision=precision, pareto=[]))
    whole = replace(board, rows=[*own, *further], hypervolume={})
    rank(whole)
    place_fronts(whole)
    whole.rows += [row for row in board.rows if row.rank is None]
    return whole


def in_pair(board: Board, row: Row, pair: Pair) -> Row | None:
    """``row`` with what ``pair`` scored, and its time; None unless all runs were scored in it."""
    runs = [in_runtime(run, board.task, pair) for run in row.runs]
    if not runs or any(run is None for run in runs):
        return None
    known: Sequence[Result] = [run for run in runs if run is not None]
    if any(board.columns[0] not in run.metrics for run in known):
        return None
    columns = [name for name in board.columns if name in row.metrics]
    found = row_of(list(known), columns, row.settings)
    return replace(
        found,
        runtime=pair[0],
        precision=pair[1],
        shipped=True,
        counts=row.counts,
        rank=row.rank,
        beats_constant=row.beats_constant,
    )


def in_runtime(run: Result, task: str, pair: Pair) -> Result | None:
    """``run`` with the scores and the time of its network in ``pair``; None if it has none."""
    scored = scores_in(run, pair)
    if scored is None or task not in scored.tasks:
        return None
    scores = scored.tasks[task]
    options = f" --runtime {pair[0]} --precision {pair[1]}"
    if scored.calibration is not None:
        options += f" --calibrate {scored.calibration.asked}"
    return run.model_copy(
        update={
            "metrics": scores.metrics,
            "intervals": scores.intervals,
            "bootstrap": scores.bootstrap,
            "speed": scored.speed,
            "command": run.command + options,
        }
    )


def scores_in(run: Result, pair: Pair) -> PairScores | None:
    """What ``run`` was scored as in ``pair``; None if it was not."""
    return next((one for one in run.pairs if one.pair == pair and one.reason is None), None)


def plain_pair(row: Row) -> Pair:
    """The runtime and precision of the row's runs."""
    config = row.runs[0].config
    return pair_of(config.device, config.amp)
