"""The best network of a board within a budget, and its cheaper and dearer neighbours."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.experiment.config import RunConfig
from benchmark.leaderboard.boards import overlap
from benchmark.leaderboard.rows import Board, Row
from benchmark.leaderboard.runtimes import in_pair, plain_pair
from benchmark.results.runtimes import Pair
from common.errors import UsageError, UserError
from common.limits import NUMBER, RESULT, LimitError, parse_json, printable, read_bytes
from models.decoder_name import DecoderName

MACHINE = ("hardware", "threads")
SETUP = (*MACHINE, "memory_format", "compiled", "amp")
"""Fields that all timings of one file share; in runtimes and precisions only the machine's."""
Timing = tuple[float, float, float | None]
"""Milliseconds, images per second, the share that other work took."""
UNITS: Mapping[str, Mapping[str, float]] = {
    "latency": {"": 1, "ms": 1, "s": 1000, "us": 1e-3, "µs": 1e-3},
    "params": {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9},
    "macs": {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12},
    "memory": {"": 1, "kb": 1e-3, "mb": 1, "gb": 1e3},
}
"""Suffix of a budget → factor to the unit of ``Row.cost``."""
EXAMPLES = {"latency": "30ms", "params": "5M", "macs": "2G", "memory": "200MB"}


def parse_budget(cost: str, text: str) -> float:
    """A budget in the unit of ``Row.cost``: milliseconds, parameters, MACs or MB.

    Raises UsageError unless ``text`` is a positive number with a known suffix or none.
    """
    match = re.fullmatch(r"\s*([0-9.eE+-]+?)\s*([a-zµ]*)\s*", text.strip(), re.IGNORECASE)
    try:
        value = float(match.group(1)) * UNITS[cost][match.group(2).lower()] if match else 0.0
    except (ValueError, KeyError):
        value = 0.0
    if not 0 < value < math.inf:
        raise UsageError(f"--{cost} {text}: not a budget such as {EXAMPLES[cost]}")
    return value


def choose_board(
    tables: Sequence[Board], task: str, dataset: str | None, device: str | None
) -> Board:
    """The main board of ``task`` on ``dataset`` and ``device`` (or a part of its name).

    None matches any. Raises UsageError, with the choices, if no or several boards match.
    """
    main = [b for b in tables if b.main and b.measured]
    candidates = [b for b in main if b.task == task]
    if not candidates:
        tasks = ", ".join(dict.fromkeys(b.task for b in main)) or "none"
        raise UsageError(f"--task {task}: no result: there are {tasks}")
    datasets = {b.title.partition(" on ")[2]: None for b in candidates}
    if dataset is not None:
        same = [b for b in candidates if dataset in (b.dataset, b.title.partition(" on ")[2])]
        if not same:
            raise UsageError(f"--dataset {dataset}: no result: there are {', '.join(datasets)}")
        candidates, datasets = same, {b.title.partition(" on ")[2]: None for b in same}
    if len(datasets) > 1:
        raise UsageError(f"several data sets: add --dataset, one of {', '.join(datasets)}")
    machines = [b.machine for b in candidates]
    if device is not None:
        exact = [b for b in candidates if b.machine.casefold() == device.casefold()]
        candidates = exact or [b for b in candidates if device.casefold() in b.machine.casefold()]
        if not candidates:
            raise UsageError(f"--device {device}: no result: there are {'; '.join(machines)}")
    if len(candidates) > 1:
        machines = [b.machine for b in candidates]
        raise UsageError(f"several devices: add --device, a part of one of {'; '.join(machines)}")
    return candidates[0]


