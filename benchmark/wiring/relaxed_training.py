"""Train a relaxed network: the weights of layers and of connections together."""

import math
from collections.abc import Mapping
from statistics import fmean

import torch
from torch import Tensor, nn
from typing_extensions import TypedDict

from benchmark.experiment.config import ResolvedSearch
from benchmark.experiment.numerics import State
from benchmark.training.batches import Batches, make_augment
from benchmark.training.learner import Learner
from benchmark.training.loop import LOG_EVERY, Training
from benchmark.training.optimizer import make_optimizer
from benchmark.wiring.costs import connection_costs
from benchmark.wiring.perturb import IMAGES, ranked
from datasets.pipeline import Resized
from models.predictor import DensePredictor
from models.relaxed_decoder import RelaxedDecoder
from models.sparse_loss import LOSSES
from tasks.base import Task

ROWS = 500
"""Most rows of weights in a search's record."""


class Learned(TypedDict):
    """What a search learned, see ``Search``."""

    iterations: list[int]
    weights: list[list[float]]
    final: list[float]
    losses: dict[str, list[float]]


class RelaxedTraining(Training[Learned]):
    """Trains ``model`` and its connections' weights in place; one epoch holds all iterations.

    Every few steps it logs mean losses and the number of
    connections above the threshold.
    """

    logs_last_step = True

    def __init__(
        self, config: ResolvedSearch, model: DensePredictor, tasks: list[Task], data: Resized
    ) -> None:
        decoder = model.decoder
        assert isinstance(decoder, RelaxedDecoder)
        self.config, self.tasks, self.model, self.decoder = config, tasks, model, decoder
        device = torch.device(config.device)
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.weights is not None or config.pretrained or config.init is not None:
            # BatchNorm's scales must not compensate for the connections' weights; a network from
            # scratch must train them (ResNet's begin at 0)
            for module in model.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.requires_grad_(False)
        self.costs: dict[str, Tensor] = {}
        if config.cost is not None:
            shares = connection_costs(config.cost, decoder, config.image_size, device)
            self.costs[config.cost] = shares.to(device)
        self.sparsity = LOSSES[config.loss] if config.method == "sparsemask" else None
        if config.method == "perturbation":  # a network whose connections all count alike
            decoder.raw.requires_grad_(False)
            decoder.noise = 0.0
        optimizers = [make_optimizer(config, model, [decoder.raw] if config.connection_lr else [])]
        if config.connection_lr is not None:
            # the connections' rate stays constant: they decide late in the search
            optimizers.append(torch.optim.Adam([decoder.raw], lr=config.connection_lr))
        batches, least = Batches(config, data), decoder.info.min_train_batch
        learner = Learner(config, model, optimizers, batches, {}, least, unclipped=[decoder.raw])
        super().__init__("search", learner, epochs=1, epoch_steps=config.iterations)
        self.row_every = math.ceil(config.iterations / ROWS)
        self.rows: dict[int, list[float]] = {}
        self.losses: dict[str, list[float]] = {}

    def losses_of(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config, decoder = self.config, self.decoder
        parts = {t.name: t.loss(outputs[t.name], targets[t.target]) for t in self.tasks}
        factors: dict[str, float] = dict.fromkeys(parts, 1.0)
        if self.sparsity is not None:
            parts[config.loss] = self.sparsity(decoder.by_stage(decoder.weights))
            factors[config.loss] = config.lambda_ * ramp(config, self.step)
        for kind, cost in self.costs.items():
            parts[kind], factors[kind] = (cost * decoder.weights).sum(), config.cost_weight
        return torch.stack([factors[name] * part for name, part in parts.items()]).sum(), parts

    def step_name(self) -> str:
        return f"iteration {self.step + 1}"

    def before_step(self) -> None:
        if self.step % self.row_every == 0:
            self.rows[self.step] = _rounded(self.decoder.weights)
        if self.step >= (1 - self.config.settle) * self.config.iterations:
            self.decoder.noise = 0.0  # noise would keep lifting weights from 0

    def after_step(self, loss: float, parts: Mapping[str, float]) -> str:  # noqa: ARG002
        self.decoder.clamp_()
        for name, part in parts.items():
            self.losses.setdefault(name, []).append(float(f"{part:.5g}"))
        task_loss = sum(self.losses[task.name][-1] for task in self.tasks)
        count = len(self.decoder.connections)
        return f"loss {task_loss:.3f}, {self._above()} of {count} connections"

    def scalars(self) -> dict[str, float]:
        means = {f"loss/{name}": fmean(x[-LOG_EVERY:]) for name, x in self.losses.items()}
        return {**means, "connections": self._above()}

    def _batch(self, most: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Up to ``most`` images, with targets, of the next training batch, augmented."""
        images, targets = make_augment(self.config)(*next(iter(self.learner.batches)))
        return images[:most], {name: target[:most] for name, target in targets.items()}

    def _above(self) -> int:
        """Number of connections above the threshold."""
        return int((self.decoder.weights > self.config.threshold).sum())

    def finish(self) -> Learned:
        self.rows[self.step] = _rounded(self.decoder.weights)
        if self.config.method == "perturbation":
            ranks, without = ranked(self.model, self.tasks, self._batch(IMAGES))
            self.losses["without"] = without
            self.rows[self.step + 1] = ranks
            with torch.no_grad():
                self.decoder.raw.copy_(2 * torch.tensor(ranks))
        return {
            "iterations": list(self.rows),
            "weights": list(self.rows.values()),
            "final": [float(x) for x in self.decoder.weights.detach().cpu()],
            "losses": self.losses,
        }

    def state(self) -> State:
        return {"step": self.step, "rows": self.rows, "losses": self.losses}

    def restore(self, state: State) -> str:
        self.step, self.rows, self.losses = state["step"], state["rows"], state["losses"]
        return f"resuming the search: at step {self.step} of {self.steps}"


def ramp(config: ResolvedSearch, step: int) -> float:
    """Share of λ at ``step``: 0 before the ramp, 1 after it."""
    start, end = (share * config.iterations for share in config.ramp)
    return (
        float(step >= end) if end == start else min(max((step - start) / (end - start), 0.0), 1.0)
    )


def _rounded(weights: Tensor) -> list[float]:
    return [float(f"{x:.4g}") for x in weights.detach().cpu().tolist()]
