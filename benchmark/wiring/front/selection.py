"""Which candidates stay after a rung, how the last ones compare, and what searching gained.

Successive halving: Jamieson and Talwalkar, AISTATS 2016; non-dominated sorting: Deb et al., 2002.
"""

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.leaderboard.pareto import Point, front
from benchmark.results.replicates import load_replicates
from benchmark.results.result import Result
from tasks.metrics.resampling import WEIGHTED, Floats, interval, is_drawn, paired

ETA = 3
"""One of so many candidates stays after a rung."""


def layers(points: Sequence[Point]) -> list[list[int]]:
    """Indices by non-dominated sorting: the front, the front of the rest, …"""
    left = list(range(len(points)))
    found = []
    while left:
        inside = [left[i] for i in front([points[i] for i in left])]
        found.append(inside)
        left = [i for i in left if i not in inside]
    return found


def survivors(points: Sequence[Point], keep: int) -> list[int]:
    """Sorted indices of the ``keep`` points (accuracy, cost) that go on to the next rung.

    Half the places, and the odd one, go to the most accurate: after a short training one that a
    cheaper point dominates may still win. The rest go by layers of non-dominated sorting, within a
    layer to the most accurate. Ties go to the cheaper, then to the earlier.
    """

    def best_first(indices: Sequence[int]) -> list[int]:
        return sorted(indices, key=lambda i: (-points[i][0], points[i][1], i))

    chosen = best_first(range(len(points)))[: math.ceil(keep / 2)]
    for layer in layers(points):
        for index in best_first(layer):
            if index not in chosen and len(chosen) < keep:
                chosen.append(index)
    return sorted(chosen)


def sizes(candidates: int, rungs: int) -> list[int]:
    """Number of candidates in each rung: a third of the one before, rounded up, at least two."""
    counts = [candidates]
    while len(counts) < rungs:
        counts.append(min(counts[-1], max(2, math.ceil(counts[-1] / ETA))))
    return counts


@dataclass(frozen=True)
class Measured:
    """A validated score. replicates: of it [N], drawn alike for all; None where there are none.

    skill: the score's share of the way from the best constant's, 0, to a perfect one, 1.
    """

    metric: str
    higher_is_better: bool
    value: float
    interval: tuple[float, float] | None
    replicates: Floats | None
    skill: float

    @property
    def accuracy(self) -> float:
        """The value, with the larger one the better."""
        return self.value if self.higher_is_better else -self.value

    @classmethod
    def of(cls, result: Result, folder: Path) -> "Measured":
        """The score of a finished run in ``folder``: of several tasks the mean of their skills."""
        parts = [_measured(one, folder, task) for task, one in result.by_task().items()]
        if len(parts) == 1:
            return parts[0][0]
        skills = [skill for _, skill in parts if skill is not None]
        whole = len(skills) == len(parts) and paired(*skills)
        replicates = np.mean(skills, axis=0) if whole else None
        mean = float(np.mean([part.skill for part, _ in parts]))
        ends = None if replicates is None else interval(replicates)
        return cls("skill", True, mean, ends, replicates, mean)


def _measured(result: Result, folder: Path, task: str) -> tuple[Measured, Floats | None]:
    """One task's score, and the replicates of its skill."""
    metric = result.columns[0]
    higher = result.higher_is_better[metric]
    floor = result.constant["metrics"][metric]

    def skill(value: Any) -> Any:
        perfect = 1.0 if higher else 0.0
        return (value - floor) / (perfect - floor) if perfect != floor else 0 * value

    replicates = load_replicates(folder, task).get(metric)
    value = result.metrics[metric]
    one = Measured(
        metric, higher, value, result.intervals.get(metric), replicates, float(skill(value))
    )
    return one, None if replicates is None else skill(replicates)


@dataclass(frozen=True)
class Standing:
    """Wirings of a rung by name. order: the best first. front: those that no other dominates.

    alike: those whose score cannot be told from the best one's. found: the cheapest of them on the
    front, within the budgets.
    """

    order: list[str]
    front: set[str]
    alike: set[str]
    found: str


