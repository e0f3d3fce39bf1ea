"""A recommendation, for the terminal."""

from collections.abc import Iterator, Mapping

from rich import box
from rich.table import Table

from benchmark.leaderboard.recommend import Recommendation, amount
from benchmark.leaderboard.rows import COSTS, Board, Row
from benchmark.report.tables import INTERVAL, name_of
from common.words import COST_NAMES, cell
from tasks.metrics.names import metric_name, metric_title

TITLES = {"latency": "ms", "params": "M params", "macs": "GMACs", "memory": "MB"}


def within(budgets: Mapping[str, float]) -> str:
    """The budgets in words."""
    parts = [f"{amount(cost, most)} {COST_NAMES[cost]}" for cost, most in budgets.items()]
    return f"within {' and '.join(parts)}" if parts else "without a budget"


def sentences(found: Recommendation, budgets: Mapping[str, float]) -> Iterator[str]:
    """The answer, whether others do as well, and what the reader must know besides."""
    board, best = found.board, found.best
    where = f"{board.title}, {board.machine}"
    if best is None:
        cheapest = found.cheapest
        costs = ", ".join(amount(cost, cheapest.cost(cost)) for cost in budgets)
        yield (
            f"{where}: nothing {within(budgets)}: the cheapest is {_name(cheapest)} with {costs}, "
            f"{_score(board, cheapest)}"
        )
        return
    yield (
        f"{where}: {within(budgets)} take {_name(best)}: {_score(board, best)}, "
        f"{amount(found.cost, best.cost(found.cost))}."
    )
    price = best.cost(found.cost) or 0.0
    cheaper = [row for row in found.tied if (row.cost(found.cost) or 0.0) < price]
    if cheaper:
        row, *others = cheaper
        also = f" (and of {len(others)} more)" if others else ""
        yield (
            f"Its interval overlaps that of {_name(row)}{also}, the cheapest of them: "
            f"{_score(board, row)}, {amount(found.cost, row.cost(found.cost))}."
        )
    elif found.tied:
        yield f"Intervals of {len(found.tied)} more within the budget overlap, at a higher cost."
    if found.dearer is None and not found.unknown:
        yield "No other row scores better, at any cost."
    shown = [row for row in (best, found.cheaper, found.dearer) if row]
    if found.cost == "latency" and len({tuple(row.sessions) for row in shown}) > 1:
        yield "These were timed in several sessions: latencies are not comparable to a few %."
    main = board.columns[0]
    if board.sign * (best.metrics[main] - board.constant[main]) <= 0:
        yield f"It is not better than the best constant prediction, {board.constant[main]:.3f}."
    if found.unknown:
        names = ", ".join(map(_name, found.unknown))
        yield f"Left out, for a cost of theirs was not measured: {names}."


def recommendation_table(found: Recommendation) -> Table:
    """The recommended row between the next cheaper and the next dearer one."""
    board = found.board
    rows = [("next cheaper", found.cheaper), ("recommended", found.best)]
    rows.append(("for more", found.dearer))
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
            cells = [title, name_of(row), row.backbone, f"{row.metrics[main]:.3f}", ends, *costs]
            table.add_row(*map(cell, cells))
    return table


def _name(row: Row) -> str:
    return f"{name_of(row)} on {row.backbone}"


def _score(board: Board, row: Row) -> str:
    main = board.columns[0]
    ends = f" ({row.interval[0]:.3f}–{row.interval[1]:.3f})" if row.interval else ""
    return f"{metric_name(main)} {row.metrics[main]:.3f}{ends}"
