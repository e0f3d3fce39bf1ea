"""`data`: look at data sets."""

from pathlib import Path

import click

from benchmark.commands.options import quiet, write_output


@click.group()
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
    quiet()
    from benchmark.config import make_config
    from benchmark.plan import resolve
    from benchmark.preview import contact_sheet
    from datasets.base import DATASETS

    task = task or next(iter(DATASETS.get(dataset).info.tasks))
    values = {"task": task, "dataset": dataset, "data": folder, "image_size": image_size}
    config = resolve(make_config(values))
    write_output(output, contact_sheet(config, split, count, targets))
