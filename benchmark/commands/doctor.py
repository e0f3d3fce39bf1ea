"""`doctor`: what this machine and installation can do."""

from pathlib import Path

import click

from benchmark.commands.options import console_of_width, progress, quiet, write_output
from common.files import check_target


@click.command()
@click.option("--results", type=click.Path(path_type=Path), default="runs", show_default=True,
              help="Folder that runs would be written to.")  # fmt: skip
@click.option("--data", type=click.Path(path_type=Path), metavar="PATH",
              help="Folder of a data set, or its packed FILE.h5: can it be read?")  # fmt: skip
@click.option("--ray", is_flag=True, help="Start Ray too: ten seconds more.")
@click.option("--json", "json_file", metavar="FILE", help="Write findings as JSON; -: print them.")
def doctor(results: Path, data: Path | None, ray: bool, json_file: str | None) -> None:
    """Look at versions, devices, memory and disks; try what runs use; train for ten seconds.

    Nothing is changed. The exit code is 1 if something fails that `run` needs.
    """
    import json
    from dataclasses import asdict

    quiet()
    if json_file not in (None, "-"):
        check_target(Path(json_file), "--json")
    from benchmark.doctor.checks import stops_runs
    from benchmark.doctor.examine import examine
    from benchmark.doctor.report import checks_table, summary

    with progress() as listener:
        checks = examine(results, data, ray, listener)
    text = json.dumps([asdict(check) for check in checks], indent=1, ensure_ascii=False) + "\n"
    if json_file == "-":
        click.echo(text, nl=False)
    else:
        console = console_of_width(80)
        console.print(checks_table(checks))
        console.print(summary(checks), highlight=False)
        if json_file is not None:
            write_output(Path(json_file), text, "--json")
    if stops_runs(checks):
        raise SystemExit(1)
