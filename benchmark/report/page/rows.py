"""Columns and rows of a board's table on the page."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmark.leaderboard.rows import Board, Row
from benchmark.report.page.wirings import Wirings
from common.words import number
from tasks.metrics.names import metric_name

RANGE = 68  # width in pixels of an interval's picture


@dataclass
class Column:
    """A column of a board. better: 1 if higher is better, -1 if lower is, 0 for neither.

    text: whether it holds text, aligned left. cost: the cost whose front its marks show, or "".
    """

    key: str
    title: str
    value: Callable[[Row], Any]
    better: int = 0
    text: bool = False
    cost: str = ""
    about: str = ""


@dataclass
class Shown:
    """A row as the page shows it. cells, values: one for each column. key: its name in links.

    picture: low end, value and high end of the interval in pixels. wiring, environments: numbers in
    their sections of the page. other_session: ``Board.other_session``. worse: whether a measured
    row is no better than the best constant prediction.
    """

    row: Row
    key: str
    kind: str
    cells: list[str]
    values: list[float | str | None]
    picture: tuple[float, float, float] | None = None
    wiring: int | None = None
    environments: list[int] = field(default_factory=list)
    other_session: bool = False
    worse: bool = False

    @property
    def name(self) -> str:
        """Decoder, settings, runtime and backbone: the row's unique name on its board."""
        return f"{self.row.name} on {self.row.backbone}"


class Environments:
    """Collects the distinct environments of runs, as lists of (name, value) pairs."""

    def __init__(self) -> None:
        self.distinct: list[list[tuple[str, str]]] = []

    def place(self, environment: Mapping[str, Any]) -> int:
        """The index of an environment in ``distinct``, to which a new one is added."""
        facts = [(name.replace("_", " "), words(value)) for name, value in _flat(environment)]
        if facts not in self.distinct:
            self.distinct.append(facts)
        return self.distinct.index(facts)


