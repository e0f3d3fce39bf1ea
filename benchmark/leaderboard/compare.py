"""Two sets of results run by run: paired differences, and what else differs."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from benchmark.leaderboard.boards import APART, differing, title_of
from benchmark.leaderboard.sides import Side
from benchmark.results.replicates import load_replicates
from benchmark.results.result import Result
from common.errors import UsageError, UserError
from models.decoder_name import DecoderName
from tasks.metrics.base import interval

Verdict = Literal["better", "worse", "undecided", "equal", "unknown"]
View = tuple[str, Result]
"""A task, and the result as that task sees it."""


@dataclass
class Difference:
    """One metric of A and B, means over the paired seeds.

    difference: B − A. relative: its gain in per cent of A, above 0 is better; None where A is 0.
    interval: 95 % of the paired bootstrap over the scored images, None without replicates. sd: of
    the difference over seeds, None for one. verdict: of B, "undecided" if the interval holds 0.
    """

    metric: str
    higher_is_better: bool
    a: float
    b: float
    difference: float
    relative: float | None
    interval: tuple[float, float] | None
    sd: float | None
    verdict: Verdict


@dataclass
class Comparison:
    """One network in A and in B. changes: field → (A, B); costs: name → (A, B)."""

    task: str
    title: str
    name: str
    seeds: list[tuple[int, int]]
    differences: list[Difference]
    changes: dict[str, tuple[Any, Any]]
    costs: dict[str, tuple[float, float]]
    notes: list[str] = field(default_factory=list)

    @property
    def main(self) -> Difference:
        return self.differences[0]


@dataclass
class Report:
    """All that two sides have in common, and what they have not. failed: in B, finished in A."""

    a: str
    b: str
    rows: list[Comparison]
    only_a: list[str]
    only_b: list[str]
    failed: list[str]

    def worse_than(self, percent: float) -> list[str]:
        """The networks that are worse in B by more than ``percent`` of A's ranking metric.

        The number itself decides, whatever its interval; a metric that was 0 may not get worse. A
        run that finished in A and failed in B is worse.
        """
        found = []
        for row in self.rows:
            main = row.main
            if main.relative is None:
                worse = (main.difference < 0) == main.higher_is_better and main.difference != 0
            else:
                worse = -main.relative > percent
            if worse:
                found.append(f"{row.name}, {row.title}")
        return found + self.failed


def compare(a: Side, b: Side) -> Report:
    """Pair the runs of two sides and compare them.

    Two single runs are one pair. Otherwise a pair has task, data set, protocol, backbone, decoder
    and seed in common; where several have, also their configuration, and at last the device. Pairs
    that differ in the seed only are one row. Raises UsageError for single runs that cannot be
    compared, UserError if no runs can be paired.
    """
    left, right = _views(a), _views(b)
    if a.single and b.single:
        tasks = [task for task, _ in left if task in dict(right)]
        pairs = [(task, dict(left)[task], dict(right)[task]) for task in tasks]
        _require_comparable(a, b, pairs)
        alone_a = [_named(v) for v in left if v[0] not in tasks]
        alone_b = [_named(v) for v in right if v[0] not in tasks]
        failed: list[str] = []
    else:
        matched = _match(left, right)
        pairs = [(x[0], x[1], y[1]) for x, y in matched]
        met = {id(view) for pair in matched for view in pair}
        rest = [v for v in left if id(v) not in met]
        broken = {_loose(*v): v[1].error for v in _views(b, "failed")}
        failed = [f"{_named(v)}: {broken[_loose(*v)]}" for v in rest if _loose(*v) in broken]
        alone_a = [_named(v) for v in rest if _loose(*v) not in broken]
        alone_b = [_named(v) for v in right if id(v) not in met]
    groups: dict[str, list[tuple[str, Result, Result]]] = {}
    for pair in pairs:
        groups.setdefault(repr([pair[0], *map(_network, pair[1:])]), []).append(pair)
    if not groups and not failed:
        there = [f"{s.name} has {(alone or ['no finished run'])[0]}"
                 for s, alone in ((a, alone_a), (b, alone_b))]  # fmt: skip
        raise UserError(f"nothing to compare: {' and '.join(there)}")
    rows = [_comparison(group) for group in groups.values()]
    networks = [[x for _, x, _ in group] for group in groups.values()]
    for title in {row.title for row in rows}:
        alike = [(r, n) for r, n in zip(rows, networks, strict=True) if r.title == title]
        for (row, _), settings in zip(alike, differing([n for _, n in alike]), strict=True):
            row.name += f" ({settings})" if settings else ""
    rows.sort(key=lambda row: (row.task, row.title, row.name))
    return Report(a.name, b.name, rows, alone_a, alone_b, failed)


def _views(side: Side, status: str = "finished") -> list[View]:
    """The tasks of all results of ``status``; a failed one has no scores, only its tasks' names."""
    found: list[View] = []
    for result in side.results:
        if result.status == status == "finished":
            found += result.by_task().items()
        elif result.status == status:
            found += [(task, result) for task in result.config.tasks]
    return found


