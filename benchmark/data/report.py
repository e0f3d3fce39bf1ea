"""The report of a data set's check, for the terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from common.words import cell

SIZES = 3
"""Number of image sizes that are listed, the most frequent first."""


def print_check(report: Mapping[str, Any], console: Console) -> None:
    """Print tables of the splits and of each target, then all problems and warnings."""
    splits = report["splits"]
    if splits:
        console.print(_table(report["dataset"], splits, {n: _facts(s) for n, s in splits.items()}))
    targets = dict.fromkeys(name for split in splits.values() for name in split["targets"])
    for target in targets:
        rows = {
            name: dict(_flat(split["targets"].get(target, {}))) for name, split in splits.items()
        }
        console.print(_table(target, splits, rows))
    if report["mean"] is not None:
        mean, std = (",".join(f"{x:.3f}" for x in report[name]) for name in ("mean", "std"))
        console.print(f"training images: --mean {mean} --std {std}", highlight=False)
    for kind in ("problems", "warnings"):
        for text in report[kind]:
            console.print(f"{kind[:-1]}: {cell(text)}", highlight=False, soft_wrap=True)
    counts = [f"{kind} {len(report[kind])}" for kind in ("problems", "warnings")]
    console.print(f"{report['dataset']}: {', '.join(counts)}", highlight=False)


def _table(title: str, splits: Mapping[str, Any], columns: Mapping[str, dict[str, str]]) -> Table:
    """A row for each fact, a column for each split."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(title)
    for split in splits:
        table.add_column(cell(split), justify="right")
    for row in dict.fromkeys(row for facts in columns.values() for row in facts):
        table.add_row(row, *(cell(columns[split].get(row, "")) for split in splits))
    return table


def _facts(split: Mapping[str, Any]) -> dict[str, str]:
    sizes = list(split["image_sizes"].items())
    named = ", ".join(f"{size} ({count})" for size, count in sizes[:SIZES])
    more = f", {len(sizes) - SIZES} more" if len(sizes) > SIZES else ""
    return {
        "samples": "–" if split["samples"] is None else str(split["samples"]),
        "published": str(split["published"] or "–"),
        "readable": str(split["readable"]),
        "fingerprint": split["fingerprint"] or "–",
        "sizes": named + more,
        "mean": " ".join(f"{x:.3f}" for x in split["mean"] or ()),
        "std": " ".join(f"{x:.3f}" for x in split["std"] or ()),
    }


def _flat(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Facts as pairs of texts; a nested table gives its title, then its rows."""
    for name, value in summary.items():
        if isinstance(value, Mapping):
            yield name, ""
            yield from ((f"  {row}", f"{number:.4f}") for row, number in value.items())
        elif isinstance(value, list):
            yield name, ", ".join(value) or "–"
        else:
            yield name, f"{value:.4g}" if isinstance(value, float) else str(value)
