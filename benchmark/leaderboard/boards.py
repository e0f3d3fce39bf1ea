"""Leaderboards: runs that differ only in the seed form a row, comparable rows a board."""

import functools
import itertools
import math
import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmark.experiment.config import LATER, RunConfig
from benchmark.leaderboard.pareto import front, hypervolume
from benchmark.leaderboard.rows import COSTS, Board, Row
from benchmark.results.result import Result
from benchmark.results.store import many_objects


@many_objects()
def boards(results: Iterable[Result], disturbed: bool = False) -> list[Board]:
    """Group comparable ``results`` into boards and rank the rows of each.

    Comparable results share protocol, test images, device, threads and precision. For each task and
    data set the protocol with the most rows comes first. Failed runs end the boards of their data
    set, unranked. What shares a rank: ``rank``.

    disturbed: whether latencies that were timed while other work ran count like any other.
    """
    results = sorted(results, key=lambda r: (r.config.seed, r.key))
    tables: dict[tuple[Any, ...], Board] = {}
    runs: dict[tuple[Any, ...], dict[str, list[Result]]] = {}
    finished = [
        (task, view)
        for result in results
        if result.status == "finished"
        for task, view in result.by_task().items()
    ]
    for task, result in finished:
        device, threads = result.machine
        protocol = result.protocol, result.columns[0]
        place = (
            protocol,
            *(_images(result, "test"), result.config.scored_description),
            *(device, threads, result.config.amp),
        )
        if place not in tables:
            board = tables[place] = Board(
                task=task,
                title=title_of(task, result.config),
                protocol="",
                columns=[],
                higher_is_better={},
                constant=result.constant["metrics"],
                test_images=result.counts.get("images", 0),
                dataset=result.config.dataset,
                device=device,
                threads=threads,
                amp=result.config.amp,
                fingerprint=_images(result, "test"),
            )
            board.protocol = f"{result.protocol}, {board.machine}"
        # results of an earlier version may have fewer metrics
        board = tables[place]
        board.columns = list(dict.fromkeys((*board.columns, *result.columns)))
        board.higher_is_better |= result.higher_is_better
        _enter(result, runs.setdefault(place, {}).setdefault(_network(result), []))
    rows: dict[tuple[Any, ...], dict[str, Row]] = {}
    for place, board in tables.items():
        groups = runs[place]
        rows[place] = {
            network: row_of(group, board.columns, settings)
            for (network, group), settings in zip(
                groups.items(), differing(list(groups.values())), strict=True
            )
        }
        board.rows = list(rows[place].values())
        for row in board.rows:
            row.counts = disturbed
        rank(board)
        place_fronts(board)
    _compare_tasks(tables, runs, rows)
    ranked = _ordered(tables.values())
    sizes = [{_sized(run.config) for row in board.rows for run in row.runs} for board in ranked]
    for result in results:
        if result.status == "failed":
            _place_failed(result, ranked, sizes)
    return ranked


def title_of(task: str, config: RunConfig) -> str:
    """``task on data set``, as ``dataset_title`` names it."""
    return f"{task} on {dataset_title(config)}"


def dataset_title(config: RunConfig) -> str:
    """The data set, with its own or its folder's name where it is the user's own."""
    name, folder = config.dataset, (config.description or {}).get("name") or ""
    if not folder and config.data is not None:
        folder = config.data.stem if config.data.suffix in (".h5", ".hdf5") else config.data.name
    if folder.casefold().replace("_", "-") in ("", name) or not _is_generic(name):
        return name
    return f"{name} ({folder})"


@functools.cache
def _is_generic(dataset: str) -> bool:
    """Whether ``dataset`` is a format for the user's own data."""
    from datasets.base import DATASETS  # imports torch, which most reports can do without

    return dataset in DATASETS.names() and DATASETS.get(dataset).info.generic


def _network(result: Result) -> str:
    """Training images and configuration without ``WITHIN_ROW``: runs that share it form a row."""
    # the content of a wiring identifies it, not its file's name
    excluded = WITHIN_ROW | ({"decoder"} if result.config.wiring is not None else set())
    return _images(result, "train") + result.config.model_dump_json(exclude=excluded)


def _enter(result: Result, group: list[Result]) -> None:
    """Add ``result`` to its row; warn and leave it out if the row has its seed already."""
    for other in group:
        if other.config.seed == result.config.seed:
            places = [str(r.folder or r.key) for r in (result, other)]
            warnings.warn(f"{places[0]}: left out: the same run as {places[1]}", stacklevel=3)
            return
    group.append(result)


