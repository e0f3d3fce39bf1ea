"""Names of metrics and costs, and numbers, as all reports write them."""

import math

from rich.markup import escape

from common.limits import printable

METRICS = {"miou": "mIoU", "macc": "mAcc", "aacc": "aAcc", "delta1": "δ1", "delta2": "δ2",
           "delta3": "δ3", "maxf": "maxF", "meanf": "meanF", "mae": "MAE", "smeasure": "S",
           "maxe": "maxE", "abs_rel": "AbsRel", "rmse": "RMSE", "silog": "SILog", "ods": "ODS",
           "ois": "OIS", "ap": "AP", "r50": "R50"}  # fmt: skip
COST_NAMES = {"latency": "latency", "params": "parameters", "macs": "MACs", "memory": "memory"}


def cell(text: str) -> str:
    """``text`` for a terminal, where rich takes nothing in it for markup or a command."""
    return escape(printable(text))


def metric_name(name: str) -> str:
    """The usual short name of a metric."""
    return METRICS.get(name.partition("@")[0], name)


def metric_title(name: str, higher_is_better: bool) -> str:
    """The usual short name of a metric; an arrow shows which way is better."""
    return f"{metric_name(name)} {'↑' if higher_is_better else '↓'}"


def number(value: float | None, digits: int | None = 3) -> str:
    """A number of ``digits`` decimals; by None of three significant digits, at most 4 decimals.

    Never with an exponent; a dash for what is no number.
    """
    if value is None or not math.isfinite(value):
        return "–"
    if digits is None:
        size = math.floor(math.log10(abs(value))) if value else 0
        digits = min(max(2 - size, 0), 4)
    return f"{value:.{digits}f}"
