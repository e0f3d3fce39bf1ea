"""The command line: parses, calls benchmark/, prints. Heavy imports stay inside the commands."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from benchmark.config import (
    FALLBACKS,
    PAPER_SEARCH,
    NetworkConfig,
    RunConfig,
    SearchConfig,
    option_name,
    read_config_file,
)
from common.errors import UsageError, UserError
from common.memory import keep_freed_memory

SEVERAL = ("backbone", "decoder", "seed")
FILLED_IN = ("weights_sha256", "wiring")


class Application(click.Group):
    """A user's mistake ends in one line and its exit code, never in a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo(
                "\nstopped: finished runs are saved, and the same command goes on with the rest; "
                "a search starts anew",
                err=True,
            )
            ctx.exit(130)


@click.group(cls=Application, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train, score and time decoders for dense prediction on timm backbones.

    Start with:  python cli.py run --task depth
    """
    keep_freed_memory()


def config_options(kind: type[NetworkConfig], several: tuple[str, ...] = ()) -> Callable[..., Any]:
    """An option for every field of ``kind``; texts are checked by ``kind`` itself.

    several: fields whose option may be repeated.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(kind.model_fields):
            if name not in FILLED_IN:
                command = _config_option(kind, name, name in several)(command)
        return command

    return decorate


def _config_option(kind: type[NetworkConfig], name: str, several: bool) -> Callable[..., Any]:
    field = kind.model_fields[name]
    option = option_name(name)
    text = field.description or ""
    choices = [
        choice
        for part in (field.annotation, *get_args(field.annotation))
        if get_origin(part) is Literal
        for choice in get_args(part)
    ]
    default = field.get_default(call_default_factory=True)
    if choices:
        text += f" One of {', '.join(choices)}."
    if name in FALLBACKS:
        text += f" [default: the data set's own, else {_shown(FALLBACKS[name])}]"
    elif default not in (None, {}) and name != "decoder":
        text += f" [default: {_shown(default)}]"
    if field.annotation is bool:
        return click.option(f"{option}/--no-{option[2:]}", name, default=None, help=text)
    if name == "backbone_args":
        return click.option("--backbone-arg", name, multiple=True, metavar="KEY=VALUE", help=text)
    if several:
        return click.option(
            option, name, multiple=True, metavar="…", help=f"{text} May be repeated."
        )
    return click.option(option, name, default=None, metavar="…", help=text)


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, with ``KEY=VALUE`` pairs as a dictionary."""
    import yaml

    given = {name: value for name, value in options.items() if value not in (None, ())}
    # a configuration file may also hold the pairs as a mapping
    pairs = given.get("backbone_args", {})
    if not isinstance(pairs, dict):
        arguments = {}
        for pair in pairs if isinstance(pairs, list | tuple) else [pairs]:
            key, separator, value = str(pair).partition("=")
            if not separator or not key:
                raise UsageError(f"--backbone-arg {pair}: expected KEY=VALUE")
            arguments[key] = yaml.safe_load(value)
        given["backbone_args"] = arguments
    return given


@contextmanager
def progress(verbose: bool = False) -> Iterator[Any]:
    """A listener that draws a bar on a terminal and prints nothing but messages elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:

        class Messages:
            def begin(self, title: str, steps: int) -> None: ...

            def step(self, note: str = "") -> None: ...

            def message(self, text: str) -> None:
                click.echo(text, err=True)

            def detail(self, text: str) -> None:
                if verbose:
                    click.echo(text, err=True)

        yield Messages()
        return
    bar = Progress(
        TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console,
    )  # fmt: skip

    class Bars:
        task: Any = None

        def begin(self, title: str, steps: int) -> None:
            if self.task is not None:
                bar.update(self.task, visible=False)
            self.task = bar.add_task(title, total=steps, note="")

        def step(self, note: str = "") -> None:
            bar.update(self.task, advance=1, note=note)

        def message(self, text: str) -> None:
            console.print(text, markup=False)

        def detail(self, text: str) -> None:
            if verbose:
                console.print(text, markup=False, highlight=False)

    with bar:
        yield Bars()


@main.command()
@config_options(RunConfig, SEVERAL)
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE.yaml",
              help="Options from a file; those on the command line win.")  # fmt: skip
@click.option("--results", type=click.Path(path_type=Path),
              help="Folder of the results, one sub-folder a run. [default: runs]")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Repeat runs that are finished.")
