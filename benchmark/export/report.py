"""Tables of `export` for a terminal: errors by shape, scores before and after int8."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from benchmark.export.verify import Check
from common.words import number
from tasks.metrics.names import metric_title


def checks_table(checks: Sequence[Check]) -> Table:
    """The largest difference from PyTorch for each shape."""
    table = Table("images", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("largest error", justify="right")
    for check in checks:
        batch, height, width = check.shape
        table.add_row(f"{batch} of {height}×{width}", f"{check.error:.1e}")
    return table


def loss_table(int8: Mapping[str, Any]) -> Table:
    """Metrics of the float32 and the int8 file, their differences, and the files' sizes."""
    sizes = int8["bytes"]
    table = Table(
        "metric",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption=f"{int8['images']} images of {int8['scored_on']}; calibrated on "
        f"{int8['calibration_images']} of {int8['calibrated_on']}.",
        caption_justify="left",
    )
    for title in ("float32", "int8", "difference"):
        table.add_column(title, justify="right")
    exact = int8["metrics"]["float32"]
    for task, metrics in int8["metrics"]["int8"].items():
        for name, value in metrics.items():
            before = exact[task][name]
            label = metric_title(name, int8["higher_is_better"][task][name])
            label = f"{task} {label}" if len(exact) > 1 else label
            table.add_row(label, number(before, 4), number(value, 4), f"{value - before:+.4f}")
    table.add_row("MB", number(sizes["float32"] / 1e6, 2), number(sizes["int8"] / 1e6, 2), "")
    return table
