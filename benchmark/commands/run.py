"""`run`: train, score, time; end in a table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmark.commands.options import (
    checkpoint_option,
    config_options,
    console_of_width,
    option_values,
    pairs_options,
    progress,
    quiet,
)
from benchmark.experiment.config import RunConfig, read_config_file
from common.errors import UsageError

if TYPE_CHECKING:
    from benchmark.experiment.plan import PlannedRun

SEVERAL = ("backbone", "decoder", "seed")


@click.command()
@config_options(RunConfig, (*SEVERAL, "task"))
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE.yaml",
              help="Options from a file; those on the command line win.")  # fmt: skip
@click.option("--results", type=click.Path(path_type=Path),
              help="Folder of the results, one sub-folder a run. [default: runs]")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Repeat runs that are finished.")
@click.option("--retime", is_flag=True,
              help="Time finished runs again, all in turns, on this machine.")  # fmt: skip
@pairs_options
@click.option("--tensorboard", is_flag=True,
              help="Write the scalars of metrics.jsonl for TensorBoard too.")  # fmt: skip
@checkpoint_option
@click.option("--dry-run", is_flag=True,
              help="Open the data and print the plan with the runs' keys; do nothing.")  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Say more: every epoch, libraries' warnings.")
def run(
    config_file: Path | None, results: Path | None, overwrite: bool, retime: bool,
    tensorboard: bool, every: float, dry_run: bool, verbose: bool, runtimes: tuple[str, ...],
    precisions: tuple[str, ...], calibrate: int, **options: Any,
) -> None:  # fmt: skip
    """Train and measure decoders on a task; end in a table.

    Without options: depth on the built-in rooms, five decoders, in a few minutes on two cores.
    Several --task train one network with a head for each. --runtime and --precision score each
    network as it ships too.
    """
    file = read_config_file(config_file) if config_file else {}
    values = option_values({**file, **option_values(options)})
    results = Path(results or values.pop("results", "runs"))
    overwrite = bool(values.pop("overwrite", False)) or overwrite
    verbose = bool(values.pop("verbose", False)) or verbose
    for name in ("results", "overwrite", "verbose"):
        values.pop(name, None)
    if not verbose:
        quiet()
    from benchmark.experiment.plan import default_decoders, plan, planned

    if isinstance(tasks := values.get("task"), list | tuple):
        values["task"] = "+".join(map(str, tasks))
    axes: dict[str, Any] = {} if "decoder" in values else {"decoder": default_decoders(values)}
    for name in SEVERAL:
        if name in values:
            value = values.pop(name)
            axes[name] = list(value) if isinstance(value, list | tuple) else [value]
    runs = planned(plan(values, axes), results)
    if dry_run:
        _print_plan(runs, overwrite)
        return

    from benchmark.experiment.distributed import asked, from_lead, lead, processes
    from benchmark.leaderboard.boards import boards
    from benchmark.leaderboard.runtimes import with_runtimes
    from benchmark.report.tables import costs_tables, rich_table
    from benchmark.run.runner import Runner
    from benchmark.speed.runtimes import pairs_of
    from benchmark.sweep.execute import Work, execute
    from benchmark.sweep.prepare import outdated, stored, to_do
    from benchmark.sweep.report import following
    from benchmark.training.scalars import check_tensorboard
    from models.decoder_name import DecoderName

    if tensorboard:
        check_tensorboard()
    pairs = pairs_of(runtimes, precisions) if runtimes or precisions else []
    if pairs and asked() > 1:
        raise UsageError("--runtime and --precision are of one process: take evaluate afterwards")
    with processes(runs[0].config.device), progress(verbose) as listener:
        earlier = {} if overwrite else from_lead(dict(stored(runs)))
        pending = to_do(
            runs, {key: result.status for key, result in earlier.items()}, "only-missing"
        )
        watch = following(pending, listener)
        options = {"retime": retime, "tensorboard": tensorboard, "every": every}
        runner = Runner(results, watch, **options, pairs=pairs, calibrate=calibrate)
        done = execute(Work(runs, pending, earlier, {}, runner, watch, on_data_error="stop"))
        if not lead():
            return
    again = {run.key for run in pending}
    for key in [run.key for run in runs if run.key not in again]:
        click.echo(f"already finished, not run again (--overwrite repeats it): {key}", err=True)
    for text in outdated([run for run in runs if run.key not in again], earlier):
        click.echo(f"warning: {text}", err=True)
    console = console_of_width(180)
    for board in map(with_runtimes, boards(done)):
        console.print(rich_table(board, console.width))
    for result in done if pairs else ():
        label = DecoderName.parse(result.config.decoder).label
        title = f"{label} on {result.config.backbone}, seed {result.config.seed}"
        for table in costs_tables(result.pairs, title):
            console.print(table)
    click.echo(f"results: {results}", err=True)
    unscored = pairs and any(all(pair.reason for pair in result.pairs) for result in done)
    if unscored or any(result.status == "failed" for result in done):
        raise SystemExit(1)


def _print_plan(runs: "list[PlannedRun]", overwrite: bool) -> None:
    """Raises what opening the data of the runs that are to do raises."""
    from rich.table import Table

    from benchmark.experiment.plan import targets_of
    from benchmark.leaderboard.boards import dataset_title
    from benchmark.run.data import shared_data
    from benchmark.sweep.prepare import stored, to_do
    from datasets.pipeline import open_splits

    states = {key: result.status for key, result in stored(runs)}
    pending = to_do(runs, {} if overwrite else states, "only-missing")
    for config in {shared_data(run.config): run.config for run in pending}.values():
        targets = targets_of(config.task)
        open_splits(config.dataset, config.data, targets, config.image_size, config.limit)
    table = Table(title=f"{len(runs)} runs")
    for title in ("key", "task", "dataset", "backbone", "decoder", "seed", "size", "epochs", "now"):
        table.add_column(title)
    for run in runs:
        config = run.config
        table.add_row(
            run.key, config.task, dataset_title(config), config.backbone, config.decoder,
            str(config.seed), "x".join(map(str, config.image_size)), config.length,
            states.get(run.key, "to do"),
        )  # fmt: skip
    console_of_width(160).print(table)
