"""What is said of a front: its table and the lines below it."""

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmark.report.front import front_lines, front_table
from benchmark.wiring.front.figure import LINE, front_figure
from benchmark.wiring.front.record import Control, Front, FrontWiring, Preset, Tried
from models.connectivity import encoder_sum


def wiring(name: str, score: float, macs: int, **values: Any) -> FrontWiring:
    ends = score - 0.01, score + 0.01
    return FrontWiring(
        file=f"front/{name}.json", score=score, interval=ends, ms=2.5, macs=macs, params=1000,
        rungs=[0.3, score], origin={"source": "preset"}, **values,
    )  # fmt: skip


def front(
    *wirings: FrontWiring, control: Control | None = None, preset: Preset | None = None
) -> Front:
    tried = [Tried(name=str(i), rungs=[0.3], ms=1, macs=1, params=1, origin={}) for i in range(9)]
    return Front(
        format=1, metric="miou", higher_is_better=True, cost="macs", found=wirings[-1].file,
        wirings=[*wirings], control=control, preset=preset, tried=tried, rungs=[10, 33], steps=100,
        hypervolume=0.25, data={"val": {"images": 7, "fingerprint": "x"}},
    )  # fmt: skip


def words(some: Front) -> str:
    return "\n".join(front_lines(some, Path("out")))


def test_the_table_names_the_found_one_and_the_front() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    busy = wiring("b", 0.4, 4_000_000, front=False, disturbed=0.3)
    some = front(wiring("a", 0.5, 9_000_000), busy)
    console.print(front_table(some))
    text = console.export_text()
    assert "miou ↑" in text
    rows = [row for row in text.splitlines() if "preset" in row]
    assert rows[0].split()[:2] == ["a", "0.5"]
    assert "●" in rows[0]
    assert rows[1].split()[:3] == ["b", "←", "found"]
    assert "●" not in rows[1]
    assert ["2.5†" in row for row in rows] == [False, True]
    note = "† timed while other work took up to 30% of the processors"
    assert note in words(some)
    assert note not in words(front(some.wirings[0]))


@pytest.mark.parametrize("higher", [True, False])
def test_names_in_the_picture_stay_inside_and_apart(higher: bool) -> None:
    some = front(*(wiring(f"w{i:02}", 0.5 - i / 1000, 10 + i % 3) for i in range(60)))
    some.higher_is_better = higher
    shape = encoder_sum((2, 4, 8))
    figure = front_figure(some, {w.file: shape for w in some.wirings})
    names = {text.get_text().strip(): text.get_position()[1] for text in figure.axes[0].texts}
    heights = [names[f"w{i:02}"] for i in range(60) if f"w{i:02}" in names]
    assert ("w00" in names, "w59" in names) == (higher, not higher)  # the best has its name
    assert 20 < len(heights) < 60
    assert 0 <= min(heights) < max(heights) < 1
    assert min(abs(a - b) for a, b in pairwise(heights)) >= LINE - 1e-9


def test_wirings_that_the_images_cannot_tell_apart_are_named() -> None:
    best, near, other = (
        wiring("a", 0.5, 9, alike=True), wiring("b", 0.49, 4, alike=True), wiring("c", 0.3, 1),
    )  # fmt: skip
    text = words(front(best, other, near))
    assert "9 candidates, trained for 10, 33 of 100 steps, scored on 7 validation images" in text
    assert "these images cannot tell apart: a, b: found is the one of fewest macs" in text
    assert "too small" not in text
    assert "--decoder connectivity:out/found.json" in text


def test_a_split_that_tells_nothing_apart_is_said_to_be_too_small() -> None:
    text = words(front(wiring("a", 0.5, 9, alike=True), wiring("b", 0.49, 4, alike=True)))
    assert "the validation split is too small to choose by" in text
    assert "(0.490–0.510)" in text


def test_what_searching_gained_is_said_with_its_interval() -> None:
    control = Control(
        candidates=12, kinds={"subset": 0.2, "macs": 0.3}, mean=0.25, found=0.3, gain=0.2,
        gain_interval=(0.1, 0.3), best=0.52, best_gain=-0.04, best_gain_interval=(-0.1, 0.02),
        hypervolume=0.2, wirings=[], seconds=1.0,
    )  # fmt: skip
    text = words(front(wiring("a", 0.5, 9), control=control))
    assert "12 random wirings, as many steps: after the last rung the best has 0.52" in text
    assert "the search's best is 4.0% worse (-10.0% to +2.0%, undecided)" in text
    assert "after the first rung their mean is 0.25 (subset 0.2, macs 0.3), found 0.3" in text
    assert "was 20.0% better (+10.0% to +30.0%)" in text
    assert "hypervolume 0.2500, random 0.2000" in text


def test_the_best_preset_stands_beside_what_was_found() -> None:
    preset = Preset(name="unet-connectivity", score=0.4, gain=0.25, gain_interval=(0.2, 0.3))
    text = words(front(wiring("a", 0.5, 9), preset=preset))
    assert "the best preset, unet-connectivity, 0.4: found is 25.0% better (+20.0% to" in text
    own = Preset(name="a", score=0.5, gain=0.0, gain_interval=(0.0, 0.0))
    assert "the best preset" not in words(front(wiring("a", 0.5, 9), preset=own))
