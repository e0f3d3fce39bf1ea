"""The README's figure: a searched wiring, beside accuracy against latency of one board's rows.

    python -m tests.studies.readme_figure -o docs/front.svg

Reads ``results/`` and ``models/architectures/`` alone. The same files give the same bytes with one
version of matplotlib; the numbers that are drawn stand in the file's description too.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.leaderboard.boards import boards
from benchmark.leaderboard.rows import Board
from benchmark.results.store import read_all
from benchmark.wiring.figure import INK, draw_wiring, render
from benchmark.wiring.names import features_of
from common.files import write_atomic
from models.connectivity import ARCHITECTURES, Connectivity

BOARD, WIRING = "segmentation on camvid", "found-camvid"
SEARCHED, WIRED, OTHER = "#D55E00", "#0072B2", "#555555"  # told apart by the colour-blind
WIRED_NAMES = ("sparsemask", "unet-connectivity")
# where a label would cover another: its shift in points and the side that touches the point
LABELS = {
    WIRING: (-9, 2, "right"),
    "fcn": (9, -12, "left"),
    "deeplabv3-light": (9, -12, "left"),
    "smp-unet": (-9, 6, "right"),
    "smp-fpn": (-9, 6, "right"),
}


class Point(NamedTuple):
    """A row as it is drawn: latency in ms, mean accuracy over seeds, its 95 % interval."""

    label: str
    ms: float
    accuracy: float
    low: float
    high: float
    on_front: bool

    def __str__(self) -> str:
        ends = f"{self.low:.3f}–{self.high:.3f}"
        return f"{self.label} {self.ms:.1f} ms {self.accuracy:.3f} ({ends})"


def board_of(results: Path) -> Board:
    """The board that is drawn. Raises LookupError where ``results`` has none of its name."""
    for board in boards(read_all(results)):
        if board.title == BOARD:
            return board
    raise LookupError(f"{results}: no board '{BOARD}'")


def points(board: Board) -> list[Point]:
    """The ranked rows of ``board`` that were timed."""
    main = board.columns[0]
    return [
        Point(row.label, row.latency_ms, row.metrics[main], *row.interval, "latency" in row.pareto)
        for row in board.rows
        if row.rank is not None and row.latency_ms is not None and row.interval is not None
    ]


def description(board: Board) -> str:
    """What is drawn, in words."""
    return f"{board.protocol}; " + "; ".join(map(str, points(board)))


def draw_points(ax: Axes, board: Board, wanted: Sequence[Point]) -> None:
    """Accuracy against latency; the Pareto front as a stepped line; a name at each point."""
    front = sorted(p[1:3] for p in wanted if p.on_front)
    ax.step(*zip(*front, strict=True), where="post", color="#999999", linewidth=1, zorder=1)
    for p in wanted:
        colour = SEARCHED if p.label == WIRING else WIRED if p.label in WIRED_NAMES else OTHER
        marker = "D" if p.label == WIRING else "o" if p.label in WIRED_NAMES else "s"
        errors = [[p.accuracy - p.low], [p.high - p.accuracy]]
        ax.errorbar(p.ms, p.accuracy, errors, color=colour, marker=marker, markersize=7,
                    capsize=3, linewidth=1.2)  # fmt: skip
        right, up, side = LABELS.get(p.label, (9, -4, "left"))
        name = "searched wiring" if p.label == WIRING else p.label
        weight = "bold" if p.label == WIRING else "normal"
        ax.annotate(name, (p.ms, p.accuracy), (right, up), textcoords="offset points", ha=side,
                    fontsize=10.5, color=colour, fontweight=weight)  # fmt: skip
    ax.set_xscale("log")
    ax.set_xlim(9, 60)
    ticks = (10, 15, 20, 30, 40, 60)
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("latency of one image, ms (log scale)", fontsize=10.5)
    ax.set_ylabel("test mIoU, mean of 2 seeds, 95 % of images", fontsize=10.5)
    ax.set_title("Accuracy against latency\n", fontsize=12, fontweight="bold")
    ax.text(0.5, 1.02, "CamVid, MobileNetV2, 240×320, 1 thread; grey line: Pareto front",
            transform=ax.transAxes, ha="center", fontsize=9, color=INK)  # fmt: skip
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


def draw(board: Board) -> Figure:
    figure = Figure(figsize=(10, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    wiring = Connectivity.load(ARCHITECTURES / f"{WIRING}.json")
    draw_wiring(left, wiring, features_of(wiring))
    left.set_title("The searched wiring\n", fontsize=12, fontweight="bold")
    draw_points(right, board, points(board))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    board = board_of(arguments.results)
    file = render(draw(board), arguments.output.suffix, description(board))
    write_atomic(arguments.output, file)


if __name__ == "__main__":
    main()