def _ordered(tables: Iterable[Board]) -> list[Board]:
    """Sort by task, data set and machine, then most rows first; set ``Board.main``."""

    def place(board: Board) -> tuple[Any, ...]:
        return board.task, board.title, board.device, board.threads, board.amp

    ordered = sorted(tables, key=lambda b: (*place(b), -len(b.rows), -b.test_images, b.protocol))
    for before, board in itertools.pairwise(ordered):
        board.main = place(before) != place(board)
    return ordered


def _place_failed(result: Result, ranked: list[Board], sizes: list[set[tuple[Any, ...]]]) -> None:
    """Append a failed run to the boards of its tasks, data set and setup, or to a new board.

    sizes: for each of ``ranked``, ``_sized`` of its runs.
    """
    config = result.config
    device, threads = result.machine
    there = [
        (b, sized)
        for b, sized in zip(ranked, sizes, strict=True)
        if not device or (b.device, b.threads, b.amp) == (device, threads, config.amp)
    ]
    placed = False
    for task in config.tasks:
        title = title_of(task, config)
        same = [(b, sized) for b, sized in there if b.title == title]
        alike = [(b, sized) for b, sized in same if _sized(config) in sized]
        for board, sized in alike or [(b, sized) for b, sized in same if b.main]:
            board.rows.append(_failed(result))
            sized.add(_sized(config))
            placed = True
    if not placed:
        title = title_of(config.task, config)
        empty = next((b for b, _ in there if b.title == title and not b.columns), None)
        if empty is None:
            empty = Board(
                config.task, title, "no finished run", [], {}, dataset=config.dataset,
                device=device, threads=threads,
            )  # fmt: skip
            ranked.append(empty)
            sizes.append(set())
        empty.rows.append(_failed(result))
        sizes[ranked.index(empty)].add(_sized(config))


def _sized(config: RunConfig) -> tuple[Any, ...]:
    return config.image_size, config.limit


# fields of a configuration in which the runs of one row may differ
WITHIN_ROW = {"description", "seed", "weights", "init", "data", "workers"}

# fields in which a network of several tasks may differ from those of its single tasks
JOINT = {"task", "loss", "loss_weighting", "task_weights", "separate_decoders"}


def _compare_tasks(
    tables: Mapping[tuple[Any, ...], Board],
    runs: Mapping[tuple[Any, ...], Mapping[str, list[Result]]],
    rows: Mapping[tuple[Any, ...], Mapping[str, Row]],
) -> None:
    """Set ``Row.delta_m``: mean over tasks of ±(m − m alone) / m alone in per cent; > 0 is better.

    "Alone" is the same network trained for that task only, on the same images and machine.
    """
    alone: dict[tuple[Any, ...], float] = {}
    joint: dict[tuple[Any, ...], list[tuple[Row, tuple[Any, ...], float, int]]] = {}
    for place, board in tables.items():
        main = board.columns[0]
        for network, row in rows[place].items():
            first = runs[place][network][0]
            config, where = first.config, (*place[1:], _images(first, "train"))
            twin = (where, board.task, config.model_dump_json(exclude=WITHIN_ROW | JOINT))
            if "+" in config.task:
                entry = row, twin, row.metrics[main], board.sign
                joint.setdefault((where, network), []).append(entry)
            elif config.loss is None:
                alone[twin] = row.metrics[main]
    for entries in joint.values():
        gains = [
            sign * (value - alone[twin]) / abs(alone[twin])
            for _, twin, value, sign in entries
            if alone.get(twin)
        ]
        if len(gains) == len(entries):
            for row, *_ in entries:
                row.delta_m = 100 * statistics.fmean(gains)


def _images(result: Result, split: str) -> str:
    return str(result.data.get(split, {}).get("fingerprint", ""))


def differing(groups: Sequence[list[Result]]) -> list[str]:
    """For each row the settings that others of its decoder and backbone lack: "epochs=20"."""
    alike: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    contents = [group[0].config.model_dump(mode="json", exclude=WITHIN_ROW) for group in groups]
    for content in contents:
        alike.setdefault((content["decoder"], content["backbone"]), []).append(content)
    varying = {
        place: [name for name in those[0] if any(x[name] != those[0][name] for x in those)]
        for place, those in alike.items()
    }
    # these mean nothing for a network of one task
    joint = JOINT - {"loss"}
    return [
        ", ".join(
            name if content[name] is True else f"{name}={content[name]}"
            for name in varying[content["decoder"], content["backbone"]]
            if content[name] is not False
            and not (content[name] is None and name in LATER)  # as without that option
            and ("+" in content["task"] or name not in joint)
        )
        for content in contents
    ]


