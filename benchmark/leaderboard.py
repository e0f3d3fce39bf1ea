"""Rows of a leaderboard: runs that differ in the seed only become one row."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from benchmark.results import Result


@dataclass
class Row:
    """One network under one protocol, over its seeds."""

    task: str
    dataset: str
    backbone: str
    decoder: str
    device: str
    threads: int
    seeds: list[int]
    metrics: dict[str, float]
    spread: dict[str, float | None]
    interval: tuple[float, float] | None
    latency_ms: float | None
    fps: float | None
    sessions: list[str]
    params: dict[str, int]
    macs: int
    train_seconds: float
    command: str
    error: str | None = None
    rank: int | None = None

    def flat(self) -> dict[str, Any]:
        """The row as one level of plain values, for CSV and JSON."""
        values: dict[str, Any] = {
            "rank": self.rank,
            "task": self.task,
            "dataset": self.dataset,
            "backbone": self.backbone,
            "decoder": self.decoder,
            "device": self.device,
            "threads": self.threads,
            "seeds": " ".join(map(str, self.seeds)),
        }
        for name, value in self.metrics.items():
            values[name] = value
            values[f"{name} sd over seeds"] = self.spread.get(name)
        values["interval low"], values["interval high"] = self.interval or (None, None)
        values |= {"fps": self.fps, "latency ms": self.latency_ms}
        values["timing session"] = " ".join(self.sessions)
        values |= {f"params {part}": count for part, count in self.params.items()}
        values |= {"macs": self.macs, "run seconds": self.train_seconds}
        return values | {"error": self.error, "command": self.command}


@dataclass
class Board:
    """Comparable rows: one protocol, one device. columns: metrics, the ranking one first."""

    title: str
    protocol: str
    columns: list[str]
    higher_is_better: dict[str, bool]
    rows: list[Row] = field(default_factory=list)
    constant: dict[str, float] = field(default_factory=dict)
    test_images: int = 0


def boards(results: Iterable[Result]) -> list[Board]:
    """Group ``results`` by protocol and device, and rank each group by its first column.

    Failed runs are shown at the end of the board of their data set, unranked.
    """
    results = list(results)
    tables: dict[tuple[Any, ...], Board] = {}
    runs: dict[tuple[Any, ...], dict[tuple[Any, ...], list[Result]]] = {}
    for result in results:
        if result.status != "finished":
            continue
        device = result.environment["device"], result.environment["threads"]
        place = (result.protocol, *device)
        if place not in tables:
            tables[place] = Board(
                title=f"{result.config.task} on {result.config.dataset}",
                protocol=f"{result.protocol}, {device[0]}, {device[1]} threads",
                columns=result.columns,
                higher_is_better=result.higher_is_better,
                constant=result.constant["metrics"],
                test_images=result.counts["images"],
            )
        # everything but the seed, so that a changed learning rate is a row of its own
        network = result.config.model_dump_json(exclude={"seed", "weights", "data", "workers"})
        runs.setdefault(place, {}).setdefault((network,), []).append(result)
    for place, board in tables.items():
        board.rows = [_row(group, board.columns) for group in runs[place].values()]
        main = board.columns[0]
        board.rows.sort(key=lambda r: r.metrics[main], reverse=board.higher_is_better[main])
        for rank, row in enumerate(board.rows, 1):
            row.rank = rank
    ranked = [tables[place] for place in sorted(tables)]
    for result in results:
        if result.status == "failed":
            title = f"{result.config.task} on {result.config.dataset}"
            places = [board for board in ranked if board.title == title]
            if not places:
                places = [Board(title, "no finished run", [], {})]
                ranked += places
            for board in places:
                board.rows.append(_failed(result))
    return ranked


def _row(group: list[Result], columns: list[str]) -> Row:
    first = group[0]
    metrics = {name: statistics.fmean(r.metrics[name] for r in group) for name in columns}
    spread = {
        name: statistics.stdev(r.metrics[name] for r in group) if len(group) > 1 else None
        for name in columns
    }
    timed = [r.speed for r in group if r.speed is not None]
    return Row(
        task=first.config.task,
        dataset=first.config.dataset,
        backbone=first.config.backbone or "",
        decoder=first.config.decoder,
        device=first.environment["device"],
        threads=first.environment["threads"],
        seeds=sorted(r.config.seed for r in group),
        metrics=metrics,
        spread=spread,
        interval=first.intervals.get(columns[0]) if len(group) == 1 else None,
        latency_ms=statistics.median(s["median_ms"] for s in timed) if timed else None,
        fps=statistics.median(s["fps"] for s in timed) if timed else None,
        sessions=sorted({s["session"] for s in timed}),
        params=first.params,
        macs=sum(first.macs.values()),
        train_seconds=statistics.fmean(r.seconds["total"] for r in group),
        command=first.command,
    )


def _failed(result: Result) -> Row:
    config = result.config
    return Row(
        task=config.task,
        dataset=config.dataset,
        backbone=config.backbone or "",
        decoder=config.decoder,
        device=result.environment.get("device", ""),
        threads=result.environment.get("threads", 0),
        seeds=[config.seed],
        metrics={},
        spread={},
        interval=None,
        latency_ms=None,
        fps=None,
        sessions=[],
        params=result.params,
        macs=sum(result.macs.values()),
        train_seconds=result.seconds.get("total", 0.0),
        command=result.command,
        error=result.error,
    )
