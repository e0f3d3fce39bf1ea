"""The training loop: one for all tasks."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from benchmark.experiment import distributed
from benchmark.experiment.config import Resolved, ResolvedRun
from benchmark.experiment.numerics import autocast, random_states, set_random_states
from benchmark.training.batches import Batches, make_augment
from benchmark.training.keeper import Keeper
from benchmark.training.learner import LOG_EVERY, Learner, Log
from benchmark.training.optimizer import make_optimizer, rate
from benchmark.training.weighting import Weighting
from common import stopping
from common.errors import UsageError
from common.progress import Listener
from datasets.pipeline import Resized
from models.decoders.base import DecoderInfo
from tasks.base import Task

PLAIN = DecoderInfo("plain", "")

Validate = Callable[[nn.Module], dict[str, float]]
Save = Callable[[str, nn.Module, dict[str, Any]], None]


@dataclass
class History:
    """What training tells afterwards: one row an epoch, and the best of them.

    at_once: images that went through the network together at the end.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    steps: int = 0
    at_once: int = 0


def _averaging(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential moving average whose decay warms up, so that short runs forget their start."""

    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new.to(old.dtype), 1 - now)
            else:
                old.copy_(new)

    return update


def total_loss(
    task: Task, outputs: Mapping[str, Tensor], target: Tensor, side_weight: float
) -> Tensor:
    """Training loss of one task: its logits', and ``side_weight`` times each side output's."""
    loss = task.loss(outputs[task.name], target)
    for name, side in outputs.items():
        if name.startswith(f"{task.name}/"):
            side_loss = task.presence_loss if side.ndim == 2 else task.loss
            loss = loss + side_weight * side_loss(side, target)
    return loss


def validated(tasks: Sequence[Task], task: Task, name: str) -> str:
    """The key of a task's metric among a validation's numbers: prefixed where tasks are several."""
    return f"{task.name}/{name}" if len(tasks) > 1 else name


def improvement(
    tasks: Sequence[Task], first: Mapping[str, float], now: Mapping[str, float]
) -> float:
    """How good a validation is: of one task its main metric, of several their mean gain.

    The gain is the relative change since the ``first`` validation. Higher is better.
    """
    gains = []
    for task in tasks:
        name = task.validator().key(task.columns[0])
        sign = 1 if task.metric_info(name).higher_is_better else -1
        key = validated(tasks, task, name)
        # a first score of nearly nothing must not outweigh the other tasks
        scale = max(abs(first[key]), 0.01) if len(tasks) > 1 else 1.0
        gains.append(sign * now[key] / scale)
    return sum(gains) / len(gains)


def check_batch(config: Resolved, info: DecoderInfo, images: int | None) -> None:
    """Raises UsageError if a training step would have too few images for the decoder.

    images: in the training split, where that is known.
    """
    processes = distributed.asked()
    least = info.min_train_batch * processes
    if config.batch_size < least:
        remedy = f"use --batch-size {least} or more, not {config.batch_size}"
    elif images is not None and images < least:
        remedy = f"the training split has {images}"
    else:
        return
    each = f" in each of {processes} processes" if processes > 1 else ""
    raise UsageError(
        f"decoder {info.title} trains on at least {info.min_train_batch} images at a time{each}: "
        f"{remedy}"
    )


@dataclass
class _Epoch:
    """What a training under way remembers besides its network: all of it is JSON."""

    number: int = 1
    losses: list[float] = field(default_factory=list)
    of_task: dict[str, list[float]] = field(default_factory=dict)
    best: float = -math.inf
    first: dict[str, float] = field(default_factory=dict)


def train(
    config: ResolvedRun,
    model: nn.Module,
    tasks: Sequence[Task],
    data: Resized,
    validate: Validate,
    save: Save,
    log: Log,
    listener: Listener,
    info: DecoderInfo = PLAIN,
    keeper: Keeper | None = None,
) -> History:
    """Train ``model`` in place (with EMA: it ends as the averaged model).

    data: images and targets of one size. validate: scores a model, called after epochs; the main
    metrics among its numbers choose the best epoch. save: called as save("best" | "last", model,
    facts). log: called with the steps done and scalars: the loss every few steps, and each epoch's
    row. info: of the decoder. keeper: saves the training's state, and has it where it goes on.
    Raises NotFinite when the loss is not finite, and Stopped, with the state saved, where a signal
    asks for it.
    """
    device = torch.device(config.device)
    augment, batches = make_augment(config), Batches(config, data)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(config, model)
    weighting = Weighting(config.loss_weighting, [t.name for t in tasks], config.task_weights)
    weighting.to(device)
    if config.loss_weighting == "uncertainty":
        optimizer.add_param_group({"params": [weighting.log_variance], "weight_decay": 0.0,
                                   "lr": config.lr * config.decoder_lr_factor})  # fmt: skip
    modules: dict[str, nn.Module] = {"weighting": weighting}
    average = None
    if config.ema is not None:
        average = AveragedModel(model, multi_avg_fn=_averaging(config.ema), use_buffers=True)
        modules["average"] = average
    learner = Learner(config, model, [optimizer], batches, modules, info.min_train_batch)
    history, now = History(), _Epoch()
    steps = config.epochs * len(batches)

    def state() -> dict[str, Any]:
        return {"learner": learner.state(), "past": weighting.past, "history": asdict(history),
                "epoch": asdict(now)}  # fmt: skip

    def losses_of(
        images: Tensor, targets: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast(config.amp, config.device):
            outputs = learner.network(images.contiguous(memory_format=torch.channels_last))
        parts = {t.name: total_loss(t, outputs, targets[t.target], info.side_weight) for t in tasks}
        return weighting(parts), parts

    listener.begin(f"train {config.decoder}", steps)
    saved = keeper.state if keeper is not None else None
    if saved is not None:
        learner.restore(saved["learner"])
        weighting.past = saved["past"]
        history, now = History(**saved["history"]), _Epoch(**saved["epoch"])
        listener.message(
            f"resuming {config.decoder}, seed {config.seed}: at step {history.steps} of {steps}, "
            f"epoch {min(now.number, config.epochs)} of {config.epochs}"
        )
        for _ in range(history.steps):
            listener.step()
    with stopping.deferred():  # a signal waits until the state is saved
        while now.number <= config.epochs:
            model.train()
            # a state may be of an epoch's end, with its validation to do
            rest = batches if len(now.losses) < len(batches) else ()
            for images, targets in rest:
                learner.set_rate(rate(config, history.steps, steps))
                where = f"step {history.steps + 1} (epoch {now.number})"
                value, parts = learner.step(
                    *augment(images, targets), losses_of, model.parameters(), where
                )
                if average is not None:
                    average.update_parameters(model)
                now.losses.append(value)
                for name, part in parts.items():
                    now.of_task.setdefault(name, []).append(part)
                history.steps += 1
                if history.steps % LOG_EVERY == 0:
                    recent = now.losses[-LOG_EVERY:]
                    log(history.steps, {"step/loss": sum(recent) / len(recent)})
                listener.step(f"loss {sum(now.losses[-20:]) / len(now.losses[-20:]):.3f}")
                if keeper is not None:
                    keeper.after_step(history.steps, state)
            row = {
                "epoch": float(now.number),
                "loss": sum(now.losses) / len(now.losses),
                "lr": learner.initial[0] * rate(config, history.steps - 1, steps),
            }
            if len(tasks) > 1:
                means = {name: sum(values) / len(values) for name, values in now.of_task.items()}
                row |= {f"loss/{name}": value for name, value in means.items()}
                row |= {f"weight/{name}": value for name, value in weighting.weights().items()}
            scored = average.module if average is not None else model
            if now.number % config.validate_every == 0 or now.number == config.epochs:
                before = random_states(device)
                distributed.copy_from_lead(scored)
                try:
                    with stopping.heeded():
                        scores = validate(scored)
                except stopping.Stopped:
                    set_random_states(before, device)  # loaders draw from them
                    # several processes come here by a second signal only, and not all of them
                    if keeper is not None and distributed.size() == 1:
                        keeper.save(history.steps, state())
                    raise
                row |= {f"val/{name}": value for name, value in scores.items()}
                now.first = now.first or scores
                goodness = improvement(tasks, now.first, scores)
                if goodness > now.best:
                    now.best, history.best_epoch = goodness, now.number
                    save("best", scored, row)
            if len(tasks) > 1:
                weighting.end_epoch(means)
            history.epochs.append(row)
            log(history.steps, row)
            listener.detail(" ".join(f"{name} {value:.4g}" for name, value in row.items()))
            now.number, now.losses, now.of_task = now.number + 1, [], {}
            if keeper is not None:
                keeper.after_step(history.steps, state, due=True)
    if average is not None:
        model.load_state_dict(copy.deepcopy(average.module.state_dict()))
    distributed.copy_from_lead(model)
    save("last", model, history.epochs[-1])
    history.at_once = learner.at_once
    return history
