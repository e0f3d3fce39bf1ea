"""Names of costs, and numbers, as all reports write them."""

import math

from rich.markup import escape

from common.limits import printable

COST_NAMES = {"latency": "latency", "params": "parameters", "macs": "MACs", "memory": "memory"}


def cell(text: str) -> str:
    """``text`` for a terminal, without effect as markup of rich or as a control sequence."""
    return escape(printable(text))


def number(value: float | None, digits: int | None = 3) -> str:
    """``value`` with ``digits`` decimals; None: with three significant digits, at most 4 decimals.

    Never with an exponent; a dash for None, NaN and infinity.
    """
    if value is None or not math.isfinite(value):
        return "–"
    if digits is None:
        size = math.floor(math.log10(abs(value))) if value else 0
        digits = min(max(2 - size, 0), 4)
    return f"{value:.{digits}f}"
