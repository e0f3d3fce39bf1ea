"""The command line: `python cli.py COMMAND`; the commands are in benchmark/commands/."""

from typing import Any

import click

from benchmark.commands.choose import compare, recommend
from benchmark.commands.data import data
from benchmark.commands.doctor import doctor
from benchmark.commands.export import export, from_hub, push_to_hub
from benchmark.commands.network import evaluate, predict
from benchmark.commands.report import list_, report
from benchmark.commands.run import run
from benchmark.commands.serve import serve
from benchmark.commands.speed import speed
from benchmark.commands.sweep import sweep
from benchmark.commands.wiring import draw, prune, search, transfer
from common import stopping
from common.errors import UserError
from common.limits import printable
from common.memory import keep_freed_memory

RESUMING = ("run", "sweep", "search")


class Application(click.Group):
    """Prints a UserError as one line and exits with its code, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with stopping.signals():
                return super().invoke(ctx)
        except UserError as error:
            click.echo(f"error: {printable(str(error))}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt as stop:
            by = f" by {stop}" if str(stop) else ""
            rest = "what is written is whole; the same command begins anew"
            if ctx.invoked_subcommand in RESUMING:
                rest = "what is done is saved, and the same command goes on with the rest"
            click.echo(f"\nstopped{by}: {rest}", err=True)
            ctx.exit(getattr(stop, "exit_code", 130))


@click.group(cls=Application, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train, score and time decoders for dense prediction on timm backbones.

    Start with:  python cli.py run --task depth
    """
    keep_freed_memory()


COMMANDS = (
    run, sweep, evaluate, predict, report, compare, recommend, search, prune, transfer, draw, speed,
    data, list_, doctor, serve, export, push_to_hub, from_hub,
)  # fmt: skip
for command in COMMANDS:
    main.add_command(command)


if __name__ == "__main__":
    main()
