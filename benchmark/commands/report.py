"""Commands that show results and names: `report`, `list`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmark.commands.options import console_of_width
from common.errors import UsageError, UserError
from common.files import write_atomic
from common.limits import printable

if TYPE_CHECKING:
    from benchmark.results.result import Result

FILTER = "Only this; wildcards allowed. May be repeated."


def read_results(folder: Path) -> "list[Result]":
    """The results in ``folder`` in compact form; warns in one line about each left-out result.

    Raises UsageError if there is no such folder, UserError if it holds no result.
    """
    from benchmark.results.light import Lightener
    from benchmark.results.store import collect

    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder: run something first, or give --results")
    results, problems = collect(folder, keep=Lightener())
    for problem in problems:
        click.echo(f"warning: {printable(problem)}", err=True)
    if not results:
        raise UserError(f"{folder}: no result in it: run something first, or give --results")
    if problems:
        click.echo(f"results: {len(results)} read, {len(problems)} left out", err=True)
    return results


@click.command()
@click.option("--results", type=click.Path(path_type=Path), default="runs", show_default=True,
              help="Folder of the results.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), default=None,
              help="Folder of the files. [default: --html's, else the results folder]")  # fmt: skip
@click.option("--html", type=click.Path(path_type=Path), default=None, metavar="DIR",
              help="Also write DIR/index.html, a page with plots, whole in itself.")  # fmt: skip
@click.option("--update", type=click.Path(path_type=Path), metavar="FILE.md",
              help="Write the tables between the lines <!-- leaderboard:begin --> and <!-- "
              "leaderboard:end --> of this file; print nothing, write no other table.")  # fmt: skip
@click.option("--task", multiple=True, metavar="NAME", help=FILTER)
@click.option("--dataset", multiple=True, metavar="NAME", help=FILTER)
@click.option("--backbone", multiple=True, metavar="NAME", help=FILTER)
@click.option("--decoder", multiple=True, metavar="NAME",
              help=f"{FILTER} Of a wiring, its file's name.")  # fmt: skip
@click.option("--device", multiple=True, metavar="TEXT", help="Only devices with this in the name.")
@click.option("--baseline", metavar="NAME",
              help="Row that Δm across tasks compares with. [default: fcn]")  # fmt: skip
@click.option("--reported/--no-reported", default=True, show_default=True,
              help="Show published figures beside measured ones.")  # fmt: skip
@click.option("--format", "formats", multiple=True, type=click.Choice(["benchmark-csv"]),
              help="Also write benchmark.csv, in the columns of timm's results.")  # fmt: skip
@click.option("--disturbed", is_flag=True,
              help="Fronts take latencies timed while other work ran like any other.")  # fmt: skip
def report(
    results: Path, output: Path | None, html: Path | None, update: Path | None,
    task: tuple[str, ...], dataset: tuple[str, ...], backbone: tuple[str, ...],
    decoder: tuple[str, ...], device: tuple[str, ...], baseline: str | None, reported: bool,
    formats: tuple[str, ...], disturbed: bool,
) -> None:  # fmt: skip
    """Print the leaderboard; write leaderboard.md, .csv, .json and .tex.

    A board for each task, data set, protocol and device, then one table across the boards of each
    device. What columns, ranks, fronts and Δm mean: docs/reports.md.
    """
    from benchmark.commands.options import quiet
    from benchmark.experiment.config import split_tasks
    from benchmark.leaderboard.boards import boards
    from benchmark.leaderboard.overall import overall
    from benchmark.leaderboard.reported import add_reported
    from benchmark.leaderboard.runtimes import with_runtimes
    from benchmark.leaderboard.selection import matches, select
    from benchmark.report.files import markdown, update_between_markers, write_reports
    from benchmark.report.tables import rich_overall, rich_table

    quiet()
    filters = {"task": task, "dataset": dataset, "backbone": backbone, "decoder": decoder,
               "device": device}  # fmt: skip
    tables = boards(select(read_results(results), filters), disturbed)
    if task:  # a network of several tasks is in the boards of all of them
        tables = [
            b for b in tables if any(matches(t, w) for t in split_tasks(b.task) for w in task)
        ]
    across = overall(tables, baseline)
    tables = [with_runtimes(board) for board in tables]
    if reported:
        add_reported(tables)
    if html is not None:
        from benchmark.report.page.page import page

        write_atomic(html / "index.html", page(tables, across), "--html")
        click.echo(f"wrote {html / 'index.html'}", err=True)
    if update is not None:
        update_between_markers(update, markdown(tables, across, level=3))
        click.echo(f"updated {update}", err=True)
    else:
        console = console_of_width(180)
        for board in tables:
            console.print(rich_table(board, console.width, explained=board is tables[-1]))
        for table in across:
            console.print(rich_overall(table))
        for path in write_reports(tables, output or html or results, across, formats):
            click.echo(f"wrote {path}", err=True)


@click.command("list")
@click.argument("kind", type=click.Choice(["backbones", "decoders", "tasks", "datasets"]))
@click.argument("pattern", default="")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(kind: str, pattern: str, as_json: bool) -> None:
    """List what can be named: backbones, decoders, tasks, datasets; PATTERN narrows it."""
    import json

    from benchmark.experiment.listing import describe

    rows = describe(kind, pattern)
    if not rows:
        raise UsageError(f"no {kind} match '{pattern}'")
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        about = row.get("title") or row.get("reason") or row.get("how", "")
        click.echo(f"{row['name']:<{width}}  {about}".rstrip())
