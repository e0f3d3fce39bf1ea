"""How long commands take with very many results: `report`, the planning of `sweep`, and others.

    python -m tests.studies.scale --results 100000

Makes that many result files (as large as those of runs of ten epochs, two in a hundred failed), and
a sweep file whose 10,000 runs are among them; then each command is timed in a fresh process. CPU
seconds tell more than seconds where others use the machine.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import yaml
from pydantic_core import to_json

from benchmark.experiment.config import ResolvedRun
from benchmark.experiment.plan import PlannedRun, command_of
from benchmark.results.layout import FILE
from benchmark.sweep.file import SweepFile, read_sweep

ROOT = Path(__file__).parents[2]
EPOCHS = 10
SEEDS = 5
BACKBONES = [
    "test_resnet", "test_efficientnet", "mobilenetv2_050", "mobilenetv2_100", "resnet18",
    "resnet26", "mobilenetv3_small_050", "mobilenetv3_small_100", "efficientnet_lite0",
    "regnetx_002",
]  # fmt: skip
DECODERS = [
    "fcn", "hed", "dss", "sparsemask", "unet-connectivity", "smp-fpn", "smp-unet", "smp-linknet",
    "deeplabv3-light", "smp-pspnet",
]  # fmt: skip
TEMPLATES = {
    "depth": "scenes", "saliency": "scenes", "segmentation": "scenes", "edges": "scenes",
}  # fmt: skip


def sweep_file(path: Path, runs: int) -> None:
    """A sweep of ``runs`` runs: blocks that differ in their learning rate."""
    block = len(TEMPLATES) * len(BACKBONES) * len(DECODERS) * SEEDS
    content = {
        "defaults": {"epochs": EPOCHS, "dataset": "scenes", "threads": 1},
        "runs": [
            {
                "tasks": list(TEMPLATES), "backbones": BACKBONES, "decoders": DECODERS,
                "seeds": list(range(SEEDS)), "lr": round(0.001 * (1 + number), 6),
            }
            for number in range(max(1, runs // block))
        ],
    }  # fmt: skip
    SweepFile.model_validate(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def configs(path: Path, count: int) -> Iterator[ResolvedRun]:
    """``count`` runs: those of the sweep, then others with more learning rates."""
    plan = read_sweep(str(path)).plan().runs
    yield from plan[:count]
    base = [config for config in plan if config.lr == plan[0].lr]
    for number in range(count - len(plan)):
        rate = 0.1 + 0.001 * (number // len(base))
        yield base[number % len(base)].model_copy(update={"lr": round(rate, 6)})


def make(folder: Path, path: Path, count: int) -> int:
    """Write ``count`` results; their bytes."""
    templates = {
        task: json.loads(next(iter(sorted(ROOT.glob(f"results/{task}_*_fcn_seed0_*/{FILE}"))))
                         .read_bytes())
        for task in TEMPLATES
    }  # fmt: skip
    chance = random.Random(0)
    size = 0
    for config in configs(path, count):
        content = dict(templates[config.task])
        run = PlannedRun.of(config, folder)
        main = content["columns"][0]
        value = chance.uniform(0.2, 0.8)
        last = content["history"][-1]
        content |= {
            "key": run.key,
            "config": config.model_dump(mode="json"),
            "command": command_of(config),
            "metrics": {**content["metrics"], main: value},
            "intervals": {main: [value - 0.002, value + 0.002]},
            "params": {
                **content["params"],
                "decoder": 10**4 * (1 + DECODERS.index(config.decoder)),
            },
            "macs": {**content["macs"], "decoder": 10**7 * (1 + DECODERS.index(config.decoder))},
            "speed": {**content["speed"], "median_ms": chance.uniform(1, 90)},
            "history": [{**last, "epoch": float(n + 1)} for n in range(EPOCHS)],
        }
        if chance.random() < 0.02:
            content |= {"status": "failed", "error": "the loss is nan", "columns": [],
                        "metrics": {}, "intervals": {}, "speed": None}  # fmt: skip
        text = to_json(content, indent=1)
        run.folder.mkdir(parents=True)
        (run.folder / FILE).write_bytes(text)
        size += len(text)
    return size


LAUNCH = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:])
_, status, used = os.wait4(process.pid, 0)
print(json.dumps([time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss,
                  os.waitstatus_to_exitcode(status)]), file=sys.stderr)
"""
"""A small process in between: Linux counts in what its parent had when a process was started."""


def measure(*arguments: object) -> dict[str, float | int]:
    """Seconds, CPU seconds and peak MB of a command in a fresh process."""
    command = [sys.executable, "-c", LAUNCH, sys.executable, "cli.py", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    *said, last = done.stderr.splitlines()
    seconds, cpu, peak, code = json.loads(last)
    if code:
        click.echo("\n".join(said[-20:]), err=True)
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_mb": round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6),
        "output_bytes": len(done.stdout),
        "exit": code,
    }


@click.command()
@click.option("--results", "count", default=100_000, show_default=True)
@click.option("--runs", default=10_000, show_default=True, help="Of the sweep.")
@click.option("--folder", type=click.Path(path_type=Path), help="Kept, and used again.")
@click.option("--only", multiple=True, help="Of the commands, by name.")
def main(count: int, runs: int, folder: Path | None, only: tuple[str, ...]) -> None:
    """Make result files and time the commands that read them."""
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        results, file, out = place / "results", place / "sweep.yaml", place / "out"
        if not results.is_dir():
            start = time.perf_counter()
            place.mkdir(parents=True, exist_ok=True)
            sweep_file(file, min(runs, count))
            size = make(results, file, count)
            spent = time.perf_counter() - start
            click.echo(f"{count} results, {size / 1e6:.0f} MB, made in {spent:.0f} s")
        some = next(iter(sorted(results.iterdir())))
        commands: dict[str, list[object]] = {
            "sweep --dry-run": ["sweep", file, "--results", results, "--dry-run"],
            "report": ["report", "--results", results, "--output", out],
            "report --html": ["report", "--results", results, "--output", out, "--html", out],
            "report --task": ["report", "--results", results, "--output", out, "--task", "depth"],
            "recommend": ["recommend", "--results", results, "--task", "depth",
                          "--latency", "30ms"],
            "compare": ["compare", results, results],
            "compare two runs": ["compare", some, some],
        }  # fmt: skip
        for name, arguments in commands.items():
            if not only or name in only:
                click.echo(f"{name}: {json.dumps(measure(*arguments))}")
        click.echo(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
