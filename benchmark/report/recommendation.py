"""A recommendation as sentences and as a table for the terminal."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace

from rich import box
from rich.table import Table

from benchmark.leaderboard.recommend import Recommendation, amount
from benchmark.leaderboard.rows import COSTS, Board, Row
from benchmark.leaderboard.runtimes import scores_in
from benchmark.report.tables import INTERVAL
from benchmark.results.runtimes import FILES
from common.words import COST_NAMES, cell
from tasks.metrics.names import metric_name, metric_title

TITLES = {"latency": "ms", "params": "M params", "macs": "GMACs", "memory": "MB"}


def within(budgets: Mapping[str, float]) -> str:
    """The budgets as text."""
    parts = [f"{amount(cost, most)} {COST_NAMES[cost]}" for cost, most in budgets.items()]
    return f"within {' and '.join(parts)}" if parts else "without a budget"


def sentences(result: Recommendation, budgets: Mapping[str, float]) -> Iterator[str]:
    """The recommended row, rows with overlapping intervals, and caveats, a sentence each."""
    board, best = result.board, result.best
    where = f"{board.title}, {board.machine}"
    if best is None:
        cheapest = result.cheapest
        costs = ", ".join(amount(cost, cheapest.cost(cost)) for cost in budgets)
        yield (
            f"{where}: nothing {within(budgets)}: the cheapest is {_name(cheapest)} with {costs}, "
            f"{_score(board, cheapest)}"
        )
        return
    price = best.cost(result.cost)
    at = "" if price is None else f", {amount(result.cost, price)}"
    yield f"{where}: {within(budgets)} take {_name(best)}: {_score(board, best)}{at}."
    if price is None:
        why = "was timed while other work ran" if best.disturbed else "was not measured"
        yield f"Its {COST_NAMES[result.cost]} {why}."
    cheaper = [r for r in result.tied if price and (r.cost(result.cost) or price) < price]
    if cheaper:
        row, *others = cheaper
        also = f" (and of {len(others)} more)" if others else ""
        yield (
            f"Its interval overlaps that of {_name(row)}{also}, the cheapest of them: "
            f"{_score(board, row)}, {amount(result.cost, row.cost(result.cost))}."
        )
    elif result.tied and price is not None:
        yield f"Intervals of {len(result.tied)} more within the budget overlap, at a higher cost."
    yield from _shipping(best)
    if result.dearer is None and not result.unknown:
        yield "No other row scores better, at any cost."
    shown = [row for row in (best, result.cheaper, result.dearer) if row]
    if result.cost == "latency" and len({tuple(row.sessions) for row in shown}) > 1:
        yield "These were timed in several sessions: latencies are not comparable to a few %."
    main = board.columns[0]
    if not best.beats_constant:
        yield f"It is not better than the best constant prediction, {board.constant[main]:.3f}."
    disturbed = [row for row in result.unknown if row.disturbed]
    for left_out, why in (
        (disturbed, "its latency was timed while other work ran (--retime, or --disturbed)"),
        (
            [row for row in result.unknown if not row.disturbed and not row.unscored],
            "a cost was not measured",
        ),
    ):
        if left_out:
            yield f"Left out because {why}: {', '.join(map(_name, left_out))}."
    yield from _unscored(board)


def _unscored(board: Board) -> Iterator[str]:
    """What is timed in a runtime and precision, and not scored in it."""
    lacking: dict[tuple[str, str], list[str]] = {}
    for row in board.measured:
        for pair in row.unscored:
            lacking.setdefault(pair, []).append(_name(replace(row, runtime="")))
    for (runtime, precision), names in lacking.items():
        networks = ", ".join(dict.fromkeys(names))
        yield (
            f"Left out in {runtime} {precision} because no score tells what it costs (run "
            f"--runtime {runtime} --precision {precision}): {networks}."
        )


def _shipping(row: Row) -> Iterator[str]:
    """How to get the file that the row was timed and scored as."""
    folder = row.runs[0].folder if row.runs else None
    if row.runtime not in FILES or folder is None:
        return
    pair = scores_in(row.runs[0], (row.runtime, row.precision))
    static = " --static" if pair is None or pair.static else ""
    calibration = None if pair is None else pair.calibration
    int8 = f" --int8 --calibrate {calibration.asked}" if calibration else ""
    hint = ""
    if row.runtime == "openvino":  # by itself it takes bf16 wherever the processor has it
        kind = "bf16" if row.precision == "bf16" else "f32"
        hint = f", to be compiled with INFERENCE_PRECISION_HINT={kind}"
    checkpoint = shlex.quote(str(folder))
    options = f"--checkpoint {checkpoint}{static}{int8} -o net.onnx"
    yield f"The file of {row.name} on {row.backbone}{hint}: python cli.py export {options}"


def recommendation_table(result: Recommendation) -> Table:
    """The recommended row between its cheaper and dearer neighbours."""
    board = result.board
    rows = [("next cheaper", result.cheaper), ("recommended", result.best)]
    rows.append(("for more", result.dearer))
    shown = [cost for cost in COSTS if any(r and r.cost(cost) is not None for _, r in rows)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    main = board.columns[0]
    for title in ("", "decoder", "backbone"):
        table.add_column(title, overflow="fold")
    metric = cell(metric_title(main, board.higher_is_better[main]))
    for title in (metric, INTERVAL, *(TITLES[cost] for cost in shown)):
        table.add_column(title, justify="right")
    for title, row in rows:
        if row is not None:
            ends = "–".join(f"{end:.3f}" for end in row.interval or ())
            costs = [amount(cost, row.cost(cost)).partition(" ")[0] for cost in shown]
            cells = [title, row.marked_name, row.backbone, f"{row.metrics[main]:.3f}", ends, *costs]
            table.add_row(*map(cell, cells))
    return table


def _name(row: Row) -> str:
    return f"{row.marked_name} on {row.backbone}"


def _score(board: Board, row: Row) -> str:
    main = board.columns[0]
    ends = f" ({row.interval[0]:.3f}–{row.interval[1]:.3f})" if row.interval else ""
    return f"{metric_name(main)} {row.metrics[main]:.3f}{ends}"
