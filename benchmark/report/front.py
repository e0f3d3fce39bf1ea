"""A front of wirings as a table, and what a user wants to know of it in words."""

from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.table import Table

from benchmark.wiring.front.record import Front
from benchmark.wiring.record import WIRING
from common.words import DISTURBED, cell, count_of


def front_table(front: Front) -> Table:
    """The wirings of the last rung, the best first; ● is on the front."""
    direction = "↑" if front.higher_is_better else "↓"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("wiring", f"{front.metric} {direction}", "95 % of images", "ms", "MMACs",
                  "k params", "front", "source"):  # fmt: skip
        table.add_column(title, justify="left" if title in ("wiring", "source") else "right")
    for wiring in front.wirings:
        ends = wiring.interval
        table.add_row(
            cell(Path(wiring.file).stem + (" ← found" if wiring.file == front.found else "")),
            f"{wiring.score:.4g}",
            "" if ends is None else f"{ends[0]:.3f}–{ends[1]:.3f}",
            f"{wiring.ms:.3g}{DISTURBED if wiring.disturbed else ''}",
            f"{wiring.macs / 1e6:.0f}",
            f"{wiring.params / 1e3:.0f}",
            "●" if wiring.front else "",
            cell(str(wiring.origin.get("source", ""))),
        )
    return table


def front_lines(front: Front, output: Path) -> Iterator[str]:
    """What was tried, which wirings are alike, what searching gained, what to do next."""
    best = front.wirings[0]
    alike = [wiring for wiring in front.wirings if wiring.alike]
    images = front.data.get("val", {}).get("images")
    rungs = ", ".join(map(str, front.rungs))
    yield (
        f"{count_of(len(front.tried), 'candidate')}, trained for {rungs} of {front.steps} steps, "
        f"scored on {images} validation images"
    )
    if len(alike) > 1:
        names = ", ".join(Path(wiring.file).stem for wiring in alike)
        yield f"these images cannot tell apart: {names}: found is the one of fewest {front.cost}"
    if len(alike) == len(front.wirings) > 1 and best.interval is not None:
        low, high = best.interval
        yield (
            f"the validation split is too small to choose by: every wiring is as good as the best "
            f"within its interval ({low:.3f}–{high:.3f})"
        )
    if share := max(wiring.disturbed or 0.0 for wiring in front.wirings):
        yield f"{DISTURBED} timed while other work took up to {share:.0%} of the processors"
    if (preset := front.preset) is not None and f"front/{preset.name}.json" != front.found:
        gained = _gain(preset.gain, preset.gain_interval)
        yield f"the best preset, {preset.name}, {preset.score:.4g}: found is {gained}"
    yield from _control_lines(front)
    yield f"train it: python cli.py run … --decoder connectivity:{output / WIRING}"


def _control_lines(front: Front) -> Iterator[str]:
    control = front.control
    if control is None:
        return
    kinds = ", ".join(f"{kind} {mean:.4g}" for kind, mean in control.kinds.items())
    yield (
        f"{count_of(control.candidates, 'random wiring')}, as many steps: after the last rung the "
        f"best has {control.best:.4g}, the search's best is "
        f"{_gain(control.best_gain, control.best_gain_interval)}"
    )
    yield (
        f"after the first rung their mean is {control.mean:.4g} ({kinds}), found "
        f"{control.found:.4g} was {_gain(control.gain, control.gain_interval)}"
    )
    if front.hypervolume is not None and control.hypervolume is not None:
        yield f"hypervolume {front.hypervolume:.4f}, random {control.hypervolume:.4f}"


def _gain(gain: float | None, ends: tuple[float, float] | None) -> str:
    if gain is None:
        return "better or worse by no share of 0"
    word = "better" if gain >= 0 else "worse"
    if ends is None:
        return f"{abs(gain):.1%} {word}"
    decided = "" if ends[0] * ends[1] > 0 else ", undecided"
    return f"{abs(gain):.1%} {word} ({ends[0]:+.1%} to {ends[1]:+.1%}{decided})"
