"""Commands that use a trained network: `evaluate`, `predict`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from benchmark.commands.options import (
    console_of_width,
    pairs_options,
    progress,
    quiet,
    split_option,
    write_output,
)
from common.errors import UsageError

if TYPE_CHECKING:
    from benchmark.scoring.rescore import Rescore
    from benchmark.scoring.views import Views


def views_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of ``Views``, and of the size that images are taken at."""
    for option in (
        click.option("--threads", type=click.IntRange(1), help="CPU threads; default: all cores."),
        click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N."),
        click.option("--window", metavar="HxW", help="Take larger images in windows of this size."),
        click.option("--scales", metavar="A,B,…", help="Average over these scales of the image."),
        click.option(
            "--merge-sides",
            is_flag=True,
            help="Average the prediction with a decoder's side outputs (hed).",
        ),
        click.option("--flip", is_flag=True, help="Average over the image and its mirror image."),
        click.option(
            "--image-size",
            metavar="HxW|original",
            help="Size that images are taken at. [default: the run's]",
        ),
        click.option(
            "--checkpoint",
            type=click.Path(path_type=Path),
            required=True,
            help="Folder of a run, or its best.safetensors or last.safetensors.",
        ),
    ):
        command = option(command)
    return command


def _views(flip: bool, scales: str | None, window: str | None, sides: bool) -> "Views":
    from benchmark.experiment.config import make_config
    from benchmark.scoring.views import Views

    try:
        factors = tuple(float(scale) for scale in scales.split(",")) if scales else (1.0,)
    except ValueError:
        raise UsageError(f"--scales {scales}: write numbers, as in 0.75,1,1.25") from None
    if not all(0.1 <= factor <= 10 for factor in factors) or len(set(factors)) < len(factors):
        raise UsageError(f"--scales {scales}: write different numbers between 0.1 and 10")
    try:
        size = make_config({"image_size": window}).image_size
    except UsageError as error:
        raise UsageError(str(error).replace("--image-size", "--window")) from None
    return Views(flip, factors, size, sides)


def _limit(text: str) -> int | Literal["all"]:
    if text == "all":
        return "all"
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"{text!r} is neither a number from 1 nor all.")
    return int(text)


@click.command()
@views_options
@click.option("--dataset", default=None, help="Data set to score on. [default: the run's]")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=None,
    help="Its folder, or its packed FILE.h5.",
)
@split_option("Split to score; held-out: the part of train to choose by, where no other split is."
              " [default: the one whose scores are published]")  # fmt: skip
@click.option("--limit", type=_limit, metavar="N|all",
              help="Use only the first N images. [default: the run's]")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(1), help="[default: the run's]")
@click.option("--amp/--no-amp", default=None, help="Mixed precision. [default: the run's]")
@click.option("--workers", type=click.IntRange(0, 512),
              help="Processes that read images. [default: the run's]")  # fmt: skip
@click.option("--on-bad-sample", "on_bad_sample", type=click.Choice(["stop", "skip"]),
              help="What an image that cannot be read does. [default: the run's]")  # fmt: skip
