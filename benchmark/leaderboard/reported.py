"""Published figures: rows beside the measured ones, never ranked."""

import json
from collections.abc import Iterable
from pathlib import Path

from benchmark.leaderboard.rows import Board, Row

FILE = Path(__file__).with_suffix(".json")


def reported_rows(task: str, dataset: str, columns: Iterable[str]) -> list[Row]:
    """Published figures of a task and data set, as printed, in the order of their tables.

    columns: a board's metrics; a figure takes the column of its metric, whatever the protocol. Per
    cent become shares of 1. ``Row.params`` holds those of the decoder only.
    """
    content = json.loads(FILE.read_text(encoding="utf-8"))
    rows = []
    for table in content["tables"]:
        if table["task"] != task or dataset not in table["datasets"]:
            continue
        details = [content["short"], table["table"], table["split"], table["protocol"]]
        if table["device"] != "not given":
            details.append(table["device"])
        source = ", ".join(part for part in (*details, table.get("note", "")) if part)
        for entry in table["rows"]:
            metrics = {}
            for column in columns:
                value = entry.get(column.partition("@")[0])
                if value is not None:  # 72.51 / 100 is not exactly 0.7251
                    metrics[column] = round(value / 100, 6) if table["per_cent"] else value
            rows.append(
                Row(
                    task=task,
                    dataset=dataset,
                    backbone=entry.get("backbone", table["backbone"]),
                    decoder=entry["decoder"],
                    settings="",
                    device=table["device"],
                    threads=0,
                    seeds=[],
                    metrics=metrics,
                    spread=dict.fromkeys(metrics),
                    interval=None,
                    latency_ms=None,
                    fps=entry.get("fps"),
                    sessions=[],
                    params={"decoder": int(entry["params"])} if "params" in entry else {},
                    macs=0,
                    train_seconds=0.0,
                    command="",
                    source=source,
                    unranked="reported",
                )
            )
    return rows


def add_reported(tables: Iterable[Board]) -> None:
    """Insert published figures into the main boards of their data sets, before failed runs."""
    for board in tables:
        if board.main and board.columns:
            count = len(board.measured)
            board.rows[count:count] = reported_rows(board.task, board.dataset, board.columns)
