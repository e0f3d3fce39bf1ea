"""The search for a wiring: train a network of all connections, then drop the weak ones."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.costs import connection_costs
from benchmark.experiment import distributed
from benchmark.experiment.config import SearchConfig
from benchmark.experiment.environment import environment
from benchmark.experiment.network import check_device, check_sync, open_network
from benchmark.experiment.numerics import autocast, seed_everything
from benchmark.experiment.plan import command_of, make_tasks
from benchmark.results.layout import FOLDER, clear, clear_finished, hand_over, tidy
from benchmark.training.batches import Batches, make_augment
from benchmark.training.keeper import EVERY, Keeper
from benchmark.training.learner import LOG_EVERY, Learner, Log, with_readers
from benchmark.training.loop import check_batch
from benchmark.training.optimizer import make_optimizer, rate
from benchmark.training.scalars import scalar_log
from benchmark.wirings import FOUND, SEARCH, Search, read_search
from common import stopping
from common.errors import UsageError
from common.files import write_atomic
from common.progress import Listener, Silent
from datasets.pipeline import Resized, open_splits
from models.connectivity import Connectivity, from_weights
from models.predictor import DensePredictor
from models.relaxed_decoder import RelaxedDecoder
from models.sparse_loss import LOSSES
from tasks.base import Task

ROWS = 500
"""Most rows of weights that a search's record holds."""


def search(
    config: SearchConfig,
    output: Path,
    overwrite: bool = False,
    listener: Listener | None = None,
    tensorboard: bool = False,
    every: float = EVERY,
) -> dict[str, Any]:
    """Search a wiring for ``config`` and write ``found.json`` and ``search.json`` into ``output``.

    Its losses are in metrics.jsonl besides, and for ``tensorboard``. Its state is saved ``every``
    seconds; a search that was ended before goes on from there, a finished one is not repeated.
    Returns the content of search.json. Raises UsageError before anything starts for options that do
    not fit and for a folder that holds another search, and at the end, with search.json written, if
    the threshold leaves nothing.
    """
    listener = listener or Silent()
    check_device(config.device)
    check_sync(config)
    assert config.batch_size is not None
    distributed.check_batch(config.batch_size)
    settings = config.model_dump(mode="json")
    finished = distributed.from_lead(_finished(output, settings, overwrite))
    if finished is not None:
        listener.message(f"{output / SEARCH}: already finished (--overwrite repeats it)")
        if distributed.lead():
            tidy(output / SEARCH)
        return finished
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with distributed.alone(output, listener) as late:
        made = distributed.from_lead(_finished(output, settings, overwrite=False) if late else None)
        if made is not None:
            return made
        if distributed.lead():
            clear_finished(output / SEARCH)
        return _search(config, output, listener, tensorboard, every)


def _search(
    config: SearchConfig, output: Path, listener: Listener, tensorboard: bool, every: float
) -> dict[str, Any]:
    tasks = make_tasks(config)
    decoder = build_relaxed(config, tasks).decoder
    assert isinstance(decoder, RelaxedDecoder)
    assert config.image_size is not None
    splits = open_splits(
        config.dataset, config.data, [task.name for task in tasks], config.image_size, config.limit
    )
    names = [task.target for task in tasks]
    skips = config.on_bad_sample == "skip"
    data = Resized(splits["train"], config.image_size, names, targets=True, skips=skips)
    check_batch(config, decoder.info, len(data))
    record: dict[str, Any] = {
        "format": 1,
        "method": config.method,
        "task": config.task,
        "dataset": config.dataset,
        "backbone": config.backbone,
        "strides": decoder.strides,
        "threshold": config.threshold,
        "merge": config.merge,
        "absorb": config.absorb,
        "inputs": config.inputs if config.method == "maskconnect" else None,
        "connections": [
            {"stage": stage, "source": source} for stage, source in decoder.connections
        ],
        "config": config.model_dump(mode="json"),
        "command": f"{command_of(config, 'search')} --output {output}",
        "environment": environment(config.device),
        "data": {"images": len(data), "fingerprint": splits["train"].data.fingerprint()},
    }
    identity = {"config": record["config"], "data": record["data"], "torch": torch.__version__}
    folder = output / FOLDER

    def attempt() -> dict[str, Any]:
        keeper = Keeper(folder, identity, every, listener, config.device)
        keeper.watch({"train": data.bad})
        model = build_relaxed(config, tasks)
        with scalar_log(folder, tensorboard, keeper.log_position) as log:
            keeper.log = log
            found = train_relaxed(config, model, tasks, data, log.write, listener, keeper)
        return found | {"seconds": keeper.seconds, "resumed": keeper.resumed}

    record |= with_readers(attempt, config.workers, listener)
    for bad in distributed.gathered(data.bad):
        data.bad.update(bad)
    if data.bad:
        record["data"] = {**record["data"], "skipped": data.errors()}
    if config.device.startswith("cuda"):
        record["peak_memory_bytes"] = torch.cuda.max_memory_allocated(config.device)
    if not distributed.lead():
        return record
    hand_over(folder, output)
    try:
        found, record["found"] = prune(Search.model_validate(record))
    except UsageError:  # what was learned stays, also where the threshold leaves nothing
        write_atomic(output / SEARCH, json.dumps(record) + "\n")
        clear(folder)
        raise
    write_atomic(output / FOUND, json.dumps(found.to_json(), indent=1) + "\n")
    write_atomic(output / SEARCH, json.dumps(record) + "\n")
    clear(folder)
    return record