def rank(board: Board) -> None:
    """Sort the rows by the ranking metric and set their ranks.

    A row shares a rank if its interval overlaps that of the rank's best row. The best constant
    takes its place among them: a row that is no better than it shares no rank with one that is, and
    is never the first.
    """
    main = board.columns[0]
    board.rows.sort(
        key=lambda r: (-board.sign * r.metrics[main], r.decoder, r.backbone, r.settings, r.runtime)
    )
    floor = board.constant.get(main, -board.sign * math.inf)
    best: Row | None = None
    for place, row in enumerate(board.rows, 1):
        row.beats_constant = not board.sign * (row.metrics[main] - floor) <= 0  # NaN is no score
        alike = best is not None and best.beats_constant == row.beats_constant
        if best is not None and alike and overlap(best.interval, row.interval):
            row.rank = best.rank
        else:
            best, row.rank = row, place + (not row.beats_constant)


def place_fronts(board: Board) -> None:
    """Set ``pareto`` of the rows and ``hypervolume`` of the board, from values without intervals.

    The front of a cost leaves out rows without it, that of latency also rows of other sessions and
    disturbed ones.
    """
    main, sessions = board.columns[0], board.sessions
    for cost in COSTS:
        rows, points = [], []
        for row in board.rows:
            value = row.cost(cost)
            if value is not None and not (cost == "latency" and board.other_session(row, sessions)):
                rows.append(row)
                points.append((board.sign * row.metrics[main], value))
        for index in front(points):
            rows[index].pareto.append(cost)
        share = hypervolume(points, board.sign * board.constant[main])
        if share is not None and len(points) > 1:  # with one point it is always 0
            board.hypervolume[cost] = share


def overlap(a: tuple[float, float] | None, b: tuple[float, float] | None) -> bool:
    """Whether two intervals share a value; False if one is None."""
    return a is not None and b is not None and a[0] <= b[1] and b[0] <= a[1]


def row_of(group: Sequence[Result], columns: Sequence[str], settings: str) -> Row:
    """The row of runs that differ only in the seed. settings: of ``differing``."""
    first = group[0]
    common = [name for name in columns if all(name in r.metrics for r in group)]
    metrics = {name: statistics.fmean(r.metrics[name] for r in group) for name in common}
    spread: dict[str, float | None] = dict.fromkeys(common)
    if len(group) > 1:  # in one call: NumPy's overhead dominates for so few numbers
        values = np.array([[r.metrics[name] for name in common] for r in group])
        spread = dict(zip(common, values.std(axis=0, ddof=1).tolist(), strict=True))
    timed = [r.speed for r in group if r.speed is not None]
    peaks = [peak for s in timed if (peak := s.get("peak_memory_mb")) is not None]
    intervals = [r.intervals[columns[0]] for r in group if columns[0] in r.intervals]
    return Row(
        task=first.config.task,
        dataset=first.config.dataset,
        backbone=first.config.backbone or "",
        decoder=first.config.decoder,
        settings=settings,
        device=first.machine[0],
        threads=first.machine[1],
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
        memory_mb=statistics.median(peaks) if peaks else None,
        disturbed=max((s.get("disturbed") or 0.0 for s in timed), default=0.0) or None,
        params=first.params,
        macs=sum(first.macs.values()),
        deployed=first.deployed,
        neck=_neck(group),
        train_seconds=statistics.fmean(r.seconds["total"] for r in group),
        command=first.command,
        runs=list(group),
    )


def _neck(group: Sequence[Result]) -> dict[str, float | None]:
    params, macs = group[0].params, group[0].macs
    if "neck" not in params:
        return {}
    times = [r.speed["neck_ms"] for r in group if r.speed is not None and "neck_ms" in r.speed]
    median = statistics.median(times) if times else None
    return {"params": params["neck"], "macs": macs.get("neck"), "ms": median}


def _failed(result: Result) -> Row:
    config = result.config
    return Row(
        task=config.task,
        dataset=config.dataset,
        backbone=config.backbone or "",
        decoder=config.decoder,
        settings="",
        device=result.machine[0],
        threads=result.machine[1],
        seeds=[config.seed],
        metrics={},
        spread={},
        interval=None,
        latency_ms=None,
        fps=None,
        sessions=[],
        params=result.params,
        macs=sum(result.macs.values()),
        deployed=result.deployed,
        neck=_neck([result]),
        train_seconds=result.seconds.get("total", 0.0),
        command=result.command,
        error=result.error,
        runs=[result],
        unranked="failed",
    )
