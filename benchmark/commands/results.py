"""Commands about results and what can be named: `report`, `list`."""

from pathlib import Path

import click

from benchmark.commands.options import console_of_width
from common.errors import UsageError, UserError
from common.files import write_atomic


@click.command()
@click.option("--results", type=click.Path(path_type=Path), default="runs", show_default=True,
              help="Folder of the results.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), default=None,
              help="Folder of the files; default: the results folder.")  # fmt: skip
@click.option("--html", type=click.Path(path_type=Path), default=None, metavar="DIR",
              help="Also write DIR/index.html, a page with plots, whole in itself.")  # fmt: skip
def report(results: Path, output: Path | None, html: Path | None) -> None:
    """Print the leaderboard; write leaderboard.md, .csv and .json."""

    from benchmark.leaderboard import boards
    from benchmark.report.tables import rich_table, write_reports
    from benchmark.results import read_all

    if not results.is_dir():
        raise UsageError(f"{results}: no such folder: run something first, or give --results")
    found = list(read_all(results))
    if not found:
        raise UserError(f"{results}: no result in it: run something first, or give --results")
    tables = boards(found)
    console = console_of_width(180)
    for board in tables:
        console.print(rich_table(board, console.width))
    for path in write_reports(tables, output or results):
        click.echo(f"wrote {path}", err=True)
    if html is not None:
        from benchmark.report.page import page

        write_atomic(html / "index.html", page(tables, []), "--html")
        click.echo(f"wrote {html / 'index.html'}", err=True)


@click.command("list")
@click.argument("kind", type=click.Choice(["backbones", "decoders", "tasks", "datasets"]))
@click.argument("pattern", default="")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(kind: str, pattern: str, as_json: bool) -> None:
    """List what can be named: backbones, decoders, tasks, datasets; PATTERN narrows it."""
    import json

    from benchmark.listing import describe

    rows = describe(kind, pattern)
    if not rows:
        raise UsageError(f"no {kind} match '{pattern}'")
    if as_json:
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        about = row.get("title", "")
        click.echo(f"{row['name']:<{width}}  {about}".rstrip())
