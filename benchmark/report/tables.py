"""A leaderboard as Markdown, CSV and JSON, and as a table for the terminal."""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from benchmark.leaderboard import Board, Row
from benchmark.results import TaskScores
from common.files import write_atomic

INTERVAL = "95 % of images"
SPREAD = "± seeds"
GAIN = "Δm %"
NAMES = {"miou": "mIoU", "macc": "mAcc", "aacc": "aAcc", "delta1": "δ1", "delta2": "δ2",
         "delta3": "δ3", "maxf": "maxF", "meanf": "meanF", "mae": "MAE", "smeasure": "S",
         "maxe": "maxE", "abs_rel": "AbsRel", "rmse": "RMSE", "silog": "SILog", "ods": "ODS",
         "ois": "OIS", "ap": "AP", "r50": "R50"}  # fmt: skip


def _one_backbone(board: Board) -> str | None:
    names = {row.backbone for row in board.rows}
    return names.pop() if len(names) == 1 else None


def heading(board: Board) -> str:
    """What the board compares; the backbone too where all rows share it."""
    backbone = _one_backbone(board)
    return f"{board.title}, {backbone}" if backbone else board.title


def header(board: Board) -> list[str]:
    """Column titles; an arrow shows which way is better."""
    metrics = [
        f"{NAMES.get(name.partition('@')[0], name)} {'↑' if board.higher_is_better[name] else '↓'}"
        for name in board.columns
    ]
    labels = ["", "decoder"] if _one_backbone(board) else ["", "decoder", "backbone"]
    sizes = ["FPS", "ms", "M params: backbone+decoder+head", "GMACs", "wall s"]
    spread = [SPREAD] if _several_seeds(board) else []
    gain = [GAIN] if _joint(board) else []
    return [*labels, *metrics[:1], INTERVAL, *spread, *metrics[1:], *gain, *sizes]


def _joint(board: Board) -> bool:
    return any(row.delta_m is not None for row in board.rows)


def _several_seeds(board: Board) -> bool:
    return any(len(row.seeds) > 1 for row in board.rows)


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def cells(board: Board, row: Row) -> list[str]:
    """The texts of a row."""
    name = f"{row.decoder} ({row.settings})" if row.settings else row.decoder
    labels = [str(row.rank or "–"), name]
    if not _one_backbone(board):
        labels.append(row.backbone)
    several = _several_seeds(board)
    if row.error is not None:
        metrics = [*("" for _ in board.columns), *([""] if several else []), "failed"]
    else:
        main = board.columns[0]
        low, high = row.interval or (None, None)
        spread = [f"{_number(row.spread[main])} ({len(row.seeds)})"] if several else []
        others = [_number(row.metrics[name]) for name in board.columns[1:]]
        interval = f"{_number(low)}–{_number(high)}"
        metrics = [_number(row.metrics[main]), interval, *spread, *others]
    mark = "*" if row.sessions and row.sessions != _main_sessions(board) else ""
    sizes = [
        _number(row.fps, 0) + mark,
        _number(row.latency_ms, 1) + mark,
        "+".join(f"{count / 1e6:.3f}" for count in row.params.values()),
        _number(row.macs / 1e9),
        _number(row.train_seconds, 0),
    ]
    gain = ["" if row.delta_m is None else f"{row.delta_m:+.1f}"] if _joint(board) else []
    return [*labels, *metrics, *gain, *sizes]


def _main_sessions(board: Board) -> list[str]:
    """The timing session(s) of most rows: only they were timed in turns."""
    common = Counter(tuple(row.sessions) for row in board.rows if row.sessions).most_common(1)
    return list(common[0][0]) if common else []


def table_rows(board: Board) -> list[list[str]]:
    """All rows' texts; the last is the best constant prediction, what any network must beat."""
    rows = [cells(board, row) for row in board.rows]
    if not board.columns:
        return rows
    main, *others = (_number(board.constant[name]) for name in board.columns)
    labels = ["", "best constant"] if _one_backbone(board) else ["", "best constant", ""]
    spread = [""] if _several_seeds(board) else []
    gain = [""] if _joint(board) else []
    return [*rows, [*labels, main, "", *spread, *others, *gain, "", "", "", "", ""]]


def notes(board: Board) -> list[str]:
    """What a reader must know to read the table, and why rows failed."""
    failed = [f"{r.decoder} on {r.backbone} failed: {r.error}" for r in board.rows if r.error]
    if not board.columns:
        return failed
    lines = [
        f"{board.test_images} scored images. FPS, ms: median of one image, network and resizing to "
        "the input size, timed in turns in one process. MACs leave out interpolation, "
        "normalisation and element-wise work. 95 % of images: bootstrap interval over the scored "
        "images; rows whose intervals overlap share a rank. ± seeds: standard deviation over "
        "(number of) seeds. wall s: build, train and score one run, without reading the data."
    ]
    if _joint(board):
        lines.append(
            "Δm: a network of several tasks against the same one trained for each task alone, mean "
            "relative gain of the main metrics."
        )
    if any(row.sessions and row.sessions != _main_sessions(board) for row in board.rows):
        lines.append("* timed in another session than the other rows: not comparable to a few %.")
    return lines + failed


