"""Rows of a leaderboard: runs that differ in the seed only become one row."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.results import Result

COSTS = ("latency", "params", "macs", "memory")


@dataclass
class Row:
    """One network under one protocol, over its seeds.

    spread: standard deviation over seeds, None for one seed. interval: 95 % bootstrap over test
    images of the ranking metric, its ends averaged over seeds. settings: what sets the row apart
    from others of the same decoder and backbone. delta_m: of a network of several tasks, its mean
    gain over the same network trained for each task alone, in per cent, where those are there.
    runs: the results behind the row, by seed. memory_mb: peak memory of one forward above the
    weights. pareto: the ``COSTS`` on whose front of accuracy against cost the row lies. source: of
    a reported row, where it was published; None for a measured one. unranked: why it has no rank.
    """

    task: str
    dataset: str
    backbone: str
    decoder: str
    settings: str
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
    delta_m: float | None = None
    runs: list[Result] = field(default_factory=list, repr=False)
    memory_mb: float | None = None
    pareto: list[str] = field(default_factory=list)
    source: str | None = None
    unranked: str | None = None

    @property
    def label(self) -> str:
        """The decoder's name for people: of a wiring from a file, the file's."""
        kind, _, file = self.decoder.partition(":")
        return Path(file).stem if kind == "connectivity" and file else self.decoder

    def flat(self) -> dict[str, Any]:
        """The row as one level of plain values, for CSV and JSON."""
        values: dict[str, Any] = {
            "rank": self.rank,
            "task": self.task,
            "dataset": self.dataset,
            "backbone": self.backbone,
            "decoder": self.decoder,
            "settings": self.settings,
            "device": self.device,
            "threads": self.threads,
            "seeds": " ".join(map(str, self.seeds)),
        }
        for name, value in self.metrics.items():
            values[name] = value
            values[f"{name} sd over seeds"] = self.spread.get(name)
        values["interval low"], values["interval high"] = self.interval or (None, None)
        values["delta m %"] = self.delta_m
        values |= {"fps": self.fps, "latency ms": self.latency_ms}
        values["timing session"] = " ".join(self.sessions)
        values |= {f"params {part}": count for part, count in self.params.items()}
        values |= {"macs": self.macs, "run seconds": self.train_seconds}
        return values | {"error": self.error, "command": self.command}


@dataclass
class Board:
    """Comparable rows: one protocol, one device. columns: metrics, the ranking one first."""

    task: str
    title: str
    protocol: str
    columns: list[str]
    higher_is_better: dict[str, bool]
    rows: list[Row] = field(default_factory=list)
    constant: dict[str, float] = field(default_factory=dict)
    test_images: int = 0
    hypervolume: dict[str, float] = field(default_factory=dict)


@dataclass
class OverallRow:
    """One decoder on one backbone over all boards of a device.

    scores: main metric by board title, None where it has no measured row there. delta_m: mean
    relative gain over the baseline, in per cent, and mean_rank: both for complete rows only.
    """

    backbone: str
    label: str
    settings: str
    scores: dict[str, float | None]
    delta_m: float | None = None
    mean_rank: float | None = None
    rank: int | None = None


@dataclass
class Overall:
    """Rows across the boards of one device. baseline: the label that Δm compares with."""

    title: str
    boards: list[str]
    baseline: str
    rows: list[OverallRow] = field(default_factory=list)


def boards(results: Iterable[Result]) -> list[Board]:
    """Group ``results`` by what must be alike to be compared, and rank each group.

    Alike: protocol, test images, device, threads, precision. Rows whose intervals overlap the best
    one's of their rank share that rank. Failed runs stand at the end of the boards of their data
    set, unranked.
    """
    results = list(results)
    tables: dict[tuple[Any, ...], Board] = {}
    runs: dict[tuple[Any, ...], dict[str, list[Result]]] = {}
    finished = [
        (task, view)
        for result in results
        if result.status == "finished"
        for task, view in result.by_task().items()
    ]
    for task, result in finished:
        device = result.environment["device"], result.environment["threads"]
        place = (result.protocol, _images(result, "test"), *device, result.config.amp)
        if place not in tables:
            precision = ", mixed precision" if result.config.amp else ""
            tables[place] = Board(
                task=task,
                title=f"{task} on {result.config.dataset}",
                protocol=f"{result.protocol}, {device[0]}, {device[1]} threads{precision}",
                columns=result.columns,
                higher_is_better=result.higher_is_better,
                constant=result.constant["metrics"],
                test_images=result.counts["images"],
            )
        # everything but the seed, so that a changed learning rate is a row of its own
        network = _images(result, "train") + result.config.model_dump_json(exclude=APART)
        runs.setdefault(place, {}).setdefault(network, []).append(result)
    rows: dict[tuple[Any, ...], dict[str, Row]] = {}
    for place, board in tables.items():
        groups = runs[place]
        rows[place] = {
            network: _row(group, board.columns, _differing(group, list(groups.values())))
            for network, group in groups.items()
        }
        board.rows = list(rows[place].values())
        _rank(board)
    _compare_tasks(tables, runs, rows)
    ranked = [tables[place] for place in sorted(tables)]
    for result in results:
        if result.status == "failed":
            title = f"{result.config.task} on {result.config.dataset}"
            titles = [f"{t} on {result.config.dataset}" for t in result.config.task.split("+")]
            places = [board for board in ranked if board.title in titles]
            if not places:
                places = [Board(result.config.task, title, "no finished run", [], {})]
                ranked += places
            for board in places:
                board.rows.append(_failed(result))
    return ranked


# what may differ between the runs of one row
APART = {"seed", "weights", "data", "workers"}


# what may differ between a network of several tasks and those of its single tasks
JOINT = {"task", "loss", "loss_weighting", "task_weights", "separate_decoders"}


def _compare_tasks(
    tables: Mapping[tuple[Any, ...], Board],
    runs: Mapping[tuple[Any, ...], Mapping[str, list[Result]]],
    rows: Mapping[tuple[Any, ...], Mapping[str, Row]],
) -> None:
    """Fill in Δm, the mean over tasks of ±(m − m alone) / m alone; above 0 is better."""
    alone: dict[tuple[Any, ...], float] = {}
    joint: dict[tuple[Any, ...], list[tuple[Row, tuple[Any, ...], float, int]]] = {}
    for place, board in tables.items():
        main = board.columns[0]
        sign = 1 if board.higher_is_better[main] else -1
        for network, row in rows[place].items():
            first = runs[place][network][0]
            config, where = first.config, (*place[1:], _images(first, "train"))
            twin = (where, board.task, config.model_dump_json(exclude=APART | JOINT))
            if "+" in config.task:
                entry = row, twin, row.metrics[main], sign
                joint.setdefault((where, network), []).append(entry)
            elif config.loss is None:
                alone[twin] = row.metrics[main]
    for found in joint.values():
        gains = [
            sign * (value - alone[twin]) / abs(alone[twin])
            for _, twin, value, sign in found
            if alone.get(twin)
        ]
        if len(gains) == len(found):
            for row, *_ in found:
                row.delta_m = 100 * statistics.fmean(gains)


def _images(result: Result, split: str) -> str:
    return str(result.data.get(split, {}).get("fingerprint", ""))


def _differing(group: list[Result], groups: list[list[Result]]) -> str:
    """What sets a row apart from others of the same decoder and backbone: "epochs=20"."""
    config = group[0].config
    alike = [
        g[0].config
        for g in groups
        if (g[0].config.decoder, g[0].config.backbone) == (config.decoder, config.backbone)
    ]
    # of one task it goes without saying, and the others say nothing
    apart = APART if "+" in config.task else APART | (JOINT - {"loss"})
    mine = config.model_dump(mode="json", exclude=apart)
    others = [other.model_dump(mode="json", exclude=APART) for other in alike]
    return ", ".join(
        name if value is True else f"{name}={value}"
        for name, value in mine.items()
        if value is not False and any(other[name] != value for other in others)
    )


def _rank(board: Board) -> None:
    main = board.columns[0]
    board.rows.sort(key=lambda r: r.metrics[main], reverse=board.higher_is_better[main])
    best: Row | None = None
    for place, row in enumerate(board.rows, 1):
        if best is None or not _overlap(best.interval, row.interval):
            best, row.rank = row, place
        else:
            row.rank = best.rank


def _overlap(a: tuple[float, float] | None, b: tuple[float, float] | None) -> bool:
    return a is not None and b is not None and a[0] <= b[1] and b[0] <= a[1]


def _row(group: list[Result], columns: list[str], settings: str) -> Row:
    first = group[0]
    metrics = {name: statistics.fmean(r.metrics[name] for r in group) for name in columns}
    spread = {
        name: statistics.stdev(r.metrics[name] for r in group) if len(group) > 1 else None
        for name in columns
    }
    timed = [r.speed for r in group if r.speed is not None]
    intervals = [r.intervals[columns[0]] for r in group if columns[0] in r.intervals]
    return Row(
        task=first.config.task,
        dataset=first.config.dataset,
        backbone=first.config.backbone or "",
        decoder=first.config.decoder,
        settings=settings,
        device=first.environment["device"],
        threads=first.environment["threads"],
        seeds=sorted(r.config.seed for r in group),
        metrics=metrics,
        spread=spread,
        interval=(
            statistics.fmean(low for low, _ in intervals),
            statistics.fmean(high for _, high in intervals),
        )
        if intervals
        else None,
        latency_ms=statistics.median(s["median_ms"] for s in timed) if timed else None,
        fps=statistics.median(s["fps"] for s in timed) if timed else None,
        sessions=sorted({s["session"] for s in timed}),
        params=first.params,
        macs=sum(first.macs.values()),
        train_seconds=statistics.fmean(r.seconds["total"] for r in group),
        command=first.command,
        runs=sorted(group, key=lambda r: r.config.seed),
    )


def _failed(result: Result) -> Row:
    config = result.config
    return Row(
        task=config.task,
        dataset=config.dataset,
        backbone=config.backbone or "",
        decoder=config.decoder,
        settings="",
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
        runs=[result],
    )
