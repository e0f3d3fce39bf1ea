"""Does a short training rank wirings as the full one does? Kendall's τ of each rung.

    python -m tests.studies.rungs --output rungs --task depth --backbone mobilenetv2_100 …

Trains the wirings of ``rungs.json`` (as far as the backbone has their strides) for each share of a
full training, the rungs scored on the validation split, the full training on the test split. Goes
on where it was stopped. Options that are not its own are those of `run`. ``--limit-wirings N``
takes the first N.
"""

import argparse
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from scipy.stats import kendalltau

from benchmark.commands.options import option_values, quiet
from benchmark.experiment.config import PAIRS
from benchmark.experiment.plan import plan, planned, targets_of
from benchmark.sweep.executors.choice import make_executor
from benchmark.sweep.rung import trainer
from benchmark.wiring.front.selection import Measured
from common.files import write_atomic
from common.progress import Lines
from datasets.pipeline import open_splits
from models.connectivity import Connectivity

WIRINGS = Path(__file__).with_name("rungs.json")
PRESETS = ("unet-connectivity", "sparsemask", "encoder-sum", "sparse-acn")


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 1 / 3, 1.0])
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--limit-wirings", type=int)
    arguments, rest = parser.parse_known_args()
    quiet()
    values = {"threads": 1, **options(rest)}
    scores = {share: train(share, values, arguments) for share in arguments.shares}
    full = scores[arguments.shares[-1]]
    report: dict[str, Any] = {"scores": {}, "tau": {}}
    for share, found in scores.items():
        report["scores"][f"{share:.3g}"] = {name: m.value for name, m in found.items()}
        names = sorted(set(found) & set(full))
        ranks = [[scored[name].accuracy for name in names] for scored in (found, full)]
        tau = kendalltau(*ranks).statistic
        report["tau"][f"{share:.3g}"] = tau
        print(f"{share:.3g} of the steps, {len(names)} wirings: τ = {tau:.2f}, "  # noqa: T201
              f"{agreement(*ranks):.0%} of the pairs in order")  # fmt: skip
    write_atomic(arguments.output / "rungs.json", json.dumps(report, indent=1) + "\n", "--output")


def options(texts: list[str]) -> dict[str, Any]:
    """``--name value`` and ``--flag`` as the options of a run."""
    values: dict[str, Any] = {}
    lists = {option: name for name, option in PAIRS.items()}
    for word, after in zip(texts, [*texts, "--"][1:], strict=True):
        if not word.startswith("--"):
            continue
        option = word[2:].replace("-", "_")
        value = True if after.startswith("--") else after
        if option in lists:
            values.setdefault(lists[option], []).append(value)
        else:
            values[option] = value
    return option_values(values)


def agreement(first: list[float], second: list[float]) -> float:
    """Share of the pairs that both rank alike."""
    pairs = [*combinations(range(len(first)), 2)]
    alike = [(first[i] - first[j]) * (second[i] - second[j]) > 0 for i, j in pairs]
    return sum(alike) / len(alike)


def decoders(folder: Path, backbone: str) -> list[str]:
    """The presets, and the file of each wiring, which is written first."""
    content = json.loads(WIRINGS.read_text())
    found = [*PRESETS]
    for name, stages in content["wirings"].items():
        wiring = Connectivity(
            name, tuple(content["strides"]), {int(s): tuple(i) for s, i in stages.items()}, backbone
        )
        path = folder / "wirings" / f"{name}.json"
        write_atomic(path, json.dumps(wiring.to_json()), "--output")
        found.append(f"connectivity:{path}")
    return found


def train(
    share: float, values: dict[str, Any], arguments: argparse.Namespace
) -> dict[str, Measured]:
    """Scores by wiring after this share of a full training."""
    names = decoders(arguments.output, "mobilenetv2_100")[: arguments.limit_wirings]
    (full,) = plan(values, {"decoder": names[:1]})
    targets = targets_of(full.task)
    splits = open_splits(full.dataset, full.data, targets, full.image_size, full.limit)
    steps = full.steps or full.epochs * (len(splits["train"]) // full.batch_size)
    if share < 1:
        shared = {name: value for name, value in values.items() if name != "epochs"}
        values = {**shared, "steps": max(1, round(share * steps)), "split": "val"}
    folder = arguments.output / f"{share:.3g}"
    runs = planned(plan(values, {"decoder": names}), folder)
    listener = Lines(lambda text: print(text, flush=True))  # noqa: T201
    torch.set_num_threads(arguments.jobs or torch.get_num_threads())
    with trainer(
        lambda some, jobs: make_executor("local", some, folder, jobs),
        arguments.jobs, full.device, 1, 60.0, listener,
    ) as trained:  # fmt: skip
        results = trained.run(runs)
    return {
        Path(result.config.decoder).stem: Measured.of(result, run.folder)
        for run, result in zip(runs, results, strict=True)
        if result.status == "finished"
    }


if __name__ == "__main__":
    main()
