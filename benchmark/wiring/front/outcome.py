"""What a finished race, and the random one beside it, say in the record of a front."""

from benchmark.wiring.front.race import Race
from benchmark.wiring.front.record import Control, FrontWiring, Preset, Tried
from benchmark.wiring.front.selection import Standing, covered, gain_over, gains_over


def control_of(race: Race, control: Race, seed: int) -> Control:
    """What searching gained over the random wirings of ``control``. seed: of the search."""
    standing, mine = control.standing(), race.standing()
    first, best = race.scores[0][mine.found], race.scores[-1][mine.order[0]]
    kinds: dict[str, list[float]] = {}
    for candidate in control.candidates:
        if (score := control.scores[0].get(candidate.name)) is not None:
            kinds.setdefault(str(candidate.origin["kind"]), []).append(score.value)
    return Control(
        candidates=len(control.candidates),
        kinds={kind: sum(values) / len(values) for kind, values in kinds.items()},
        hypervolume=hypervolume_of(control, race.costs["fully-dense"]["macs"]),
        wirings=wirings_of(control, standing, "control/candidates"),
        seconds=control.seconds,
        **gains_over(first, best, control.scores, standing.order[0], seed),
    )


def hypervolume_of(race: Race, dearest: float) -> float:
    """What the last rung dominates of skill × MACs, up to those of the Fully Dense Network."""
    scores = race.scores[-1]
    return covered([(s.skill, race.costs[name]["macs"]) for name, s in scores.items()], dearest)


def wirings_of(race: Race, standing: Standing, folder: str) -> list[FrontWiring]:
    """The wirings of the last rung, the best first."""
    origins = {candidate.name: candidate.origin for candidate in race.candidates}
    last = race.scores[-1]
    return [
        FrontWiring(
            file=f"{folder}/{name}.json",
            score=last[name].value,
            interval=last[name].interval,
            **race.costs[name],
            rungs=[scores[name].value for scores in race.scores],
            origin=dict(origins[name]),
            front=name in standing.front,
            alike=name in standing.alike,
        )
        for name in standing.order
    ]


def preset_of(race: Race, standing: Standing) -> Preset | None:
    """The best preset of the last rung; None where none could be trained."""
    last = race.scores[-1]
    presets = {c.name for c in race.candidates if c.origin["source"] == "preset"}
    name = next((name for name in standing.order if name in presets), None)
    if name is None:
        return None
    gain, ends = gain_over(last[standing.found], last[name])
    return Preset(name=name, score=last[name].value, gain=gain, gain_interval=ends)


def tried_of(race: Race) -> list[Tried]:
    """All candidates, those of the later rungs first."""
    tried = []
    for candidate in race.candidates:
        scores = [rung.get(candidate.name) for rung in race.scores]
        tried.append(
            Tried(
                name=candidate.name,
                rungs=[None if score is None else score.value for score in scores],
                **race.costs[candidate.name],
                origin=dict(candidate.origin),
            )
        )
    return sorted(tried, key=lambda one: -sum(score is not None for score in one.rungs))
