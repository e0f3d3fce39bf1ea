"""Candidates on their way through the rungs: trained alike, ever longer, ever fewer."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch

from benchmark.experiment.config import ResolvedRun
from benchmark.experiment.plan import PlannedRun, plan
from benchmark.leaderboard.pareto import Point
from benchmark.results.result import Result
from benchmark.wiring.costs import NetworkCosts, network_costs
from benchmark.wiring.front.candidates import Candidate, affordable, children, described
from benchmark.wiring.front.selection import (
    Measured,
    Standing,
    sizes,
    standing_of,
    survivors,
)
from common.errors import DataError, UsageError
from common.files import write_atomic
from common.limits import RESULT, parse_json, read_bytes
from common.progress import Listener
from models.connectivity import Connectivity

PLAN = "plan.json"
"""File of a race: its candidates and their costs, as far as it is."""
PARENTS = 4
"""Wirings that a generation of children comes from, the most accurate so far."""


@dataclass(frozen=True)
class Trainer:
    """Executes the runs of a rung, ``lanes`` at once.

    run: gives their results, which are on disk, in their order; what is finished there is not
    repeated. estimate: seconds that each would take.
    """

    run: Callable[[Sequence[PlannedRun]], list[Result]]
    estimate: Callable[[Sequence[PlannedRun]], list[float]]
    lanes: int = 1


@dataclass
class Pace:
    """Time left until ``deadline``, a value of ``time.monotonic``."""

    deadline: float

    @property
    def left(self) -> float:
        return max(self.deadline - time.monotonic(), 0.0)


@dataclass(frozen=True)
class Protocol:
    """How all candidates of a search are trained and compared.

    values: options of every run. full: a full training, of ``steps`` steps. rungs: steps of each.
    settings: what a resumed search must share.
    """

    values: Mapping[str, Any]
    full: ResolvedRun
    steps: int
    rungs: Sequence[int]
    cost: Literal["macs", "latency", "params"]
    budget_ms: float | None
    budget_macs: float | None
    settings: Mapping[str, Any]
    trainer: Trainer
    listener: Listener

    def runs(self, wirings: Path, some: Sequence[Candidate], rung: int) -> list[PlannedRun]:
        """The runs of a rung, for wirings that lie in the folder ``wirings``."""
        folder = wirings.parent / "rungs" / str(rung + 1)
        values = {**self.values, "steps": self.rungs[rung], "split": "val"}
        planned = []
        for candidate in some:
            decoder = f"connectivity:{wirings / candidate.name}.json"
            (config,) = plan({**values, "decoder": decoder}, {})
            planned.append(PlannedRun.of(config, folder))
        return planned

    @property
    def threads(self) -> int:
        """Of each training, and for latencies."""
        return self.full.threads or torch.get_num_threads()

    def cost_of(self, costs: NetworkCosts) -> float:
        """What the score is held against."""
        return costs["ms"] if self.cost == "latency" else costs[self.cost]


@dataclass
class Race:
    """Candidates of one folder.

    pace: how long it may take, None for as long as it takes. costs: by name. groups: the candidates
    that came in together: the first ones, then children, of which ``generations`` holds the
    numbers. places: of the rungs so far. scores: of each rung, by name. results: of this one.
    seconds: that trainings took. timed: whether those of the last rung were timed together.
    """

    protocol: Protocol
    folder: Path
    pace: Pace | None = None
    costs: dict[str, NetworkCosts] = field(default_factory=dict)
    groups: list[list[Candidate]] = field(default_factory=list)
    generations: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    scores: list[dict[str, Measured]] = field(default_factory=list)
    seconds: float = 0.0
    timed: bool = False

    @property
    def candidates(self) -> list[Candidate]:
        return [candidate for group in self.groups for candidate in group]

    def cost(self, candidate: Candidate) -> float:
        return self.protocol.cost_of(self.costs[candidate.name])

    def run(self, first: Callable[[], tuple[list[Candidate], list[int]]], seed: int) -> None:
        """Train candidates, and children of the best, rung by rung.

        first: gives the first candidates, and the numbers of children of each generation. What an
        earlier process has done is taken as it is.
        """
        self._restore()
        if not self.groups:
            some, self.generations = first()
            self._enter(some)
        scores = self._train(self.groups[0], 0)
        if not scores:
            raise self._nothing()
        for number, count in enumerate(self.generations, 1):
            if len(self.groups) == number:
                parents = self._parents(scores)
                born = children(parents, self.candidates, count, f"{seed} {number}")
                self._enter(born)
            if self.groups[number]:
                scores |= self._train(self.groups[number], 0)
        self.scores = [scores]
        running = self.candidates
        for rung in range(1, len(self.protocol.rungs)):
            before = self.scores[-1]
            running = [c for c in running if c.name in before]
            points = [(before[c.name].accuracy, self.cost(c)) for c in running]
            if len(self.places) < rung:
                self.places.append(self._room(rung, len(running)))
                self._save()
            stay = [running[i] for i in survivors(points, self.places[rung - 1])]
            running = with_preset(stay, running, points)
            self.results = []
            self.scores.append(self._train(running, rung))
            if not self.scores[-1]:
                raise self._nothing()
        if not self.timed:
            self._time([c for c in self.candidates if c.name in self.scores[-1]])

    def standing(self) -> Standing:
        """How the wirings of the last rung compare; what is found is within the budgets."""
        protocol = self.protocol
        pairs = {name: (cost["ms"], cost["macs"]) for name, cost in self.costs.items()}
        inside = affordable(pairs, protocol.budget_ms, protocol.budget_macs)
        return standing_of(self.scores[-1], {c.name: self.cost(c) for c in self.candidates}, inside)

    def _time(self, last: Sequence[Candidate]) -> None:
        """Time the wirings of the last rung in turns: they came in at different times."""
        runs = self.protocol.runs(self.folder / "candidates", last, 0)
        configs = {c.name: run.config for c, run in zip(last, runs, strict=True)}
        tell = self.protocol.listener.message
        self.costs |= network_costs(configs, self.protocol.threads, tell=tell)
        self.timed = True
        self._save()

    def _nothing(self) -> DataError:
        return DataError(f"{self.folder / 'rungs'}: no wiring could be trained: see result.json")

    def _room(self, rung: int, count: int) -> int:
        """Number of the ``count`` wirings that go on to ``rung``: a third, or what time allows."""
        if self.pace is None:
            return sizes(count, 2)[1]
        done, rungs = self.results, self.protocol.rungs
        step = sum(r.seconds["train"] for r in done) / sum(r.steps for r in done)
        around = fmean(r.seconds["total"] - r.seconds["train"] for r in done)
        left = self.pace.left / (len(rungs) - rung) * self.protocol.trainer.lanes
        lanes = self.protocol.trainer.lanes
        room = int(left / (around + step * rungs[rung])) // lanes * lanes
        return min(count, max(2, room))

    def _parents(self, scores: Mapping[str, Measured]) -> list[Candidate]:
        scored = [c for c in self.candidates if c.name in scores]
        best_first = sorted(scored, key=lambda c: (-scores[c.name].accuracy, self.cost(c)))
        return best_first[:PARENTS]

    def _train(self, some: Sequence[Candidate], rung: int) -> dict[str, Measured]:
        """Scores by name after a rung; of a failed training there is none."""
        protocol = self.protocol
        protocol.listener.message(
            f"rung {rung + 1} of {len(protocol.rungs)}: {len(some)} wirings, "
            f"{protocol.rungs[rung]} of {protocol.steps} steps"
        )
        runs = protocol.runs(self.folder / "candidates", some, rung)
        results = protocol.trainer.run(runs)
        self.results += [result for result in results if result.status == "finished"]
        self.seconds += sum(result.seconds.get("total", 0.0) for result in results)
        scores = {}
        for candidate, run, result in zip(some, runs, results, strict=True):
            if result.status == "finished":
                scores[candidate.name] = Measured.of(result, run.folder)
            else:
                protocol.listener.message(f"{candidate.name}: left out: {result.error}")
        return scores

    def _enter(self, some: Sequence[Candidate]) -> None:
        """Write wirings, count and measure their costs, keep those within the budgets."""
        protocol, wirings = self.protocol, self.folder / "candidates"
        for candidate in some:
            wiring = described(candidate, protocol.full.backbone, protocol.full.backbone_args)
            text = json.dumps(wiring.to_json(), indent=1) + "\n"
            write_atomic(wirings / f"{candidate.name}.json", text, "--output")
        runs = protocol.runs(wirings, some, 0)
        configs = {c.name: run.config for c, run in zip(some, runs, strict=True)}
        first = not self.groups
        if first and "fully-dense" not in configs:  # the end of the axis of costs
            (configs["fully-dense"],) = plan(protocol.values, {"decoder": ["fully-dense"]})
        decides = protocol.cost == "latency" or protocol.budget_ms is not None
        if configs:
            tell = protocol.listener.message if decides else None
            self.costs |= network_costs(configs, protocol.threads, not decides, tell)
        pairs = {c.name: (self.costs[c.name]["ms"], self.costs[c.name]["macs"]) for c in some}
        inside = affordable(pairs, protocol.budget_ms, protocol.budget_macs)
        if not inside and first:
            raise UsageError(_too_dear(pairs, protocol.budget_ms, protocol.budget_macs))
        if len(inside) < len(some):
            protocol.listener.message(
                f"{len(some) - len(inside)} of {len(some)} wirings are beyond the budget"
            )
        self.groups.append([c for c in some if c.name in inside])
        self._save()

    def _save(self) -> None:
        content = {
            "format": 1,
            "config": self.protocol.settings,
            "costs": self.costs,
            "generations": self.generations,
            "places": self.places,
            "timed": self.timed,
            "groups": [
                [
                    {"name": c.name, "wiring": c.wiring.to_json(), "origin": dict(c.origin)}
                    for c in group
                ]
                for group in self.groups
            ],
        }
        write_atomic(self.folder / PLAN, json.dumps(content, indent=1) + "\n", "--output")

    def _restore(self) -> None:
        """Take up what an interrupted search has saved. Raises UserError for another search's."""
        path = self.folder / PLAN
        if not path.exists():
            return
        try:
            saved = parse_json(read_bytes(path, RESULT))
            same = saved["config"] == self.protocol.settings
            self.costs = saved["costs"]
            self.generations, self.places = list(saved["generations"]), list(saved["places"])
            self.timed = bool(saved["timed"])
            self.groups = [[_candidate(entry) for entry in group] for group in saved["groups"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: not readable ({error}): begin anew by --overwrite") from error
        if not same:
            raise UsageError(
                f"{path}: a search with other settings was begun there: name another --output, or "
                "begin anew by --overwrite"
            )


def with_preset(
    stay: list[Candidate], running: Sequence[Candidate], points: Sequence[Point]
) -> list[Candidate]:
    """``stay``, with the best preset in the least accurate one's place if it is not among them.

    What one could have written down stands beside what was found.
    """
    accuracy = {c.name: point[0] for c, point in zip(running, points, strict=True)}
    presets = [c for c in running if c.origin["source"] == "preset"]
    if not presets or len(stay) < 2:
        return stay
    preset = max(presets, key=lambda c: accuracy[c.name])
    if preset in stay:
        return stay
    least = min(stay, key=lambda c: accuracy[c.name])
    return [*(c for c in stay if c is not least), preset]


def _candidate(entry: Mapping[str, Any]) -> Candidate:
    wiring = entry["wiring"]
    record = {"strides": wiring["encoder"]["strides"], "stages": wiring["stages"]}
    return Candidate(
        entry["name"], Connectivity.from_record(entry["name"], record), entry["origin"]
    )


def _too_dear(
    pairs: Mapping[str, tuple[float, float]], ms: float | None, macs: float | None
) -> str:
    """What is wrong with budgets that no candidate meets."""
    for option, axis, most, unit in (("ms", 0, ms, "ms"), ("macs", 1, macs, "MACs")):
        cheapest = min(pairs, key=lambda name: pairs[name][axis])
        if most is not None and pairs[cheapest][axis] > most:
            least = f"{cheapest}, takes {pairs[cheapest][axis]:.4g} {unit}"
            return f"--budget-{option} {most:g}: no candidate meets it: the cheapest, {least}"
    return (
        f"--budget-ms {ms:g}, --budget-macs {macs:g}: no candidate meets both: give one of them, "
        "or more of both"
    )
