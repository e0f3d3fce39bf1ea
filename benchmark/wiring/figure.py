"""Pictures of a wiring, as the paper's figure 3, and of a search, as its figure 4."""

import io
from collections.abc import Iterator, Mapping, Sequence
from math import ceil, log10

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve

from benchmark.wiring.record import Search
from common.limits import printable
from models.backbones import FeatureSpec
from models.connectivity import GLOBAL, Connection, Connectivity

SUFFIXES = (".svg", ".png", ".pdf")
# kind of the source → label, colour (Okabe and Ito's, safe for the colour-blind), dashes
KINDS = {
    "E": ("encoder → decoder", "#0072B2", "solid"),
    "G": ("global average → decoder", "#D55E00", (0, (5, 2))),
    "D": ("decoder → decoder", "#007F5F", (0, (1.2, 1.2))),
}
INK, DEAD, FAINT = "#222222", "#707070", "#b8b8b8"
# starts at a visible blue, so that a weight of 0 differs from an impossible connection
WEIGHTS = ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.1, 1, 256)))
ENCODER, DECODER = 0.0, 4.4  # the columns' centres; a row is one unit high
HALF, PORTS = 0.42, 0.19  # half a box's width; largest distance of lines from its middle
MANY = 30  # above this number of connections, lines are thinner
POINTS = 200  # at most in a curve, so that a long search still gives a small file


def wiring_figure(wiring: Connectivity, features: Sequence[FeatureSpec] | None = None) -> Figure:
    """Encoder left, decoder right, an arrow for each connection.

    features: of the backbone, to show its channels. Stages and connections that do not reach D1
    are faint.
    """
    rows = len(wiring.strides)
    figure = Figure(figsize=(6.2, 1.5 + 0.62 * (rows + 1)), layout="constrained")
    draw_wiring(figure.add_subplot(), wiring, features)
    return figure


def search_figure(
    wiring: Connectivity, search: Search, features: Sequence[FeatureSpec] | None = None
) -> Figure:
    """A search's wiring, the matrix of final weights, and all weights over the iterations."""
    rows = len(wiring.strides)
    figure = Figure(figsize=(13.4, max(6.4, 1.5 + 0.62 * (rows + 1))), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.15), height_ratios=(1.25, 1))
    draw_wiring(figure.add_subplot(grid[:, 0]), wiring, features)
    alive = set(_connections(wiring.alive()))
    _draw_matrix(figure.add_subplot(grid[0, 1]), search, alive)
    _draw_curves(figure.add_subplot(grid[1, 1]), search, alive)
    return figure


def render(figure: Figure, suffix: str, description: str | None = None) -> bytes:
    """The bytes of ``figure`` in the format of ``suffix``; equal figures give equal bytes.

    suffix: one of ``SUFFIXES``. description: text for the file's metadata.
    """
    out = io.BytesIO()
    # only ids and dates would differ between renderings
    dates, key = {
        ".svg": ({"Date": None}, "Description"),
        ".pdf": ({"CreationDate": None}, "Subject"),
        ".png": ({}, "Description"),
    }[suffix]
    metadata = dates if description is None else {**dates, key: description}
    with matplotlib.rc_context({"svg.hashsalt": "wiring"}):
        figure.savefig(out, format=suffix[1:], dpi=160, metadata=metadata)
    return out.getvalue()


def _connections(wiring: Connectivity) -> list[Connection]:
    return [(stage, source) for stage, inputs in wiring.stages.items() for source in inputs]


