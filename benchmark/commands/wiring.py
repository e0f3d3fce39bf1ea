"""Commands on wirings: `search`, `prune`, `transfer`, `draw`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmark.commands.options import (
    FiniteRange,
    backbone_args,
    checkpoint_option,
    config_options,
    console_of_width,
    executor_options,
    option_values,
    pairs,
    progress,
    quiet,
    write_output,
)
from benchmark.experiment.config import (
    PAPER_SEARCH,
    FrontConfig,
    SearchConfig,
    option_name,
)
from common.errors import UsageError

if TYPE_CHECKING:
    from benchmark.experiment.plan import PlannedRun
    from benchmark.sweep.executors.base import Executor
    from benchmark.wiring.record import Pruning


WORKERS = {
    "executor": "local", "jobs": None, "retries": 1, "address": None, "resources": None,
    "slurm": (),
}  # fmt: skip
"""Options of the executors, and their defaults."""
METHODS = ("front", "sparsemask", "maskconnect", "perturbation")
ONLY_FRONT = set(FrontConfig.model_fields) - set(SearchConfig.model_fields)
ONE_TRAINING = ("inputs", "merge", "absorb", "cost_weight", "direct_drop", "threshold")
"""Options that the short searches of a front do not take."""
ONLY_SEARCH = set(SearchConfig.model_fields) - set(FrontConfig.model_fields)


@click.command()
@click.option("--method", type=click.Choice(METHODS), default=None,
              help="front: wirings of many sources, trained briefly, the best and cheapest kept. "
                   "The others give one wiring from one training: weights decide on any number of "
                   "inputs to a stage (sparsemask) or on a fixed one (maskconnect, --inputs), or "
                   "what the loss misses least is dropped (perturbation). [default: front, or "
                   "sparsemask with --preset, with an option of one training, as --iterations, "
                   "and under torchrun]")  # fmt: skip
@config_options(FrontConfig, ("task",), {"cost"})
@config_options(SearchConfig, ("task",), {"method", *FrontConfig.model_fields} - {"cost"})
@click.option("--preset", type=click.Choice(["paper"]),
              help="The paper's settings; other options override them.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), required=True,
              help="Folder for found.json, and front.json or search.json.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace the search that is in --output.")
@click.option("--tensorboard", is_flag=True,
              help="Write the scalars of metrics.jsonl for TensorBoard too.")  # fmt: skip
@executor_options
@checkpoint_option
@click.option("-v", "--verbose", is_flag=True, help="Say more: libraries' warnings.")
def search(
    method: str | None, preset: str | None, output: Path, overwrite: bool, tensorboard: bool,
    every: float, verbose: bool, **options: Any,
) -> None:  # fmt: skip
    """Search a wiring: the best of many that are trained briefly, or one from one training.

    Several --task share one wiring. Train it by:
    python cli.py run --decoder connectivity:DIR/found.json
    """
    from benchmark.experiment.distributed import asked

    if not verbose:
        quiet()
    workers = {name: options.pop(name) for name in WORKERS}
    values = {**(PAPER_SEARCH if preset else {}), **option_values(options)}
    if method is None:  # one training where all of this was for one, before there were fronts
        one = preset or ONLY_SEARCH & values.keys() or asked() > 1
        method = "sparsemask" if one else "front"
    if "task" in values:
        values["task"] = "+".join(values["task"])
    if method == "front":
        if preset:
            raise UsageError("--preset paper: is one search: give --method sparsemask")
        if tensorboard:
            raise UsageError("--tensorboard: is for the other methods: a front has many trainings")
        if unfit := [name for name in ONE_TRAINING if name in values]:
            methods = "--method sparsemask, maskconnect or perturbation"
            raise UsageError(f"{option_name(unfit[0])}: is for one training: give {methods}")
        searches = {name: values.pop(name) for name in ONLY_SEARCH if name in values}
        values["searches"] = searches
        _search_front(values, output, overwrite, workers, every, verbose)
        return
    only = [name for name in ONLY_FRONT if name in values]
    only += [name for name, usual in WORKERS.items() if workers[name] != usual]
    if only:
        option = {"slurm": "--slurm-option"}.get(only[0]) or option_name(only[0])
        raise UsageError(f"{option}: is for --method front, not {method}")
    from benchmark.experiment.config import make_config
    from benchmark.experiment.distributed import lead, processes
    from benchmark.experiment.plan import check_packed, resolve
    from benchmark.training.scalars import check_tensorboard
    from benchmark.wiring import search as searching
    from benchmark.wiring.record import SEARCH, WIRING

    if tensorboard:
        check_tensorboard()

    check_packed(asked_for := make_config({**values, "method": method}, SearchConfig))
    config = resolve(asked_for)
    with processes(config.device), progress(verbose) as listener:
        record = searching.search(config, output, overwrite, listener, tensorboard, every)
        if not lead():
            return
    if record.found is not None:
        _print_wiring(record.found)
    click.echo(f"wrote {output / WIRING} and {output / SEARCH}", err=True)


def _search_front(
    values: dict[str, Any],
    output: Path,
    overwrite: bool,
    workers: dict[str, Any],
    every: float,
    verbose: bool,
) -> None:
    from benchmark.experiment.config import make_config
    from benchmark.experiment.distributed import asked
    from benchmark.experiment.plan import check_packed
    from benchmark.report.front import front_lines, front_table
    from benchmark.sweep.executors.choice import make_executor
    from benchmark.sweep.rung import trainer
    from benchmark.wiring.front.search import search_front
    from benchmark.wiring.record import FRONT, WIRING

    if asked() > 1:
        raise UsageError("search: a front is for one process: give torchrun --method sparsemask")
    check_packed(config := make_config(values, FrontConfig))

    def make(runs: "Sequence[PlannedRun]", jobs: int | None) -> "Executor | None":
        name, jobs = workers["executor"], jobs if workers["executor"] == "local" else asked_jobs
        options = pairs("--slurm-option", workers["slurm"])
        where = workers["address"], workers["resources"]
        return make_executor(name, runs, output, jobs, *where, options)

    asked_jobs = workers["jobs"]
    make([], asked_jobs)  # what does not fit is told before hours of work
    with progress(verbose) as listener, trainer(
        make, asked_jobs, config.device, config.threads or 1, every, listener, workers["retries"]
    ) as train:  # fmt: skip
        front = search_front(config, output, train, overwrite, listener, every)
    console_of_width(120).print(front_table(front))
    for line in front_lines(front, output):
        click.echo(line)
    click.echo(f"wrote {output / WIRING} and {output / FRONT}", err=True)


@click.command()
@click.argument("folder", metavar="SEARCH_DIR", type=click.Path(path_type=Path))
@click.option("--threshold", type=FiniteRange(0, 1, max_open=True), required=True,
              help="Connections up to this weight (0…1) are dropped.")  # fmt: skip
@click.option("--merge/--no-merge", default=None, help="Merge stages with the same inputs.")
@click.option("--absorb/--no-absorb", default=None, help="Drop stages that another contains.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=None,
              help="File of the wiring. [default: SEARCH_DIR/found.json]")  # fmt: skip
def prune(
    folder: Path, threshold: float, merge: bool | None, absorb: bool | None, output: Path | None
) -> None:
    """Prune a search again, with another threshold, without training."""
    import json

    from benchmark.wiring.prune import prune
    from benchmark.wiring.record import WIRING, read_search

    changes = {"threshold": threshold, "merge": merge, "absorb": absorb}
    update = {name: value for name, value in changes.items() if value is not None}
    wiring, facts = prune(read_search(folder).model_copy(update=update))
    _print_wiring(facts)
    write_output(output or folder / WIRING, json.dumps(wiring.to_json(), indent=1) + "\n")


def _print_wiring(facts: "Pruning") -> None:
    for stage, inputs in facts["stages"].items():
        click.echo(f"D{stage} ← {', '.join(inputs)}")
    gap = "" if facts["gap"] is None else f", {facts['gap']:.3g} times as much"
    click.echo(
        f"{facts['kept']} of {facts['candidates']} connections kept, {facts['alive']} alive, "
        f"{facts['connections']} after merging; smallest kept {facts['smallest_kept']:.3g}, "
        f"largest dropped {facts['largest_dropped']:.3g}{gap}"
    )


@click.command()
@click.argument("wiring", metavar="FILE|PRESET")
@click.option("--backbone", required=True, metavar="NAME", help="timm model to carry it to.")
@click.option("--backbone-arg", "arguments", multiple=True, metavar="KEY=VALUE",
              help="Passed to timm.create_model.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="OUT.json",
              help="Write the connectivity file for that backbone.")  # fmt: skip
def transfer(
    wiring: str, backbone: str, arguments: tuple[str, ...], output: Path | None
) -> None:  # fmt: skip
    """Carry a wiring to another backbone by stride; print matches and dropped connections.

    A PRESET is taken as it is on MobileNetV2's nine features.
    """
    import json

    quiet()
    from rich import box
    from rich.table import Table

    from benchmark.wiring.names import carry, load_wiring, matches, transfer_lines
    from common.words import cell

    source = load_wiring(wiring)
    carried = carry(source, backbone, backbone_args(arguments))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in (source.backbone or source.name, "stride", backbone, ""):
        table.add_column(cell(title))
    for row in matches(source, carried):
        table.add_row(*row)
    console_of_width(120).print(table)
    for text in transfer_lines(source, carried):
        click.echo(text)
    if output is not None:
        content = json.dumps(carried.wiring.to_json(), indent=1, ensure_ascii=False) + "\n"
        write_output(output, content)


@click.command()
@click.argument("wiring", metavar="FILE|PRESET|SEARCH_DIR")
@click.option("--backbone", metavar="NAME", help="Carry it to this timm model first.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              help="A .svg, .png or .pdf. [default: its name.svg]")  # fmt: skip
def draw(wiring: str, backbone: str | None, output: Path | None) -> None:
    """Draw a wiring: encoder left, decoder right; of a search also its weights, or its front.

    A PRESET without --backbone is drawn on MobileNetV2's nine features.
    """
    path = Path(wiring).expanduser()
    output = output or Path(f"{path.resolve().name if path.is_dir() else path.stem}.svg")
    quiet()
    from benchmark.wiring.figure import SUFFIXES, render, search_figure, wiring_figure
    from benchmark.wiring.front.record import read_front
    from benchmark.wiring.names import features_of, load_wiring, on_backbone
    from benchmark.wiring.record import FRONT, load_search
    from models.connectivity import Connectivity, is_preset

    if output.suffix not in SUFFIXES:
        raise UsageError(f"-o {output}: draw writes {', '.join(SUFFIXES)}")
    if path.is_dir() and not is_preset(wiring):
        if backbone is not None:
            raise UsageError(f"--backbone: {wiring} has its own; draw {path / 'found.json'}")
        if (path / FRONT).exists():
            from benchmark.wiring.front.figure import front_figure

            front = read_front(path)
            own = {w.file: Connectivity.load(path / w.file) for w in front.wirings}
            figure = front_figure(front, own, features_of(next(iter(own.values()))))
        else:
            found, search = load_search(path)
            figure = search_figure(found, search, features_of(found))
    elif backbone is not None:
        figure = wiring_figure(*on_backbone(wiring, backbone))
    else:
        single = load_wiring(wiring)
        figure = wiring_figure(single, features_of(single))
    write_output(output, render(figure, output.suffix))
