"""Comparison of two sets of results: paired differences of metrics, changes and costs."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from benchmark.leaderboard.boards import WITHIN_ROW, differing, title_of
from benchmark.leaderboard.over_seeds import MOST_SEEDS, interval_over
from benchmark.leaderboard.sides import Side
from benchmark.results.replicates import load_replicates
from benchmark.results.result import Result
from common.errors import UsageError, UserError
from models.decoder_name import DecoderName
from tasks.metrics.resampling import is_drawn, paired

Verdict = Literal["better", "worse", "undecided", "equal", "unknown"]
View = tuple[str, Result]
"""A task and a result with that task's scores only."""


@dataclass
class Difference:
    """One metric in A and B, averaged over the paired seeds.

    difference: B − A. relative: gain of B in per cent of A, above 0 is better; None if A is 0.
    interval: 95 % interval of the difference, paired, over the choice of images and, with several
    seeds, over the luck of training; None without replicates. sd: standard deviation of the
    difference over seeds, None for one seed. verdict: on B; "undecided" if the interval contains 0.
    seeds_to_decide: how many would, if difference and scatter stayed as they are; None: not known,
    or no number would.
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
    seeds_to_decide: int | None = None


@dataclass
class Comparison:
    """One network in A and in B. seeds: (A, B) pairs; changes, costs: name → (A, B)."""

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
    """Paired rows, networks of one side only, and ``failed``: finished in A, failed in B."""

    a: str
    b: str
    rows: list[Comparison]
    only_a: list[str]
    only_b: list[str]
    failed: list[str]

    def worse_than(self, percent: float) -> list[str]:
        """Names of networks whose ranking metric in B is worse by more than ``percent`` of A's.

        Intervals are ignored. If A's metric is 0, any loss counts. Runs that finished in A and
        failed in B are included.
        """
        names = []
        for row in self.rows:
            main = row.main
            if main.relative is None:
                worse = (main.difference < 0) == main.higher_is_better and main.difference != 0
            else:
                worse = -main.relative > percent
            if worse:
                names.append(f"{row.name}, {row.title}")
        return names + self.failed


def compare(a: Side, b: Side) -> Report:
    """Pair the runs of two sides and compare them.

    Two single runs form one pair. Otherwise the two runs of a pair share task, data set, protocol,
    test images, backbone, decoder and seed; where that is ambiguous also the configuration, then
    the device. Pairs that differ only in the seed form one row. Raises UsageError for single runs
    that cannot be compared, UserError if no runs can be paired.
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
        partners = {id(view) for pair in matched for view in pair}
        rest = [v for v in left if id(v) not in partners]
        errors = {_loose(*v): v[1].error for v in _views(b, "failed")}
        failed = [f"{_named(v)}: {errors[_loose(*v)]}" for v in rest if _loose(*v) in errors]
        alone_a = [_named(v) for v in rest if _loose(*v) not in errors]
        alone_b = [_named(v) for v in right if id(v) not in partners]
    groups: dict[str, list[tuple[str, Result, Result]]] = {}
    for pair in pairs:
        place = title_of(pair[0], pair[1].config), _scored(pair[1])
        groups.setdefault(repr([pair[0], place, *map(_network, pair[1:])]), []).append(pair)
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
    """Views of all results with ``status``; a failed result has no scores, only its task names."""
    views: list[View] = []
    for result in side.results:
        if result.status == status == "finished":
            views += result.by_task().items()
        elif result.status == status:
            views += [(task, result) for task in result.config.tasks]
    return views


def _require_comparable(a: Side, b: Side, pairs: Sequence[tuple[str, Result, Result]]) -> None:
    for side in (a, b):
        if side.results[0].status == "failed":
            raise UsageError(f"{side.name}: this run failed: {side.results[0].error}")
    tasks = [side.results[0].config.task for side in (a, b)]
    if not pairs:
        raise UsageError(f"{a.name} is a run of {tasks[0]}, {b.name} one of {tasks[1]}")
    for _, x, y in pairs:
        if x.protocol != y.protocol:
            raise UsageError(
                f"different protocols: {a.name} has {x.protocol}, {b.name} {y.protocol}"
            )
        if _scored(x)[:2] != _scored(y)[:2]:
            raise UsageError(f"{a.name} and {b.name} were scored on different test images")
        if _scored(x) != _scored(y):
            differ = "whose dataset.yaml differed: its classes, range or other facts"
            raise UsageError(f"{a.name} and {b.name} were scored on own data {differ}")


def _scored(result: Result) -> tuple[Any, Any, str]:
    """What a score was taken on: the test images, their number, the description of own data."""
    fingerprint = result.data.get("test", {}).get("fingerprint")
    return fingerprint, result.counts.get("images"), result.config.scored_description