def draw_wiring(ax: Axes, wiring: Connectivity, features: Sequence[FeatureSpec] | None) -> None:
    """Draw the content of ``wiring_figure`` on ``ax``."""
    count = len(wiring.strides)
    alive = wiring.alive()
    living = set(_connections(alive))
    used = {source for _, source in living}
    height = {f"{side}{i}": float(-i) for side in "ED" for i in range(1, count + 1)}
    height[GLOBAL] = -count - 1.1
    for name, y in height.items():
        lives = int(name[1:]) in alive.stages if name[0] == "D" else name in used
        _draw_box(ax, DECODER if name[0] == "D" else ENCODER, y, name, lives)
    for index, stride in enumerate(wiring.strides, 1):
        lines = [f"stride {stride}"]
        if features is not None:
            feature = features[index - 1]
            block = f"block {feature.depth}, " if feature.depth else ""
            lines.append(f"{block}{feature.channels} channels")
        colour = INK if f"E{index}" in used else FAINT
        ax.text(ENCODER - HALF - 0.15, -index, "\n".join(lines), ha="right", va="center",
                fontsize=8, color=colour, linespacing=1.25)  # fmt: skip
    ax.text(ENCODER - HALF - 0.15, height[GLOBAL], f"average of E{count}", ha="right", va="center",
            fontsize=8, color=INK if GLOBAL in used else FAINT)  # fmt: skip
    _draw_connections(ax, _connections(wiring), living, height)
    for text, x, style in (("image", ENCODER, "-|>"), ("output", DECODER, "<|-")):
        arrow = {"arrowstyle": style, "color": INK, "shrinkA": 0, "shrinkB": 0}
        ax.annotate(text, (x, -0.76), (x, -0.3), ha="center", fontsize=9, color=INK,
                    arrowprops=arrow)  # fmt: skip
    stages = f"{len(alive.stages)} of {count} stages"
    dead = wiring.connections - alive.connections
    connections = f"{wiring.connections} connections" + (f", {dead} of them dead" if dead else "")
    about = [printable(wiring.backbone, 60), connections, stages]
    # a name is no formula, even if it holds $
    ax.set_title(
        f"{printable(wiring.name, 60)}\n", fontsize=12, fontweight="bold", parse_math=False
    )
    ax.text(0.5, 1.02, " · ".join(filter(None, about)), transform=ax.transAxes, ha="center",
            fontsize=9, color=INK, parse_math=False)  # fmt: skip


def _draw_box(ax: Axes, x: float, y: float, name: str, lives: bool) -> None:
    kind = KINDS[name[0]][1]
    ax.add_patch(
        FancyBboxPatch(
            (x - HALF, y - 0.24), 2 * HALF, 0.48, boxstyle="round,pad=0,rounding_size=0.1",
            facecolor=to_rgba(kind, 0.12) if lives else "white",
            edgecolor=kind if lives else FAINT, linestyle="solid" if lives else (0, (2, 2)),
            linewidth=1.2 if lives else 0.8, zorder=3,
        )
    )  # fmt: skip
    ax.text(x, y, name, ha="center", va="center", zorder=4, color=INK if lives else FAINT,
            fontweight="bold" if lives else "normal", fontsize=10)  # fmt: skip


def _draw_connections(
    ax: Axes,
    connections: Sequence[Connection],
    living: set[Connection],
    height: Mapping[str, float],
) -> None:
    """Draw arrows with a legend below; set the axes' limits."""
    starts, ends = ports(connections, height)
    many = len(connections) > MANY
    right = DECODER + HALF + 0.3
    for stage, source in connections:
        _, colour, dashes = KINDS[source[0]]
        begin = (DECODER if source[0] == "D" else ENCODER) + HALF
        y0, y1 = starts[stage, source], ends[stage, source]
        if source[0] == "D":  # around the right of the column
            bulge = 0.45 + 0.3 * (height[f"D{stage}"] - height[source])
            points = [(begin, y0), (begin + bulge, y0), (begin + bulge, y1), (begin, y1)]
            right = max(right, begin + 0.75 * bulge)
        else:
            end = DECODER - HALF
            points = [(begin, y0), (begin + 1.1, y0), (end - 1.1, y1), (end, y1)]
        ax.add_patch(
            FancyArrowPatch(
                path=Curve(points, [Curve.MOVETO, *[Curve.CURVE4] * 3]),
                arrowstyle="-|>",
                mutation_scale=6 if many else 9,
                linewidth=0.8 if many else 1.4,
                linestyle=dashes,
                color=colour if (stage, source) in living else FAINT,
                zorder=2,
            )
        )
    handles = []
    for kind, (label, colour, dashes) in KINDS.items():
        if number := sum(source[0] == kind for _, source in connections):
            label = f"{label} ({number})"
            handles.append(Line2D([], [], color=colour, linestyle=dashes, label=label))
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), frameon=False,
              ncols=len(handles), fontsize=8, columnspacing=1.4, handlelength=2.6)  # fmt: skip
    ax.set_xlim(ENCODER - HALF - 1.35, right + 0.1)
    ax.set_ylim(min(height.values()) - 0.45, 0.1)
    ax.set_axis_off()


