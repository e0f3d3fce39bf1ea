"""Names of costs, and numbers, as all reports write them."""

import math

from rich.markup import escape

from common.limits import printable

COST_NAMES = {"latency": "latency", "params": "parameters", "macs": "MACs", "memory": "memory"}
DISTURBED = "†"


def disturbed_note(share: float, counts: bool = False) -> str:
    """What ``DISTURBED`` means beside a time.

    share: the largest that other work took. counts: whether fronts take such times.
    """
    front = "" if counts else "in no front of latency; "
    return (
        f"{DISTURBED} timed while other work took up to {share:.0%} of the processors: {front}time "
        "it again on an idle machine."
    )


def cell(text: str) -> str:
    """``text`` for a terminal, without effect as markup of rich or as a control sequence."""
    return escape(printable(text))


def number(value: float | None, digits: int | None = 3) -> str:
    """``value`` with ``digits`` decimals; None: a ``quantity`` of three significant digits.

    Then it has at most 4 decimals, more only where two significant digits need them. Never with an
    exponent; a dash for None, NaN and infinity.
    """
    if value is None or not math.isfinite(value):
        return "–"
    if digits is None:
        return quantity(value, min(max(2 - _size(value), 0), 4))
    return f"{value:.{digits}f}"


def quantity(value: float | None, digits: int) -> str:
    """A rate, time or size: ``digits`` decimals, and more where two significant digits need them.

    So that 0.4 images per second are not 0. Else as ``number``.
    """
    if value and math.isfinite(value):
        digits = max(digits, 1 - _size(value))
    return number(value, digits)


def _size(value: float) -> int:
    """The power of ten of the first significant digit; 0 for 0."""
    return math.floor(math.log10(abs(value))) if value else 0


def count_of(count: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
