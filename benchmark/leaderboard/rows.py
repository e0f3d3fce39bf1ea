"""What a leaderboard is made of: rows, boards, rows across boards."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from benchmark.results.result import Result
from models.decoder_name import DecoderName

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

    A reported row has no seeds and no runs; ``metrics`` and ``params`` hold what was printed only.
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
        return DecoderName.parse(self.decoder).label

    def cost(self, name: str) -> float | None:
        """One of ``COSTS`` in ms, parameters, MACs or MB; None where it was not measured."""
        counts = {"params": sum(self.params.values()), "macs": self.macs}
        if name in counts:
            return counts[name] or None
        return self.latency_ms if name == "latency" else self.memory_mb

    def flat(self) -> dict[str, Any]:
        """The row as one level of plain values, for CSV and JSON."""
        values: dict[str, Any] = {
            "rank": self.rank,
            "task": self.task,
            "dataset": self.dataset,
            "backbone": self.backbone,
            "decoder": self.decoder,
            "label": self.label,
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
        values |= {"macs": self.macs, "memory mb": self.memory_mb}
        values |= {"pareto": " ".join(self.pareto), "run seconds": self.train_seconds}
        values |= {"reported": self.source is not None, "source": self.source}
        values |= {"unranked": self.unranked, "error": self.error}
        return values | {"command": self.command}


@dataclass
class Board:
    """Comparable rows: one protocol, one device. columns: metrics, the ranking one first.

    Ranked rows come first, then reported and failed ones. hypervolume: for each of ``COSTS``, the
    share of a box that its front dominates, see ``pareto.hypervolume``; the reference accuracy is
    the best constant's. main: of several protocols on one task, data set and device, whether this
    one has the most rows.
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

    @property
    def machine(self) -> str:
        """Device, threads and precision in words."""
        precision = ", mixed precision" if self.amp else ""
        return f"{self.device}, {self.threads} thread{'s' * (self.threads != 1)}{precision}"

    @property
    def measured(self) -> list[Row]:
        """The rows that have scores of ours, the best first."""
        return [row for row in self.rows if row.rank is not None]

    @property
    def sign(self) -> int:
        """1 where more of the ranking metric is better, else -1."""
        return 1 if self.higher_is_better[self.columns[0]] else -1

    @property
    def sessions(self) -> list[str]:
        """The timing session(s) of most rows: only they were timed in turns."""
        common = Counter(tuple(row.sessions) for row in self.measured if row.sessions)
        return list(common.most_common(1)[0][0]) if common else []

    def timed_apart(self, row: Row, sessions: list[str] | None = None) -> bool:
        """Whether the row was timed in another session than most.

        sessions: the board's own, where they are asked for many rows.
        """
        return bool(row.sessions) and row.sessions != (sessions or self.sessions)


@dataclass
class OverallRow:
    """One decoder on one backbone over all boards of a device.

    scores: main metric by board title, None where it has no measured row there. delta_m: mean
    relative gain over the baseline, in per cent, and mean_rank: both for complete rows only.
    missing: the boards that an incomplete row lacks.
    """

    backbone: str
    label: str
    settings: str
    scores: dict[str, float | None]
    delta_m: float | None = None
    mean_rank: float | None = None
    rank: int | None = None
    missing: list[str] = field(default_factory=list)


@dataclass
class Overall:
    """Rows across the boards of one device. baseline: the row that Δm compares with, or "".

    metric and higher_is_better: of each board, its ranking metric and that one's direction.
    """

    title: str
    boards: list[str]
    baseline: str
    rows: list[OverallRow] = field(default_factory=list)
    metric: dict[str, str] = field(default_factory=dict)
    higher_is_better: dict[str, bool] = field(default_factory=dict)
