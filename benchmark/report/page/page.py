"""All boards as one self-contained HTML page: tables, and a script that adds the plots."""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from benchmark.leaderboard.rows import Board, Overall, Row
from benchmark.leaderboard.runtimes import in_runtime
from benchmark.report.page.details import differing, row_data
from benchmark.report.page.rows import (
    RANGE,
    Column,
    Environments,
    Shown,
    columns_of,
    place_of,
    shown_rows,
)
from benchmark.report.page.strips import Pictures, pictures_of
from benchmark.report.page.wirings import Wirings
from benchmark.results.result import Result
from benchmark.results.store import load
from benchmark.wiring.names import lines
from benchmark.wiring.svg import wiring_svg
from common.limits import printable
from common.words import COST_NAMES, disturbed_note, number
from tasks.base import TASKS
from tasks.metrics.names import metric_name

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("dom.js", "table.js", "details.js", "charts.js", "page.js")
LIMIT = 1_450_000  # bytes of a page, pictures included
PICTURES = 700_000
ROWS = 400  # of all boards and tables together, about 3 kB each
NAMED = 4  # rows of rank 1 listed by name
CHEAPEST = (("the fastest", "latency", "ms"), ("the smallest", "params", "M parameters"))


@dataclass
class View:
    """A board as the template shows it."""

    board: Board
    number: int
    place: tuple[str, str, str, str]
    columns: list[Column]
    rows: list[Shown]
    constant: list[str]
    pictures: Pictures

    @property
    def left_out(self) -> int:
        """Number of rows that the page omits."""
        return len(self.board.rows) - len(self.rows)

    @property
    def disturbed(self) -> str:
        """What the mark of a disturbed latency means; empty without one."""
        shares = [shown.row.disturbed for shown in self.rows if shown.row.disturbed]
        counts = any(shown.row.counts for shown in self.rows)
        return disturbed_note(max(shares), counts) if shares else ""

    @property
    def hypervolume(self) -> list[tuple[str, str]]:
        """(Cost, value) pairs as text."""
        return [(COST_NAMES[cost], number(share)) for cost, share in self.board.hypervolume.items()]

    def name(self, shown: Shown) -> str:
        """A row's name, with its backbone only if the board has several."""
        several = any(column.key == "backbone" for column in self.columns)
        return shown.name if several else shown.name.removesuffix(f" on {shown.row.backbone}")

    @property
    def short(self) -> str:
        """A sentence on the rows of rank 1, and the fastest and smallest of several; "" if none."""
        first = [shown for shown in self.rows if shown.row.rank == 1 and shown.kind == "measured"]
        if not first:
            return ""
        names = ", ".join(self.name(shown) for shown in first[:NAMED])
        count = sum(row.rank == 1 for row in self.board.measured)
        more = f" and {count - NAMED} more" if count > NAMED else ""
        if len(first) == 1:
            return f"Rank 1: {names}."
        cheapest: dict[str, list[str]] = {}
        for word, key, unit in CHEAPEST:
            place = next((i for i, c in enumerate(self.columns) if c.key == key), None)
            costs = [
                (value, self.name(shown))
                for shown in first
                if place is not None
                and isinstance(value := shown.values[place], float | int)
                and shown.row.cost(key) is not None
            ]
            if costs:
                value, name = min(costs, key=lambda cost: cost[0])
                cheapest.setdefault(name, []).append(f"{word} ({number(value, None)} {unit})")
        ends = [f"{name} is {' and '.join(words)}" for name, words in cheapest.items()]
        costs_text = f"; of these {', '.join(ends)}" if ends else ""
        return f"Rank 1, intervals overlap: {names}{more}{costs_text}."