def ports(
    connections: Sequence[Connection], height: Mapping[str, float]
) -> tuple[dict[Connection, float], dict[Connection, float]]:
    """Heights at which connections leave and enter boxes, ordered so that few lines cross."""
    touching: dict[tuple[str, str], list[tuple[tuple[float, float], Connection, bool]]] = {}
    for stage, source in connections:
        target = f"D{stage}"
        y0, y1 = height[source], height[target]
        if source[0] == "D":  # outgoing lines go up, so they start above those from below
            start_key, end_key, side = (0.0, y1 - y0), (1.0, y0 - y1), "right"
        else:
            start_key, end_key, side = (0.0, -y1), (0.0, -y0), "left"
        touching.setdefault((source, "right"), []).append((start_key, (stage, source), True))
        touching.setdefault((target, side), []).append((end_key, (stage, source), False))
    starts: dict[Connection, float] = {}
    ends: dict[Connection, float] = {}
    for (node, _), items in touching.items():
        offsets = np.linspace(PORTS, -PORTS, len(items)) if len(items) > 1 else [0.0]
        for offset, (_, connection, leaves) in zip(offsets, sorted(items), strict=True):
            (starts if leaves else ends)[connection] = height[node] + float(offset)
    return starts, ends


def _finals(search: Search) -> Iterator[tuple[Connection, float]]:
    return zip(search.pairs, search.final, strict=True)


def _draw_matrix(ax: Axes, search: Search, alive: set[Connection]) -> None:
    """Rows: stages; columns: sources; colour: final weight; impossible connections stay blank."""
    count = len(search.strides)
    sources = [f"E{i}" for i in range(1, count + 1)] + [GLOBAL]
    sources += [f"D{i}" for i in range(2, count + 1)]
    values = np.full((count, len(sources)), np.nan)
    for (stage, source), weight in _finals(search):
        row, column = stage - 1, sources.index(source)
        values[row, column] = weight
        if weight > search.threshold or (stage, source) in alive:
            ink = "white" if weight > 0.6 else INK
            fill = ink if (stage, source) in alive else "none"
            ax.plot(column, row, "o", markersize=5, color=ink, markerfacecolor=fill)
    edges = np.arange(len(sources) + 1) - 0.5, np.arange(count + 1) - 0.5
    mesh = ax.pcolormesh(*edges, np.ma.masked_invalid(values), cmap=WEIGHTS, vmin=0, vmax=1,
                         edgecolors="white", linewidth=1)  # fmt: skip
    bar = ax.inset_axes((1.02, 0, 0.02, 1))
    ax.figure.colorbar(mesh, cax=bar, label="final weight w/2")
    ax.set_xticks(range(len(sources)), sources, fontsize=8)
    ax.set_yticks(range(count), [f"D{i}" for i in range(1, count + 1)], fontsize=8)
    ax.invert_yaxis()
    ax.set_aspect("equal")
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    dead = sum(w > search.threshold and c not in alive for c, w in _finals(search))
    title = f"Final weights: ● {len(alive)} kept"
    ax.set_title(
        f"{title}, ○ {dead} above the threshold but dead or merged" if dead else title, fontsize=10
    )


def _draw_curves(ax: Axes, search: Search, alive: set[Connection]) -> None:
    """Each weight over the iterations; the log axis ends a decade below the threshold."""
    floor = search.threshold / 10 if search.threshold > 0 else 1e-4
    step = -(-len(search.iterations) // POINTS)
    chosen = [*range(0, len(search.iterations) - 1, step), len(search.iterations) - 1]
    iterations = np.array(search.iterations)[chosen]
    weights = np.maximum(np.array(search.weights)[chosen], floor)
    finals = list(_finals(search))
    for column in sorted(range(len(finals)), key=lambda i: finals[i][0] in alive):
        connection, final = finals[column]
        _, colour, dashes = KINDS[connection[1][0]]
        lives = connection in alive
        if not lives:
            colour, dashes = (DEAD if final > search.threshold else FAINT), "solid"
        ax.plot(iterations, weights[:, column], color=colour, linestyle=dashes,
                linewidth=1.1 if lives else 0.7)  # fmt: skip
    if search.threshold > 0:
        ax.axhline(search.threshold, color=INK, linewidth=1)
        ax.annotate(f"threshold {search.threshold:g}", (1, search.threshold), (-6, 5),
                    xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
                    fontsize=8, bbox={"color": "white", "pad": 1})  # fmt: skip
    ax.set_yscale("log")
    ax.set_ylim(floor * 0.8, 1.3)
    ticks = [10.0**power for power in range(ceil(log10(floor) - 1e-9), 1)]
    ax.set_yticks(ticks, [f"{'≤ ' if tick <= floor * 1.01 else ''}{tick:g}" for tick in ticks])
    ax.set_yticks([], minor=True)
    ax.set_xlim(iterations[0], max(iterations[-1], iterations[0] + 1))
    ax.set_xlabel("iteration")
    ax.set_ylabel("w/2")
    ax.set_title("Weights over the search; grey: dropped, dark grey: dead or merged", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