def _require_comparable(a: Side, b: Side, pairs: Sequence[tuple[str, Result, Result]]) -> None:
    for side in (a, b):
        if side.results[0].status == "failed":
            raise UsageError(f"{side.name}: this run failed: {side.results[0].error}")
    tasks = [side.results[0].config.task for side in (a, b)]
    if not pairs:
        raise UsageError(f"{a.name} is a run of {tasks[0]}, {b.name} one of {tasks[1]}")
    for _, x, y in pairs:
        if x.protocol != y.protocol:
            raise UsageError(f"other protocols: {a.name} has {x.protocol}, {b.name} {y.protocol}")
        if not _same_images(x, y):
            raise UsageError(f"{a.name} and {b.name} were scored on other test images")


def _same_images(a: Result, b: Result) -> bool:
    prints = [r.data.get("test", {}).get("fingerprint") for r in (a, b)]
    return prints[0] == prints[1] and a.counts.get("images") == b.counts.get("images")


def _match(left: Sequence[View], right: Sequence[View]) -> list[tuple[View, View]]:
    """Pairs of views, from the strictest likeness to the loosest, each only where it is clear."""

    def loose(view: View) -> Any:
        result = view[1]
        prints = result.data.get("test", {}).get("fingerprint")
        return _loose(*view), result.protocol, prints, result.counts.get("images")

    def strict(view: View) -> Any:
        return loose(view), _network(view[1])

    def strictest(view: View) -> Any:
        return strict(view), view[1].machine

    found: list[tuple[View, View]] = []
    met: set[int] = set()
    likenesses: list[Callable[[View], Any]] = [strictest, strict, loose]
    for likeness in likenesses:
        places: dict[str, tuple[list[View], list[View]]] = {}
        for side, views in enumerate((left, right)):
            for view in views:
                if id(view) not in met:
                    places.setdefault(repr(likeness(view)), ([], []))[side].append(view)
        pairs = [(a[0], b[0]) for a, b in places.values() if len(a) == len(b) == 1]
        found += pairs
        met |= {id(view) for pair in pairs for view in pair}
    return found


def _loose(task: str, result: Result) -> tuple[Any, ...]:
    config = result.config
    title, label = title_of(task, config), DecoderName.parse(config.decoder).label
    return task, title, config.task, config.backbone, label, config.seed


def _network(result: Result) -> str:
    return result.config.model_dump_json(exclude=APART)


def _name(result: Result) -> str:
    return f"{DecoderName.parse(result.config.decoder).label} on {result.config.backbone}"


def _named(view: View) -> str:
    return f"{_name(view[1])}, seed {view[1].config.seed}, {title_of(view[0], view[1].config)}"


def _comparison(group: Sequence[tuple[str, Result, Result]]) -> Comparison:
    group = sorted(group, key=lambda pair: (pair[1].config.seed, pair[2].config.seed))
    task, a, b = group[0]
    replicates = [(load_replicates(x.folder, task) if x.folder else {},
                   load_replicates(y.folder, task) if y.folder else {})
                  for _, x, y in group]  # fmt: skip
    columns = [
        name for name in a.columns if all(name in r.metrics for _, *both in group for r in both)
    ]
    differences = [
        _difference(name, a.higher_is_better[name], group, replicates) for name in columns
    ]
    names = [_name(a), _name(b)]
    seeds = [(x.config.seed, y.config.seed) for _, x, y in group]
    costs, notes = _costs(group)
    if differences[0].interval is None:
        notes.append("no interval: bootstrap.npz is missing beside a result.json")
    return Comparison(
        task,
        title_of(task, a.config),
        names[0] if names[0] == names[1] else " → ".join(names),
        seeds,
        differences,
        _changes(a, b, any(x != y for x, y in seeds)),
        costs,
        notes,
    )


