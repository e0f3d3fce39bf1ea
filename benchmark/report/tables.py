"""A leaderboard as Markdown, CSV and JSON, and as a table for the terminal."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from benchmark.leaderboard import Board, Row
from common.files import write_atomic

NAMES = {"miou": "mIoU", "macc": "mAcc", "aacc": "aAcc", "delta1": "δ1", "delta2": "δ2",
         "delta3": "δ3", "maxf": "maxF", "meanf": "meanF", "mae": "MAE", "smeasure": "S",
         "maxe": "maxE", "abs_rel": "AbsRel", "rmse": "RMSE", "silog": "SILog"}  # fmt: skip


def header(board: Board) -> list[str]:
    """Column titles; an arrow shows which way is better."""
    metrics = [
        f"{NAMES.get(name.partition('@')[0], name)} {'↑' if board.higher_is_better[name] else '↓'}"
        for name in board.columns
    ]
    shown = [*metrics[:1], "95 % interval or ± sd", *metrics[1:]]
    return [
        "", "decoder", "backbone", *shown, "FPS", "latency ms",
        "params M: backbone + decoder + head", "GMACs", "wall s",
    ]  # fmt: skip


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def cells(board: Board, row: Row) -> list[str]:
    """The texts of a row."""
    if row.error is not None:
        metrics = [*("" for _ in board.columns), "failed"]
    else:
        main = board.columns[0]
        if row.interval is not None:
            spread = f"{row.interval[0]:.3f}–{row.interval[1]:.3f}"
        else:
            spread = f"± {_number(row.spread[main])} ({len(row.seeds)} seeds)"
        metrics = [_number(row.metrics[main]), spread]
        metrics += [_number(row.metrics[name]) for name in board.columns[1:]]
    params = " + ".join(f"{count / 1e6:.3f}" for count in row.params.values())
    return [
        str(row.rank or "–"), row.decoder, row.backbone, *metrics, _number(row.fps, 0),
        _number(row.latency_ms, 1), params, _number(row.macs / 1e9), _number(row.train_seconds, 0),
    ]  # fmt: skip


def table_rows(board: Board) -> list[list[str]]:
    """All rows' texts; the last is the best constant prediction, what any network must beat."""
    rows = [cells(board, row) for row in board.rows]
    return [*rows, _constant_cells(board)] if board.columns else rows


def _constant_cells(board: Board) -> list[str]:
    main, *others = board.columns
    values = [_number(board.constant[main]), "", *(_number(board.constant[n]) for n in others)]
    return ["", "best constant", "", *values, "", "", "", "", ""]


def notes(board: Board) -> list[str]:
    """What a reader must know to read the table, and why rows failed."""
    failed = [f"{r.decoder} on {r.backbone} failed: {r.error}" for r in board.rows if r.error]
    if not board.columns:
        return failed
    return [
        f"{board.test_images} test images. Latency: median of one image, network and resizing to "
        "the input size, the decoders timed in turns in one process. MACs leave out "
        "interpolation, normalisation and element-wise work. Interval: 95 % bootstrap over test "
        "images of one run; ± is the standard deviation over seeds.",
        *failed,
    ]


def markdown(tables: Sequence[Board]) -> str:
    """All boards as Markdown."""
    parts = ["# Leaderboard", ""]
    for board in tables:
        titles = header(board)
        parts += [f"## {board.title}", "", f"`{board.protocol}`", ""]
        parts += ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
        parts += ["| " + " | ".join(row) + " |" for row in table_rows(board)]
        parts += ["", *(f"{note}\n" for note in notes(board))]
    return "\n".join(parts)


def rich_table(board: Board) -> Table:
    """One board for the terminal: metrics first, then speed and size."""
    table = Table(title=f"{board.title} · {board.protocol}", caption=" ".join(notes(board)))
    for title in header(board):
        left = title in ("decoder", "backbone")
        table.add_column(title, justify="left" if left else "right", overflow="fold")
    for row in table_rows(board):
        table.add_row(*row)
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
