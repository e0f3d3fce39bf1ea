"""A leaderboard's cells as text, and as tables for the terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import JustifyMethod
from rich.table import Table

from benchmark.leaderboard.rows import Board, Overall, OverallRow, Row
from benchmark.results.result import PairScores, TaskScores
from common.words import DISTURBED, cell, count_of, disturbed_note, number, quantity
from tasks.metrics.names import metric_title

INTERVAL = "95 % of images"
SPREAD = "± seeds"
GAIN = "Δm %"
FRONT = "front"
NECK = "neck: M params / GMACs / ms"
COSTS = {"latency": "ms", "params": "params", "macs": "MACs", "memory": "MB"}
PARTS = ("backbone", "decoder", "head")

MOST_ROWS = 200
"""Rows of a board on a terminal; more would scroll off the screen."""


def _one_backbone(board: Board) -> str | None:
    names = {row.backbone for row in board.rows}
    return names.pop() if len(names) == 1 else None


def heading(board: Board) -> str:
    """Title of a board, with the backbone if all rows share it."""
    backbone = _one_backbone(board)
    return f"{board.title}, {backbone}" if backbone else board.title


def header(board: Board) -> list[str]:
    """Column titles of a board."""
    metrics = [metric_title(name, board.higher_is_better[name]) for name in board.columns]
    labels = ["", "decoder"] if _one_backbone(board) else ["", "decoder", "backbone"]
    sizes = ["FPS", "ms", "M params: backbone+decoder+head", *([NECK] if _necks(board) else [])]
    sizes.append("GMACs")
    sizes += [*(["MB"] if _memory(board) else []), FRONT, "wall s"]
    spread = [SPREAD] if _several_seeds(board) else []
    gain = [GAIN] if _joint(board) else []
    return [*labels, *metrics[:1], INTERVAL, *spread, *metrics[1:], *gain, *sizes]


def _memory(board: Board) -> bool:
    return any(row.memory_mb is not None for row in board.rows)


def _necks(board: Board) -> bool:
    return any(row.neck for row in board.rows)


def _joint(board: Board) -> bool:
    return any(row.delta_m is not None for row in board.rows)


def _several_seeds(board: Board) -> bool:
    return any(len(row.seeds) > 1 for row in board.rows)


@dataclass(frozen=True)
class Layout:
    """Facts on a board that all its rows need, computed once.

    backbone: the common one, None if there are several. several, joint, memory, necks: whether any
    row has several seeds, a gain, a memory, a neck. sessions: ``Board.sessions``.
    """

    backbone: str | None
    several: bool
    joint: bool
    memory: bool
    necks: bool
    sessions: list[str]

    @classmethod
    def of(cls, board: Board) -> "Layout":
        return cls(
            *(_one_backbone(board), _several_seeds(board), _joint(board), _memory(board)),
            *(_necks(board), board.sessions),
        )


def cells(board: Board, row: Row, layout: Layout | None = None) -> list[str]:
    """Cell texts of a row. layout: ``Layout.of(board)``, to compute it once for many rows."""
    layout = layout or Layout.of(board)
    labels = [str(row.rank or ("–" if row.source is None else "reported")), row.marked_name]
    if not layout.backbone:
        labels.append(row.backbone)
    several = layout.several
    if row.error is not None:
        metrics = [*("" for _ in board.columns), *([""] if several else []), "failed"]
    else:
        main = board.columns[0]
        interval = "" if row.source else "–".join(map(number, row.interval or (None, None)))
        spread = [f"{number(row.spread[main])} ({len(row.seeds)})" if row.seeds else ""]
        others = [number(row.metrics.get(name)) for name in board.columns[1:]]
        metrics = [number(row.metrics.get(main)), interval, *(spread if several else []), *others]
    mark = DISTURBED * bool(row.disturbed) + "*" * board.other_session(row, layout.sessions)
    partial = {part: number(row.params[part] / 1e6) for part in PARTS if part in row.params}
    params = "+".join(partial.get(part, "–") for part in PARTS) if partial else "–"
    sizes = [
        quantity(row.fps, 0) + mark,
        quantity(row.latency_ms, 1) + mark,
        params,
        *([_neck(row)] if layout.necks else []),
        quantity(row.macs / 1e9 if row.macs else None, 3),
        *([quantity(row.memory_mb, 1)] if layout.memory else []),
        " ".join(COSTS[cost] for cost in row.pareto),
        quantity(row.train_seconds, 0) if row.source is None else "–",
    ]
    gain = ["" if row.delta_m is None else f"{row.delta_m:+.1f}"] if layout.joint else []
    return [*labels, *metrics, *gain, *sizes]


def _neck(row: Row) -> str:
    if not row.neck:
        return "–"
    params, macs = (row.neck[name] for name in ("params", "macs"))
    parts = [number(params and params / 1e6), quantity(macs and macs / 1e9, 3)]
    return " / ".join([*parts, quantity(row.neck["ms"], 1)])


def table_rows(board: Board) -> list[list[str]]:
    """Cell texts of all rows; the last row is the best constant prediction."""
    layout = Layout.of(board)
    rows = [cells(board, row, layout) for row in board.rows]
    if not board.columns:
        return rows
    main, *others = (number(board.constant.get(name)) for name in board.columns)
    labels = ["", "best constant"] if _one_backbone(board) else ["", "best constant", ""]
    spread = [""] if _several_seeds(board) else []
    last = [*labels, main, "", *spread, *others]
    return [*rows, last + [""] * (len(header(board)) - len(last))]


def notes(board: Board) -> list[str]:
    """Notes below a board: scored images, sessions, sources and reasons of failures."""
    failed = [f"{r.label} on {r.backbone} failed: {_ended(r.error)}" for r in board.rows if r.error]
    if not board.columns:
        return failed
    data = f" (fingerprint {board.fingerprint})" if board.fingerprint else ""
    lines = [f"{board.test_images} scored images{data}.{_hypervolume(board)}"]
    if not board.main:
        lines.insert(0, "Another protocol: never ranked together with the board before.")
    sessions = board.sessions
    if any(board.other_session(row, sessions) for row in board.rows):
        lines.append("* timed in another session than the other rows: not comparable to a few %.")
    if shares := [row.disturbed for row in board.rows if row.disturbed]:
        lines.append(disturbed_note(max(shares), any(row.counts for row in board.rows)))
    lines += dict.fromkeys(
        f"{row.label} on {row.backbone} is timed and exported re-parameterised: "
        f"{row.deployed['params'] / 1e6:.3f} M parameters, {row.deployed['macs'] / 1e9:.3f} GMACs, "
        "which count in the fronts."
        for row in board.rows
        if row.deployed
    )
    if older := sum(row.drawn for row in board.measured):
        which = "Intervals" if older == len(board.measured) else f"Intervals of {older} rows"
        lines.append(f"{which} are of an earlier version: of images drawn with replacement.")
    sources = dict.fromkeys(row.source for row in board.rows if row.source)
    reported = [
        f"reported: {source}; as printed, another protocol, neither ranked nor in a front."
        for source in sources
    ]
    return lines + reported + failed


def _ended(text: str) -> str:
    """``text`` with a full stop at its end if it lacks one."""
    return text if text.rstrip().endswith((".", "!", "?")) else f"{text.rstrip()}."


def _hypervolume(board: Board) -> str:
    if not board.hypervolume:
        return ""
    shares = ", ".join(f"{COSTS[c]} {share:.3f}" for c, share in board.hypervolume.items())
    return f" Hypervolume of the fronts: {shares}."


def legend(boards: Sequence[Board]) -> str:
    """The meaning of the columns of all ``boards``."""
    lines = [
        "FPS, ms: median of one image, network and resizing to the input size, timed in turns in "
        "one process. MACs leave out interpolation, normalisation and element-wise work. 95 % of "
        "images: interval over the choice of scored images; a row shares the rank above if its "
        "interval overlaps that of the best row of the rank. ± seeds: standard deviation over "
        "(number of) seeds. wall s: build, train and score one run, without reading the data. "
        "front: no row of the board has a better score at the same or a lower cost of this kind."
    ]
    if any(map(_memory, boards)):
        lines.append("MB: peak memory of one forward above the weights.")
    if any(map(_necks, boards)):
        lines.append(
            "neck: of a backbone's learned neck alone; in GMACs and ms of the network, but neither "
            "in the backbone's parameters nor in the decoder's."
        )
    if any(board.hypervolume for board in boards):
        lines.append(
            "Hypervolume: share that a front dominates of the box from the best constant at the "
            "board's largest cost to its best score at no cost."
        )
    if any(map(_joint, boards)):
        lines.append(
            "Δm: a network of several tasks against the same one trained for each task alone, mean "
            "relative gain of the main metrics."
        )
    return " ".join(lines)


def overall_header(table: Overall) -> list[str]:
    """Column titles of a table across boards."""
    labels = ["", "decoder", *([] if _alike(table) else ["backbone"])]
    boards = [
        f"{title}: {metric_title(table.metric[title], table.higher_is_better[title])}"
        for title in table.boards
    ]
    return [*labels, "mean rank", GAIN, *boards]


def overall_rows(table: Overall) -> list[list[str]]:
    """Cell texts of all rows across boards."""
    several = not _alike(table)
    return [overall_cells(table, row, several) for row in table.rows]


def overall_cells(table: Overall, row: OverallRow, several: bool | None = None) -> list[str]:
    """Cell texts of a row across boards. several: whether the table has several backbones."""
    several = not _alike(table) if several is None else several
    labels = [str(row.rank or "–"), row.name, *([row.backbone] if several else [])]
    gain = "–" if row.delta_m is None else f"{row.delta_m:+.1f}"
    scores = [number(row.scores[title]) for title in table.boards]
    return [*labels, number(row.mean_rank, 2), gain, *scores]


def _alike(table: Overall) -> str | None:
    names = {row.backbone for row in table.rows}
    return names.pop() if len(names) == 1 else None


def overall_heading(table: Overall) -> str:
    """Title of a table across boards, with the backbone if all rows share it."""
    backbone = _alike(table)
    return f"All tasks, {backbone}" if backbone else "All tasks"


def overall_notes(table: Overall) -> list[str]:
    """Notes below a table across boards: its columns, and what incomplete rows lack."""
    lines = ["Mean rank over the boards, among the rows that have a score in each of them."]
    if table.baseline:
        lines.append(
            f"Δm: mean over the boards of the relative gain over {table.baseline} in per cent, "
            "above 0 is better."
        )
    families = dict.fromkeys(row.label for row in table.rows if row.label.endswith("-*"))
    lines += [
        f"{label}: of each board its wiring of such a name; of several, the data set's own."
        for label in families
    ]
    lacking: dict[tuple[str, ...], list[str]] = {}
    alike = _alike(table)
    for row in table.rows:
        if row.missing:
            backbone = "" if alike else f" on {row.backbone}"
            lacking.setdefault(tuple(row.missing), []).append(row.name + backbone)
    for missing, names in lacking.items():
        lines.append(f"No score of {', '.join(names)} in: {', '.join(missing)}.")
    return lines


def rich_overall(table: Overall) -> Table:
    """A terminal table of the first ``MOST_ROWS`` rows across boards."""
    left_out = len(table.rows) - MOST_ROWS
    more = [f"{left_out} more rows: overall.csv, which python cli.py report writes."]
    shown = Table(
        title=cell(f"{overall_heading(table)} · {table.title}"),
        caption=cell(" ".join([*overall_notes(table), *(more if left_out > 0 else [])])),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for title in overall_header(table):
        left = title in ("decoder", "backbone")
        shown.add_column(cell(title).replace(" on ", "\non "), justify="left" if left else "right")
    for texts in overall_rows(table)[:MOST_ROWS]:
        shown.add_row(*map(cell, texts))
    return shown


def rich_table(board: Board, width: int, explained: bool = True) -> Table:
    """A terminal table of the first ``MOST_ROWS`` rows of a board.

    If it is wider than ``width`` characters, it omits the fronts, then metrics from the last on.
    explained: whether the caption has the meaning of the columns.
    """
    titles = [
        cell(t).replace(": ", ":\n").replace("+d", "+\nd").replace(" of", "\nof")
        for t in header(board)
    ]
    rows = table_rows(board)
    left_out = len(rows) - MOST_ROWS
    if left_out > 0:
        rows = [*rows[: MOST_ROWS - 1], rows[-1]]
    wide = [
        max(len(line) for text in (title, *(row[i] for row in rows)) for line in text.split("\n"))
        for i, title in enumerate(titles)
    ]
    shown = list(range(len(titles)))
    first = titles.index(INTERVAL.replace(" of", "\nof")) + 1 + _several_seeds(board)
    metrics = list(range(first, first + len(board.columns) - 1))
    droppable = [*metrics, titles.index(FRONT)]
    while droppable and sum(wide[i] + 3 for i in shown) > width:
        shown.remove(droppable.pop())
    hidden = len(titles) - len(shown)
    more = [f"{hidden} more columns: python cli.py report, or a wider terminal."] if hidden else []
    if left_out > 0:
        more.append(f"{left_out} more rows: leaderboard.csv, which python cli.py report writes.")
    meaning = [legend([board])] if explained and board.columns else []
    table = Table(
        title=cell(f"{heading(board)} · {board.protocol}"),
        caption=cell(" ".join([*notes(board), *more, *meaning])),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 1),
        pad_edge=False,
    )
    for i in shown:
        left = titles[i] in ("decoder", "backbone")
        table.add_column(titles[i], justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(cell(row[i]) for i in shown))
    return table


def scores_table(scores: TaskScores) -> Table:
    """A terminal table of all metrics of one task."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("metric", "value", INTERVAL, ""):
        table.add_column(title, justify="left" if title == "metric" else "right")
    for name, value in scores.metrics.items():
        interval = "–".join(number(end, 4) for end in scores.intervals.get(name, ()))
        better = scores.higher_is_better.get(name)
        arrow = "" if better is None else "↑" if better else "↓"
        table.add_row(name, number(value, 4), interval, arrow)
    return table