def _difference(
    name: str,
    higher: bool,
    group: Sequence[tuple[str, Result, Result]],
    replicates: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
) -> Difference:
    sign = 1 if higher else -1
    a = statistics.fmean(x.metrics[name] for _, x, _ in group)
    b = statistics.fmean(y.metrics[name] for _, _, y in group)
    each = [y.metrics[name] - x.metrics[name] for _, x, y in group]
    difference = statistics.fmean(each)
    paired = [
        right[name] - left[name]
        for left, right in replicates
        if name in left and name in right and left[name].shape == right[name].shape
    ]
    # the same splits for every seed: their mean is that of the seeds' mean
    ends = interval(np.mean(paired, axis=0)) if len(paired) == len(group) else None
    verdict: Verdict = "unknown"
    if not any(each):
        verdict = "equal"
    elif ends is not None and ends[0] <= 0 <= ends[1]:
        verdict = "undecided"
    elif ends is not None:
        verdict = "better" if sign * ends[0] > 0 else "worse"
    return Difference(
        metric=name,
        higher_is_better=higher,
        a=a,
        b=b,
        difference=difference,
        relative=100 * sign * difference / abs(a) + 0.0 if a else None,  # never -0
        interval=ends,
        sd=statistics.stdev(each) if len(each) > 1 else None,
        verdict=verdict,
    )


def _changes(a: Result, b: Result, seeds: bool) -> dict[str, tuple[Any, Any]]:
    """What differs in the configurations, then in versions, device and commit."""
    dumps = [r.config.model_dump(mode="json") for r in (a, b)]
    found = {name: (dumps[0][name], dumps[1][name]) for name in dumps[0]}
    if not seeds:
        del found["seed"]
    kept = {name: pair for name, pair in found.items() if pair[0] != pair[1]}
    facts = [
        {**r.environment.get("versions", {}),
         **{name: r.environment.get(name) for name in ENVIRONMENT},
         "training images": r.data.get("train", {}).get("fingerprint")}
        for r in (a, b)
    ]  # fmt: skip
    for name in dict.fromkeys((*facts[0], *facts[1])):
        pair = facts[0].get(name), facts[1].get(name)
        # threads are in both lists
        if pair[0] != pair[1] and name not in kept:
            kept[name] = pair
    return kept


ENVIRONMENT = ("python", "system", "device", "threads", "cuda", "commit", "uncommitted_changes")


def _costs(
    group: Sequence[tuple[str, Result, Result]],
) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """Parameters and MACs; on one device, latency and memory too. Notes say what is missing."""
    _, a, b = group[0]
    costs: dict[str, tuple[float, float]] = {
        "params": (sum(a.params.values()), sum(b.params.values())),
        "macs": (sum(a.macs.values()), sum(b.macs.values())),
    }
    machines = [(r.machine, r.config.amp) for r in (a, b)]
    if machines[0] != machines[1]:
        return costs, ["latency: not on the same device, threads and precision"]
    speeds = [(x.speed, y.speed) for _, x, y in group]
    timed = [(x, y) for x, y in speeds if x is not None and y is not None]
    measured: dict[str, list[tuple[float | None, float | None]]] = {
        "latency_ms": [(x["median_ms"], y["median_ms"]) for x, y in timed],
        "memory_mb": [(x.get("peak_memory_mb"), y.get("peak_memory_mb")) for x, y in timed],
    }
    notes = []
    for name, pairs in measured.items():
        known = [(x, y) for x, y in pairs if x is not None and y is not None]
        if known:
            costs[name] = (_median(x for x, _ in known), _median(y for _, y in known))
    if "latency_ms" in costs:
        sessions = [{s["session"] for s in side if s} for side in zip(*speeds, strict=True)]
        if sessions[0] != sessions[1]:
            notes.append("latency: timed in other sessions, not comparable to a few %")
    return costs, notes


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)