def markdown(tables: Sequence[Board]) -> str:
    """All boards as Markdown."""
    parts = ["# Leaderboard", ""]
    for board in tables:
        titles = header(board)
        parts += [f"## {heading(board)}", "", f"`{board.protocol}`", ""]
        parts += ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
        parts += ["| " + " | ".join(row) + " |" for row in table_rows(board)]
        parts += ["", *(f"{note}\n" for note in notes(board))]
    return "\n".join(parts)


def rich_table(board: Board, width: int) -> Table:
    """One board for a terminal of ``width`` columns; without the last metrics if it is narrow."""
    titles = [
        t.replace(": ", ":\n").replace("+d", "+\nd").replace(" of", "\nof") for t in header(board)
    ]
    rows = table_rows(board)
    wide = [
        max(len(line) for text in (title, *(row[i] for row in rows)) for line in text.split("\n"))
        for i, title in enumerate(titles)
    ]
    shown = list(range(len(titles)))
    first = titles.index(INTERVAL.replace(" of", "\nof")) + 1 + _several_seeds(board)
    metrics = list(range(first, first + len(board.columns) - 1))
    while metrics and sum(wide[i] + 3 for i in shown) > width:
        shown.remove(metrics.pop())
    hidden = len(titles) - len(shown)
    more = [f"{hidden} more metrics: python cli.py report, or a wider terminal."] if hidden else []
    table = Table(
        title=f"{heading(board)} · {board.protocol}",
        caption=" ".join([*notes(board), *more]),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 1),
        pad_edge=False,
    )
    for i in shown:
        left = titles[i] in ("decoder", "backbone")
        table.add_column(titles[i], justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(row[i] for i in shown))
    return table


def scores_table(scores: TaskScores) -> Table:
    """Every metric of one task, for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("metric", "value", INTERVAL, ""):
        table.add_column(title, justify="left" if title == "metric" else "right")
    for name, value in scores.metrics.items():
        interval = "–".join(_number(end, 4) for end in scores.intervals.get(name, ()))
        better = scores.higher_is_better.get(name)
        arrow = "" if better is None else "↑" if better else "↓"
        table.add_row(name, _number(value, 4), interval, arrow)
    return table


def _setup(record: Mapping[str, Any]) -> str:
    """How something was timed, in words."""
    parts = [
        f"on {record['device']}, {record['threads']} threads, {record['memory_format']}",
        "BatchNorm folded" if record["fused"] else "BatchNorm not folded",
        *(["compiled"] if record["compiled"] else []),
        *(["mixed precision"] if record["amp"] else []),
    ]
    return ", ".join(parts)


def speed_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows of ``benchmark.speed_rows`` for a terminal; what failed is told below."""
    timed = any("latency" in row for row in rows)
    failed: dict[str, dict[str, None]] = {}  # a reason → pairs, each once
    for row in rows:
        if row["error"] is not None:
            failed.setdefault(row["error"], {})[f"{row['backbone']} + {row['decoder']}"] = None
    records = [row["latency"] for row in rows if row.get("latency")]
    notes = [
        *(f"Timed {text}." for text in dict.fromkeys(map(_setup, records))),
        f"GMACs: of one image, without {rows[0]['macs_exclude']}.",
        "Convolutions: the decoder's weights as the paper counts them, for FCN and DeepLab-V3 "
        "(light) with the classifier's.",
        *(f"{', '.join(pairs)} failed: {reason}" for reason, pairs in failed.items()),
    ]
    table = Table(
        caption="\n".join(notes), caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    several = len({row["batch"] for row in rows}) > 1
    for title in ("backbone", "decoder", "size", *(["batch"] if several else [])):
        table.add_column(title, overflow="fold")
    parts = ("backbone", "decoder", "head")
    params = (*parts[:2], "decoder_conv_weights", parts[2])
    titles = ["M params:\nbackbone", "\ndecoder", "its con-\nvolutions", "\nhead"]
    titles += ["GMACs:\nbackbone", "\ndecoder", "\nhead"]
    for title in [*titles, *(["ms", "p5–p95", "FPS"] if timed else [])]:
        table.add_column(title, justify="right")
    for row in rows:
        counts = [row["params"] and row["params"][key] / 1e6 for key in params]
        counts += [row["macs"] and row["macs"][key] / 1e9 for key in parts]
        cells = [row["backbone"], row["decoder"], "x".join(map(str, row["image_size"]))]
        cells += [str(row["batch"])] if several else []
        cells += [_number(count) for count in counts]
        if latency := row.get("latency"):
            between = f"{latency['p5_ms']:.1f}–{latency['p95_ms']:.1f}"
            cells += [_number(latency["median_ms"], 1), between, _number(latency["fps"], 1)]
        table.add_row(*cells)
    return table


def write_reports(tables: Sequence[Board], folder: Path) -> list[Path]:
    """Write ``leaderboard.md``, ``.csv`` and ``.json`` into ``folder``."""
    rows = [{"protocol": b.protocol, **row.flat()} for b in tables for row in b.rows]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    contents = {
        "leaderboard.md": markdown(tables),
        "leaderboard.csv": text.getvalue(),
        "leaderboard.json": json.dumps(rows, indent=1, ensure_ascii=False) + "\n",
    }
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return [folder / name for name in contents]
