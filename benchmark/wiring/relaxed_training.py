"""Train a relaxed network: weights of layers and of connections together."""

import math
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.experiment.config import ResolvedSearch
from benchmark.experiment.numerics import autocast
from benchmark.training.batches import Batches, make_augment
from benchmark.training.keeper import Keeper
from benchmark.training.learner import LOG_EVERY, Learner, Log
from benchmark.training.optimizer import make_optimizer, rate
from benchmark.wiring.costs import connection_costs
from common import stopping
from common.progress import Listener
from datasets.pipeline import Resized
from models.predictor import DensePredictor
from models.relaxed_decoder import RelaxedDecoder
from models.sparse_loss import LOSSES
from tasks.base import Task

ROWS = 500
"""Most rows of weights that a search's record holds."""


def train_relaxed(
    config: ResolvedSearch,
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


def ramp(config: ResolvedSearch, step: int) -> float:
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
