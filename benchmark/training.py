"""The training loop: one for all tasks."""

import contextlib
import copy
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from benchmark.config import NetworkConfig, RunConfig
from benchmark.events import Listener
from benchmark.weighting import Weighting
from common.errors import UsageError, UserError
from datasets.augment import Augment
from datasets.pipeline import Resized, collate
from models.decoders.base import DecoderInfo
from tasks.base import Task

Validate = Callable[[nn.Module], dict[str, float]]
Save = Callable[[str, nn.Module, dict[str, Any]], None]
Log = Callable[[int, Mapping[str, float]], None]
LOG_EVERY = 10
"""Steps whose mean loss is one row of the log."""


class NotFinite(UserError):
    """The loss became NaN or infinite: the run cannot go on."""


@dataclass
class History:
    """What training tells afterwards: one row an epoch, and the best of them."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    steps: int = 0


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (libraries that use the old generator)
    torch.manual_seed(seed)


def autocast(amp: bool, device: str) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision where ``amp`` asks for it: float16 on CUDA, bfloat16 on the CPU."""
    if not amp:
        return contextlib.nullcontext()
    kind = torch.device(device).type
    return torch.autocast(kind, torch.float16 if kind == "cuda" else torch.bfloat16)


def make_optimizer(
    config: NetworkConfig, model: nn.Module, apart: Sequence[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """SGD or AdamW with two learning rates: backbone, and decoder with heads.

    Biases and normalisation parameters get no weight decay. apart: parameters to leave out.
    """
    assert config.lr is not None
    assert config.decoder_lr_factor is not None
    rates = {True: config.lr, False: config.lr * config.decoder_lr_factor}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not any(parameter is p for p in apart):
            key = (name.startswith("backbone."), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    options = [
        {"params": p, "lr": rates[backbone], "weight_decay": config.weight_decay if decays else 0.0}
        for (backbone, decays), p in groups.items()
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(options, fused=True)
    return torch.optim.SGD(options, momentum=config.momentum)


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


def rate(config: NetworkConfig, step: int, steps: int) -> float:
    """Factor on the learning rates at ``step`` of ``steps``: linear warm-up, then the decay."""
    warmup = (config.warmup or 0.0) * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(steps - warmup, 1)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return float((1 - done) ** 0.9)


class Batches:
    """One pass over ``data`` in random batches, on the run's device; another order each time.

    A batch: images [B, 3, H, W] in 0…1, and the stacked targets [B, H, W] by name. What does not
    fill a batch is left out.
    """

    def __init__(self, config: NetworkConfig, data: Resized) -> None:
        assert config.batch_size is not None
        self.device = torch.device(config.device)
        self.loader = DataLoader(
            data,
            batch_size=min(config.batch_size, len(data)),
            shuffle=True,
            drop_last=True,
            num_workers=config.workers,
            persistent_workers=config.workers > 0,
            collate_fn=collate,
            generator=torch.Generator().manual_seed(config.seed),
            pin_memory=self.device.type == "cuda",
        )

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        for images, targets in self.loader:
            stacked = {name: torch.stack([t[name] for t in targets]) for name in targets[0]}
            yield (
                images.to(self.device, non_blocking=True).float().div_(255),
                {name: t.to(self.device, non_blocking=True) for name, t in stacked.items()},
            )


def make_augment(config: NetworkConfig) -> Augment:
    """The augmentation that ``config`` asks for."""
    assert config.image_size is not None
    assert config.zoom is not None
    return Augment(
        config.image_size, config.crop_size, config.zoom, config.flip, config.colour or 0.0,
        config.rotate or 0.0,
    )  # fmt: skip


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


def check_batch(config: RunConfig, info: DecoderInfo, images: int | None) -> None:
    """Raises UsageError if a training step would have too few images for the decoder.

    images: in the training split, where that is known.
    """
    assert config.batch_size is not None
    if config.batch_size < info.min_train_batch:
        remedy = f"use --batch-size {info.min_train_batch} or more, not {config.batch_size}"
    elif images is not None and images < info.min_train_batch:
        remedy = f"the training split has {images}"
    else:
        return
    raise UsageError(
        f"decoder {info.title} trains on at least {info.min_train_batch} images at a time: {remedy}"
    )


def train(
    config: RunConfig,
    model: nn.Module,
    tasks: Sequence[Task],
    data: Resized,
    validate: Validate,
    save: Save,
    log: Log,
    listener: Listener,
    side_weight: float = 1.0,
) -> History:
    """Train ``model`` in place (with EMA: it ends as the averaged model).

    data: images and targets of one size. validate: scores a model, called after epochs; the main
    metrics among its numbers choose the best epoch. save: called as save("best" | "last", model,
    facts). log: called with the steps done and scalars: the loss every few steps, and each epoch's
    row. side_weight: of the loss of each side output. Raises NotFinite when the loss is not
    finite.
    """
    assert config.epochs is not None
    device = torch.device(config.device)
    augment, batches = make_augment(config), Batches(config, data)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(config, model)
    scaler = torch.amp.GradScaler(device.type, enabled=config.amp and device.type == "cuda")
    average = (
        AveragedModel(model, multi_avg_fn=_averaging(config.ema), use_buffers=True)
        if config.ema is not None
        else None
    )
    assert config.validate_every is not None
    weighting = Weighting(config.loss_weighting, [t.name for t in tasks], config.task_weights)
    weighting.to(device)
    if config.loss_weighting == "uncertainty":
        assert config.lr is not None
        assert config.decoder_lr_factor is not None
        optimizer.add_param_group({"params": [weighting.log_variance], "weight_decay": 0.0,
                                   "lr": config.lr * config.decoder_lr_factor})  # fmt: skip
    initial = [group["lr"] for group in optimizer.param_groups]
    history = History()
    steps = config.epochs * len(batches)
    best = -math.inf
    first: dict[str, float] = {}
    listener.begin(f"train {config.decoder}", steps)
    for epoch in range(1, config.epochs + 1):
        model.train()
        losses: list[float] = []
        of_task: dict[str, list[float]] = {}
        for images, targets in batches:
            factor = rate(config, history.steps, steps)
            for group, lr in zip(optimizer.param_groups, initial, strict=True):
                group["lr"] = lr * factor
            images, targets = augment(images, targets)
            with autocast(config.amp, config.device):
                outputs = model(images.contiguous(memory_format=torch.channels_last))
            parts = {t.name: total_loss(t, outputs, targets[t.target], side_weight) for t in tasks}
            loss = weighting(parts)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise NotFinite(
                    f"the loss is {value} at step {history.steps + 1} (epoch {epoch}): "
                    f"try a smaller --lr than {config.lr:g} or --clip-grad 1"
                )
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            if config.clip_grad:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad)
            scaler.step(optimizer)
            scaler.update()
            if average is not None:
                average.update_parameters(model)
            losses.append(value)
            for name, part in parts.items():
                of_task.setdefault(name, []).append(float(part.detach()))
            history.steps += 1
            if history.steps % LOG_EVERY == 0:
                recent = losses[-LOG_EVERY:]
                log(history.steps, {"step/loss": sum(recent) / len(recent)})
            listener.step(f"loss {sum(losses[-20:]) / len(losses[-20:]):.3f}")
        row = {"epoch": float(epoch), "loss": sum(losses) / len(losses), "lr": initial[0] * factor}
        if len(tasks) > 1:
            means = {name: sum(values) / len(values) for name, values in of_task.items()}
            row |= {f"loss/{name}": value for name, value in means.items()}
            row |= {f"weight/{name}": value for name, value in weighting.weights().items()}
            weighting.end_epoch(means)
        scored = average.module if average is not None else model
        if epoch % config.validate_every == 0 or epoch == config.epochs:
            scores = validate(scored)
            row |= {f"val/{name}": value for name, value in scores.items()}
            first = first or scores
            goodness = improvement(tasks, first, scores)
            if goodness > best:
                best, history.best_epoch = goodness, epoch
                save("best", scored, row)
        history.epochs.append(row)
        log(history.steps, row)
        listener.detail(" ".join(f"{name} {value:.4g}" for name, value in row.items()))
    if average is not None:
        model.load_state_dict(copy.deepcopy(average.module.state_dict()))
    save("last", model, history.epochs[-1])
    return history
