"""Training steps, shared by runs and searches: optimisers, gradients, state."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.experiment import distributed
from benchmark.experiment.config import Resolved
from benchmark.experiment.numerics import autocast, random_states, set_random_states
from benchmark.training.batches import Batches
from common.errors import UserError, first_line, out_of_memory
from common.memory import release_memory

LossesOf = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]
OTHERS = 1_000_003
"""Difference between the seeds of two processes' augmentations."""


class NotFinite(UserError):
    """The loss became NaN or infinite: the run cannot go on."""


class Learner:
    """A network with its optimisers and batches; trains step by step, and all state can be saved.

    at_once: images that go through the network together; fewer than a batch after memory ran out.
    initial: learning rates of the first optimiser's parameter groups.
    """

    def __init__(
        self,
        config: Resolved,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        batches: Batches,
        modules: Mapping[str, nn.Module],
        least: int = 1,
        unclipped: Sequence[nn.Parameter] = (),
    ) -> None:
        """Set up ``model`` for training, on the device where it is.

        modules: further modules that learn or average, by name. least: images that the network
        needs together. unclipped: parameters of the model whose gradients are not clipped.
        """
        self.config, self.batches, self.least = config, batches, least
        self.device = torch.device(config.device)
        size = config.crop_size or config.image_size
        assert size is not None
        few = min(max(least, 2), config.batch_size // distributed.size())
        self.model = model
        self.network = distributed.parallel(model, config.sync_bn, (few, config.channels, *size))
        self.clipped = [p for p in model.parameters() if not any(p is other for other in unclipped)]
        self.modules = {"model": model, **modules}
        self.optimizers = list(optimizers)
        enabled = config.amp and self.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=enabled)
        self.at_once = config.batch_size
        self.initial = [group["lr"] for group in self.optimizers[0].param_groups]
        if distributed.rank():  # other augmentations than the lead's
            torch.manual_seed(config.seed + OTHERS * distributed.rank())

    def set_rate(self, factor: float) -> None:
        """Set the first optimiser's learning rates to ``factor`` times the initial ones."""
        for group, lr in zip(self.optimizers[0].param_groups, self.initial, strict=True):
            group["lr"] = lr * factor

    def step(
        self,
        images: Tensor,
        targets: Mapping[str, Tensor],
        losses_of: LossesOf,
        where: str,
    ) -> tuple[float, dict[str, float]]:
        """One step of the optimisers; returns the loss and its parts.

        losses_of: the loss of the network's outputs, and its parts by name. where: the step's name
        in errors. If memory runs out, the batch goes through the network in halves, whose gradients
        are added. Raises NotFinite, with the network unchanged, if the loss is not finite.
        """
        while True:
            try:
                value, parts = self._gradients(images, targets, losses_of, where)
                break
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or distributed.size() > 1:
                    raise
                self._halve(len(images), error)
        for name, module in self.modules.items():
            if name != "model":
                distributed.average_gradients(module.parameters())
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        if self.config.clip_grad:
            nn.utils.clip_grad_norm_(self.clipped, self.config.clip_grad)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        return value, parts

    def _outputs(self, images: Tensor) -> dict[str, Tensor]:
        with autocast(self.config.amp, self.config.device):
            outputs: dict[str, Tensor] = self.network(
                images.contiguous(memory_format=torch.channels_last)
            )
        return outputs

    def _gradients(
        self,
        images: Tensor,
        targets: Mapping[str, Tensor],
        losses_of: LossesOf,
        where: str,
    ) -> tuple[float, dict[str, float]]:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        total, sums = 0.0, dict[str, float]()
        pieces = math.ceil(len(images) / self.at_once)
        for indices in torch.arange(len(images), device=images.device).tensor_split(pieces):
            whole = len(indices) == len(images)
            piece = images if whole else images[indices]
            share = len(indices) / len(images)
            loss, parts = losses_of(
                self._outputs(piece),  # without a name here, so that the loss can free them
                targets if whole else {name: t[indices] for name, t in targets.items()},
            )
            numbers = [loss.detach(), *(part.detach() for part in parts.values())]
            value, *values = distributed.mean([float(x) for x in numbers], self.device)
            if not math.isfinite(value):
                raise NotFinite(
                    f"the loss is {value} at {where}: try a smaller --lr than "
                    f"{self.config.lr:g} or --clip-grad 1"
                )
            self.scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]
            total += share * value
            for name, part in zip(parts, values, strict=True):
                sums[name] = sums.get(name, 0.0) + share * part
        return total, sums

    def _halve(self, count: int, error: Exception) -> None:
        at_once = min(self.at_once, count) // 2
        if at_once < 1 or count // math.ceil(count / at_once) < self.least:
            raise UserError(
                f"memory ran out with {min(self.at_once, count)} images at once, of which the "
                f"network needs {self.least} or more: use a smaller --crop-size or --image-size"
            ) from error
        self.at_once = at_once
        error.__traceback__ = None  # it holds tensors to free
        release_memory()

    def state(self) -> dict[str, Any]:
        """Everything that later steps depend on."""
        return {
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "batches": self.batches.state(),
            "random": distributed.gathered(random_states(self.device)),
            "at_once": self.at_once,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state`` of a learner with the same arguments.

        Raises UserError for the state of another network, as after a change of its code.
        """
        try:
            self._restore(state)
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(
                f"the saved state is of another network ({first_line(error)}): remove the folder "
                "`training` of the run to begin anew"
            ) from error

    def _restore(self, state: Mapping[str, Any]) -> None:
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
            for parameter, values in optimizer.state.items():
                for name, value in values.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        # fused kernels expect the memory layout of the parameter
                        values[name] = torch.empty_like(parameter).copy_(value)
        self.scaler.load_state_dict(state["scaler"])
        self.batches.restore(state["batches"])
        self.at_once = state["at_once"]
        set_random_states(state["random"][distributed.rank()], self.device)