def _flat(environment: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in environment.items():
        if isinstance(value, Mapping):
            yield from value.items()
        else:
            yield name, value


def words(value: Any) -> str:
    """A plain value as text for readers."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, list | tuple):
        return " × ".join(map(words, value)) if len(value) == 2 else ", ".join(map(words, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={words(item)}" for key, item in value.items()) or "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def rounded(value: float | None, digits: int = 5) -> float | None:
    """``value`` to ``digits`` significant digits; None if not finite, for JSON has no NaN."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def columns_of(board: Board) -> list[Column]:
    """The columns with a value in some row, the ranking metric right after the names."""

    def metric(name: str) -> Column:
        higher = board.higher_is_better[name]
        unit = next((r.units.get(name, "1") for row in board.rows for r in row.runs), "1")
        title = metric_name(name) + ("" if unit in ("1", "") else f" ({unit})")
        return Column(
            f"m:{name}", title, lambda row: row.metrics.get(name), 1 if higher else -1, about=name
        )

    several = {row.backbone for row in board.rows}
    columns = [
        Column("rank", "#", lambda row: row.rank, -1,
               about="rank; rows with overlapping intervals share it"),
        Column("decoder", "Decoder", lambda row: row.label, text=True),
        Column("backbone", "Backbone", lambda row: row.backbone, text=True),
    ]  # fmt: skip
    if len(several) == 1:
        columns.pop()
    if any(row.runtime for row in board.rows):
        columns += [
            Column("runtime", "Runtime", lambda row: row.runtime, text=True),
            Column("precision", "Precision", lambda row: row.precision, text=True),
        ]
    if not board.columns:
        return [*columns, Column("error", "Why it failed", lambda row: row.error, text=True)]
    main = board.columns[0]
    spread = Column("spread", "± seeds", lambda row: row.spread.get(main), -1,
                    about=f"standard deviation of {metric_name(main)} over seeds")  # fmt: skip
    columns += [metric(main), spread, *(metric(name) for name in board.columns[1:])]
    columns += [
        Column("gain", "Δm %", lambda row: row.delta_m, 1,
               about="mean relative gain over the networks of the single tasks"),
        Column("latency", "ms", lambda row: row.latency_ms, -1, cost="latency",
               about="median latency of one image"),
        Column("fps", "FPS", lambda row: row.fps, 1, about="images a second, one at a time"),
        Column("params", "M params", _millions, -1, cost="params",
               about="of the whole network, as deployed"),
        Column("params_trained", "M params in training", lambda row: _trained(row, "params", 1e6),
               -1, about="of the whole network, where they are others than deployed"),
        Column("decoder_params", "its decoder", _decoder_millions, -1,
               about="millions of parameters in the decoder alone"),
        Column("neck_params", "its neck", lambda row: _neck(row, "params", 1e6), -1,
               about="millions of parameters in the backbone's learned neck alone"),
        Column("neck_macs", "GMACs of its neck", lambda row: _neck(row, "macs", 1e9), -1,
               about="multiply-accumulates of the neck alone, in 10⁹"),
        Column("neck_ms", "ms of its neck", lambda row: _neck(row, "ms", 1), -1,
               about="median time of the neck alone"),
        Column("macs", "GMACs", _giga_macs, -1, cost="macs",
               about="multiply-accumulates of one image, in 10⁹, as deployed"),
        Column("macs_trained", "GMACs in training", lambda row: _trained(row, "macs", 1e9), -1,
               about="of one forward, where they are others than deployed"),
        Column("memory", "MB", lambda row: row.memory_mb, -1, cost="memory",
               about="peak memory of one forward above the weights"),
        Column("seconds", "run s", lambda row: row.train_seconds or None, -1,
               about="to build, train and score one run"),
    ]  # fmt: skip
    always = {"rank", "decoder", "backbone", "runtime", "precision", f"m:{main}"}
    return [
        column
        for column in columns
        if column.key in always or any(column.value(row) is not None for row in board.rows)
    ]


def _millions(row: Row) -> float | None:
    # published figures often count the decoder only
    return (row.cost("params") or 0) / 1e6 if "backbone" in row.params else None


def _giga_macs(row: Row) -> float | None:
    macs = row.cost("macs")
    return macs / 1e9 if macs else None


def _trained(row: Row, count: str, unit: float) -> float | None:
    """The count in training of a network that is deployed with another, else None."""
    trained = {"params": sum(row.params.values()), "macs": row.macs}[count]
    return trained / unit if count in row.deployed else None


def _neck(row: Row, count: str, unit: float) -> float | None:
    value = row.neck.get(count)
    return None if value is None else value / unit


def _decoder_millions(row: Row) -> float | None:
    return row.params["decoder"] / 1e6 if "decoder" in row.params else None


def kind_of(row: Row) -> str:
    """The kind of a row: measured, reported or failed."""
    if row.error is not None:
        return "failed"
    return "measured" if row.source is None else "reported"


def shown_rows(
    board: Board,
    columns: Sequence[Column],
    wirings: Wirings,
    environments: Environments,
    sessions: list[str],
) -> list[Shown]:
    """The rows of a board in its order. sessions: ``Board.sessions`` of the whole board."""
    main = board.columns[0] if board.columns else ""
    ends = [x for row in board.rows for x in _range(row, main)]
    low, high = (min(ends), max(ends)) if ends else (0.0, 0.0)

    def at(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return round(5 + share * (RANGE - 10), 1)

    result: list[Shown] = []
    for row in board.rows:
        raw = [column.value(row) for column in columns]
        shown = Shown(
            row,
            key=_key(row, result),
            kind=kind_of(row),
            cells=[_text(column, value) for column, value in zip(columns, raw, strict=True)],
            values=[x if isinstance(x, str) else rounded(x) for x in raw],
            wiring=wirings.place(row.runs[0].config, row.label) if row.runs else None,
            environments=[
                environments.place(run.environment)
                for run in row.runs
                if dict(_flat(run.environment))  # a failed run may have recorded none
            ],
            other_session=board.other_session(row, sessions),
            worse=row.rank is not None and not row.beats_constant,
        )
        if drawn := _range(row, main):
            shown.picture = (at(drawn[0]), at(drawn[1]), at(drawn[2]))
        result.append(shown)
    return result


def _range(row: Row, metric: str) -> tuple[float, ...]:
    """Low end, value and high end; () unless all are finite."""
    value = row.metrics.get(metric, math.nan)
    low, high = row.interval or (value, value)
    return (low, value, high) if all(map(math.isfinite, (low, value, high))) else ()


def _key(row: Row, before: Sequence[Shown]) -> str:
    base = row.runs[0].key if row.runs else f"{row.label} {row.backbone} {row.settings}".strip()
    if row.shipped:
        base = f"{base} {row.runtime} {row.precision}"
    taken = {shown.key for shown in before}
    key, copy = base, 2
    while key in taken:
        key, copy = f"{base} {copy}", copy + 1
    return key


def _text(column: Column, value: Any) -> str:
    if value is None:
        return "–"
    if column.text or column.key == "rank":
        return str(value)
    if column.key == "gain":
        return f"{value:+.1f}"
    return number(value, 3 if column.key[:2] == "m:" or column.key == "spread" else None)


def place_of(board: Board) -> tuple[str, str, str, str]:
    """Task, data set, device and protocol, by which a reader chooses a board."""
    dataset = board.title.removeprefix(f"{board.task} on ")
    if not board.columns:  # a failed run may not have reached its device
        return board.task, dataset, board.device, board.protocol
    return board.task, dataset, board.machine, board.protocol.removesuffix(f", {board.machine}")
