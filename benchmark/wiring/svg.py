"""A wiring as an SVG of 1–5 kB for the page, in the look of ``benchmark.wiring.figure``."""

from benchmark.wiring.figure import ports
from models.connectivity import GLOBAL, Connection, Connectivity

PITCH, HEIGHT, WIDTH = 30, 19, 36  # row distance; box height and width
ENCODER, DECODER = 76, 196  # the columns' centres
TOP = 34


def wiring_svg(wiring: Connectivity, about: str) -> str:
    """Encoder left, decoder right, an arrow for each connection; the page's CSS colours it.

    about: text for screen readers, escaped for an attribute. CSS classes by source: E encoder,
    G global average, D decoder; x for boxes and connections that do not reach D1.
    """
    count = len(wiring.strides)
    alive = wiring.alive()
    living = [(stage, source) for stage, inputs in alive.stages.items() for source in inputs]
    connections = [(stage, source) for stage, inputs in wiring.stages.items() for source in inputs]
    used = {source for _, source in living}
    row = {f"{side}{i}": float(-i) for side in "ED" for i in range(1, count + 1)}
    row[GLOBAL] = -count - 1.0
    lines, right = _lines(connections, set(living), row)
    boxes = []
    for name, y in row.items():
        lives = int(name[1:]) in alive.stages if name[0] == "D" else name in used
        x = DECODER if name[0] == "D" else ENCODER
        kind = name[0] if lives else "x"
        boxes.append(
            f'<rect class="{kind}" x="{x - WIDTH // 2}" y="{_y(y) - HEIGHT / 2:g}" '
            f'width="{WIDTH}" height="{HEIGHT}" rx="3"/>'
            f'<text class="{kind}" x="{x}" y="{_y(y) + 4:g}">{name}</text>'
        )
    left = ENCODER - WIDTH // 2 - 6
    for index, stride in enumerate(wiring.strides, 1):
        boxes.append(f'<text class="s" x="{left}" y="{_y(-index) + 4:g}">stride {stride}</text>')
    boxes.append(f'<text class="s" x="{left}" y="{_y(row[GLOBAL]) + 4:g}">average</text>')
    for text, x in (("image ↓", ENCODER), ("output ↑", DECODER)):
        boxes.append(f'<text x="{x}" y="{TOP - 18}">{text}</text>')
    height = _y(row[GLOBAL]) + HEIGHT
    return (
        f'<svg class="wiring" role="img" aria-label="{about}" viewBox="0 0 {right:.0f} {height:g}" '
        f'width="{right:.0f}" height="{height:g}">{"".join(lines)}{"".join(boxes)}</svg>'
    )


def _lines(
    connections: list[Connection], living: set[Connection], row: dict[str, float]
) -> tuple[list[str], float]:
    """The arrows, and the picture's right edge in pixels."""
    starts, ends = ports(connections, row)
    edge = DECODER + WIDTH / 2
    lines, right = [], edge + 14
    for stage, source in connections:
        y0, y1 = _y(starts[stage, source]), _y(ends[stage, source])
        if source[0] == "D":  # around the right of the column
            bulge = PITCH * (0.45 + 0.3 * (row[f"D{stage}"] - row[source]))
            path = f"M{edge:g} {y0:.1f}C{edge + bulge:.0f} {y0:.1f} {edge + bulge:.0f} {y1:.1f} "
            path += f"{edge + 4:g} {y1:.1f}"
            right = max(right, edge + 0.75 * bulge + 6)
        else:
            a, b = ENCODER + WIDTH / 2, DECODER - WIDTH / 2
            path = f"M{a:g} {y0:.1f}C{a + 34:g} {y0:.1f} {b - 38:g} {y1:.1f} {b - 4:g} {y1:.1f}"
        kind = source[0] if (stage, source) in living else "x"
        lines.append(f'<path class="{kind}" d="{path}"/>')
    return lines, right


def _y(row: float) -> float:
    return TOP + PITCH * (-row - 1)
