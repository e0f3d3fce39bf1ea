"""Wirings that a front is chosen from: presets, what searches found, changes of the best.

And random ones to hold them against.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from benchmark.wiring.names import arrow
from benchmark.wiring.perturb import below
from benchmark.wiring.record import Search
from models.connected_decoder import WIDTH
from models.connectivity import (
    GLOBAL,
    PRESETS,
    Connection,
    Connectivity,
    alive_stages,
    candidates,
    random_subset,
    random_wiring,
)
from models.feature_maps import FeatureSpec

CONNECTIONS = (24, 16, 12, 8, 6, 5, 4, 3, 2)
"""Numbers of live connections at which a gradient search's course gives a wiring."""
USUAL = ("encoder-sum", "unet-connectivity")
"""Presets that were the best on our boards, or near: where few have room, these come first."""
DECIDED = 0.25
"""Weight (0…1) above which a connection counts in the midst of a search."""
KINDS = ("subset", "macs", "connections")
"""Of random wirings: a set of encoder maps into D1; as many MACs, as many connections as found."""
CLOSE = 0.1
"""Largest relative difference in MACs of a random wiring from the one that it stands against."""
TRIES = 500


@dataclass(frozen=True)
class Candidate:
    """A wiring, alive and without repeats, and where it comes from.

    origin: ``source`` (preset, search, perturbation, subset, chain, change, random) and what tells
    it from others.
    """

    name: str
    wiring: Connectivity
    origin: Mapping[str, Any]


def from_presets(strides: Sequence[int]) -> list[Candidate]:
    """A candidate for each preset but the Fully Dense Network, which searches thin out."""
    names = sorted(PRESETS.keys() - {"fully-dense"}, key=lambda n: (n not in USUAL, n))
    return [
        Candidate(name, PRESETS[name](strides).pruned(), {"source": "preset", "name": name})
        for name in names
    ]


def from_search(name: str, search: Search) -> list[Candidate]:
    """Wirings of one gradient search, from its end backwards: smaller ones come first.

    While λ grows the weights of ever more connections reach 0. The wiring at the end, and the first
    on the way with at most so many live connections as ``CONNECTIONS`` names.
    """
    drop = search.config.get("direct_drop", 0)
    settings = {"lambda": search.config["lambda_"], "direct_drop": drop}
    rows = [*zip(search.iterations[:-1], search.weights[:-1], strict=True)]
    found = []
    for most in CONNECTIONS:
        for iteration, weights in rows:
            wiring = _above(search, weights, DECIDED)
            if wiring is not None and wiring.connections <= most:
                found.append((iteration, wiring))
                break
    last = _above(search, search.final, search.threshold)
    ends = [] if last is None else [(search.iterations[-1], last)]
    return [
        Candidate(
            f"{name}-{wiring.connections}",
            wiring,
            {"source": "search", **settings, "iteration": iteration},
        )
        for iteration, wiring in [*ends, *reversed(found)]
    ]


def from_perturbation(name: str, search: Search) -> list[Candidate]:
    """The nested wirings of a perturbation, those of less loss first."""
    losses = search.losses["without"]
    order = sorted(range(1, len(losses)), key=lambda number: (losses[number], -number))
    found = []
    for number in order:
        wiring = _above(search, search.final, below(number, len(losses)))
        if wiring is not None:
            origin = {"source": "perturbation", "connections": wiring.connections,
                      "direct_drop": search.config.get("direct_drop", 0)}  # fmt: skip
            found.append(Candidate(f"{name}-{wiring.connections}", wiring, origin))
    return found


def from_subsets(strides: Sequence[int], seed: int, count: int) -> list[Candidate]:
    """Random small sets of encoder maps straight into the output: often hard to beat."""
    found = []
    for number in range(count):
        random = Random(f"small subset {seed} {number} {tuple(strides)}")
        names = [f"E{i}" for i in range(len(strides), 0, -1)] + [GLOBAL]
        taken = random.sample(names, random.randint(2, min(4, len(names))))
        wiring = Connectivity("", tuple(strides), {1: tuple(n for n in names if n in taken)})
        origin = {"source": "subset", "seed": seed, "draw": number}
        found.append(Candidate(f"subset-{number}", wiring, origin))
    return found


def from_chains(strides: Sequence[int], seed: int, count: int) -> list[Candidate]:
    """Random chains of few stages, from coarse to fine: U-Net's connections with stages left out.

    Each stage reads its own encoder map and the stage before; the output reads its map or does not,
    by chance.
    """
    found = []
    for number in range(count if len(strides) > 1 else 0):
        random = Random(f"chain {seed} {number} {tuple(strides)}")
        others = range(2, len(strides) + 1)
        length = random.randint(min(2, len(others)), min(4, len(others)))
        before: tuple[str, ...] = ()
        stages: dict[int, tuple[str, ...]] = {}
        for stage in sorted(random.sample(others, length), reverse=True):
            stages[stage] = (f"E{stage}", *before)
            before = (f"D{stage}",)
        stages[1] = ("E1", *before) if random.random() < 0.5 else before
        origin = {"source": "chain", "seed": seed, "draw": number}
        wiring = Connectivity("", tuple(strides), stages).pruned()
        found.append(Candidate(f"chain-{number}", wiring, origin))
    return found


