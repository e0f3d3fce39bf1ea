"""Picture of a front: scores against costs, and the wirings that are on it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.wiring.figure import DEAD, FAINT, INK, draw_wiring
from benchmark.wiring.front.record import Front, FrontWiring
from common.limits import printable
from models.connectivity import Connectivity
from models.feature_maps import FeatureSpec

LINE = 0.028
"""Height of a name beside a point, as a share of the plot's."""
MOST = 4
"""Wirings drawn beside the plot."""
COSTS = {
    "macs": ("M multiply-accumulates of the network", 1e-6),
    "params": ("k parameters of the network", 1e-3),
    "latency": ("ms of one image", 1.0),
}
SOURCES = {
    "preset": ("o", "#0072B2"),
    "search": ("s", "#D55E00"),
    "perturbation": ("D", "#007F5F"),
    "subset": ("v", "#CC79A7"),
    "chain": ("P", "#56B4E9"),
    "change": ("^", "#E69F00"),
    "random": ("x", DEAD),
}
"""Marker and colour of each source (Okabe and Ito's, safe for the colour-blind)."""


def front_figure(
    front: Front,
    wirings: Mapping[str, Connectivity],
    features: Sequence[FeatureSpec] | None = None,
) -> Figure:
    """Scores of the last rung against costs, and up to ``MOST`` wirings of the front.

    wirings: by their file. features: of the backbone, to show its channels.
    """
    shown = [wiring for wiring in front.wirings if wiring.front][:MOST]
    rows = len(next(iter(wirings.values())).strides)
    height = max(6.0, 1.5 + 0.62 * (rows + 1))
    figure = Figure(figsize=(6.4 + 5.2 * len(shown), height), layout="constrained")
    grid = figure.add_gridspec(1, 1 + len(shown), width_ratios=(1.25, *[1] * len(shown)))
    _scatter(figure.add_subplot(grid[0, 0]), front)
    for place, wiring in enumerate(shown, 1):
        ax = figure.add_subplot(grid[0, place])
        draw_wiring(ax, wirings[wiring.file], features)
        ax.text(
            0.5, -0.11, f"{front.metric} {wiring.score:.4g} · {_amount(front, wiring)}",
            transform=ax.transAxes, ha="center", fontsize=10, color=INK,
        )  # fmt: skip
    return figure


def _amount(front: Front, wiring: FrontWiring) -> str:
    if front.cost == "latency":
        return f"{wiring.ms:.3g} ms"
    return (
        f"{wiring.macs / 1e6:.0f} MMACs" if front.cost == "macs" else f"{wiring.params:,} weights"
    )


def _cost(front: Front, wiring: FrontWiring) -> float:
    value = wiring.ms if front.cost == "latency" else getattr(wiring, front.cost)
    return float(value) * COSTS[front.cost][1]


def _names(ax: Axes, front: Front) -> None:
    """Each wiring's name beside its point, below those of better ones, as far as there is room."""
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()  # of the worst and the best
    before = math.inf
    for wiring in sorted(front.wirings, key=lambda w: w.score, reverse=front.higher_is_better):
        x = _cost(front, wiring)
        share = (wiring.score - bottom) / (top - bottom)
        y = before = min(share - 0.7 * LINE, before - LINE)  # the front's line passes above
        if y < 0:
            break
        inwards = "right" if x > left + 0.7 * (right - left) else "left"
        ax.text(
            x, y, f"  {printable(Path(wiring.file).stem, 40)}  ", ha=inwards, va="center",
            transform=ax.get_xaxis_transform(), fontsize=8, color=INK, parse_math=False,
            fontweight="bold" if wiring.file == front.found else "normal",
        )  # fmt: skip


def _scatter(ax: Axes, front: Front) -> None:
    control = [] if front.control is None else front.control.wirings
    seen: set[str] = set()
    for wiring in [*front.wirings, *control]:
        source = str(wiring.origin.get("source", ""))
        marker, colour = SOURCES.get(source, ("o", INK))
        x = _cost(front, wiring)
        if wiring.interval is not None:
            ax.plot([x, x], wiring.interval, color=FAINT, linewidth=1, zorder=1)
        ax.plot(
            x, wiring.score, marker, color=colour, markersize=8 if wiring.front else 6,
            markerfacecolor=colour if wiring.front else "white", zorder=3,
            label=None if source in seen else source or "unknown", linestyle="none",
        )  # fmt: skip
        seen.add(source)
    line = sorted((_cost(front, w), w.score) for w in front.wirings if w.front)
    ax.plot(*zip(*line, strict=True), color=INK, linewidth=1, drawstyle="steps-post", zorder=2)
    ax.set_xlabel(COSTS[front.cost][0])
    better = "higher" if front.higher_is_better else "lower"
    ax.set_ylabel(f"{front.metric} on the validation images ({better} is better)")
    if not front.higher_is_better:
        ax.invert_yaxis()  # better is up in every picture
    steps = front.rungs[-1] if front.rungs else 0
    ax.set_title(
        f"{printable(front.task, 40)} on {printable(front.dataset, 40)}\n", fontsize=12,
        fontweight="bold", parse_math=False,
    )  # fmt: skip
    ax.text(
        0.5, 1.02,
        f"{len(front.tried)} candidates, the last {len(front.wirings)} after {steps} of "
        f"{front.steps} steps; filled: on the front, bold: found.json",
        transform=ax.transAxes, ha="center", fontsize=9, color=INK,
    )  # fmt: skip
    ax.margins(x=0.16)
    _names(ax, front)
    ax.legend(loc="best", frameon=False, fontsize=8, title="source", title_fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
