"""`sweep`: many runs from one file."""

import time
from pathlib import Path
from typing import Any

import click

from benchmark.commands.options import checkpoint_option, console_of_width, quiet
from common.errors import UsageError, first_line

CACHE = ("only-missing", "always", "never")
EXECUTORS = ("local", "ray", "slurm")


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
@click.option("--executor", type=click.Choice(EXECUTORS), default="local", show_default=True,
              help="Where runs are done: processes of this machine, a Ray cluster (extra ray), "
                   "Slurm (extra slurm).")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), metavar="N",
              help="At most N runs at once. [default: local 1, or one per GPU; ray as many as it "
                   "has room for; slurm 100]")  # fmt: skip
@click.option("--retries", type=click.IntRange(min=0), default=1, show_default=True, metavar="N",
              help="How often a run whose worker died is run again.")  # fmt: skip
@click.option(
    "--address",
    metavar="ADDRESS",
    help="Of the Ray cluster. [default: RAY_ADDRESS, else a Ray of this machine]",
)
@click.option("--resources", metavar="cpus=N,gpus=N",
              help="Of each run with ray and slurm. [default: cpus=1, and gpus=1 for device "
                   "cuda]")  # fmt: skip
@click.option(
    "--slurm-option",
    "slurm",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of sbatch, as in partition=gpu. May be repeated.",
)
@click.option(
    "--dry-run", is_flag=True, help="Print the plan with its estimated time; run nothing."
)
@click.option("-v", "--verbose", is_flag=True, help="Say more: every epoch, libraries' warnings.")
def sweep(
    file: str, results: Path | None, cache: str | None, data: tuple[str, ...],
    weights: tuple[str, ...], settings: tuple[str, ...], retime: bool, tensorboard: bool,
    executor: str, jobs: int | None, retries: int, address: str | None, resources: str | None,
    slurm: tuple[str, ...], every: float, dry_run: bool, verbose: bool,
) -> None:  # fmt: skip
    """Run tasks × data sets × backbones × decoders × seeds from a file.

    FILE.yaml is yours or a built-in one: demo, which runs here, paper, the paper's tables, or
    leaderboard, the runs of docs/leaderboard.md. A failed run is recorded with its reason and the
    others go on; the same command runs what is missing. The file's keys: docs/sweeps.md.
    """
    if not verbose:
        quiet()
    import torch

    from benchmark.experiment.distributed import asked
    from benchmark.leaderboard.boards import boards
    from benchmark.report.tables import MOST_ROWS, rich_table
    from benchmark.results.light import Lightener
    from benchmark.results.store import each, many_objects
    from benchmark.run.runner import Runner
    from benchmark.sweep.estimate import estimate
    from benchmark.sweep.execute import Work, execute, open_data, stored, to_do
    from benchmark.sweep.executors.choice import make_executor
    from benchmark.sweep.executors.driver import execute_on
    from benchmark.sweep.file import read_sweep
    from benchmark.sweep.report import comparison, plan_line, plan_table, summary, watching
    from benchmark.training.scalars import check_tensorboard

    def say(text: str) -> None:
        click.echo(text, err=True)

    if asked() > 1:
        raise UsageError("sweep: is one process: give torchrun a `run` or a `search`")
    if tensorboard:
        check_tensorboard()
    swept = read_sweep(file)
    plan = swept.plan(_pairs("--data", data), _pairs("--weights", weights), _settings(settings))
    results = results or swept.content.results
    policy: Any = cache or swept.content.cache
    if retime and policy == "always":
        raise UsageError("--retime: --cache always runs nothing: use only-missing")
    began = time.time()  # what is finished from here on was made by another process
    found = {}
    with many_objects():
        if dry_run:
            states = {key: result.status for key, result in stored(plan.runs, results)}
        else:  # only what is run or timed is saved again
            light = Lightener() if policy == "always" else lambda result: result
            found = {key: light(result) for key, result in stored(plan.runs, results)}
            states = {key: result.status for key, result in found.items()}
    pending = to_do(plan.runs, states, policy)
    workers = make_executor(
        *(executor, pending, results, jobs, address, resources),
        _pairs("--slurm-option", slurm),
    )
    lanes = 1 if workers is None else workers.lanes or 1
    opened, unusable = open_data(pending)
    estimates = {}
    if workers is None or not workers.elsewhere:
        if workers is not None and workers.threads is not None:
            torch.set_num_threads(workers.threads)  # as each of the runs
        estimates = estimate(pending, each(results), opened)
    for text in plan.skipped:
        click.echo(f"left out: {text}", err=True)
    for shared, error in unusable.items():
        here = "" if workers is None or workers.same_files else " here; the workers will try"
        text = f"cannot run {shared[0]} on {shared[1]}{here}: {first_line(error)}"
        click.echo(text, err=True)
    console = console_of_width(180)
    if dry_run:
        most = None if verbose else MOST_ROWS
        console.print(plan_table(plan.runs, pending, states, estimates, most))
        click.echo(plan_line(plan.runs, pending, estimates, lanes))
        return
    click.echo(plan_line(plan.runs, pending, estimates, lanes), err=True)
    if policy == "always":
        done = list(found.values())
    else:
        start = time.monotonic()
        with watching(pending, estimates, say, verbose, lanes=lanes) as watch:
            runner = Runner(
                results, False, watch, retime=retime, tensorboard=tensorboard, every=every,
                began=began,
            )  # fmt: skip
            work = Work(plan.runs, pending, found, unusable, runner, watch)
            done = execute(work) if workers is None else execute_on(workers, work, retries)
        took = time.monotonic() - start
    for board in boards(done):
        console.print(rich_table(board, console.width))
    for line in summary(plan.runs, pending, done):
        click.echo(line, err=True)
    if pending:
        click.echo(comparison(estimates, took, lanes), err=True)
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