def standing_of(
    scores: Mapping[str, Measured], costs: Mapping[str, float], allowed: Container[str]
) -> Standing:
    """How the wirings of a rung compare by score and cost. allowed: those that may be found."""
    order = sorted(scores, key=lambda name: (-scores[name].accuracy, costs[name]))
    best = scores[order[0]]
    alike = {name for name in order if _alike(scores[name], best)}
    inside = {order[i] for i in front([(scores[n].accuracy, costs[n]) for n in order])}
    within = [name for name in order if name in allowed] or order
    found = min(
        [name for name in within if name in alike & inside] or within[:1],
        key=lambda name: (costs[name], order.index(name)),
    )
    return Standing(order, inside, alike, found)


def _alike(one: Measured, best: Measured) -> bool:
    """Whether the 95 % interval of the paired difference contains 0; of two that are not paired,
    whether their own intervals overlap.
    """
    if one is best:
        return True
    if not paired(one.replicates, best.replicates):  # of two versions, or missing
        if one.interval is None or best.interval is None:
            return one.value == best.value
        return one.interval[0] <= best.interval[1] and best.interval[0] <= one.interval[1]
    ends = interval(np.subtract(one.replicates, best.replicates))  # type: ignore[arg-type]
    return ends is None or ends[0] <= 0 <= ends[1]


def gain(found: Any, other: Any, like: Measured) -> Any:
    """What ``found`` gains over ``other``, above 0 where it is better: relative, but of a skill.

    A skill is a share, which may be 0 or less: its gain is the plain difference. NaN over 0.
    """
    difference = found - other if like.higher_is_better else other - found
    if like.metric == "skill":
        return difference
    return difference / np.where(np.asarray(other) == 0, np.nan, np.abs(other))


def gain_over(found: Measured, other: Measured) -> tuple[float | None, tuple[float, float] | None]:
    """What ``found`` gains over another score on the same images, and its 95 % interval."""
    ends = None
    if paired(found.replicates, other.replicates):
        ends = interval(gain(found.replicates, other.replicates, found))
    return _finite(gain(found.value, other.value, found)), ends


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def gains_over(
    first: Measured,
    last: Measured,
    control: Sequence[Mapping[str, Measured]],
    best: str,
    seed: int,
) -> dict[str, Any]:
    """What a search gains over random wirings: the found one in the ``first`` rung over the mean
    of all of them, and the best one in the ``last`` rung over the ``best`` of them.

    control: scores of each rung. Intervals are of 95 % over images of one training each; the first
    one's is also over the random wirings, drawn with replacement. Neither covers that the found
    wiring was chosen on these images.
    """
    others = list(control[0].values())
    rival = control[-1][best]
    mean = float(np.mean([other.value for other in others]))
    over_mean = None
    best_gain, over_best = gain_over(last, rival)
    if paired(first.replicates, *(o.replicates for o in others)):
        table = np.stack([o.replicates for o in others])  # type: ignore[misc]
        means = table.mean(0)
        some = slice(None) if is_drawn(means) else WEIGHTED
        rng = np.random.default_rng(seed)
        drawn = rng.integers(len(others), size=(len(means[some]), len(others)))
        means[some] = np.take_along_axis(table.T[some], drawn, 1).mean(1)
        over_mean = interval(gain(first.replicates, means, first))
    return {
        "mean": mean,
        "found": first.value,
        "gain": _finite(gain(first.value, mean, first)),
        "gain_interval": over_mean,
        "best": rival.value,
        "best_gain": best_gain,
        "best_gain_interval": over_best,
    }


def covered(points: Sequence[tuple[float, float]], dearest: float) -> float:
    """The share, in 0…1, of skill × cost that points (skill, cost) dominate.

    The box spans from skill 0, the best constant's, to 1, a perfect score, and from cost 0 to
    ``dearest``. Source: Zitzler and Thiele 1998.
    """
    inside = sorted(((s, c) for s, c in points if s > 0 and c < dearest), key=lambda p: p[1])
    area = reached = 0.0
    for skill, cost in inside:
        if skill > reached:
            area += (skill - reached) * (dearest - cost)
            reached = skill
    return area / dearest
