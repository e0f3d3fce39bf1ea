"""`sweep`: many runs from one file."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmark.commands.options import (
    checkpoint_option,
    console_of_width,
    executor_options,
    pairs,
    pairs_options,
    quiet,
    value_of,
)
from common.errors import UsageError, first_line

if TYPE_CHECKING:
    from benchmark.experiment.plan import PlannedRun
    from benchmark.results.result import Result
    from benchmark.sweep.estimate import Estimate
    from benchmark.sweep.executors.base import Executor

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
@pairs_options
@click.option("--tensorboard", is_flag=True,
              help="Write the scalars of metrics.jsonl for TensorBoard too.")  # fmt: skip
@checkpoint_option
@executor_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the plan with its estimated time; run nothing. Exits "
    "with 1 if data cannot be opened.",
)
@click.option("-v", "--verbose", is_flag=True, help="Say more: every epoch, libraries' warnings.")
def sweep(
    file: str, results: Path | None, cache: str | None, data: tuple[str, ...],
    weights: tuple[str, ...], settings: tuple[str, ...], retime: bool, tensorboard: bool,
    executor: str, jobs: int | None, retries: int, address: str | None, resources: str | None,
    slurm: tuple[str, ...], every: float, dry_run: bool, verbose: bool, runtimes: tuple[str, ...],
    precisions: tuple[str, ...], calibrate: int,
) -> None:  # fmt: skip
    """Run tasks × data sets × backbones × decoders × seeds from a file.

    FILE.yaml is yours or a built-in one: demo, which runs here, paper, the paper's tables, or
    leaderboard, the runs of docs/leaderboard.md. A failed run is recorded with its reason and the
    others go on; the same command runs what is missing. The file's keys: docs/sweeps.md.
    """
    if not verbose:
        quiet()
    from benchmark.experiment.distributed import asked
    from benchmark.experiment.plan import planned
    from benchmark.results.light import Lightener
    from benchmark.results.store import many_objects
    from benchmark.speed.runtimes import pairs_of
    from benchmark.sweep.executors.choice import make_executor
    from benchmark.sweep.file import read_sweep
    from benchmark.sweep.prepare import outdated, stored, to_do
    from benchmark.training.scalars import check_tensorboard

    if asked() > 1:
        raise UsageError("sweep: is one process: give torchrun a `run` or a `search`")
    if tensorboard:
        check_tensorboard()
    ways = pairs_of(runtimes, precisions) if runtimes or precisions else []
    began = time.time()  # a result that is finished after this is of another process
    swept = read_sweep(file)
    plan = swept.plan(pairs("--data", data), pairs("--weights", weights), _settings(settings))
    results = results or swept.content.results
    policy: Any = cache or swept.content.cache
    if retime and policy == "always":
        raise UsageError("--retime: --cache always runs nothing: use only-missing")
    if ways and policy == "always":
        raise UsageError("--runtime: --cache always runs nothing: use only-missing")
    runs = planned(plan.runs, results)
    earlier: dict[str, Result] = {}
    states: dict[str, str] = {}
    light = Lightener() if policy == "always" else None  # what is run or timed is saved again
    with many_objects():
        for key, result in stored(runs):
            states[key] = result.status
            if not dry_run:
                earlier[key] = light(result) if light else result
    pending = to_do(runs, states, policy)
    workers = make_executor(
        *(executor, pending, results, jobs, address, resources),
        pairs("--slurm-option", slurm),
    )
    for text in plan.skipped:
        click.echo(f"left out: {text}", err=True)
    course = _Course(runs, pending, results, workers)
    if dry_run:
        course.print_plan(states, verbose)
        if course.unusable and (workers is None or workers.same_files):
            raise SystemExit(1)
        return
    click.echo(course.line(), err=True)
    if policy == "always":
        course.show(list(earlier.values()))
        return
    pending_keys = {run.key for run in pending}
    for text in outdated([run for run in runs if run.key not in pending_keys], earlier):
        click.echo(f"warning: {text}", err=True)
    options = {
        "retime": retime, "tensorboard": tensorboard, "every": every, "began": began,
        "pairs": ways, "calibrate": calibrate,
    }  # fmt: skip
    course.show(course.execute(earlier, retries, verbose, options))


class _Course:
    """A planned sweep: its estimate, its execution, its printed tables."""

    def __init__(
        self, runs: "list[PlannedRun]", pending: "list[PlannedRun]", results: Path,
        workers: "Executor | None",
    ) -> None:  # fmt: skip
        import torch

        from benchmark.results.store import each
        from benchmark.sweep.estimate import estimate
        from benchmark.sweep.prepare import open_data

        self.runs, self.pending, self.results, self.workers = runs, pending, results, workers
        self.lanes = 1 if workers is None else workers.lanes or 1
        self.took = 0.0
        opened, self.unusable = open_data(pending)
        self.estimates: dict[str, Estimate] = {}
        if workers is None or not workers.elsewhere:
            if workers is not None and workers.threads is not None:
                torch.set_num_threads(workers.threads)  # as each of the runs
            self.estimates = estimate(pending, each(results), opened)
        for shared, error in self.unusable.items():
            here = "" if workers is None or workers.same_files else " here; the workers will try"
            text = f"cannot run {shared[0]} on {shared[1]}{here}: {first_line(error)}"
            click.echo(text, err=True)

    def line(self) -> str:
        from benchmark.sweep.report import plan_line

        return plan_line(self.runs, self.pending, self.estimates, self.lanes)

    def print_plan(self, states: dict[str, str], verbose: bool) -> None:
        from benchmark.report.tables import MOST_ROWS
        from benchmark.sweep.report import plan_table

        most = None if verbose else MOST_ROWS
        table = plan_table(self.runs, self.pending, states, self.estimates, most)
        console_of_width(180).print(table)
        click.echo(self.line())

    def execute(
        self, earlier: "dict[str, Result]", retries: int, verbose: bool, options: dict[str, Any]
    ) -> "list[Result]":
        from benchmark.run.runner import Runner
        from benchmark.sweep.execute import Work, execute
        from benchmark.sweep.report import watching

        def say(text: str) -> None:
            click.echo(text, err=True)

        start = time.monotonic()
        with watching(self.pending, self.estimates, say, verbose, lanes=self.lanes) as watch:
            runner = Runner(self.results, watch, **options)
            work = Work(self.runs, self.pending, earlier, self.unusable, runner, watch)
            done = execute(work, self.workers, retries)
        self.took = time.monotonic() - start
        return done

    def show(self, done: "list[Result]") -> None:
        """Print the boards and a summary of the runs; exits with 1 if one failed."""
        from benchmark.leaderboard.boards import boards
        from benchmark.leaderboard.runtimes import with_runtimes
        from benchmark.report.tables import rich_table
        from benchmark.sweep.report import comparison, summary

        console = console_of_width(180)
        for board in map(with_runtimes, boards(done)):
            console.print(rich_table(board, console.width))
        for line in summary(self.runs, self.pending, done):
            click.echo(line, err=True)
        if self.pending:
            click.echo(comparison(self.estimates, self.took, self.lanes), err=True)
        click.echo(f"results: {self.results}", err=True)
        if any(result.status == "failed" for result in done):
            raise SystemExit(1)


def _settings(texts: tuple[str, ...]) -> dict[str, Any]:
    given = pairs("--set", texts)
    return {name: value_of(f"--set {name}={text}", text) for name, text in given.items()}