def _match(left: Sequence[View], right: Sequence[View]) -> list[tuple[View, View]]:
    """Pair each view with its only partner by the strictest criterion, the rest by looser ones."""

    def loose(view: View) -> Any:
        return _loose(*view), view[1].protocol, _scored(view[1])

    def strict(view: View) -> Any:
        return loose(view), _network(view[1])

    def strictest(view: View) -> Any:
        return strict(view), view[1].machine

    pairs: list[tuple[View, View]] = []
    used: set[int] = set()
    criteria: list[Callable[[View], Any]] = [strictest, strict, loose]
    for criterion in criteria:
        candidates: dict[str, tuple[list[View], list[View]]] = {}
        for side, views in enumerate((left, right)):
            for view in views:
                if id(view) not in used:
                    candidates.setdefault(repr(criterion(view)), ([], []))[side].append(view)
        new = [(a[0], b[0]) for a, b in candidates.values() if len(a) == len(b) == 1]
        pairs += new
        used |= {id(view) for pair in new for view in pair}
    return pairs


def _loose(task: str, result: Result) -> tuple[Any, ...]:
    config = result.config
    title, label = title_of(task, config), DecoderName.parse(config.decoder).label
    return task, title, config.task, config.backbone, label, config.seed


def _network(result: Result) -> str:
    return result.config.model_dump_json(exclude=WITHIN_ROW)


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
    notes += _missing(differences[0], replicates)
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
    resampled = [
        right[name] - left[name]
        for left, right in replicates
        if name in left and name in right and left[name].shape == right[name].shape
    ]
    # every seed resamples alike: the mean of replicates is a replicate of the mean
    whole = len(resampled) == len(group) and paired(*resampled)
    images = np.mean(resampled, axis=0) if whole else None
    ends, enough = interval_over(each, resampled, images)
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
        seeds_to_decide=enough if verdict == "undecided" else None,
    )


def _missing(
    main: Difference, replicates: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> Iterator[str]:
    """Why there is no interval, or what would decide an undecided difference."""
    found = [side.get(main.metric) for pair in replicates for side in pair]
    if main.interval is None and any(one is None for one in found):
        yield "no interval: bootstrap.npz is missing beside a result.json"
    elif main.interval is None and len({is_drawn(one) for one in found if one is not None}) > 1:
        yield (
            "no interval: some replicates are of an earlier version, from images drawn with "
            "replacement: repeat those runs with --overwrite"
        )
    elif main.interval is None:
        yield "no interval: too few images, or replicates of different images"
    elif main.verdict == "undecided" and main.sd is None:
        yield "one seed each: a second tells how much is the luck of training"
    elif main.verdict == "undecided" and main.seeds_to_decide is not None:
        more = main.seeds_to_decide - len(replicates)
        yield f"undecided: {more} more seed{'s' * (more > 1)} would tell, if all stays as it is"
    elif main.verdict == "undecided":
        yield f"undecided, and {MOST_SEEDS} seeds would not tell: it takes more images"


def _changes(a: Result, b: Result, seeds: bool) -> dict[str, tuple[Any, Any]]:
    """Differing configuration fields, then versions, device, commit and training images."""
    dumps = [r.config.model_dump(mode="json") for r in (a, b)]
    fields = {name: (dumps[0][name], dumps[1][name]) for name in dumps[0]}
    if not seeds:
        del fields["seed"]
    changes = {name: pair for name, pair in fields.items() if pair[0] != pair[1]}
    facts = [
        {**r.environment.get("versions", {}),
         **{name: r.environment.get(name) for name in ENVIRONMENT},
         "training images": r.data.get("train", {}).get("fingerprint")}
        for r in (a, b)
    ]  # fmt: skip
    for name in dict.fromkeys((*facts[0], *facts[1])):
        pair = facts[0].get(name), facts[1].get(name)
        # threads are a configuration field too
        if pair[0] != pair[1] and name not in changes:
            changes[name] = pair
    return changes


ENVIRONMENT = ("python", "system", "device", "threads", "cuda", "commit", "uncommitted_changes")


def _costs(
    group: Sequence[tuple[str, Result, Result]],
) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """Parameters and MACs as deployed, on the same machine also latency and memory.

    Notes name what lacks.
    """
    _, a, b = group[0]
    sizes = [
        {"params": sum(r.params.values()), "macs": sum(r.macs.values()), **r.deployed}
        for r in (a, b)
    ]
    costs: dict[str, tuple[float, float]] = {
        name: (sizes[0][name], sizes[1][name]) for name in ("params", "macs")
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
        if any(s.get("disturbed") for side in timed for s in side):
            notes.append("latency: timed while other work took the processors: do not trust it")
    return costs, notes


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)
