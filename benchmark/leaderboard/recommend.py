"""The best network within a budget, from a board, with its neighbours on either side."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.leaderboard.boards import overlap
from benchmark.leaderboard.rows import Board, Row
from common.errors import UsageError, UserError
from common.limits import NUMBER, RESULT, LimitError, parse_json, read_bytes
from models.decoder_name import DecoderName

SETUP = ("hardware", "threads", "memory_format", "compiled", "amp")
"""What timings of one file must share."""
UNITS: Mapping[str, Mapping[str, float]] = {
    "latency": {"": 1, "ms": 1, "s": 1000, "us": 1e-3, "µs": 1e-3},
    "params": {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9},
    "macs": {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12},
    "memory": {"": 1, "kb": 1e-3, "mb": 1, "gb": 1e3},
}
"""Suffixes of a budget → what they count in the unit of ``Row.cost``."""
EXAMPLES = {"latency": "30ms", "params": "5M", "macs": "2G", "memory": "200MB"}


def parse_budget(cost: str, text: str) -> float:
    """A budget in the unit of ``Row.cost``: milliseconds, parameters, MACs or MB.

    Raises UsageError for what is no positive number with a known suffix.
    """
    found = re.fullmatch(r"\s*([0-9.eE+-]+?)\s*([a-zµ]*)\s*", text.strip(), re.IGNORECASE)
    try:
        value = float(found.group(1)) * UNITS[cost][found.group(2).lower()] if found else 0.0
    except (ValueError, KeyError):
        value = 0.0
    if not 0 < value < math.inf:
        raise UsageError(f"--{cost} {text}: not a budget such as {EXAMPLES[cost]}")
    return value


def choose_board(
    tables: Sequence[Board], task: str, dataset: str | None, device: str | None
) -> Board:
    """The main board of ``task``; dataset and device (a part of its name) where there are several.

    Raises UsageError that names what there is if that is none or several.
    """
    main = [b for b in tables if b.main and b.measured]
    found = [b for b in main if b.task == task]
    if not found:
        there = ", ".join(dict.fromkeys(b.task for b in main)) or "none"
        raise UsageError(f"--task {task}: no result: there are {there}")
    named = {b.title.partition(" on ")[2]: None for b in found}
    if dataset is not None:
        same = [b for b in found if dataset in (b.dataset, b.title.partition(" on ")[2])]
        if not same:
            raise UsageError(f"--dataset {dataset}: no result: there are {', '.join(named)}")
        found, named = same, {b.title.partition(" on ")[2]: None for b in same}
    if len(named) > 1:
        raise UsageError(f"several data sets: add --dataset, one of {', '.join(named)}")
    machines = [b.machine for b in found]
    if device is not None:
        exact = [b for b in found if b.machine.casefold() == device.casefold()]
        found = exact or [b for b in found if device.casefold() in b.machine.casefold()]
        if not found:
            raise UsageError(f"--device {device}: no result: there are {'; '.join(machines)}")
    if len(found) > 1:
        machines = [b.machine for b in found]
        raise UsageError(f"several devices: add --device, a part of one of {'; '.join(machines)}")
    return found[0]


@dataclass
class Recommendation:
    """What ``recommend`` found; rows of one board.

    cost: the one that orders the rows, the first budget's. best: None if nothing is within the
    budgets. cheaper: the best score within them at a lower cost. dearer: of better scores the one
    that exceeds the budgets least. tied: rows within the budget whose interval overlaps the best
    one's, the cheapest first. cheapest: of all. unknown: rows left out because a cost was not
    measured.
    """

    board: Board
    cost: str
    best: Row | None
    cheaper: Row | None
    dearer: Row | None
    tied: list[Row]
    cheapest: Row
    unknown: list[Row]


def recommend(board: Board, budgets: Mapping[str, float]) -> Recommendation:
    """The best row of ``board`` whose costs are all within ``budgets``.

    Without a budget, the best row; then costs are compared by latency, or by parameters where no
    row was timed. Raises UserError if a cost of the budget was measured of no row.
    """
    rows = board.measured
    timed = any(row.latency_ms is not None for row in rows)
    cost = next(iter(budgets), "latency" if timed else "params")
    known: list[Row] = []
    unknown: list[Row] = []
    for row in rows:
        measured = all(row.cost(name) is not None for name in budgets)
        (known if measured else unknown).append(row)
    if not known:
        names = [n for n in budgets if all(row.cost(n) is None for row in rows)] or [cost]
        raise UserError(f"{board.title}: {names[0]} was not measured: time the runs with --retime")

    def price(row: Row) -> float:
        value = row.cost(cost)
        return math.inf if value is None else value

    def excess(row: Row) -> float:
        """How far a row is outside the budgets, as a factor; without any, its cost."""
        shares = [(row.cost(name) or 0.0) / most for name, most in budgets.items()]
        return max(shares, default=price(row))

    def score(row: Row) -> float:
        return board.sign * row.metrics[board.columns[0]]

    within = [r for r in known if all((r.cost(n) or 0.0) <= most for n, most in budgets.items())]
    cheapest = min(known, key=lambda row: (price(row), -score(row)))
    if not within:
        return Recommendation(board, cost, None, None, None, [], cheapest, unknown)
    best = min(within, key=lambda row: (-score(row), price(row)))
    lower = [row for row in within if price(row) < price(best)]
    better = [row for row in known if score(row) > score(best)]
    tied = [r for r in within if r is not best and overlap(best.interval, r.interval)]
    return Recommendation(
        board=board,
        cost=cost,
        best=best,
        cheaper=min(lower, key=lambda row: (-score(row), price(row)), default=None),
        dearer=min(better, key=lambda row: (excess(row), -score(row)), default=None),
        tied=sorted(tied, key=price),
        cheapest=cheapest,
        unknown=unknown,
    )


def with_latencies(board: Board, path: Path) -> Board:
    """``board`` with the latencies of a file that ``speed --json`` wrote, one image at a time.

    A row takes the timing of its backbone with its arguments, decoder, image size and head; others
    have none then. Raises UsageError for a file that is none of those, has no row of the board, or
    holds timings of several devices or setups.
    """
    try:
        content = parse_json(read_bytes(path, RESULT))
        timed = [row for row in content if row.get("latency") and row["latency"]["batch"] == 1]
        timings = {
            _pair(row["backbone"], row["backbone_args"], row["decoder"], row["image_size"],
                  row["params"]["head"]): (_time(row, "median_ms"), _time(row, "fps"))
            for row in timed
        }  # fmt: skip
        setups = {tuple(row["latency"][name] for name in SETUP) for row in timed}
    except OSError as error:
        raise UsageError(f"--speed {path}: cannot be read ({error.strerror})") from error
    except LimitError as error:
        raise UsageError(f"--speed {path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"--speed {path}: not what `speed --json FILE` writes") from error
    if len(setups) > 1:
        raise UsageError(
            f"--speed {path}: timings of {len(setups)} devices or setups: write one file for each"
        )
    rows = []
    for row in board.measured:
        config = row.runs[0].config
        key = _pair(
            row.backbone, config.backbone_args, row.decoder, config.image_size or (),
            row.params.get("head", 0),
        )  # fmt: skip
        milliseconds, fps = timings.get(key, (None, None))
        rows.append(replace(row, latency_ms=milliseconds, fps=fps, sessions=[]))
    if all(row.latency_ms is None for row in rows):
        sizes = {"x".join(map(str, row.runs[0].config.image_size or ())) for row in rows}
        raise UsageError(
            f"--speed {path}: no network of {board.title} in it: time them with speed --image-size "
            f"{' --image-size '.join(sorted(sizes))} and --classes (1 but for segmentation)"
        )
    (setup,) = setups
    named = dict(zip(SETUP, setup, strict=True))
    return replace(
        board, rows=rows, device=named["hardware"], threads=named["threads"], amp=named["amp"]
    )


def _time(row: Mapping[str, Any], name: str) -> float:
    """A number of a timing. Raises ValueError for what is none."""
    value = row["latency"][name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < NUMBER:
        raise ValueError(f"{name} is no positive number")
    return float(value)


def _pair(
    backbone: str, arguments: Mapping[str, Any], decoder: str, size: Sequence[int], head: int
) -> tuple[Any, ...]:
    """What a timing of ``speed`` and a row of a board must share. head: its parameters."""
    label = DecoderName.parse(decoder).label
    return backbone, json.dumps(arguments, sort_keys=True), label, *size, head


def amount(cost: str, value: float | None) -> str:
    """A cost with its unit."""
    if value is None:
        return "–"
    size, unit, digits = {
        "latency": (1, " ms", 1),
        "params": (1e6, " M", 2),
        "macs": (1e9, " G", 3),
        "memory": (1, " MB", 1),
    }[cost]
    number = value / size
    return f"{number:.{digits}f}{unit}" if number >= 1 else f"{number:.3g}{unit}"