def build_relaxed(config: SearchConfig, tasks: list[Task]) -> DensePredictor:
    """The Fully Dense Network with a head for each task, initialised from the seed, on the CPU."""
    seed_everything(config.seed)
    channels = {task.name: task.channels for task in tasks}
    return open_network(
        config,
        lambda backbone: RelaxedDecoder(
            backbone.features,
            gate="sampled" if config.method == "maskconnect" else "noisy",
            noise=config.noise,
            inputs=config.inputs,
            connection_bn=config.connection_bn,
        ),
        channels,
    )


def _finished(output: Path, settings: Mapping[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """The record of a search of these settings that ``output`` holds.

    Raises UsageError where it holds another one, or one whose threshold left nothing.
    """
    path = output / SEARCH
    if overwrite or not path.exists():
        return None
    try:
        was = read_search(output)
        about = f"a search of {was.task} on {was.dataset} with {was.backbone}"
        if was.config == settings:
            record: dict[str, Any] = json.loads(path.read_bytes())
            prune(was)
            if (output / FOUND).exists():
                return record
            about = "that search, without what it found: see prune,"
    except UsageError:
        about = "a file that is no search of this version"
    raise UsageError(f"{path}: {about} is there: name another --output, or repeat by --overwrite")


def train_relaxed(
    config: SearchConfig,
    model: DensePredictor,
    tasks: list[Task],
    data: Resized,
    log: Log,
    listener: Listener,
    keeper: Keeper | None = None,
) -> dict[str, Any]:
    """Train ``model`` and the weights of its connections together.

    Returns ``iterations``, ``weights`` (w/2 of every connection at each of them), ``final`` and
    ``losses`` (of every iteration). log: called with the iterations done, their mean losses and how
    many connections are above the threshold. keeper: saves the search's state, and has it where it
    goes on. Raises NotFinite when the loss is not finite, and Stopped, with the state saved, where
    a signal asks for it.
    """
    assert config.image_size is not None
    decoder = model.decoder
    assert isinstance(decoder, RelaxedDecoder)
    device = torch.device(config.device)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.weights is not None or config.pretrained:
        # trained scales must not take over what the connections' weights are to say; a network
        # from scratch needs them (ResNet's begin at 0)
        for module in model.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)
    costs = {}
    if config.cost is not None:
        shares = connection_costs(config.cost, decoder, config.image_size, device)
        costs[config.cost] = shares.to(device)
    optimizers = [make_optimizer(config, model, [decoder.raw] if config.connection_lr else [])]
    if config.connection_lr is not None:
        # the rate of the weights stays: they decide late in the search
        optimizers.append(torch.optim.Adam([decoder.raw], lr=config.connection_lr))
    augment, batches = make_augment(config), Batches(config, data)
    learner = Learner(config, model, optimizers, batches, {}, decoder.info.min_train_batch)
    clipped = [p for p in model.parameters() if p is not decoder.raw]
    every = math.ceil(config.iterations / ROWS)
    rows: dict[int, list[float]] = {}
    losses: dict[str, list[float]] = {}
    sparsity = LOSSES[config.loss] if config.method == "sparsemask" else None
    step = 0

    def losses_of(
        images: Tensor, targets: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast(config.amp, config.device):
            logits = learner.network(images.contiguous(memory_format=torch.channels_last))
        parts = {task.name: task.loss(logits[task.name], targets[task.target]) for task in tasks}
        factors: dict[str, float] = dict.fromkeys(parts, 1.0)
        if sparsity is not None:
            parts[config.loss] = sparsity(decoder.by_stage(decoder.weights))
            factors[config.loss] = config.lambda_ * ramp(config, step)
        for kind, cost in costs.items():
            parts[kind], factors[kind] = (cost * decoder.weights).sum(), config.cost_weight
        return torch.stack([factors[name] * part for name, part in parts.items()]).sum(), parts

    def state() -> dict[str, Any]:
        return {"learner": learner.state(), "step": step, "rows": rows, "losses": losses}

    listener.begin("search", config.iterations)
    saved = keeper.state if keeper is not None else None
    if saved is not None:
        learner.restore(saved["learner"])
        step, rows, losses = saved["step"], saved["rows"], saved["losses"]
        listener.message(f"resuming the search: at step {step} of {config.iterations}")
        for _ in range(step):
            listener.step()
    model.train()
    passes = _endless(batches)
    with stopping.deferred():
        while step < config.iterations:
            if step % every == 0:
                rows[step] = _rounded(decoder.weights)
            learner.set_rate(rate(config, step, config.iterations))
            if step >= (1 - config.settle) * config.iterations:
                decoder.noise = 0.0  # noise keeps lifting what has come down to 0
            _, parts = learner.step(
                *augment(*next(passes)), losses_of, clipped, f"iteration {step + 1}"
            )
            decoder.clamp_()
            for name, part in parts.items():
                losses.setdefault(name, []).append(float(f"{part:.5g}"))
            step += 1
            above = int((decoder.weights > config.threshold).sum())
            if step % LOG_EVERY == 0 or step == config.iterations:
                recent = {f"loss/{name}": fmean(x[-LOG_EVERY:]) for name, x in losses.items()}
                log(step, {**recent, "connections": above})
            task_loss = sum(losses[task.name][-1] for task in tasks)
            listener.step(
                f"loss {task_loss:.3f}, {above} of {len(decoder.connections)} connections"
            )
            if keeper is not None:
                keeper.after_step(step, state)
        if keeper is not None:
            keeper.save(step, state())
    rows[config.iterations] = _rounded(decoder.weights)
    return {
        "iterations": list(rows),
        "weights": list(rows.values()),
        "final": [float(x) for x in decoder.weights.detach().cpu()],
        "losses": losses,
    }


def ramp(config: SearchConfig, step: int) -> float:
    """Share of λ at ``step``: 0 before the ramp, 1 after it."""
    start, end = (share * config.iterations for share in config.ramp)
    return (
        float(step >= end) if end == start else min(max((step - start) / (end - start), 0.0), 1.0)
    )


def _rounded(weights: Tensor) -> list[float]:
    return [float(f"{x:.4g}") for x in weights.detach().cpu().tolist()]


def _endless(batches: Batches) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    while True:
        yield from batches


def prune(search: Search) -> tuple[Connectivity, dict[str, Any]]:
    """The wiring that a search's final weights leave, and how it came about.

    Raises UsageError if the threshold leaves nothing.
    """
    values = dict(zip(search.pairs, search.final, strict=True))
    weights: dict[int, dict[str, float]] = {}
    for (stage, source), weight in values.items():
        weights.setdefault(stage, {})[source] = weight
    settings = {name: search.config.get(name) for name in ("seed", "iterations", "loss", "lambda_")}
    origin = {
        "source": f"search ({search.method})",
        "task": search.task,
        "dataset": search.dataset,
        "threshold": search.threshold,
        **{name.rstrip("_"): value for name, value in settings.items()},
    }
    name = f"{search.task}-{search.dataset}-seed{settings['seed']}"
    kept = from_weights(name, search.strides, weights, search.threshold, search.inputs)
    alive = kept.alive()
    found = alive.pruned(search.merge, search.absorb)
    found = replace(found, backbone=search.backbone, origin=origin)
    chosen = {(s, n) for s, inputs in kept.stages.items() for n in inputs}
    smallest = min(values[connection] for connection in chosen)
    largest = max((w for c, w in values.items() if c not in chosen), default=0.0)
    return found, {
        "candidates": len(values),
        "kept": len(chosen),
        "alive": alive.connections,
        "connections": found.connections,
        "smallest_kept": smallest,
        "largest_dropped": largest,
        # None: what was dropped is exactly 0, or weights are shares of their stage
        "gap": smallest / largest if largest > 0 and search.inputs is None else None,
        "stages": found.to_json()["stages"],
    }