def page(boards: Sequence[Board], overall: Sequence[Overall], most: int = ROWS) -> str:
    """The page as HTML, deterministic for the same results; it makes no request.

    Every board is a table in the HTML, so that it can be read and searched without the script.
    Predictions are included for as many rows as fit into ``LIMIT``. If there are more than ``most``
    rows, each board shows its share of them, rows on a front first, then the best; the page states
    how many it omits.
    """
    runs = len({run.key for board in boards for row in board.rows for run in row.runs})
    wirings, environments = Wirings(), Environments()
    views = []
    counts = [len(board.rows) for board in boards]
    share = share_of([*counts, *(len(table.rows) for table in overall)], most)
    for place, board in enumerate(boards, 1):
        columns = columns_of(board)
        rows = shown_rows(_shortened(board, share), columns, wirings, environments, board.sessions)
        constant = _constant(board, columns)
        views.append(View(board, place, place_of(board), columns, rows, constant, Pictures()))
    _number_alike(views)
    facts: dict[str, Any] = {
        "views": views,
        "overall": [
            (replace(t, rows=t.rows[:share]), _across(t, views), max(0, len(t.rows) - share))
            for t in overall
        ],
        "wirings": [
            (drawn, Markup(wiring_svg(drawn.wiring, drawn.about)), lines(drawn.wiring))
            for drawn in wirings.drawn
        ],
        "environments": environments.distinct,
        "data": _island([_board_data(view) for view in views]),
        "runs": runs,
        "range_width": RANGE,
        "captions": {n: text for n in TASKS.names() if (text := TASKS.get(n).caption)},
        "number": number,
        "metric_name": metric_name,
        **_inlined(),
    }
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    template = environment.get_template("index.html.j2")
    bare = len(template.render(facts).encode())
    if bare > LIMIT and share > 1:  # many seeds, long texts
        return page(boards, overall, most * LIMIT // (bare + bare // 10))
    budget = min(PICTURES, LIMIT - bare)
    drawn = pictures_of([(view.place[0], view.rows) for view in views], budget)
    for view, pictures in zip(views, drawn, strict=True):
        view.pictures = pictures
    return template.render(facts)


def _shown(value: Any) -> Any:
    """``value``, without unprintable characters if it is a string; Jinja's ``finalize``."""
    return printable(value) if type(value) is str else value


def share_of(counts: Sequence[int], most: int) -> int:
    """The largest limit, at least 1, on each of ``counts`` that keeps their sum within ``most``."""
    left, share = most, 0
    for place, count in enumerate(sorted(counts)):
        share = max(1, left // (len(counts) - place))
        if count > share:
            return share
        left -= count
    return max(counts, default=share)


def _shortened(board: Board, count: int) -> Board:
    """``board`` with ``count`` of its rows, those on a front first, and their runs in full."""
    rows = board.rows
    if len(rows) > count:
        ordered = sorted(range(len(rows)), key=lambda i: (not rows[i].pareto, i))
        rows = [rows[i] for i in sorted(ordered[:count])]
    return replace(
        board, rows=[replace(row, runs=[_whole(r, row, board) for r in row.runs]) for row in rows]
    )


def _whole(run: Result, row: Row, board: Board) -> Result:
    """A run of ``row``, read again from its file if possible: a light result has no history."""
    result = load(run.folder) if run.folder is not None else None
    if result is None or result.key != run.key:
        return run
    result = result.by_task().get(board.task, result)
    if row.shipped:
        return in_runtime(result, board.task, (row.runtime, row.precision)) or run
    return result


def _breakable(name: str) -> Markup:
    """HTML of ``name`` that may break the line after ``_`` and dots."""
    return Markup(re.sub(r"([_.])(?=.)", r"\1<wbr>", str(escape(name))))


def _inlined() -> dict[str, Any]:
    """Style, script and the content security policy that admits them by their hashes."""
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    parts = [(TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS]
    script = '"use strict";\n{\n' + "".join(parts) + "}\n"
    policy = [
        "default-src 'none'",
        "img-src data:",
        f"style-src '{_hash(style)}'",
        f"script-src '{_hash(script)}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return {"style": Markup(style), "script": Markup(script), "policy": Markup("; ".join(policy))}


def _hash(text: str) -> str:
    return "sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _island(data: Any) -> Markup:
    """``data`` as JSON that cannot end the script element around it or start a comment."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _constant(board: Board, columns: Sequence[Column]) -> list[str]:
    """Cells of the best constant prediction's row; empty if it was not scored."""
    if not board.columns or not board.constant:
        return []
    cells = []
    for column in columns:
        name = column.key.removeprefix("m:") if column.key.startswith("m:") else ""
        cells.append(number(board.constant[name]) if name in board.constant else "")
    return cells


def _number_alike(views: Sequence[View]) -> None:
    """Append a number to the protocol of boards that differ only in their test images."""
    counts: dict[tuple[str, ...], int] = {}
    for view in views:
        count = counts[view.place] = counts.get(view.place, 0) + 1
        if count > 1:
            task, dataset, device, protocol = view.place
            view.place = (task, dataset, device, f"{protocol} ({count})")


def _across(table: Overall, views: Sequence[View]) -> dict[str, View]:
    """Board title → the main board on the machine of an overall table."""
    return {
        view.board.title: view
        for view in views
        if view.board.main and view.board.measured and view.board.machine == table.title
    }


def _board_data(view: View) -> dict[str, Any]:
    board = view.board
    fields = differing([shown.row for shown in view.rows])
    first = next((run.command for shown in view.rows for run in shown.row.runs), "")
    return {
        "place": view.place,
        "title": board.title,
        "fields": [name.replace("_", " ") for name in fields],
        "metrics": [metric_name(name) for name in board.columns],
        "columns": [
            {"key": c.key, "title": c.title, "better": c.better, "cost": c.cost}
            for c in view.columns
        ],
        "command": first,
        "rows": [
            {
                "decoder": shown.row.label,
                "backbone": shown.row.backbone,
                "settings": shown.row.settings,
                **_runs_in(shown.row),
                **row_data(shown, board, fields, first),
            }
            for shown in view.rows
        ],
    }


def _runs_in(row: Row) -> dict[str, str]:
    return {"runtime": row.runtime, "precision": row.precision} if row.runtime else {}
