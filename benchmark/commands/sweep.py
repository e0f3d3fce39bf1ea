"""`sweep`: many runs from one file."""

import time
from pathlib import Path
from typing import Any

import click

from benchmark.commands.options import checkpoint_option, console_of_width, quiet
from common.errors import UsageError, first_line

CACHE = ("only-missing", "always", "never")


@click.command()
@click.argument("file", metavar="FILE.yaml")
@click.option("--results", type=click.Path(path_type=Path),
              help="Folder of the results. [default: the file's, else runs]")  # fmt: skip
@click.option("--cache", type=click.Choice(CACHE),
              help="Results of earlier runs. only-missing: finished ones are kept, failed and "
                   "missing ones are run; always: nothing is run, only what is there is shown; "
                   "never: all are run again. [default: the file's, "
                   "else only-missing]")  # fmt: skip
@click.option("--data", multiple=True, metavar="DATASET=PATH",
              help="Folder or packed file of a data set. May be repeated.")  # fmt: skip
@click.option("--weights", multiple=True, metavar="BACKBONE=FILE",
              help="Weights of a backbone, in place of --pretrained. May be repeated.")  # fmt: skip
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE",
              help="An option of every run, as in device=cuda. May be repeated.")  # fmt: skip
@click.option("--retime", is_flag=True,
              help="Time finished runs again, all in turns, on this machine.")  # fmt: skip
@click.option("--tensorboard", is_flag=True,
              help="Write the scalars of metrics.jsonl for TensorBoard too.")  # fmt: skip
@checkpoint_option
@click.option(
    "--dry-run", is_flag=True, help="Print the plan with its estimated time; run nothing."
)
@click.option("-v", "--verbose", is_flag=True, help="Say more: every epoch, libraries' warnings.")
def sweep(
    file: str, results: Path | None, cache: str | None, data: tuple[str, ...],
    weights: tuple[str, ...], settings: tuple[str, ...], retime: bool, tensorboard: bool,
    every: float, dry_run: bool, verbose: bool,
) -> None:  # fmt: skip
    """Run tasks × data sets × backbones × decoders × seeds from a file.

    FILE.yaml is yours or a built-in one: demo, which runs here, paper, the paper's tables, or
    leaderboard, the runs of docs/leaderboard.md. A failed run is recorded with its reason and the
    others go on; the same command runs what is missing. The file's keys: docs/sweeps.md.
    """
    if not verbose:
        quiet()
    from benchmark.estimate import estimate
    from benchmark.leaderboard import boards
    from benchmark.logs import check_tensorboard
    from benchmark.report.sweep import comparison, plan_line, plan_table, summary, watching
    from benchmark.report.tables import rich_table
    from benchmark.runner import Runner
    from benchmark.sweep import read_sweep
    from benchmark.sweeping import execute, open_data, stored, to_do, told_before

    def say(text: str) -> None:
        click.echo(text, err=True)

    if tensorboard:
        check_tensorboard()
    swept = read_sweep(file)
    plan = swept.plan(_pairs("--data", data), _pairs("--weights", weights), _settings(settings))
    results = results or swept.content.results
    policy: Any = cache or swept.content.cache
    if retime and policy == "always":
        raise UsageError("--retime: --cache always runs nothing: use only-missing")
    found = stored(plan.runs, results)
    pending = to_do(plan.runs, found, policy)
    opened, unusable = open_data(pending)
    estimates = estimate(pending, told_before(results), opened)
    for text in plan.skipped:
        click.echo(f"left out: {text}", err=True)
    for shared, error in unusable.items():
        click.echo(f"cannot run {shared[0]} on {shared[1]}: {first_line(error)}", err=True)
    console = console_of_width(180)
    if dry_run:
        console.print(plan_table(plan.runs, pending, found, estimates))
        click.echo(plan_line(plan.runs, pending, estimates))
        return
    click.echo(plan_line(plan.runs, pending, estimates), err=True)
    if policy == "always":
        done = list(found.values())
    else:
        start = time.monotonic()
        with watching(pending, estimates, say, verbose) as watch:
            runner = Runner(
                results, False, watch, retime=retime, tensorboard=tensorboard, every=every
            )
            done = execute(plan.runs, pending, found, unusable, runner, watch)
        took = time.monotonic() - start
    for board in boards(done):
        console.print(rich_table(board, console.width))
    for line in summary(plan.runs, pending, done):
        click.echo(line, err=True)
    if pending:
        click.echo(comparison(estimates, took), err=True)
    click.echo(f"results: {results}", err=True)
    if any(result.status == "failed" for result in done):
        raise SystemExit(1)


def _pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE texts as a dictionary."""
    pairs = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise UsageError(f"{option} {text}: expected NAME=VALUE")
        pairs[name] = value
    return pairs


def _settings(texts: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    try:
        return {name: yaml.safe_load(text) for name, text in _pairs("--set", texts).items()}
    except yaml.YAMLError as error:
        raise UsageError(f"--set: {' '.join(str(error).split())}") from None
