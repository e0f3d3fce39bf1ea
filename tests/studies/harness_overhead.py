"""What our training costs beside a bare PyTorch loop, in turns.

    python -m tests.studies.harness_overhead [--task depth --decoder fcn --decoder sparsemask …]

Options are those of `run`, the default is the main job. Three ways to take the same steps, a block
of each after the other: a bare loop over batches in memory (zero_grad, forward, loss, backward,
clipping, optimiser); our step on the same batches; and our whole training, which reads, stacks and
augments new batches, sets the rate, logs and reports. Prints the median time of a step and
the median over rounds of the ratio to the bare loop, with their quartiles.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic_core import to_json
from torch import Tensor, nn

from benchmark.commands.options import quiet
from benchmark.experiment.config import ResolvedRun
from benchmark.experiment.environment import environment
from benchmark.experiment.network import build_model
from benchmark.experiment.plan import make_tasks, plan
from benchmark.run.data import Data
from benchmark.training.batches import Batches, make_augment
from benchmark.training.network_training import NetworkTraining
from benchmark.training.optimizer import make_optimizer
from common.memory import keep_freed_memory
from common.progress import Silent
from tasks.base import Task
from tests.studies.rungs import options

WAYS = ("bare loop", "our step", "our training")
IN_MEMORY = 8
Batch = tuple[Tensor, Mapping[str, Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--decoder", action="append")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--block", type=int, default=4, help="steps of one way at a time")
    parser.add_argument("--json", type=Path)
    arguments, rest = parser.parse_known_args()
    quiet()
    keep_freed_memory()  # as the command line does
    values = {"task": "depth", "threads": 2, "split": "val", "epochs": 1, **options(rest)}
    values["steps"] = (arguments.rounds + 1) * arguments.block
    rows = []
    for config in plan(values, {"decoder": arguments.decoder or ["fcn", "sparsemask"]}):
        torch.set_num_threads(config.threads or 2)
        seconds = measured(config, arguments.block)
        rows.append(row(config.decoder, seconds))
        print(line(rows[-1]), flush=True)  # noqa: T201
    if arguments.json:
        report = {"environment": environment("cpu"), "values": values, "rows": rows}
        arguments.json.write_bytes(to_json(report, indent=1) + b"\n")


def measured(config: ResolvedRun, block: int) -> dict[str, list[float]]:
    """Seconds of a step in each block, by way; the first blocks, a warm-up, left out."""
    tasks = make_tasks(config)
    data = Data.open(config, tasks, Silent()).train
    augment = make_augment(config)
    batches = [augment(*batch) for batch in itertools.islice(Batches(config, data), IN_MEMORY)]
    others = {
        "bare loop": bare_steps(config, tasks, batches),
        "our step": our_steps(training(config, tasks, data), batches),
    }
    turns = Turns({name: steps.__next__ for name, steps in others.items()}, block)
    training(config, tasks, data).fit(lambda *_: None, turns)
    return {name: [s / block for s in found[1:]] for name, found in turns.seconds.items()}


class Turns(Silent):
    """Follows our training, and after every ``block`` of its steps takes as many of the others."""

    def __init__(self, others: Mapping[str, Callable[[], object]], block: int) -> None:
        self.others, self.block, self.done = others, block, 0
        self.seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        self.since = time.perf_counter()

    def step(self, note: str = "") -> None:
        self.done += 1
        if self.done % self.block == 0:
            self.seconds["our training"].append(time.perf_counter() - self.since)
            for name in sorted(self.others, reverse=bool(self.done // self.block % 2)):
                start = time.perf_counter()
                for _ in range(self.block):
                    self.others[name]()
                self.seconds[name].append(time.perf_counter() - start)
            self.since = time.perf_counter()


def training(config: ResolvedRun, tasks: Sequence[Task], data: Any) -> NetworkTraining:
    """As a run makes it, with the same weights each time; nothing is validated or written."""
    torch.manual_seed(config.seed)
    model = build_model(config, tasks)
    return NetworkTraining(config, model, tasks, data, lambda _: {}, lambda *_: None)


def our_steps(ours: NetworkTraining, batches: Sequence[Batch]) -> Iterator[None]:
    ours.learner.model.train()
    for images, targets in itertools.cycle(batches):
        ours.learner.step(images, targets, ours.losses_of, ours.step_name())
        yield


def bare_steps(
    config: ResolvedRun, tasks: Sequence[Task], batches: Sequence[Batch]
) -> Iterator[None]:
    """What anyone would write for one task, with our network, loss and optimiser."""
    (task,) = tasks
    torch.manual_seed(config.seed)
    model = build_model(config, tasks).to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer(config, model)
    for images, targets in itertools.cycle(batches):
        optimizer.zero_grad(set_to_none=True)
        outputs = model(images.contiguous(memory_format=torch.channels_last))
        loss = task.loss(outputs[task.name], targets[task.target])
        loss.backward()
        if config.clip_grad:
            nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad)
        optimizer.step()
        yield


def row(decoder: str, seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    """Median milliseconds of a step, and the ratio to the bare loop of the same round."""
    bare = np.array(seconds["bare loop"])
    ratios = {name: np.percentile(np.array(seconds[name]) / bare, [25, 50, 75]) for name in WAYS}
    return {
        "decoder": decoder,
        "ms": {name: float(1000 * np.median(seconds[name])) for name in WAYS},
        "ratio": {name: list(map(float, ratios[name])) for name in WAYS[1:]},
    }


def line(found: Mapping[str, Any]) -> str:
    parts = [f"{name}: {found['ms'][name]:.1f} ms a step" for name in WAYS]
    for name, (low, middle, high) in found["ratio"].items():
        parts.append(f"{name} / bare: {middle:.3f} ({low:.3f}–{high:.3f})")
    return f"{found['decoder']}: {'; '.join(parts)}"


if __name__ == "__main__":
    main()
