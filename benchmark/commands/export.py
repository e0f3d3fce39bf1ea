"""Commands that share a trained network: `export`, `push-to-hub`, `from-hub`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmark.commands.options import console_of_width, progress, quiet
from common.errors import UsageError
from common.files import check_target

if TYPE_CHECKING:
    from benchmark.export.export import ExportResult

CHECKPOINT = click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of a run, or its best.safetensors or last.safetensors.",
)


@click.command()
@CHECKPOINT
@click.option("--format", "form", type=click.Choice(["onnx", "pt2", "torchscript"]),
              default="onnx", show_default=True,
              help="ONNX, torch.export's program, or TorchScript.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE",
              help="The file to write.")  # fmt: skip
@click.option("--with-postprocessing", "postprocessing", is_flag=True,
              help="Return class maps, metres or probabilities instead of logits.")  # fmt: skip
@click.option("--static", is_flag=True,
              help="Take images of the run's size only; the batch stays free.")  # fmt: skip
@click.option("--int8", is_flag=True, help="Quantise (ONNX), and score what that costs.")
@click.option("--calibrate", type=click.IntRange(1), default=64, show_default=True, metavar="N",
              help="Training images that --int8 chooses its ranges by.")  # fmt: skip
@click.option("--data", type=click.Path(path_type=Path),
              help="Data set's folder or FILE.h5, for --int8. [default: the run's]")  # fmt: skip
@click.option("--limit", type=click.IntRange(1), metavar="N",
              help="Score --int8 on the first N test images. [default: all]")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), help="CPU threads; default: all cores.")
def export(
    checkpoint: Path, form: str, output: Path, postprocessing: bool, static: bool, int8: bool,
    calibrate: int, data: Path | None, limit: int | None, threads: int | None,
) -> None:  # fmt: skip
    """Write a trained network as one file for other programs, and verify it against PyTorch.

    Images [B, C, H, W] in 0…1, of any size; normalisation is in the network.
    """
    for option, value in (("--data", data), ("--limit", limit)):
        if value is not None and not int8:
            raise UsageError(f"{option} {value}: for --int8 only")
    check_target(output, "-o")
    quiet()
    import torch

    from benchmark.export.export import export as write
    from benchmark.results.checkpoint import open_checkpoint

    if threads is not None:
        torch.set_num_threads(threads)
    network = open_checkpoint(checkpoint)
    if data is not None:
        network.config = network.config.model_copy(update={"data": data})
    with progress() as listener:
        result = write(
            network, form, output, listener, postprocessing, static, calibrate if int8 else None,
            limit,
        )  # fmt: skip
    _print_result(result, network.config.image_size or (0, 0))
    click.echo(f"wrote {output}", err=True)


def _print_result(result: "ExportResult", own: tuple[int, int]) -> None:
    from benchmark.export.report import checks_table, loss_table

    if result.sizes.static is not None:
        height, width = result.sizes.static
        click.echo(f"takes images of {height}×{width} only, in batches of any size")
    else:
        click.echo(f"takes images from {result.sizes.smallest} pixels a side up")
        if min(own) < result.sizes.smallest:
            click.echo(f"for the run's own {own[0]}×{own[1]}: --static, or another --format")
    console = console_of_width(100)
    console.print(checks_table(result.checks))
    if result.int8 is not None:
        console.print(loss_table(result.int8))


@click.command("push-to-hub")
@CHECKPOINT
@click.option("--repo", required=True, metavar="USER/NAME", help="Repository; created if missing.")
@click.option("--private", is_flag=True, help="Make it for your eyes only.")
def push_to_hub(checkpoint: Path, repo: str, private: bool) -> None:
    """Upload a run: weights, configuration, and a model card with its scores.

    To the hub that HF_ENDPOINT names, by default huggingface.co; HF_TOKEN or `hf auth login`.
    """
    quiet()
    from benchmark.export.hub import check_repo, push
    from benchmark.results.checkpoint import open_checkpoint

    check_repo(repo)
    click.echo(f"uploaded to {push(open_checkpoint(checkpoint), repo, private)}", err=True)


@click.command("from-hub")
@click.argument("repo", metavar="USER/NAME")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FOLDER",
              help="New folder, for --checkpoint of evaluate, predict and export.")  # fmt: skip
@click.option("--revision", metavar="NAME", help="Branch, tag or commit. [default: main]")
def from_hub(repo: str, output: Path, revision: str | None) -> None:
    """Download what push-to-hub has uploaded, as the folder of a run.

    Only safetensors and JSON are read.
    """
    quiet()
    from benchmark.export.hub import check_repo, fetch

    check_repo(repo)
    config = fetch(repo, output, revision).config
    click.echo(f"wrote {output}: {config.task}, {config.backbone} + {config.decoder}", err=True)
