"""Shared by the commands: options from a configuration's fields, progress, output files."""

import logging
import math
import sys
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from benchmark.experiment.config import FALLBACKS, FILLED_IN, PAIRS, NetworkConfig, option_name
from benchmark.results.runtimes import PRECISIONS, RUNTIMES
from common.errors import UsageError, UserError
from common.limited_yaml import parse_value
from common.limits import printable

if TYPE_CHECKING:
    from rich.console import Console


def config_options(
    kind: type[NetworkConfig], several: tuple[str, ...] = (), without: Container[str] = ()
) -> Callable[..., Any]:
    """An option for every field of ``kind``, which validates the texts.

    several: fields whose option may be repeated. without: fields that get none.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(kind.model_fields):
            if name not in FILLED_IN and name not in without:
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
        text += f" [default: the data set's own, else {_text(FALLBACKS[name], name)}]"
    elif default not in (None, {}) and name != "decoder":
        text += f" [default: {_text(default, name)}]"
    if field.annotation is bool:
        return click.option(f"{option}/--no-{option[2:]}", name, default=None, help=text)
    if name in PAIRS:
        return click.option(option, name, multiple=True, metavar="KEY=VALUE", help=text)
    if several:
        return click.option(
            option, name, multiple=True, metavar="…", help=f"{text} May be repeated."
        )
    return click.option(option, name, default=None, metavar="…", help=text)


def _text(value: Any, field: str) -> str:
    """A default as the option takes it."""
    separator = "x" if field.endswith("_size") else ","
    return separator.join(map(str, value)) if isinstance(value, tuple) else str(value)


def option_values(options: dict[str, Any]) -> dict[str, Any]:
    """The options that have a value, with ``KEY=VALUE`` pairs as a dictionary."""
    values = {name: value for name, value in options.items() if value not in (None, ())}
    # a configuration file may also hold the pairs as a mapping
    for name in PAIRS:
        pairs = values.get(name, {})
        if not isinstance(pairs, dict):
            mapping = {}
            for pair in pairs if isinstance(pairs, list | tuple) else [pairs]:
                key, separator, value = str(pair).partition("=")
                if not separator or not key:
                    raise UsageError(f"{option_name(name)} {pair}: expected KEY=VALUE")
                mapping[key] = value_of(f"{option_name(name)} {pair}", value)
            values[name] = mapping
    return values


def value_of(option: str, text: str) -> Any:
    """The value of a KEY=VALUE text. Raises UsageError that begins with ``option``."""
    try:
        return parse_value(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def backbone_args(pairs: tuple[str, ...]) -> dict[str, Any]:
    """The ``KEY=VALUE`` pairs of --backbone-arg as a dictionary."""
    return dict(option_values({"backbone_args": pairs}).get("backbone_args", {}))


@contextmanager
def progress(verbose: bool = False) -> Iterator[Any]:
    """A listener that draws a bar on a terminal, and elsewhere prints a line now and then."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from benchmark.experiment.distributed import lead
    from common.progress import Lines, Silent

    if not lead():
        yield Silent()
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(lambda text: click.echo(printable(text), err=True), verbose)
        return
    bar = Progress(
        TextColumn("{task.description:<28}", markup=False), BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False), console=console,
    )  # fmt: skip

    class Bars:
        task: Any = None

        def begin(self, title: str, steps: int) -> None:
            if self.task is not None:
                bar.update(self.task, visible=False)
            self.task = bar.add_task(title, total=steps, note="")

        def step(self, note: str = "") -> None:
            bar.update(self.task, advance=1, note=printable(note))

        def message(self, text: str) -> None:
            console.print(printable(text), markup=False)

        def detail(self, text: str) -> None:
            if verbose:
                console.print(printable(text), markup=False, highlight=False)

    with bar:
        yield Bars()


def write_output(path: Path, content: str | bytes, option: str = "-o") -> None:
    """Write the file of ``option`` and print its path. Raises UsageError if that fails."""
    from common.files import write_atomic

    try:
        write_atomic(path, content, option)
    except UserError as error:
        raise UsageError(str(error)) from error
    click.echo(f"wrote {path}", err=True)


def quiet() -> None:
    """Silence the libraries' warnings, and print the project's own in one line each."""
    import warnings

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        click.echo(f"warning: {printable(str(message))}", err=True)

    warnings.filterwarnings("ignore", module="timm|kornia|torch")
    warnings.showwarning = show
    for name in ("timm", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)


def console_of_width(width: int) -> "Console":
    """Standard output as wide as its terminal, or ``width`` columns without one."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width)


class FiniteRange(click.FloatRange):
    """A number within a range; click's own takes NaN, of which every comparison is false."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def split_option(text: str) -> Callable[[Any], Any]:
    """``--split`` with the names of ``datasets.pipeline.SPLITS``, which is not imported here."""
    names = ["train", "held-out", "val", "test"]
    return click.option("--split", type=click.Choice(names), default=None, help=text)


checkpoint_option = click.option(
    "--checkpoint-every", "every", type=FiniteRange(min=0), default=60.0, show_default=True,
    metavar="SECONDS", help="How often a training's state is saved, besides after each epoch.",
)  # fmt: skip


EXECUTORS = ("local", "ray", "slurm")


def executor_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of ``make_executor``, and --retries."""
    for decorate in reversed(_EXECUTOR_OPTIONS):
        command = decorate(command)
    return command


_EXECUTOR_OPTIONS = (
    click.option("--executor", type=click.Choice(EXECUTORS), default="local", show_default=True,
                 help="Where runs are done: processes of this machine, a Ray cluster (extra ray), "
                      "Slurm (extra slurm)."),
    click.option("--jobs", type=click.IntRange(min=1), metavar="N",
                 help="At most N runs at once. [default: local 1, of a search one a core, or one "
                      "per GPU; ray as many as it has room for; slurm 100]"),
    click.option("--retries", type=click.IntRange(min=0), default=1, show_default=True,
                 metavar="N", help="How often a run whose worker died is run again."),
    click.option("--address", metavar="ADDRESS",
                 help="Of the Ray cluster. [default: RAY_ADDRESS, else a Ray of this machine]"),
    click.option("--resources", metavar="cpus=N,gpus=N",
                 help="Of each run with ray and slurm. [default: cpus=1, and gpus=1 for device "
                      "cuda]"),
    click.option("--slurm-option", "slurm", multiple=True, metavar="KEY=VALUE",
                 help="An option of sbatch, as in partition=gpu. May be repeated."),
)  # fmt: skip


def pairs_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of what else to score a trained network in."""
    for decorate in reversed(_PAIRS_OPTIONS):
        command = decorate(command)
    return command


_PAIRS_OPTIONS = (
    click.option("--runtime", "runtimes", multiple=True, type=click.Choice([*RUNTIMES, "all"]),
                 help="Score the trained network in this runtime too, beside eager f32; "
                      "repeatable."),
    click.option("--precision", "precisions", multiple=True,
                 type=click.Choice([*PRECISIONS, "all"]),
                 help="And in this precision; repeatable. [default with --runtime: f32]"),
    click.option("--calibrate", type=click.IntRange(1), default=64, show_default=True, metavar="N",
                 help="Training images that int8 chooses its ranges and layers by."),
)  # fmt: skip


def pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE texts as a dictionary."""
    pairs = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise UsageError(f"{option} {text}: expected NAME=VALUE")
        pairs[name] = value
    return pairs
