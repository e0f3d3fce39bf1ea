"""Optimiser and learning-rate schedule."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from benchmark.experiment.config import Resolved


def make_optimizer(
    config: Resolved, model: nn.Module, excluded: Sequence[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """SGD or AdamW with two learning rates: backbone, and decoder with neck and heads.

    Biases and normalisation parameters get no weight decay. excluded: parameters to leave out.
    """
    rates = {True: config.lr, False: config.lr * config.decoder_lr_factor}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not any(parameter is p for p in excluded):
            trunk = name.startswith("backbone.") and not name.startswith("backbone.neck.")
            key = (trunk, parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    options = [
        {"params": p, "lr": rates[backbone], "weight_decay": config.weight_decay if decays else 0.0}
        for (backbone, decays), p in groups.items()
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(options, fused=True)
    return torch.optim.SGD(options, momentum=config.momentum)


def rate(config: Resolved, step: int, steps: int) -> float:
    """Factor of the learning rates at ``step`` of ``steps``: linear warm-up, then decay."""
    warmup = config.warmup * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(steps - warmup, 1)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return float((1 - done) ** 0.9)
