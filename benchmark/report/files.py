"""A leaderboard as Markdown, CSV and JSON; deterministic for the same results."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from benchmark.leaderboard.rows import Board, Overall
from benchmark.report.latex import latex
from benchmark.report.tables import (
    header,
    heading,
    legend,
    notes,
    overall_header,
    overall_heading,
    overall_notes,
    overall_rows,
    table_rows,
)
from common.errors import UsageError
from common.files import write_atomic
from common.limits import TEXT, LimitError, printable, read_bytes

BEGIN, END = "<!-- leaderboard:begin -->", "<!-- leaderboard:end -->"
FORMAT = 1


def markdown(tables: Sequence[Board], across: Sequence[Overall] = (), level: int = 2) -> str:
    """All boards as Markdown, with headings of ``level``."""
    parts = []
    for board in tables:
        parts += [f"{'#' * level} {_line(heading(board))}", "", _code(board.protocol), ""]
        parts += _markdown_table(header(board), table_rows(board))
        parts += ["", *(f"{_paragraph(note)}\n" for note in notes(board))]
    for table in across:
        parts += [f"{'#' * level} {_line(overall_heading(table))}", "", _code(table.title), ""]
        rows = overall_rows(table)
        parts += _markdown_table(overall_header(table), rows)
        parts += ["", *(f"{_paragraph(note)}\n" for note in overall_notes(table))]
    if any(board.columns for board in tables):
        parts.append(f"{_line(legend(tables))}\n")
    return "\n".join(parts)


def _markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [titles, ["---"] * len(titles), *rows]
    return ["| " + " | ".join(_line(cell).replace("|", "\\|") for cell in x) + " |" for x in lines]


def _line(text: str) -> str:
    """``text`` on one line, escaped so that Markdown reads no HTML, link, image or code in it."""
    text = " ".join(printable(text).split()).replace("<", "&lt;")
    return re.sub(r"[\\`\[]", r"\\\g<0>", text)


def _paragraph(text: str) -> str:
    """``_line``, with its start escaped if it would begin a heading, list or quotation."""
    return re.sub(r"^(?=[#>+=~-]|\d+[.)] )", r"\\", _line(text))


def _code(text: str) -> str:
    return f"`{' '.join(printable(text).split()).replace('`', chr(39))}`"


def update_between_markers(path: Path, content: str) -> None:
    """Replace the text between the two markers in the file ``path`` by ``content``.

    Raises UsageError, and leaves the file unchanged, if it cannot be read or does not contain each
    marker once, in order.
    """
    try:
        text = read_bytes(path, TEXT).decode()
    except FileNotFoundError:
        raise UsageError(f"--update {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--update {path}: not a readable text file") from error
    except LimitError as error:
        raise UsageError(f"--update {path}: {error}") from None
    for marker in (BEGIN, END):
        if text.count(marker) != 1:
            state = "not in it" if marker not in text else f"in it {text.count(marker)} times"
            raise UsageError(f"--update {path}: {marker} is {state}: write it there once")
    before, _, rest = text.partition(BEGIN)
    _, separator, after = rest.partition(END)
    if not separator:
        raise UsageError(f"--update {path}: {END} stands before {BEGIN}")
    end = "\r\n" if "\r\n" in text else "\n"
    body = f"{BEGIN}\n\n{content.strip()}\n\n{END}".replace("\n", end)
    write_atomic(path.resolve(), (before + body + after).encode(), "--update")


def as_csv(tables: Sequence[Board]) -> str:
    """CSV with a line for each row of each board."""
    rows = [{"board": b.title, "protocol": b.protocol, **r.flat()} for b in tables for r in b.rows]
    return _csv(rows)


def overall_as_csv(across: Sequence[Overall]) -> str:
    """CSV with a line for each row across boards, a column for each board's ranking metric."""
    rows = [
        {
            "machine": table.title,
            "rank": row.rank,
            "backbone": row.backbone,
            "label": row.label,
            "settings": row.settings,
            "mean rank": row.mean_rank,
            "delta m %": row.delta_m,
            "baseline": table.baseline,
            **{f"{title}: {table.metric[title]}": row.scores[title] for title in table.boards},
        }
        for table in across
        for row in table.rows
    ]
    return _csv(rows)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writerow({name: _value(name) for name in columns})
    writer.writerows({name: _value(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _value(value: Any) -> Any:
    """``value`` as a cell that no spreadsheet reads as a formula."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def as_json(tables: Sequence[Board], across: Sequence[Overall] = ()) -> str:
    """Every field of a board, its rows as ``Row.flat``, as docs/leaderboard.schema.json says."""
    boards = [
        {
            "title": board.title,
            "task": board.task,
            "dataset": board.dataset,
            "protocol": board.protocol,
            "device": board.device,
            "threads": board.threads,
            "amp": board.amp,
            "main": board.main,
            "test_images": board.test_images,
            "fingerprint": board.fingerprint,
            "columns": board.columns,
            "higher_is_better": {name: board.higher_is_better[name] for name in board.columns},
            "constant": {name: board.constant.get(name) for name in board.columns},
            "hypervolume": board.hypervolume,
            "rows": [row.flat() for row in board.rows],
        }
        for board in tables
    ]
    content = {"format": FORMAT, "boards": boards, "overall": [asdict(table) for table in across]}
    return to_json(content, indent=1).decode() + "\n"  # 10x faster than json


def benchmark_csv(tables: Sequence[Board]) -> str:
    """The timed rows in the columns of timm's benchmark results, then the scores.

    model: backbone.decoder; infer_step_time: milliseconds of a batch; infer_gmacs: 10⁹ of one
    image; param_count: millions. The rows of all boards follow each other, so that each has its
    task, data set and device too. Source: the files ``results/benchmark-*.csv`` of timm 1.0.
    """
    rows = []
    for board in tables:
        for row in board.measured:
            milliseconds = row.cost("latency")
            if milliseconds is None:
                continue
            config = row.runs[0].config
            size = config.image_size or (0, 0)
            rows.append(
                {
                    "model": f"{row.backbone}.{row.label}",
                    "infer_samples_per_sec": round(1000 / milliseconds, 2),
                    "infer_step_time": round(milliseconds, 3),
                    "infer_batch_size": 1,
                    "infer_img_size": size[0] if size[0] == size[1] else "x".join(map(str, size)),
                    "infer_gmacs": round((row.cost("macs") or 0) / 1e9, 3),
                    "param_count": round((row.cost("params") or 0) / 1e6, 2),
                    "settings": row.settings,
                    "runtime": row.runtime,
                    "precision": row.precision,
                    "device": board.machine,
                    "task": board.task,
                    "dataset": board.dataset,
                    "metric": board.columns[0],
                    **{name: row.metrics.get(name) for name in board.columns},
                }
            )
    return _csv(rows)


FORMATS = {"benchmark-csv": ("benchmark.csv", benchmark_csv)}
"""Further files of ``report --format``: name and writer."""


def write_reports(
    tables: Sequence[Board],
    folder: Path,
    across: Sequence[Overall] = (),
    formats: Sequence[str] = (),
) -> list[Path]:
    """Write ``leaderboard.{md,csv,json,tex}`` and ``overall.csv`` to ``folder``; return paths.

    formats: of ``FORMATS``, written too.
    """
    contents = {
        "leaderboard.md": "# Leaderboard\n\n" + markdown(tables, across),
        "leaderboard.csv": as_csv(tables),
        "leaderboard.json": as_json(tables, across),
        "leaderboard.tex": latex(tables, across),
        "overall.csv": overall_as_csv(across),
        **{FORMATS[name][0]: FORMATS[name][1](tables) for name in formats},
    }
    for name, content in contents.items():
        write_atomic(folder / name, content, "--output")
    return [folder / name for name in contents]
