"""Rows and boards of a leaderboard, and rows across boards."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from benchmark.results.result import Result
from models.decoder_name import DecoderName

NO_BETTER = "no better than the best constant"
COSTS = ("latency", "params", "macs", "memory")


@dataclass
class Row:
    """One network under one protocol, averaged over its seeds.

    settings: what differs from other rows of the same decoder and backbone. spread: standard
    deviation over seeds, None for one seed. interval: 95 % interval of the ranking metric over the
    choice of test images, ends averaged over seeds. delta_m: for a network of several tasks, its
    mean gain in per cent over the same network trained for each task alone, None without those.
    runs: the results, sorted by seed. memory_mb: peak memory of one forward pass above the weights.
    pareto: the ``COSTS`` on whose Pareto front the row lies. source: where a reported row was
    published, None for a measured one. deployed: see ``Result``. neck: params, macs and ms of the
    backbone's neck, which are part of the network's; empty without one, ms None if not timed.
    unranked: why the row has no rank. disturbed: the share of the processors that other work took
    while the row was timed, None if none did: its latency is shown, and is no cost unless it
    ``counts``. runtime, precision: in which it is timed and scored, where a board has several;
    shipped: whether they are others than those of the board's runs; unscored: those that it is
    timed in only. beats_constant: the ranking metric is better than the best constant prediction's.

    A reported row has no seeds and no runs; ``metrics`` and ``params`` hold only printed figures.
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
    deployed: dict[str, int] = field(default_factory=dict)
    neck: dict[str, float | None] = field(default_factory=dict)
    disturbed: float | None = None
    counts: bool = False
    runtime: str = ""
    precision: str = ""
    shipped: bool = False
    beats_constant: bool = True
    unscored: list[tuple[str, str]] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The decoder's displayed name; for a wiring file, the name of the file."""
        return DecoderName.parse(self.decoder).label

    @property
    def name(self) -> str:
        """The label, the settings that differ from other rows of its name, the runtime."""
        name = f"{self.label} ({self.settings})" if self.settings else self.label
        return f"{name} in {self.runtime} {self.precision}" if self.runtime else name

    @property
    def marked_name(self) -> str:
        """``name``, with a remark where the row is no better than the best constant prediction."""
        return self.name if self.beats_constant else f"{self.name} ({NO_BETTER})"

    @property
    def drawn(self) -> bool:
        """Whether its interval is of an earlier version, from images drawn with replacement."""
        return any(run.intervals and not run.bootstrap for run in self.runs)

    def cost(self, name: str) -> float | None:
        """One of ``COSTS`` in ms, parameters, MACs or MB, as deployed; None if not measured.

        A disturbed latency is not measured unless it ``counts``.
        """
        counts = {"params": sum(self.params.values()), "macs": self.macs, **self.deployed}
        if name in counts:
            return counts[name] or None
        if name == "latency":
            return self.latency_ms if self.counts or not self.disturbed else None
        return self.memory_mb

    def flat(self) -> dict[str, Any]:
        """The row as a flat mapping of plain values, for CSV and JSON."""
        values: dict[str, Any] = {
            "rank": self.rank,
            "task": self.task,
            "dataset": self.dataset,
            "backbone": self.backbone,
            "decoder": self.decoder,
            "label": self.label,
            "settings": self.settings,
            "runtime": self.runtime,
            "precision": self.precision,
            "device": self.device,
            "threads": self.threads,
            "seeds": " ".join(map(str, self.seeds)),
        }
        for name, value in self.metrics.items():
            values[name] = value
            values[f"{name} sd over seeds"] = self.spread.get(name)
        values["interval low"], values["interval high"] = self.interval or (None, None)
        values["beats constant"] = None if self.rank is None else self.beats_constant
        values["delta m %"] = self.delta_m
        values |= {"fps": self.fps, "latency ms": self.latency_ms}
        values["timing session"] = " ".join(self.sessions)
        values["disturbed"] = self.disturbed
        values |= {f"params {part}": count for part, count in self.params.items()}
        values |= {"macs": self.macs, "memory mb": self.memory_mb}
        values |= {f"deployed {name}": self.deployed.get(name) for name in ("params", "macs")}
        values |= {f"neck {name}": self.neck[name] for name in ("macs", "ms") if self.neck}
        values |= {"pareto": " ".join(self.pareto), "run seconds": self.train_seconds}
        values |= {"reported": self.source is not None, "source": self.source}
        values |= {"unranked": self.unranked, "error": self.error}
        return values | {"command": self.command}


@dataclass
class Board:
    """Comparable rows of one protocol and device: ranked ones first, then reported and failed ones.

    columns: metrics, the ranking metric first. constant: scores of the best constant prediction.
    hypervolume: ``pareto.hypervolume`` for each of ``COSTS``, with the best constant's accuracy as
    reference. main: whether, among protocols of the same task, data set and device, this one has
    the most rows. fingerprint: of the scored images and their ground truth; "" of old results.
    """

    task: str
    title: str
    protocol: str
    columns: list[str]
    higher_is_better: dict[str, bool]
    rows: list[Row] = field(default_factory=list)
    constant: dict[str, float] = field(default_factory=dict)
    test_images: int = 0
    hypervolume: dict[str, float] = field(default_factory=dict)
    dataset: str = ""
    device: str = ""
    threads: int = 0
    amp: bool = False
    main: bool = True
    fingerprint: str = ""

    @property
    def machine(self) -> str:
        """Device, threads and precision as text."""
        precision = ", mixed precision" if self.amp else ""
        return f"{self.device}, {self.threads} thread{'s' * (self.threads != 1)}{precision}"

    @property
    def measured(self) -> list[Row]:
        """The ranked rows, the best first."""
        return [row for row in self.rows if row.rank is not None]

    @property
    def sign(self) -> int:
        """1 if a higher ranking metric is better, else -1."""
        return 1 if self.higher_is_better[self.columns[0]] else -1

    @property
    def sessions(self) -> list[str]:
        """The timing sessions that most rows share; only rows of one session are timed in turns."""
        common = Counter(
            tuple(row.sessions) for row in self.measured if row.sessions and not row.shipped
        )
        return list(common.most_common(1)[0][0]) if common else []

    def other_session(self, row: Row, sessions: list[str] | None = None) -> bool:
        """Whether the row was timed in another session than most rows.

        sessions: ``Board.sessions``, to compute them once for many rows.
        """
        return bool(row.sessions) and row.sessions != (sessions or self.sessions)


@dataclass
class OverallRow:
    """One decoder on one backbone over all boards of a device.

    scores: ranking metric by board title, None in boards without a measured row. delta_m: mean
    relative gain over the baseline in per cent; it and mean_rank are None for incomplete rows.
    missing: titles of the boards without a score.
    """

    backbone: str
    label: str
    settings: str
    scores: dict[str, float | None]
    delta_m: float | None = None
    mean_rank: float | None = None
    rank: int | None = None
    missing: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The label, and the settings that differ from other rows of its name."""
        return f"{self.label} ({self.settings})" if self.settings else self.label


@dataclass
class Overall:
    """Rows across the boards of one device. baseline: name of Δm's reference row, or "".

    metric and higher_is_better: ranking metric and its direction, by board title.
    """

    title: str
    boards: list[str]
    baseline: str
    rows: list[OverallRow] = field(default_factory=list)
    metric: dict[str, str] = field(default_factory=dict)
    higher_is_better: dict[str, bool] = field(default_factory=dict)
