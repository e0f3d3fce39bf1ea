"""Does searching pay? What fronts found, what as much random search found, and all presets.

    python -m tests.studies.fronts rooms-depth --output fronts --backbone mobilenetv2_100 …

Searches the board of ``fronts.yaml`` with each of ``--searches`` as seed and ``--control random``,
then trains what was found, the random wirings that would have been, and all presets with the first
two of ``--seeds``; with the others, the presets but for the best are left out. All are scored on
the test split. Writes ``fronts/BOARD.json`` and goes on where it was stopped. Options that are not
its own are those of `run`; ``--tables FILE…`` prints written boards as Markdown.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
import yaml
from scipy.stats import t as student

from benchmark.commands.options import quiet
from benchmark.experiment.environment import environment
from benchmark.experiment.plan import plan, planned
from benchmark.results.result import Result
from benchmark.sweep.executors.choice import make_executor
from benchmark.sweep.rung import trainer
from benchmark.wiring.costs import network_costs
from benchmark.wiring.front.candidates import wires
from benchmark.wiring.front.record import Front, FrontWiring, read_front
from benchmark.wiring.front.selection import Measured, gain
from common.files import write_atomic
from common.progress import Lines
from models.connectivity import PRESETS, Connectivity
from tasks.metrics.resampling import standard_error
from tests.studies.rungs import options

BOARDS = Path(__file__).with_suffix(".yaml")
FEW = 2
"""Trainings of each preset: the best of them has as many as what was found."""


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("board", nargs="?")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--searches", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--tables", type=Path, nargs="+")
    arguments, rest = parser.parse_known_args()
    if arguments.tables:
        reports = [json.loads(path.read_text()) for path in arguments.tables]
        print("\n".join([summary(reports), *map(table, reports)]))  # noqa: T201
        return
    board = yaml.safe_load(BOARDS.read_text())[arguments.board]
    quiet()
    folder = arguments.output / arguments.board
    words = [word for name, value in board.items() for word in (f"--{name}", str(value))] + rest
    fronts = {seed: search(folder / f"search-{seed}", words, seed) for seed in arguments.searches}
    rivals = gathered(folder, fronts)
    values = {"threads": 1, **options(words)}
    decoders = [*dict.fromkeys(rivals.values())]
    trained = train(folder, values, decoders, arguments.seeds[:FEW])
    best = max(PRESETS, key=lambda name: fmean(m.accuracy for m in trained[name]))
    others = set(PRESETS) - {best, *(rivals[n] for n in rivals if n not in PRESETS)}
    trained |= train(folder, values, [d for d in decoders if d not in others], arguments.seeds)
    report = {
        "board": arguments.board,
        "command": f"python -m tests.studies.fronts {' '.join(sys.argv[1:])}",
        "environment": environment("cpu"),
        **compared(fronts, rivals, trained, best),
        "costs": costs_of(values, decoders),
        "searches": [of_search(seed, front) for seed, front in fronts.items()],
        "agreement": agreement(fronts, folder),
    }
    path = arguments.output / f"{arguments.board}.json"
    write_atomic(path, json.dumps(report, indent=1) + "\n", "--output")
    print(table(report))  # noqa: T201


def search(folder: Path, words: Sequence[str], seed: int) -> Front:
    """The front of one seed, with its control."""
    command = [sys.executable, "cli.py", "search", *words, "--seed", str(seed)]
    command += ["--control", "random", "--output", str(folder)]
    subprocess.run(command, check=True)
    return read_front(folder)


def cheapest_alike(wirings: Sequence[FrontWiring]) -> FrontWiring:
    """What `search` would find among ``wirings``: the rule for random ones is the same."""
    return min((w for w in wirings if w.alike and w.front), key=lambda w: w.macs)


def gathered(folder: Path, fronts: Mapping[int, Front]) -> dict[str, str]:
    """Name → decoder of all that is compared; a wiring of several names is trained once."""
    rivals = {name: name for name in PRESETS}
    known: dict[Any, str] = {}
    for seed, front in fronts.items():
        home = folder / f"search-{seed}"
        assert front.control is not None
        files = {f"found-{seed}": front.found,
                 f"random-{seed}": cheapest_alike(front.control.wirings).file}  # fmt: skip
        for name, file in files.items():
            wiring = Connectivity.load(home / file)
            for preset, make in PRESETS.items():
                known.setdefault(wires(make(wiring.strides).pruned()), preset)
            rivals[name] = known.setdefault(wires(wiring), f"connectivity:{home / file}")
    return rivals


def costs_of(values: Mapping[str, Any], decoders: Sequence[str]) -> dict[str, Any]:
    """Costs by decoder, timed in turns."""
    torch.set_num_threads(1)
    configs = {config.decoder: config for config in plan(values, {"decoder": list(decoders)})}
    return dict(network_costs(configs, 1))


def train(
    folder: Path, values: Mapping[str, Any], decoders: Sequence[str], seeds: Sequence[int]
) -> dict[str, list[Measured]]:
    """Scores of each decoder on the test split, by seed."""
    runs = planned(plan(values, {"seed": list(seeds), "decoder": list(decoders)}), folder / "runs")
    listener = Lines(lambda text: print(text, flush=True))  # noqa: T201
    with trainer(
        lambda some, jobs: make_executor("local", some, folder, jobs),
        None, runs[0].config.device, 1, 60.0, listener,
    ) as trained:  # fmt: skip
        results = trained.run(runs)
    scores: dict[str, list[Measured]] = {}
    for run, result in zip(runs, results, strict=True):
        scores.setdefault(run.config.decoder, []).append(scored(result, run.folder))
    return scores


def scored(result: Result, folder: Path) -> Measured:
    if result.status != "finished":
        raise SystemExit(f"{folder}: {result.error}")
    return Measured.of(result, folder)


def compared(
    fronts: Mapping[int, Front],
    rivals: Mapping[str, str],
    trained: Mapping[str, Sequence[Measured]],
    best: str,
) -> dict[str, Any]:
    """Scores of all, and what each found wiring gains over the best preset and its random rival."""
    first = next(iter(trained.values()))[0]
    gains = {
        f"found-{seed}": {
            other: over(trained[rivals[f"found-{seed}"]], trained[rivals[other]])
            for other in (best, f"random-{seed}")
        }
        for seed in fronts
    }
    return {
        "metric": first.metric,
        "higher_is_better": first.higher_is_better,
        "rivals": rivals,
        "scores": {name: [m.value for m in trained[rivals[name]]] for name in rivals},
        "best_preset": best,
        "gains": gains,
    }


def over(found: Sequence[Measured], other: Sequence[Measured]) -> dict[str, Any]:
    """Relative gain over ``other``, paired by seed, and its 95 % interval over seeds and images.

    The variance is that of the mean over seeds plus that over images; it is taken for one of n − 1
    degrees of freedom (Student's t), n seeds. One seed: that over images only.
    """
    pairs = [*zip(found, other, strict=True)]
    gains = [float(gain(f.value, o.value, f)) for f, o in pairs]
    images = np.mean([gain(f.replicates, o.replicates, f) for f, o in pairs], axis=0)
    seeds = stdev(gains) ** 2 / len(gains) if len(gains) > 1 else 0.0
    factor = float(student.ppf(0.975, len(gains) - 1)) if len(gains) > 1 else 1.96
    error = standard_error(images)
    assert error is not None
    half = factor * (seeds + error[0] ** 2) ** 0.5
    mean = fmean(gains)
    return {
        "gain": mean,
        "interval": [mean - half, mean + half],
        "seeds_better": sum(value > 0 for value in gains),
    }


def of_search(seed: int, front: Front) -> dict[str, Any]:
    """What a search says of itself, on the validation split."""
    control = front.control
    assert control is not None
    return {
        "seed": seed,
        "command": front.command,
        "commit": front.environment.get("commit", ""),
        "found": Path(front.found).stem,
        "tried": [(one.name, one.rungs, one.macs) for one in front.tried],
        "random": [(w.file, w.rungs, w.macs) for w in control.wirings],
        "preset": None if front.preset is None else front.preset.model_dump(mode="json"),
        "best_gain": control.best_gain,
        "best_gain_interval": control.best_gain_interval,
        "mean_gain": control.gain,
        "mean_gain_interval": control.gain_interval,
        "hypervolume": front.hypervolume,
        "random_hypervolume": control.hypervolume,
        "seconds": front.seconds,
    }


def agreement(fronts: Mapping[int, Front], folder: Path) -> list[dict[str, Any]]:
    """Of each two searches: their winners' validated scores, intervals and shared connections."""
    pairs = []
    for one, other in combinations(fronts, 2):
        wirings = [Connectivity.load(folder / f"search-{s}" / "found.json") for s in (one, other)]
        sets = [{(s, n) for s, names in w.stages.items() for n in names} for w in wirings]
        winners = [
            next(w for w in fronts[s].wirings if w.file == fronts[s].found) for s in (one, other)
        ]
        pairs.append(
            {
                "seeds": [one, other],
                "scores": [w.score for w in winners],
                "intervals": [w.interval for w in winners],
                "jaccard": len(sets[0] & sets[1]) / len(sets[0] | sets[1]),
            }
        )
    return pairs


def summary(reports: Sequence[Mapping[str, Any]]) -> str:
    """A row for each board: means over searches, and what each of them gained."""
    lines = [
        "| board | found | best preset | best random | over the preset | over random |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for report in reports:
        best = report["best_preset"]
        means = {name: fmean(values) for name, values in report["scores"].items()}

        def of(kind: str, report: Mapping[str, Any] = report) -> list[str]:
            return [name for name in report["scores"] if name.startswith(f"{kind}-")]

        def macs(names: Sequence[str], report: Mapping[str, Any] = report) -> float:
            found = [report["costs"][report["rivals"][name]]["macs"] for name in names]
            return fmean(found) / 1e6

        def gained(place: int, report: Mapping[str, Any] = report) -> str:
            rows = [list(gains.values())[place] for gains in report["gains"].values()]
            better = sum(row["interval"][0] > 0 for row in rows)
            worse = sum(row["interval"][1] < 0 for row in rows)
            shown = ", ".join(f"{row['gain']:+.1%}" for row in rows)
            return f"{shown}: {better} clearly better, {worse} clearly worse"

        cells = [
            f"{fmean(means[name] for name in names):.3f}, {macs(names):.0f} MMACs"
            for names in (of("found"), [best], of("random"))
        ]
        cells[1] = f"{best} {cells[1]}"
        arrow = "↑" if report["higher_is_better"] else "↓"
        lines.append(
            f"| {report['board']}, {report['metric']} {arrow} | {' | '.join(cells)} | "
            f"{gained(0)} | {gained(1)} |"
        )
    return "\n".join(lines) + "\n"


def table(report: Mapping[str, Any]) -> str:
    """A board as Markdown, the best first."""
    metric, higher = report["metric"], report["higher_is_better"]
    means = {name: fmean(values) for name, values in report["scores"].items()}
    lines = [
        f"**{report['board']}**, test {metric} ({'higher' if higher else 'lower'} is better)",
        "",
        "| wiring | mean ± sd | trainings | MMACs | ms | k params |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in sorted(means, key=lambda n: -means[n] if higher else means[n]):
        values, cost = report["scores"][name], report["costs"][report["rivals"][name]]
        mean = f"{means[name]:.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")
        shown = f"**{name}**" if name.startswith("found") else name
        lines.append(
            f"| {shown} | {mean} | {len(values)} | {cost['macs'] / 1e6:.0f} | {cost['ms']:.1f} | "
            f"{cost['params'] / 1e3:.0f} |"
        )
    lines.append("")
    for name, gains in report["gains"].items():
        for other, g in gains.items():
            low, high = g["interval"]
            lines.append(f"- {name} over {other}: {g['gain']:+.1%} ({low:+.1%} to {high:+.1%})")
    for key, title in (("hypervolume", "search"), ("random_hypervolume", "random")):
        values = [s[key] for s in report["searches"]]
        sd = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
        lines.append(f"- hypervolume, {title}: {fmean(values):.4f}{sd}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