@dataclass
class Recommendation:
    """Rows of one board that ``recommend`` selects.

    cost: the cost that orders the rows, the first budget's. best: None if no row is within the
    budgets. cheaper: the row of lower cost with the best score. dearer: of other networks with a
    better score, the row that exceeds the budgets least. tied: rows within the budgets whose
    interval overlaps that of ``best``, cheapest first. cheapest: of all rows. unknown: rows that
    lack a cost of the budgets.
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
    """The best row of ``board`` whose costs are all within ``budgets``, and alternatives.

    Without budgets, ``cost`` is latency, or parameters if no row is timed (undisturbed). Raises
    UserError if no row has all costs of the budgets.
    """
    rows = board.measured
    timed = any(row.cost("latency") is not None for row in rows)
    cost = next(iter(budgets), "latency" if timed else "params")
    known: list[Row] = []
    unknown: list[Row] = []
    for row in rows:
        if all(row.cost(name) is not None for name in budgets):
            known.append(row)
        elif not (row.shipped and row.cost("memory") is None and "memory" in budgets):
            unknown.append(row)  # memory is of the runs only
    if not known:
        names = [n for n in budgets if all(row.cost(n) is None for row in rows)] or [cost]
        if names[0] == "latency" and any(row.disturbed for row in rows):
            raise UserError(
                f"{board.title}: latency was measured only while other work took the processors: "
                "time again on an idle machine (run --retime, or speed for a file of --speed), or "
                "take it as it is with --disturbed"
            )
        raise UserError(f"{board.title}: {names[0]} was not measured: time the runs with --retime")

    def price(row: Row) -> float:
        value = row.cost(cost)
        return math.inf if value is None else value

    def excess(row: Row) -> float:
        """The largest ratio of a cost to its budget; without budgets, the cost."""
        shares = [(row.cost(name) or 0.0) / most for name, most in budgets.items()]
        return max(shares, default=price(row))

    def score(row: Row) -> float:
        return board.sign * row.metrics[board.columns[0]]

    def network(row: Row) -> tuple[str, ...]:
        """What its runtimes and precisions share."""
        return row.backbone, row.label, row.settings

    within = [r for r in known if all((r.cost(n) or 0.0) <= most for n, most in budgets.items())]
    cheapest = min(known, key=lambda row: (price(row), -score(row)))
    if not within:
        return Recommendation(board, cost, None, None, None, [], cheapest, unknown)
    best = min(within, key=lambda row: (-score(row), price(row)))
    lower = [row for row in within if price(row) < price(best)]
    better = [r for r in known if score(r) > score(best) and network(r) != network(best)]
    tied = [
        row
        for row in within
        if row is not best
        and row.beats_constant == best.beats_constant
        and overlap(best.interval, row.interval)
    ]
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


def with_latencies(board: Board, path: Path, disturbed: bool = False) -> Board:
    """``board`` with latencies at batch size 1 from ``path``, a file of ``speed --json``.

    Rows and timings match by backbone and its arguments, decoder and its width, image size,
    channels and head; a row without a match has no latency. Where the file has runtimes and
    precisions, a row stands for each that its runs were scored in; f32 needs no score of its own.
    disturbed: see ``boards``. Raises UsageError if the file cannot be read, is no such file, holds
    timings of several devices or setups, or matches no row.
    """
    try:
        content = parse_json(read_bytes(path, RESULT))
        timed = [row for row in content if row.get("latency") and row["latency"]["batch"] == 1]
        timings: dict[Any, dict[Pair, Timing]] = {}
        for row in timed:
            network = _pair(row["backbone"], row["backbone_args"], row["decoder"],
                            row["image_size"], row["params"]["head"], row.get("in_channels", 3),
                            row.get("width"))  # fmt: skip
            time = _time(row, "median_ms"), _time(row, "fps"), _disturbed(row)
            timings.setdefault(network, {})[_runs_in(row)] = time
        setups = {
            tuple(row["latency"][name] for name in (MACHINE if _runs_in(row)[0] else SETUP))
            for row in timed
        }
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
    rows = [
        replace(row, sessions=[], counts=disturbed)
        for one in board.measured
        for row in _timed_rows(board, one, timings.get(_network(one), {}))
    ]
    if all(row.latency_ms is None for row in rows):
        raise UsageError(f"--speed {path}: {_why_none(board, timings)}")
    (setup,) = setups
    named = dict(zip(SETUP, setup, strict=False))
    return replace(
        board,
        rows=rows,
        device=named["hardware"],
        threads=named["threads"],
        amp=named.get("amp", False),
    )


def _runs_in(timing: Mapping[str, Any]) -> Pair:
    """A timing's runtime and precision; empty where it was timed without those options."""
    if "once" not in timing:
        return "", ""
    return printable(str(timing["runtime"]), 80), printable(str(timing["precision"]), 80)


