"""A comparison of two sides as a terminal table, lines of text and JSON."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table

from benchmark.leaderboard.compare import Comparison, Report
from common.words import COST_NAMES, cell, quantity
from tasks.metrics.names import metric_title

UNITS = {
    "params": (1e6, " M"),
    "macs": (1e9, " G"),
    "latency_ms": (1, " ms"),
    "memory_mb": (1, " MB"),
}
SHOWN = 5
"""Runs without a partner that are listed by name."""


def comparison_table(report: Report, every_metric: bool) -> Table:
    """A row for each network and metric, or for its ranking metric only."""
    several = any(row.main.sd is not None for row in report.rows)
    table = Table(title=cell(f"A: {report.a}   B: {report.b}"), box=box.SIMPLE_HEAD, pad_edge=False)
    titles = ["network", "task", "metric", "A", "B", "B − A", "95 %"]
    for title in (*titles, *(["± seeds"] if several else []), "gain %", "B is"):
        left = title in ("network", "task", "metric", "B is")
        table.add_column(title, justify="left" if left else "right", overflow="fold")
    for row in report.rows:
        for index, part in enumerate(row.differences if every_metric else row.differences[:1]):
            ends = part.interval
            sd = "" if part.sd is None else f"{part.sd:.4f} ({len(row.seeds)})"
            cells = [
                *((row.name, row.title) if not index else ("", "")),
                metric_title(part.metric, part.higher_is_better),
                f"{part.a:.4f}",
                f"{part.b:.4f}",
                f"{part.difference:+.4f}",
                f"{ends[0]:+.4f} … {ends[1]:+.4f}" if ends else "–",
                *([sd] if several else []),
                "–" if part.relative is None else f"{part.relative:+.1f}",
                "–" if part.verdict == "unknown" else part.verdict,
            ]
            table.add_row(*map(cell, cells))
    return table


def comparison_lines(report: Report) -> Iterator[str]:
    """Changes, costs, notes, failures and unpaired runs, one line each."""
    yield (
        "95 %: interval of B − A, paired, over the choice of images and, with several seeds, of "
        "seeds; undecided: it holds 0. "
        "gain: of B, in per cent of A, above 0 is better."
    )
    yield from _shared((_changes(row), row) for row in report.rows)
    alone = len(report.rows) == 1
    for row in report.rows:
        changed = [_cost(n, *pair) for n, pair in row.costs.items() if pair[0] != pair[1] or alone]
        if changed:
            yield f"{row.name}, {row.title}: {', '.join(changed)}"
    yield from _shared(("; ".join(row.notes), row) for row in report.rows)
    for text in report.failed:
        yield f"failed in B: {text}"
    for side, names in (("A", report.only_a), ("B", report.only_b)):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            yield f"only in {side}: {'; '.join(names[:SHOWN])}{more}"


def _shared(texts: Iterable[tuple[str, Comparison]]) -> Iterator[str]:
    """Each distinct text, preceded by its networks unless it holds for all."""
    networks: dict[str, list[Comparison]] = {}
    count = 0
    for text, row in texts:
        count += 1
        if text:
            networks.setdefault(text, []).append(row)
    for text, rows in networks.items():
        names = "; ".join(f"{row.name}, {row.title}" for row in rows)
        yield text if len(rows) == count else f"{names}: {text}"


def _changes(row: Comparison) -> str:
    parts = [
        f"{name} {'differs' if name == 'wiring' else f'{_short(a)} → {_short(b)}'}"
        for name, (a, b) in row.changes.items()
    ]
    return f"differs, A → B: {', '.join(parts)}" if parts else ""


def _short(value: Any) -> str:
    text = str(value)
    return text[:10] if len(text) == 40 and text.isalnum() else text


def _cost(name: str, a: float, b: float) -> str:
    size, unit = UNITS[name]
    digits = 1 if name in ("latency_ms", "memory_mb") else 3
    ratio = f" (×{b / a:.2f})" if a and a != b else ""
    change = quantity(a / size, digits) + (f" → {quantity(b / size, digits)}" if a != b else "")
    return f"{COST_NAMES[name.partition('_')[0]]} {change}{unit}{ratio}"


def comparison_json(report: Report) -> str:
    """The report with all its fields, as JSON."""
    return json.dumps({"format": 1, **asdict(report)}, indent=1, ensure_ascii=False) + "\n"
