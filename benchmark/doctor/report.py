"""Checks of ``doctor`` as a table for the terminal."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from benchmark.doctor.checks import Check, stops_runs

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def checks_table(checks: Sequence[Check]) -> Table:
    """A row for each check: what it saw, and under it the advice."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        text = escape(check.seen)
        if check.advice:
            style = "dim" if check.status == "ok" else STYLES[check.status]
            text += f"\n[{style}]→ {escape(check.advice)}[/]"
        table.add_row(Text(check.status, STYLES[check.status]), Text(check.name), text)
    return table


def summary(checks: Sequence[Check]) -> str:
    """One line: checks by status, seconds in all, and whether ``run`` will work."""
    counts = [f"{sum(c.status == s for c in checks)} {s}" for s in STYLES]
    seconds = sum(check.seconds for check in checks)
    failed = stops_runs(checks)
    verdict = f"`run` will not work: {', '.join(failed)}" if failed else "`run` will work"
    return escape(f"{', '.join(counts)} in {seconds:.0f} s: {verdict}")
