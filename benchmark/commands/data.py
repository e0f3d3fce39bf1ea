"""`data`: look at data sets, check and pack them."""

import shlex
from pathlib import Path

import click

from benchmark.commands.options import (
    FiniteRange,
    console_of_width,
    progress,
    quiet,
    split_option,
    write_output,
)


@click.group()
def data() -> None:
    """Describe your own data; look at data sets, check them, pack them into one file."""


@data.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--overwrite", is_flag=True, help="Replace its dataset.yaml.")
def init(folder: Path, overwrite: bool) -> None:
    """Look at a folder of your own and write its dataset.yaml.

    Finds images and their labels, depth, masks or edges, and guesses classes, units and ranges; it
    says what it is not sure of.
    """
    quiet()
    from benchmark.data.draft import FILL_IN
    from benchmark.data.init import describe
    from datasets.own.description import FILE
    from datasets.own.reading import read_description

    draft = describe(folder, overwrite)
    for note in draft.notes:
        click.echo(note)
    for doubt in draft.unsure:
        click.echo(f"not sure: {doubt}")
    click.echo(f"wrote {folder / FILE}", err=True)
    if any(FILL_IN in line for line in draft.lines):
        click.echo(f"write the number in place of {FILL_IN}, then:", err=True)
    else:
        read_description(folder)
    click.echo(f"next: python cli.py data check own --data {shlex.quote(str(folder))}", err=True)


@data.command()
@click.argument("dataset")
@click.option("--data", "folder", type=click.Path(path_type=Path), default=None,
              help="Folder of the data set, or its packed FILE.h5.")  # fmt: skip
@click.option("--task", default=None, help="Whose target to show; default: the first one.")
@click.option("--target", "targets", multiple=True,
              help="Show these targets, without augmentation. May be repeated.")  # fmt: skip
@split_option("Split to show; held-out: the part of train to choose by, where no other split is."
              " [default: train, where there is one]")  # fmt: skip
@click.option("--image-size", default=None, metavar="HxW", help="Size of a tile.")
@click.option("--count", type=click.IntRange(1, 64), default=8, show_default=True,
              help="Number of samples.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), default="preview.png",
              show_default=True, help="PNG to write.")  # fmt: skip
def preview(
    dataset: str, folder: Path | None, task: str | None, targets: tuple[str, ...],
    split: str | None, image_size: str | None, count: int, output: Path,
) -> None:  # fmt: skip
    """Draw a contact sheet: image, coloured target, both after augmentation."""
    quiet()
    from benchmark.data.preview import contact_sheet
    from benchmark.experiment.config import make_config
    from benchmark.experiment.plan import resolve
    from datasets.pipeline import info_at, open_split, role_of

    info = info_at(dataset, folder)
    task = task or next(iter(info.tasks))
    split = split or ("train" if "train" in info.splits else next(iter(info.splits)))
    values = {"task": task, "dataset": dataset, "data": folder, "image_size": image_size}
    config = resolve(make_config(values))
    role = role_of(dataset, folder, split)
    part = open_split(dataset, folder, task, config.image_size, role)
    write_output(output, contact_sheet(config, part, count, targets))
    click.echo(
        f"{min(count, len(part))} of {len(part)} samples of {dataset}, {part.name}", err=True
    )


@data.command()
@click.argument("dataset")
@click.option("--data", "folder", type=click.Path(path_type=Path), default=None,
              help="Folder of the data set, or its packed FILE.h5.")  # fmt: skip
@click.option("--task", "tasks", multiple=True,
              help="Check its targets; default: of all tasks. May be repeated.")  # fmt: skip
