"""`serve`: a page that shows a trained network's maps of an image."""

from contextlib import suppress
from pathlib import Path

import click

from benchmark.commands.options import FiniteRange, quiet
from common.errors import UsageError


@click.command()
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True,
              help="Folder of a run, or its best.safetensors or last.safetensors.")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address to listen on; another one lets others in.")  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--max-mb", type=FiniteRange(0, 1000, min_open=True), default=10.0,
              show_default=True, help="Largest file that is taken.")  # fmt: skip
@click.option("--max-megapixels", type=FiniteRange(0, 1000, min_open=True), default=16.0,
              show_default=True, help="Largest image that is decoded.")  # fmt: skip
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; default: all cores.")
def serve(
    checkpoint: Path, host: str, port: int, max_mb: float, max_megapixels: float, device: str,
    threads: int | None,
) -> None:  # fmt: skip
    """Drop an image into a page, see the maps. Nothing is kept; Ctrl-C ends it."""
    quiet()
    try:
        import uvicorn

        from benchmark.predict.serve import Limits, application
    except ImportError as error:
        raise UsageError(f"serve: {error}: pip install -e .[serve]") from None
    import socket

    import torch

    from benchmark.experiment.network import check_device
    from benchmark.predict.maps import Mapper
    from benchmark.results.checkpoint import open_checkpoint
    from benchmark.scoring.views import Views

    check_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    network = open_checkpoint(checkpoint)
    if (channels := network.config.channels) != 3:
        raise UsageError(
            f"--checkpoint {checkpoint}: takes images of {channels} "
            f"channel{'s' if channels != 1 else ''}, the page takes RGB: use evaluate or export"
        )
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UsageError(f"--host {host} --port {port}: cannot listen ({error})") from None
    title = f"{network.config.task} by {network.config.decoder} on {network.config.backbone}"
    limits = Limits(int(max_mb * 1e6), int(max_megapixels * 1e6))
    app = application(Mapper(network, Views(), False, device).pictures, title, limits, host)
    local = host in ("127.0.0.1", "localhost", "::1")
    others = "" if local else " (anyone who reaches this address can use it)"
    address = f"[{host}]" if ":" in host else host
    click.echo(f"http://{address}:{port}/{others}: Ctrl-C ends it", err=True)
    config = uvicorn.Config(
        app, log_level="critical", limit_concurrency=64, server_header=False,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