@click.option("--dry-run", is_flag=True, help="Print the plan with the runs' keys; do nothing.")
@click.option("-v", "--verbose", is_flag=True, help="Say more: every epoch, libraries' warnings.")
def run(
    config_file: Path | None, results: Path | None, overwrite: bool, dry_run: bool, verbose: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Train and measure decoders on a task; end in a table.

    Without options: depth on the built-in rooms, five decoders, in a few minutes on two cores.
    """
    file = read_config_file(config_file) if config_file else {}
    values = _given({**file, **_given(options)})
    results = Path(results or values.pop("results", "runs"))
    overwrite = bool(values.pop("overwrite", False)) or overwrite
    verbose = bool(values.pop("verbose", False)) or verbose
    for given in ("results", "overwrite", "verbose"):
        values.pop(given, None)
    if not verbose:
        _quiet()
    from benchmark.plan import DEFAULT_DECODERS, plan

    axes: dict[str, Any] = {"decoder": DEFAULT_DECODERS}
    for name in SEVERAL:
        if name in values:
            value = values.pop(name)
            axes[name] = list(value) if isinstance(value, list | tuple) else [value]
    runs = plan(values, axes)
    if dry_run:
        _print_plan(runs, results)
        return
    from rich.console import Console

    from benchmark.leaderboard import boards
    from benchmark.report.tables import rich_table
    from benchmark.runner import Runner

    with progress(verbose) as listener:
        runner = Runner(results, overwrite, listener)
        done = runner.run(runs)
    for key in runner.skipped:
        click.echo(f"already finished, not run again (--overwrite repeats it): {key}", err=True)
    console = Console(width=None if sys.stdout.isatty() else 180)
    for board in boards(done):
        console.print(rich_table(board, console.width))
    click.echo(f"results: {results}", err=True)
    if any(result.status == "failed" for result in done):
        raise SystemExit(1)


def _print_plan(runs: list[RunConfig], results: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from benchmark.plan import run_key
    from benchmark.results import folder_of, load

    table = Table(title=f"{len(runs)} runs")
    for title in ("key", "task", "dataset", "backbone", "decoder", "seed", "size", "epochs", "now"):
        table.add_column(title)
    for config in runs:
        found = load(folder_of(results, config, run_key(config)))
        size = "x".join(map(str, config.image_size or ()))
        table.add_row(
            run_key(config), config.task, config.dataset, config.backbone, config.decoder,
            str(config.seed), size, str(config.epochs), found.status if found else "to do",
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@main.command()
@config_options(SearchConfig, ("task",))
@click.option("--preset", type=click.Choice(["paper"]),
              help="The paper's own settings; options given besides win.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), required=True,
              help="Folder for found.json and search.json.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace the search that is in --output.")
@click.option("-v", "--verbose", is_flag=True, help="Say more: libraries' warnings.")
def search(
    preset: str | None, output: Path, overwrite: bool, verbose: bool, **options: Any
) -> None:  # fmt: skip
    """Search a wiring: train all connections, drop the weak ones.

    Several --task share one wiring. Train what was found:
    python cli.py run --decoder connectivity:DIR/found.json
    """
    if not verbose:
        _quiet()
    from benchmark import searching
    from benchmark.config import make_config
    from benchmark.plan import resolve
    from benchmark.wirings import FOUND, SEARCH

    values = {**(PAPER_SEARCH if preset else {}), **_given(options)}
    if "task" in values:
        values["task"] = "+".join(values["task"])
    config = resolve(make_config(values, SearchConfig))
    with progress(verbose) as listener:
        record = searching.search(config, output, overwrite, listener)
    _print_found(record["found"])
    click.echo(f"wrote {output / FOUND} and {output / SEARCH}", err=True)


@main.command()
@click.argument("folder", metavar="SEARCH_DIR", type=click.Path(path_type=Path))
@click.option("--threshold", type=click.FloatRange(0, 1, max_open=True), required=True,
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

    from benchmark.searching import prune
    from benchmark.wirings import FOUND, read_search

    changes = {"threshold": threshold, "merge": merge, "absorb": absorb}
    given = {name: value for name, value in changes.items() if value is not None}
    found, facts = prune(read_search(folder).model_copy(update=given))
    _print_found(facts)
    _write_output(output or folder / FOUND, json.dumps(found.to_json(), indent=1) + "\n")


def _print_found(found: dict[str, Any]) -> None:
    for stage, inputs in found["stages"].items():
        click.echo(f"D{stage} ← {', '.join(inputs)}")
    gap = "" if found["gap"] is None else f", {found['gap']:.3g} times as much"
    click.echo(
        f"{found['kept']} of {found['candidates']} connections kept, {found['alive']} alive, "
        f"{found['connections']} after merging; smallest kept {found['smallest_kept']:.3g}, "
        f"largest dropped {found['largest_dropped']:.3g}{gap}"
    )


@main.command()
@click.option("--results", type=click.Path(path_type=Path), default="runs", show_default=True,
              help="Folder of the results.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), default=None,
              help="Folder of the files; default: the results folder.")  # fmt: skip
def report(results: Path, output: Path | None) -> None:
    """Print the leaderboard; write leaderboard.md, .csv and .json."""
    from rich.console import Console

    from benchmark.leaderboard import boards
    from benchmark.report.tables import rich_table, write_reports
    from benchmark.results import read_all

    if not results.is_dir():
        raise UsageError(f"{results}: no such folder: run something first, or give --results")
    found = list(read_all(results))
    if not found:
        raise UserError(f"{results}: no result in it: run something first, or give --results")
    tables = boards(found)
    console = Console(width=None if sys.stdout.isatty() else 180)
    for board in tables:
        console.print(rich_table(board, console.width))
    for path in write_reports(tables, output or results):
        click.echo(f"wrote {path}", err=True)


@main.command("list")
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


@main.group()
def data() -> None:
    """Look at data sets."""


@data.command()
@click.argument("dataset")
@click.option("--data", "folder", type=click.Path(path_type=Path), default=None,
              help="Folder of the data set.")  # fmt: skip
@click.option("--task", default=None, help="Whose target to show; default: the first one.")
@click.option("--target", "targets", multiple=True,
              help="Show these targets, without augmentation. May be repeated.")  # fmt: skip
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="train",
              show_default=True, help="Split to show.")  # fmt: skip
@click.option("--image-size", default=None, metavar="HxW", help="Size of a tile.")
@click.option("--count", type=click.IntRange(1, 64), default=8, show_default=True,
              help="Number of samples.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), default="preview.png",
              show_default=True, help="PNG to write.")  # fmt: skip
def preview(
    dataset: str, folder: Path | None, task: str | None, targets: tuple[str, ...], split: str,
    image_size: str | None, count: int, output: Path,
) -> None:  # fmt: skip
    """Draw a contact sheet: image, coloured target, both after augmentation."""
    _quiet()
    from benchmark.config import make_config
    from benchmark.plan import resolve
    from benchmark.preview import contact_sheet
    from datasets.base import DATASETS

    task = task or next(iter(DATASETS.get(dataset).info.tasks))
    values = {"task": task, "dataset": dataset, "data": folder, "image_size": image_size}
    config = resolve(make_config(values))
    _write_output(output, contact_sheet(config, split, count, targets))


def _backbone_args(pairs: tuple[str, ...]) -> dict[str, Any]:
    return dict(_given({"backbone_args": pairs}).get("backbone_args", {}))


def _write_output(path: Path, content: str | bytes, option: str = "-o") -> None:
    """Write the file that ``option`` names and say so; an impossible path is a wrong option."""
    from common.files import write_atomic

    try:
        write_atomic(path, content, option)
    except UserError as error:
        raise UsageError(str(error)) from error
    click.echo(f"wrote {path}", err=True)


@main.command()
@click.option("--backbone", "backbones", multiple=True, metavar="NAME",
              help=f"timm model. May be repeated. [default: {FALLBACKS['backbone']}]")  # fmt: skip
@click.option("--decoder", "decoders", multiple=True, metavar="NAME",
              help="As of `run`, as are the defaults. May be repeated.")  # fmt: skip
@click.option("--image-size", "sizes", multiple=True, metavar="HxW", default=("512x512",),
              show_default=True, help="May be repeated.")  # fmt: skip
@click.option("--classes", type=click.IntRange(1), default=21, show_default=True,
              help="Channels of the head.")  # fmt: skip
@click.option("--backbone-arg", "arguments", multiple=True, metavar="KEY=VALUE",
              help="Passed to timm.create_model.")  # fmt: skip
@click.option("--no-time", is_flag=True, help="Count parameters and MACs only; nothing is run.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; default: all cores.")
@click.option("--batch-size", type=click.IntRange(1), default=1, show_default=True,
              help="Images in a timed call.")  # fmt: skip
@click.option("--min-time", type=click.FloatRange(0, min_open=True), default=2.0,
              show_default=True, help="Seconds of calls for each pair.")  # fmt: skip
@click.option("--json", "json_file", metavar="FILE", help="Write rows as JSON; -: print them.")
def speed(
    backbones: tuple[str, ...], decoders: tuple[str, ...], sizes: tuple[str, ...], classes: int,
    arguments: tuple[str, ...], no_time: bool, device: str, threads: int | None, batch_size: int,
    min_time: float, json_file: str | None,
) -> None:  # fmt: skip
    """Parameters, MACs and latency of backbones × decoders, without training and data.

    Pairs of one image size are timed in turns in this process: trust their ratios.
    """
    import json

    _quiet()
    import torch
    from rich.console import Console

    from benchmark.config import make_config
    from benchmark.plan import DEFAULT_DECODERS
    from benchmark.report.tables import speed_table
    from benchmark.speed_rows import speed_rows

    parsed = [make_config({"image_size": size}).image_size or (0, 0) for size in sizes]
    if threads is not None:
        torch.set_num_threads(threads)
    rows = speed_rows(
        backbones or (str(FALLBACKS["backbone"]),), decoders or DEFAULT_DECODERS, parsed, classes,
        _backbone_args(arguments), not no_time, device, batch_size, min_time,
    )  # fmt: skip
    text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    if json_file == "-":
        click.echo(text, nl=False)
    else:
        console = Console(width=None if sys.stdout.isatty() else 180)
        console.print(speed_table(rows))
        if json_file is not None:
            _write_output(Path(json_file), text, "--json")
    if all(row["error"] for row in rows):
        raise SystemExit(1)


@main.command()
@click.argument("wiring", metavar="FILE|PRESET")
@click.option("--backbone", required=True, metavar="NAME", help="timm model to carry it to.")
@click.option("--backbone-arg", "arguments", multiple=True, metavar="KEY=VALUE",
              help="Passed to timm.create_model.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="OUT.json",
              help="Write the connectivity file for that backbone.")  # fmt: skip
def transfer(
    wiring: str, backbone: str, arguments: tuple[str, ...], output: Path | None
) -> None:  # fmt: skip
    """Carry a wiring to another backbone by stride; tell what was matched and dropped.

    A PRESET is taken as it is on MobileNetV2's nine features.
    """
    import json

    _quiet()
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from benchmark.wirings import carry, matches, named, told

    source = named(wiring)
    carried = carry(source, backbone, _backbone_args(arguments))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in (source.backbone or source.name, "stride", backbone, ""):
        table.add_column(title)
    for row in matches(source, carried):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    for text in told(source, carried):
        click.echo(text)
    if output is not None:
        content = json.dumps(carried.wiring.to_json(), indent=1, ensure_ascii=False) + "\n"
        _write_output(output, content)


@main.command()
@click.argument("wiring", metavar="FILE|PRESET|SEARCH_DIR")
@click.option("--backbone", metavar="NAME", help="Carry it to this timm model first.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              help="A .svg, .png or .pdf. [default: its name.svg]")  # fmt: skip
def draw(wiring: str, backbone: str | None, output: Path | None) -> None:
    """Draw a wiring: encoder left, decoder right; of a search also its weights.

    A PRESET without --backbone is drawn on MobileNetV2's nine features.
    """
    path = Path(wiring).expanduser()
    output = output or Path(f"{path.resolve().name if path.is_dir() else path.stem}.svg")
    _quiet()
    from benchmark.report.wiring import SUFFIXES, rendered, search_figure, wiring_figure
    from benchmark.wirings import features_of, load_search, named, on_backbone
    from models.connectivity import is_preset

    if output.suffix not in SUFFIXES:
        raise UsageError(f"-o {output}: draw writes {', '.join(SUFFIXES)}")
    if path.is_dir() and not is_preset(wiring):
        if backbone is not None:
            raise UsageError(f"--backbone: {wiring} has its own; draw {path / 'found.json'}")
        found, search = load_search(path)
        figure = search_figure(found, search, features_of(found))
    elif backbone is not None:
        figure = wiring_figure(*on_backbone(wiring, backbone))
    else:
        own = named(wiring)
        figure = wiring_figure(own, features_of(own))
    _write_output(output, rendered(figure, output.suffix))


def _quiet() -> None:
    """Keep libraries' chatter away; ours goes through messages."""
    import warnings

    warnings.filterwarnings("ignore", module="timm|kornia|torch")
    logging.getLogger("timm").setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