@click.option("--json", "json_file", metavar="FILE", help="Write the report as JSON; -: print it.")
def check(
    dataset: str, folder: Path | None, tasks: tuple[str, ...], json_file: str | None
) -> None:  # fmt: skip
    """Read every sample: what is missing, damaged, out of range or in two splits.

    Exits with 1 if there are problems, such as images that splits share; with 0 if there are none
    or only warnings, such as other counts than the published ones.
    """
    import json

    quiet()
    from benchmark.data.check import check
    from benchmark.data.report import print_check

    with progress() as listener:
        report = check(dataset, folder, _tasks(dataset, folder, tasks), listener)
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    if json_file == "-":
        click.echo(text, nl=False)
    else:
        print_check(report, console_of_width(120))
        if json_file is not None:
            write_output(Path(json_file), text, "--json")
    if report["problems"]:
        raise SystemExit(1)


@data.command()
@click.argument("dataset")
@click.option("--data", "folder", type=click.Path(path_type=Path), default=None,
              help="Folder of the data set.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE.h5",
              help="File to write; name it as --data of other commands.")  # fmt: skip
@click.option("--task", "tasks", multiple=True,
              help="Pack its targets; default: of all tasks. May be repeated.")  # fmt: skip
@click.option("--image-size", default=None, metavar="HxW",
              help="Size of images in all runs on the file; default: the data set's.")  # fmt: skip
@click.option("--compression", type=click.Choice(["none", "lzf", "gzip"]), default="none",
              show_default=True, help="A smaller file is slower to read.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace FILE.h5.")
def pack(
    dataset: str, folder: Path | None, output: Path, tasks: tuple[str, ...],
    image_size: str | None, compression: str, overwrite: bool,
) -> None:  # fmt: skip
    """Decode and resize a data set once, into one HDF5 file.

    Ground truth that scores are taken on keeps its resolution: results are those of the folder.
    """
    quiet()
    from benchmark.data.pack import pack
    from benchmark.experiment.config import make_config
    from benchmark.experiment.plan import resolve

    tasks = _tasks(dataset, folder, tasks)
    values = {"task": "+".join(tasks), "dataset": dataset, "data": folder}
    values["image_size"] = image_size
    size = resolve(make_config(values)).image_size
    with progress() as listener:
        count = pack(dataset, folder, tasks, size, compression, output, overwrite, listener)
    megabytes = output.stat().st_size / 1e6
    click.echo(f"wrote {output}: {count} samples, {megabytes:.1f} MB", err=True)


@data.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--val", type=FiniteRange(0, 1, max_open=True), metavar="SHARE",
              help="Of all; 0: no such list. [default: dataset.yaml's, else 0.1]")  # fmt: skip
@click.option("--test", type=FiniteRange(0, 1, max_open=True), metavar="SHARE",
              help="Of all; 0: no such list. [default: dataset.yaml's, else 0.2]")  # fmt: skip
@click.option("--seed", type=int, help="Another seed chooses others. [default: 0]")
@click.option("--group", metavar="REGEX", help="Samples whose names have the same text at its "
              "first group, or as its whole match, stay in one split.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace lists that are there.")
def split(
    folder: Path, val: float | None, test: float | None, seed: int | None, group: str | None,
    overwrite: bool,
) -> None:  # fmt: skip
    """Write train.txt, val.txt and test.txt of your own data in DIR, which has a dataset.yaml.

    A hash of each sample's name chooses its split: more images move none.
    """
    quiet()
    from benchmark.data.split import split

    written = split(folder, val, test, seed, group, overwrite)
    for name, count in written.samples.items():
        groups = "" if written.groups is None else f" in {written.groups[name]} groups"
        click.echo(f"wrote {folder / name}.txt: {count} samples{groups}", err=True)
    if written.used:
        click.echo("dataset.yaml names these lists: they are used from now on", err=True)
    else:
        click.echo(f"to use them, write this into dataset.yaml:\n{written.entry}", err=True)


def _tasks(dataset: str, folder: Path | None, names: tuple[str, ...]) -> tuple[str, ...]:
    """The tasks ``names``, each once; without names, all of the data set."""
    from datasets.files import check_choice
    from datasets.pipeline import info_at

    info = info_at(dataset, folder)
    for name in names:
        check_choice(info, "task", name, info.tasks)
    return tuple(dict.fromkeys(names or info.tasks))
