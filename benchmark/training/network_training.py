"""The training of a network for its tasks: losses, averaging, validation, the best epoch."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from benchmark.experiment import distributed
from benchmark.experiment.config import ResolvedRun
from benchmark.experiment.numerics import State, random_states, set_random_states
from benchmark.training.batches import Batches
from benchmark.training.keeper import Keeper
from benchmark.training.learner import Learner
from benchmark.training.loop import LOG_EVERY, Training
from benchmark.training.optimizer import make_optimizer, rate
from benchmark.training.weighting import Weighting
from common import stopping
from datasets.pipeline import Resized
from models.predictor import DensePredictor
from tasks.base import Task

Validate = Callable[[nn.Module], dict[str, float]]
Save = Callable[[str, nn.Module, dict[str, Any]], None]


@dataclass
class History:
    """Log of a finished training: a row for each epoch, and the number of the best epoch.

    at_once: images that went through the network together at the end.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    steps: int = 0
    at_once: int = 0


def _averaging(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential moving average; its decay warms up, so that short runs forget their start."""

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
    """Training loss of a task: of its logits, plus ``side_weight`` times each side output's."""
    loss = task.loss(outputs[task.name], target)
    for name, side in outputs.items():
        if name.startswith(f"{task.name}/"):
            side_loss = task.presence_loss if side.ndim == 2 else task.loss
            loss = loss + side_weight * side_loss(side, target)
    return loss


def validation_key(tasks: Sequence[Task], task: Task, name: str) -> str:
    """Key of a task's metric in a validation's scores; with several tasks, ``TASK/name``."""
    return f"{task.name}/{name}" if len(tasks) > 1 else name


def improvement(
    tasks: Sequence[Task], first: Mapping[str, float], now: Mapping[str, float]
) -> float:
    """Quality of the scores ``now``, higher is better; chooses the best epoch.

    One task: its main metric, negated if lower is better. Several: the mean of their main metrics,
    each relative to its value in the ``first`` validation.
    """
    gains = []
    for task in tasks:
        name = task.validator().key(task.columns[0])
        sign = 1 if task.metric_info(name).higher_is_better else -1
        key = validation_key(tasks, task, name)
        # a first score near 0 must not outweigh the other tasks
        scale = max(abs(first[key]), 0.01) if len(tasks) > 1 else 1.0
        gains.append(sign * now[key] / scale)
    return sum(gains) / len(gains)


@dataclass
class _Progress:
    """JSON state of a training, besides its network and history.

    losses, of_task: of the epoch's steps. best: ``improvement`` of the best validation. first: the
    first validation's scores.
    """

    losses: list[float] = field(default_factory=list)
    of_task: dict[str, list[float]] = field(default_factory=dict)
    best: float = -math.inf
    first: dict[str, float] = field(default_factory=dict)


class NetworkTraining(Training[History]):
    """Trains ``model`` in place for a run; with EMA it ends as the averaged model.

    data: images and targets of one size. validate: scores a model after epochs; the main metrics
    choose the best epoch. save: called as save("best" | "last", model, facts). Logs the loss every
    few steps.
    """

    def __init__(
        self,
        config: ResolvedRun,
        model: DensePredictor,
        tasks: Sequence[Task],
        data: Resized,
        validate: Validate,
        save: Save,
    ) -> None:
        self.config, self.model, self.tasks = config, model, tasks
        self.validate, self.save = validate, save
        self.history, self.now = History(), _Progress()
        device = torch.device(config.device)
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = make_optimizer(config, model)
        self.weighting = Weighting(
            config.loss_weighting, [task.name for task in tasks], config.task_weights
        ).to(device)
        if config.loss_weighting == "uncertainty":
            optimizer.add_param_group({"params": [self.weighting.log_variance], "weight_decay": 0.0,
                                       "lr": config.lr * config.decoder_lr_factor})  # fmt: skip
        modules: dict[str, nn.Module] = {"weighting": self.weighting}
        self.average: AveragedModel | None = None
        if config.ema is not None:
            averaging = _averaging(config.ema)
            self.average = AveragedModel(model, multi_avg_fn=averaging, use_buffers=True)
            modules["average"] = self.average
        batches, least = Batches(config, data), model.decoder.info.min_train_batch
        learner = Learner(config, model, [optimizer], batches, modules, least)
        steps = config.steps or len(batches)
        super().__init__(f"train {config.decoder}", learner, config.epochs, steps)

    def losses_of(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        side_weight = self.model.decoder.info.side_weight
        parts = {
            task.name: total_loss(task, outputs, targets[task.target], side_weight)
            for task in self.tasks
        }
        return self.weighting(parts), parts

    def step_name(self) -> str:
        return f"step {self.step + 1} (epoch {self.epoch})"

    def after_step(self, loss: float, parts: Mapping[str, float]) -> str:
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.now.losses.append(loss)
        for name, part in parts.items():
            self.now.of_task.setdefault(name, []).append(part)
        self.history.steps = self.step
        return f"loss {_mean(self.now.losses[-20:]):.3f}"

    def scalars(self) -> dict[str, float]:
        return {"step/loss": _mean(self.now.losses[-LOG_EVERY:])}

    def end_epoch(self, keeper: Keeper | None) -> dict[str, float]:
        row = {
            "epoch": float(self.epoch),
            "loss": _mean(self.now.losses),
            "lr": self.learner.initial[0] * rate(self.config, self.step - 1, self.steps),
        }
        means = {name: _mean(losses) for name, losses in self.now.of_task.items()}
        if len(self.tasks) > 1:
            row |= {f"loss/{name}": value for name, value in means.items()}
            row |= {f"weight/{name}": value for name, value in self.weighting.weights().items()}
        scored = self.average.module if self.average is not None else self.model
        if self.epochs == 1 and self.config.split == "val":  # the run's score is of these images
            self.history.best_epoch = 1
            self.save("best", scored, row)
        elif self.epoch % self.config.validate_every == 0 or self.epoch == self.epochs:
            scores = self._scores(scored, keeper)
            row |= {f"val/{name}": value for name, value in scores.items()}
            self.now.first = self.now.first or scores
            goodness = improvement(self.tasks, self.now.first, scores)
            if goodness > self.now.best:
                self.now.best, self.history.best_epoch = goodness, self.epoch
                self.save("best", scored, row)
        if len(self.tasks) > 1:
            self.weighting.end_epoch(means)
        self.history.epochs.append(row)
        self.now.losses, self.now.of_task = [], {}
        return row

    def _scores(self, scored: nn.Module, keeper: Keeper | None) -> dict[str, float]:
        """Scores by ``validate``. A signal ends it; the resumed training repeats it."""
        device = self.learner.device
        before = random_states(device)
        distributed.copy_from_lead(scored)
        try:
            with stopping.heeded():
                return self.validate(scored)
        except stopping.Stopped:
            set_random_states(before, device)  # loaders draw from them
            # of several processes, only some get here, by a second signal: they cannot save
            if keeper is not None and distributed.size() == 1:
                keeper.save(self.step, self.whole_state())
            raise

    def finish(self) -> History:
        if self.average is not None:
            self.model.load_state_dict(copy.deepcopy(self.average.module.state_dict()))
        distributed.copy_from_lead(self.model)
        self.save("last", self.model, self.history.epochs[-1])
        self.history.at_once = self.learner.at_once
        return self.history

    def state(self) -> State:
        return {"past": self.weighting.past, "history": asdict(self.history),
                "epoch": {"number": self.epoch, **asdict(self.now)}}  # fmt: skip

    def restore(self, state: State) -> str:
        self.weighting.past, self.history = state["past"], History(**state["history"])
        now = dict(state["epoch"])
        self.step, self.epoch = self.history.steps, now.pop("number")
        self.now = _Progress(**now)
        return (
            f"resuming {self.config.decoder}, seed {self.config.seed}: at step {self.step} of "
            f"{self.steps}, epoch {min(self.epoch, self.epochs)} of {self.epochs}"
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)  # math.fsum rounds differently