def _above(search: Search, weights: Sequence[float], threshold: float) -> Connectivity | None:
    """The wiring of the connections above ``threshold``; None if none reaches the output."""
    stages: dict[int, tuple[str, ...]] = {}
    for (stage, source), weight in zip(search.pairs, weights, strict=True):
        if weight > threshold:
            stages[stage] = (*stages.get(stage, ()), source)
    alive = alive_stages(stages)
    return Connectivity("", search.strides, alive).pruned() if 1 in alive else None


def chosen(
    presets: Sequence[Candidate], found: Sequence[Sequence[Candidate]], most: int
) -> list[Candidate]:
    """Up to ``most`` distinct wirings: presets, the first of each source, the second, …

    Presets have half of the places at most, unless the others run out. Names are made unique.
    """
    half = max(1, most // 2)
    in_turns = itertools.chain.from_iterable(itertools.zip_longest(*found))
    seen: dict[Any, Candidate] = {}
    names: set[str] = set()
    for candidate in [*presets[:half], *in_turns, *presets[half:]]:
        if candidate is None or len(seen) == most or wires(candidate.wiring) in seen:
            continue
        numbered = (f"{candidate.name}-{number}" for number in itertools.count(2))
        name = next(n for n in itertools.chain([candidate.name], numbered) if n not in names)
        names.add(name)
        seen[wires(candidate.wiring)] = replace(candidate, name=name)
    return list(seen.values())


def wires(wiring: Connectivity) -> tuple[tuple[int, frozenset[str]], ...]:
    """What makes two wirings the same network."""
    return tuple((stage, frozenset(inputs)) for stage, inputs in sorted(wiring.stages.items()))


def macs_of(wiring: Connectivity, features: Sequence[FeatureSpec], size: tuple[int, int]) -> int:
    """Multiply-accumulates of a wiring's 1×1 convolutions for an image of ``size`` (h, w)."""
    total = 0
    for inputs in wiring.stages.values():
        for source in inputs:
            feature = features[-1 if source == GLOBAL else int(source[1:]) - 1]
            channels = WIDTH if source[0] == "D" else feature.channels
            area = 1 if source == GLOBAL else _area(size, feature.stride)
            total += channels * WIDTH * area
    return total


def _area(size: tuple[int, int], stride: int) -> int:
    return -(-size[0] // stride) * -(-size[1] // stride)


def random_candidates(
    against: Sequence[Connectivity],
    features: Sequence[FeatureSpec],
    size: tuple[int, int],
    seed: int,
    count: int,
) -> list[Candidate]:
    """``count`` distinct random wirings, of the three kinds in turns.

    ``macs`` and ``connections`` draw wirings like those of ``against`` in turns: with MACs within
    ``CLOSE`` of one's, with as many live connections.
    """
    strides = tuple(f.undilated for f in features)
    found: dict[Any, Candidate] = {}
    for number in range(50 * count):  # a small backbone may have fewer
        if len(found) == count:
            break
        kind = KINDS[number % len(KINDS)]
        like = against[number // len(KINDS) % len(against)]
        own = f"{seed} {number}"
        if kind == "subset":
            drawn = random_subset(strides, own)
        elif kind == "connections":
            drawn = random_wiring(strides, like.connections, own)
        else:
            goal = macs_of(like, features, size)
            drawn = _of_macs(goal, strides, features, size, own)
        origin = {"source": "random", "kind": kind, "seed": seed, "draw": number}
        name = f"random-{kind}-{number}"
        found.setdefault(wires(drawn), Candidate(name, drawn, origin))
    return list(found.values())


def _of_macs(
    goal: int,
    strides: Sequence[int],
    features: Sequence[FeatureSpec],
    size: tuple[int, int],
    seed: str,
) -> Connectivity:
    """A random wiring with about ``goal`` MACs: the first close enough, else the closest drawn."""
    random = Random(f"macs {seed}")
    most = len(strides) * (len(strides) + 1)

    def miss(wiring: Connectivity) -> float:
        return abs(macs_of(wiring, features, size) / max(goal, 1) - 1)

    best: Connectivity | None = None
    for draw in range(TRIES):
        count = min(random.randint(1, 24), most)
        wiring = random_wiring(strides, count, f"{seed} {draw}")
        if best is None or miss(wiring) < miss(best):
            best = wiring
        if miss(best) <= CLOSE:
            break
    assert best is not None
    return best


def described(candidate: Candidate, backbone: str, arguments: Mapping[str, Any]) -> Connectivity:
    """The candidate's wiring as a file holds it: named, with backbone and origin."""
    origin = {**candidate.origin, **({"backbone_args": dict(arguments)} if arguments else {})}
    return replace(candidate.wiring, name=candidate.name, backbone=backbone, origin=origin)


def affordable(
    costs: Mapping[str, tuple[float, float]], ms: float | None, macs: float | None
) -> set[str]:
    """Names of the candidates within the budgets. costs: (ms, MACs) by name."""
    most = (math.inf if ms is None else ms, math.inf if macs is None else macs)
    return {name for name, pair in costs.items() if pair[0] <= most[0] and pair[1] <= most[1]}


def children(
    parents: Sequence[Candidate], seen: Iterable[Candidate], count: int, seed: str
) -> list[Candidate]:
    """Up to ``count`` wirings that differ from a parent's in one change, and from all ``seen``.

    Parents take turns. A change drops or adds a connection, moves one to the next encoder feature,
    or lets one pass a new stage on its way.
    """
    known = {wires(candidate.wiring) for candidate in seen}
    names = {candidate.name for candidate in seen}
    found: list[Candidate] = []
    for number in range(100 * count):
        if len(found) == count:
            break
        parent = parents[number % len(parents)]
        random = Random(f"child {seed} {number}")
        change, stages = random.choice(CHANGES)(parent.wiring, random)
        alive = alive_stages(stages)
        if 1 not in alive:
            continue
        wiring = Connectivity("", parent.wiring.strides, alive).pruned()
        if wires(wiring) not in known:
            known.add(wires(wiring))
            root = str(parent.origin.get("root", parent.name))
            name = next(n for i in itertools.count(1) if (n := f"{root}-child{i}") not in names)
            names.add(name)
            origin = {"source": "change", "of": parent.name, "change": change, "root": root}
            found.append(Candidate(name, wiring, origin))
    return found


Stages = dict[int, tuple[str, ...]]


def _pairs(stages: Mapping[int, tuple[str, ...]]) -> list[Connection]:
    return sorted((stage, source) for stage, inputs in stages.items() for source in inputs)


def _with(stages: Mapping[int, tuple[str, ...]], stage: int, source: str) -> Stages:
    """``stages`` with one connection more; a stage that it brings into use reads its own map."""
    more = dict(stages)
    more[stage] = tuple(dict.fromkeys((*more.get(stage, ()), source)))
    if source[0] == "D" and int(source[1:]) not in more:
        more[int(source[1:])] = (f"E{source[1:]}",)
    return more


def _less(stages: Mapping[int, tuple[str, ...]], stage: int, source: str) -> Stages:
    return {s: tuple(n for n in i if (s, n) != (stage, source)) for s, i in stages.items()}


def _drop(wiring: Connectivity, random: Random) -> tuple[str, Stages]:
    stage, source = random.choice(_pairs(wiring.stages))
    return f"without {arrow(stage, source)}", _less(wiring.stages, stage, source)


def _add(wiring: Connectivity, random: Random) -> tuple[str, Stages]:
    count = len(wiring.strides)
    free = [
        (stage, source)
        for stage, inputs in sorted(wiring.stages.items())
        for source in candidates(stage, count)
        if source not in inputs
    ]
    if not free:
        return "", {}
    stage, source = random.choice(free)
    return f"with {arrow(stage, source)}", _with(wiring.stages, stage, source)


def _move(wiring: Connectivity, random: Random) -> tuple[str, Stages]:
    count = len(wiring.strides)
    moves = [
        (stage, source, f"E{int(source[1:]) + step}")
        for stage, source in _pairs(wiring.stages)
        if source[0] == "E"
        for step in (-1, 1)
    ]
    moves = [
        (stage, old, new)
        for stage, old, new in moves
        if new in candidates(stage, count) and new not in wiring.stages[stage]
    ]
    if not moves:
        return "", {}
    stage, old, new = random.choice(moves)
    moved = _with(_less(wiring.stages, stage, old), stage, new)
    return f"{arrow(stage, new)} for {old}", moved


def _deepen(wiring: Connectivity, random: Random) -> tuple[str, Stages]:
    count = len(wiring.strides)
    ways = [
        (stage, source, middle)
        for stage, source in _pairs(wiring.stages)
        for middle in range(stage + 1, count + 1)
        if middle not in wiring.stages and source in candidates(middle, count)
    ]
    if not ways:
        return "", {}
    stage, source, middle = random.choice(ways)
    stages = _less(wiring.stages, stage, source)
    stages[middle] = (source,)
    return f"{arrow(stage, source)} by way of D{middle}", _with(stages, stage, f"D{middle}")


CHANGES = (_drop, _add, _move, _deepen)
