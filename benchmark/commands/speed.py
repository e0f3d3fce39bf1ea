"""`speed`: sizes and latency without training."""

from pathlib import Path

import click

from benchmark.commands.options import (
    FiniteRange,
    backbone_args,
    console_of_width,
    progress,
    quiet,
    write_output,
)
from benchmark.experiment.config import FALLBACKS, RunConfig
from benchmark.results.runtimes import PRECISIONS, RUNTIMES
from common.limits import CHANNELS, WIDTH


@click.command()
@click.option("--backbone", "backbones", multiple=True, metavar="NAME",
              help=f"timm model. May be repeated. [default: {FALLBACKS['backbone']}]")  # fmt: skip
@click.option("--decoder", "decoders", multiple=True, metavar="NAME",
              help="As of `run`, as are the defaults. May be repeated.")  # fmt: skip
@click.option("--image-size", "sizes", multiple=True, metavar="HxW", default=("512x512",),
              show_default=True, help="May be repeated.")  # fmt: skip
@click.option("--classes", type=click.IntRange(1), default=21, show_default=True,
              help="Channels of the head.")  # fmt: skip
@click.option("--in-channels", type=click.IntRange(1, CHANNELS), default=3, show_default=True,
              help="Channels of the images; 3 is RGB.")  # fmt: skip
@click.option("--backbone-arg", "arguments", multiple=True, metavar="KEY=VALUE",
              help="Passed to timm.create_model.")  # fmt: skip
@click.option("--width", type=click.IntRange(1, WIDTH), metavar="N",
              help=RunConfig.model_fields["width"].description)  # fmt: skip
@click.option("--no-time", is_flag=True, help="Count parameters and MACs only; nothing is run.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; default: all cores.")
@click.option("--batch-size", "batches", type=click.IntRange(1), multiple=True, default=(1,),
              show_default=True, help="Images in a timed call. May be repeated.")  # fmt: skip
@click.option("--amp", is_flag=True, help="Mixed precision: float16 on CUDA, bfloat16 on the CPU.")
@click.option("--compile", "compiled", is_flag=True, help="torch.compile, for each fixed size.")
@click.option("--channels-last/--no-channels-last", default=True, show_default=True,
              help="Memory format.")  # fmt: skip
@click.option("--fused/--no-fused", default=True, show_default=True,
              help="Fold BatchNorm and drop what is dead, as `run` does.")  # fmt: skip
@click.option("--min-time", type=FiniteRange(0, min_open=True), default=2.0,
              show_default=True, help="Seconds of calls for each pair.")  # fmt: skip
@click.option("--memory/--no-memory", default=True, show_default=True,
              help="Peak memory, in a pass of its own: a second or so for each row.")  # fmt: skip
@click.option("--isolate", "processes", type=click.IntRange(0), default=0, metavar="N",
              help="Time each row again, alone, in N fresh processes.")  # fmt: skip
@click.option("--profile", "profiled", is_flag=True,
              help="Where the time goes: parts of each network beside the roofline.")  # fmt: skip
@click.option("--runtime", "runtimes", multiple=True, type=click.Choice([*RUNTIMES, "all"]),
              help="What runs the network, a row each; repeatable. [default: eager]")  # fmt: skip
@click.option("--precision", "precisions", multiple=True, type=click.Choice([*PRECISIONS, "all"]),
              help="Of the arithmetic, a row each; repeatable. [default: f32]")  # fmt: skip
@click.option("--onnx", is_flag=True,
              help="Time each row as an ONNX file by onnxruntime too, in turns.")  # fmt: skip
@click.option("--json", "json_file", metavar="FILE", help="Write rows as JSON; -: print them.")
def speed(
    backbones: tuple[str, ...], decoders: tuple[str, ...], sizes: tuple[str, ...], classes: int,
    in_channels: int, arguments: tuple[str, ...], width: int | None, no_time: bool, device: str,
    threads: int | None, batches: tuple[int, ...], amp: bool, compiled: bool, channels_last: bool,
    fused: bool, min_time: float, memory: bool, processes: int, profiled: bool, onnx: bool,
    runtimes: tuple[str, ...], precisions: tuple[str, ...], json_file: str | None,
) -> None:  # fmt: skip
    """Parameters, MACs, latency and memory of backbones × decoders, without training and data.

    Pairs of one image size and batch are timed in turns in this process: trust their ratios.
    Several batches give the throughput; one that memory does not hold is halved.
    """
    import json

    quiet()
    import torch

    from benchmark.experiment.config import make_config
    from benchmark.experiment.plan import DEFAULT_DECODERS
    from benchmark.speed.latency import Setup
    from benchmark.speed.report import speed_tables
    from benchmark.speed.rows import SpeedOptions
    from benchmark.speed.runtimes import pairs_of
    from benchmark.speed.table import speed_rows

    parsed = [make_config({"image_size": size}).image_size or (0, 0) for size in sizes]
    if threads is not None:
        torch.set_num_threads(threads)
    options = SpeedOptions(
        classes=classes, in_channels=in_channels, arguments=backbone_args(arguments), width=width,
        timed=not no_time, device=device,
        batches=batches[:1] if no_time else batches, min_time=min_time,
        setup=Setup(fused, compiled, channels_last, amp), memory=memory, processes=processes,
        profiled=profiled, onnx=onnx,
        pairs=pairs_of(runtimes, precisions) if runtimes or precisions else None,
    )  # fmt: skip
    with progress() as listener:
        rows = speed_rows(
            backbones or (str(FALLBACKS["backbone"]),), decoders or DEFAULT_DECODERS, parsed,
            options, listener,
        )  # fmt: skip
    text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    if json_file == "-":
        click.echo(text, nl=False)
    else:
        console = console_of_width(140)
        for table in speed_tables(rows):
            console.print(table)
        if json_file is not None:
            write_output(Path(json_file), text, "--json")
    if all(row["error"] for row in rows):
        raise SystemExit(1)