def costs_tables(pairs: Sequence[PairScores], title: str = "") -> Iterator[Table]:
    """For each task a terminal table of what runtimes and precisions cost."""
    tasks = list(dict.fromkeys(name for row in pairs for name in row.costs))
    for task in tasks or [""]:
        notes = ["Differences from eager f32 on the same images."]
        notes += ["‡ worse than the precision allows: 0.5 %, int8 2 %."]
        notes += [_calibrated(row) for row in pairs if row.calibration]
        notes += [f"No {r.runtime} {r.precision}: {r.reason}." for r in pairs if r.reason]
        named = [part for part in (title, task if len(tasks) > 1 else "") if part]
        table = Table(
            title=cell(", ".join(named)) or None,
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            caption=cell("\n".join(notes)),
            caption_justify="left",
        )
        for column in ("runtime, precision", "", "difference", INTERVAL, "worse by", ""):
            side: JustifyMethod = "left" if column == "runtime, precision" else "right"
            table.add_column(column, justify=side)
        for row in pairs:
            cells = [f"{row.runtime} {row.precision}", "–"]
            if (cost := row.costs.get(task)) is not None:
                metric = metric_title(cost.metric, cost.higher_is_better)
                table.columns[1].header = cell(metric)
                ends = " to ".join(map(_signed, cost.interval or ()))
                share = "" if cost.worse is None else f"{round(100 * cost.worse, 2) + 0.0:.2f} %"
                cells[1:] = [number(cost.value, 4), _signed(cost.difference), ends, share]
                cells.append("" if cost.within else "‡")
            table.add_row(*map(cell, cells))
        yield table


def _signed(value: float) -> str:
    """Four digits after the point, and no sign of a zero."""
    return f"{value:+.4f}" if round(value, 4) else "0.0000"


def _calibrated(row: PairScores) -> str:
    assert row.calibration is not None
    kept = ", ".join(row.calibration.kept_in_float)
    return (
        f"{row.runtime} int8: ranges of {count_of(row.calibration.images, 'image')} of "
        f"{row.calibration.split}" + (f"; in float: {kept}." if kept else "; no layer in float.")
    )