@pairs_options
@click.option("--json", "json_file", metavar="FILE", help="Write the scores as JSON; -: print.")
def evaluate(
    checkpoint: Path, image_size: str | None, flip: bool, merge_sides: bool, scales: str | None,
    window: str | None, device: str, threads: int | None, dataset: str | None, data: Path | None,
    split: str | None, limit: int | Literal["all"] | None, batch_size: int | None,
    amp: bool | None, workers: int | None, on_bad_sample: str | None, runtimes: tuple[str, ...],
    precisions: tuple[str, ...], calibrate: int, json_file: str | None,
) -> None:  # fmt: skip
    """Score a trained network: other split, data set or size; with flip, scales, windows, sides.

    Predictions are compared at the ground truth's own resolution. With --runtime and --precision
    each pair of them is scored as it ships, in files that `export` writes, and what it costs beside
    PyTorch in f32 is shown with its interval.
    """
    quiet()
    from benchmark.experiment.config import make_config
    from benchmark.scoring.rescore import opened, rescored
    from benchmark.speed.accuracy import deployed
    from benchmark.speed.runtimes import pairs_of

    original = image_size == "original"
    options = {"device": device, "threads": threads, "dataset": dataset, "data": data,
             "limit": limit, "batch_size": batch_size, "amp": amp, "workers": workers,
             "on_bad_sample": on_bad_sample}  # fmt: skip
    changes: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if limit == "all":
        changes["limit"] = None
    if dataset is not None:
        changes.setdefault("data", None)
    if image_size is not None and not original:
        changes["image_size"] = make_config({"image_size": image_size}).image_size
    views = _views(flip, scales, window, merge_sides)
    pairs = pairs_of(runtimes, precisions) if runtimes or precisions else []
    if pairs:
        _check_plain(views, amp)
    with progress() as listener:
        scoring = opened(checkpoint, changes, views, split or "test", original, listener)
        scores = rescored(scoring) if not pairs else deployed(scoring, pairs, calibrate)
    text = scores.model_dump_json(indent=1, exclude=None if pairs else {"pairs"}) + "\n"
    if json_file == "-":
        click.echo(text, nl=False)
    else:
        _print_scores(scores)
        if json_file is not None:
            write_output(Path(json_file), text, "--json")
    if scores.pairs and all(row.reason for row in scores.pairs):
        raise SystemExit(1)


def _print_scores(scores: "Rescore") -> None:
    from benchmark.report.tables import costs_tables, scores_table

    for task, task_scores in scores.tasks.items():
        click.echo(f"{task}: {task_scores.protocol}")
        console_of_width(100).print(scores_table(task_scores))
        click.echo(", ".join(f"{name} {count}" for name, count in task_scores.counts.items()))
    for table in costs_tables(scores.pairs):
        console_of_width(100).print(table)


def _check_plain(views: "Views", amp: bool | None) -> None:
    """Raises UsageError for what --runtime and --precision leave no room for."""
    from benchmark.scoring.views import Views

    if views != Views():
        raise UsageError(
            "--runtime and --precision score the network as it ships: leave out --flip, --scales, "
            "--window and --merge-sides"
        )
    if amp is not None:
        raise UsageError("--amp: with --runtime or --precision say --precision bf16 or f32")


@click.command()
@views_options
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path),
                metavar="IMAGE…")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True,
              help="Folder of the maps.")  # fmt: skip
@click.option("--float", "exact", is_flag=True,
              help="Depth in metres, saliency and edges in 0…1 as 32-bit float TIFF, in place of "
                   "the PNG.")  # fmt: skip
def predict(
    checkpoint: Path, images: tuple[Path, ...], output: Path, exact: bool, image_size: str | None,
    flip: bool, merge_sides: bool, scales: str | None, window: str | None, device: str,
    threads: int | None,
) -> None:  # fmt: skip
    """Write a trained network's maps of images, or of all images in a folder.

    Segmentation: NAME_segmentation.png (palette) and an overlay with a legend. Depth: 16 bits and a
    coloured view; millimetres, or the finest unit that reaches the data set's range, as
    metres_per_unit in the PNG's metadata. Saliency and edges: 8-bit.
    """
    quiet()
    import torch

    from benchmark.experiment.config import make_config
    from benchmark.experiment.network import check_device
    from benchmark.predict.maps import Mapper, find_images, predict_images
    from benchmark.results.checkpoint import open_checkpoint
    from benchmark.scoring.rescore import prepare_views

    files = find_images(images)
    check_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    network = open_checkpoint(checkpoint)
    original = image_size == "original"
    if image_size is not None and not original:
        size = make_config({"image_size": image_size}).image_size
        network.config = network.config.model_copy(update={"image_size": size})
    views = _views(flip, scales, window, merge_sides)
    prepare_views(network.model, None if original else network.config.image_size, views)
    with progress() as listener:
        mapper = Mapper(network, views, original, device, exact)
        failed = predict_images(mapper, files, output, listener)
    for text in mapper.legend():
        click.echo(text, err=True)
    click.echo(f"wrote the maps of {len(files) - failed} images into {output}", err=True)
    if failed:
        raise SystemExit(1)