def _timed_rows(board: Board, row: Row, timings: Mapping[Pair, Timing]) -> list[Row]:
    """``row`` in each runtime and precision that it is timed and scored in; without, untimed."""
    scored = {pair: _scored(board, row, pair) for pair in timings}
    unscored = [pair for pair, found in scored.items() if found is None]
    rows = []
    for pair, found in scored.items():
        if found is not None:
            milliseconds, fps, share = timings[pair]
            # the run's memory is of eager f32
            memory = row.memory_mb if pair in (("", ""), ("eager", "f32")) else None
            rows.append(
                replace(found, latency_ms=milliseconds, fps=fps, disturbed=share, sessions=[],
                        runtime=pair[0], precision=pair[1], memory_mb=memory, unscored=unscored)
            )  # fmt: skip
    untimed = replace(row, latency_ms=None, fps=None, disturbed=None, unscored=unscored)
    return rows or [untimed]


def _scored(board: Board, row: Row, pair: Pair) -> Row | None:
    """``row`` with its scores in ``pair``; f32 needs none of its own. None: not scored."""
    if not pair[0] or pair == plain_pair(row):
        return row
    found = in_pair(board, row, pair)
    return row if found is None and pair[1] == "f32" and not board.amp else found


def _why_none(board: Board, timings: Mapping[Any, Mapping[Pair, Timing]]) -> str:
    """Why no row of ``board`` has a latency, and what to do."""
    rows = board.measured
    pairs = {pair for row in rows for pair in timings.get(_network(row), ())}
    if pairs:
        options = "".join(f" --runtime {r} --precision {p}" for r, p in sorted(pairs))
        return (
            f"no network of {board.title} was scored in a runtime and precision that it was timed "
            f"in: repeat its run, or a part of it, with{options}"
        )
    sizes = {"x".join(map(str, row.runs[0].config.image_size or ())) for row in rows}
    taken = {channels(row.runs[0].config) for row in rows} - {3}
    more = "".join(f" --in-channels {count}" for count in sorted(taken))
    widths = {row.runs[0].config.width for row in rows} - {None}
    more += "".join(f" --width {width}" for width in sorted(filter(None, widths)))
    return (
        f"no network of {board.title} in it: time them with speed --image-size "
        f"{' --image-size '.join(sorted(sizes))}{more} and --classes (1 but for segmentation)"
    )


def _network(row: Row) -> tuple[Any, ...]:
    """What a timing of the row's network has too."""
    config = row.runs[0].config
    return _pair(
        row.backbone, config.backbone_args, row.decoder, config.image_size or (),
        row.params.get("head", 0), channels(config), config.width,
    )  # fmt: skip


def channels(config: RunConfig) -> int:
    """Channels of a run's images: it has a mean for each."""
    return len(config.mean or (0, 0, 0))


def _time(row: Mapping[str, Any], name: str) -> float:
    """A field of a timing. Raises ValueError unless it is a positive number."""
    value = row["latency"][name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < NUMBER:
        raise ValueError(f"{name}: expected a number above 0, got {printable(repr(value), 80)}")
    return float(value)


def _disturbed(row: Mapping[str, Any]) -> float | None:
    """The share that other work took while a row was timed; None if none, or if not known."""
    return _time(row, "disturbed") if row["latency"].get("disturbed") else None


def _pair(
    backbone: str, arguments: Mapping[str, Any], decoder: str, size: Sequence[int], head: int,
    in_channels: int, width: int | None,
) -> tuple[Any, ...]:  # fmt: skip
    """The key that matches a timing of ``speed`` to a row. head: parameters of the head."""
    label = DecoderName.parse(decoder).label
    return backbone, json.dumps(arguments, sort_keys=True), label, *size, head, in_channels, width


def amount(cost: str, value: float | None) -> str:
    """``value`` of ``cost`` with its unit; a dash for None."""
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
