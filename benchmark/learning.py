"""What a training and a search share: batches, optimisers, and steps whose state can be saved."""

import gc
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler

from benchmark.experiment import distributed
from benchmark.experiment.config import NetworkConfig
from benchmark.experiment.numerics import random_states, set_random_states
from common.errors import UserError, first_line, out_of_memory
from common.memory import release_memory
from common.progress import Listener
from common.stopping import heed_no_interrupt
from datasets.augment import Augment
from datasets.pipeline import Readable, Resized, collate_readable

Log = Callable[[int, Mapping[str, float]], None]
LossesOf = Callable[[Tensor, Mapping[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]
Result = TypeVar("Result")
ATTEMPTS = 4
OTHERS = 1_000_003
"""Between the seeds of two processes' augmentations."""
LOG_EVERY = 10
"""Steps whose mean loss is one row of the log."""


class NotFinite(UserError):
    """The loss became NaN or infinite: the run cannot go on."""


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


def rate(config: NetworkConfig, step: int, steps: int) -> float:
    """Factor on the learning rates at ``step`` of ``steps``: linear warm-up, then the decay."""
    warmup = (config.warmup or 0.0) * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(steps - warmup, 1)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return float((1 - done) ** 0.9)


class _From(Sampler[list[int]]):
    """The batches of ``inner`` from number ``first`` on, of each what this process takes."""

    def __init__(self, inner: BatchSampler) -> None:
        self.inner, self.first = inner, 0

    def __iter__(self) -> Iterator[list[int]]:
        mine = slice(distributed.rank(), None, distributed.size())
        return (batch[mine] for batch in itertools.islice(self.inner, self.first, None))

    def __len__(self) -> int:
        return len(self.inner)


class Batches:
    """One pass over ``data`` in random batches, on the run's device; another order each time.

    Of several processes each gets its part of every batch.

    A batch: images [B, 3, H, W] in 0…1, and the stacked targets [B, H, W] by name. What does not
    fill a batch is left out. After ``restore`` the next pass is the rest of the one that ``state``
    was taken in, or the one after it where nothing is left.
    """

    def __init__(self, config: NetworkConfig, data: Resized) -> None:
        assert config.batch_size is not None
        self.device = torch.device(config.device)
        self.data = data
        self.generator = torch.Generator().manual_seed(config.seed)
        order = RandomSampler(data, generator=self.generator)
        size = min(config.batch_size, len(data) // distributed.size() * distributed.size())
        self.sampler = _From(BatchSampler(order, size, drop_last=True))
        self.loader = DataLoader(
            Readable(data, replaced=True),
            batch_sampler=self.sampler,
            num_workers=config.workers,
            persistent_workers=config.workers > 0,
            worker_init_fn=heed_no_interrupt,
            collate_fn=collate_readable,
            generator=torch.Generator(),  # it draws more or less often with workers or without
            pin_memory=self.device.type == "cuda",
        )
        self._begin, self._taken = self.generator.get_state(), 0

    def __len__(self) -> int:
        return len(self.loader)

    def state(self) -> dict[str, Any]:
        """Where this pass began in the stream of random numbers, and the batches taken of it."""
        return {"begin": self._begin, "taken": self._taken}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a ``state``."""
        self._begin, self._taken = state["begin"], state["taken"]

    def _start(self) -> None:
        """Put the stream of random numbers to where the pass draws its order."""
        self.generator.set_state(self._begin)
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)  # as loaders do

    def __iter__(self) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        self._start()
        if self._taken == len(self):  # the one after it
            for _ in self.sampler.inner:
                pass
            self._begin, self._taken = self.generator.get_state(), 0
            self._start()
        self.sampler.first = self._taken
        for images, targets, bad in self.loader:
            self.data.bad.update(bad)  # of other processes, which tell what they met
            stacked = {name: torch.stack([t[name] for t in targets]) for name in targets[0]}
            self._taken += 1
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


class Learner:
    """A network and what makes it learn, step by step; all of its state can be saved.

    network: what is called in training. modules: others that learn or average along, by name.
    at_once: images of a batch that go through the network together; fewer than the batch after
    memory ran out.
    """

    def __init__(
        self,
        config: NetworkConfig,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        batches: Batches,
        modules: Mapping[str, nn.Module],
        least: int = 1,
    ) -> None:
        """least: images that the network needs to go through it together."""
        assert config.batch_size is not None
        self.config, self.batches, self.least = config, batches, least
        self.device = torch.device(config.device)
        size = config.crop_size or config.image_size
        assert size is not None
        few = min(max(least, 2), config.batch_size // distributed.size())
        self.network = distributed.parallel(model, config.sync_bn, (few, 3, *size))
        self.modules = {"model": model, **modules}
        self.optimizers = list(optimizers)
        enabled = config.amp and self.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=enabled)
        self.at_once = config.batch_size
        self.initial = [group["lr"] for group in self.optimizers[0].param_groups]
        if distributed.rank():  # an augmentation of its own
            torch.manual_seed(config.seed + OTHERS * distributed.rank())

    def set_rate(self, factor: float) -> None:
        """Multiply the first optimiser's initial learning rates."""
        for group, lr in zip(self.optimizers[0].param_groups, self.initial, strict=True):
            group["lr"] = lr * factor

    def step(
        self,
        images: Tensor,
        targets: Mapping[str, Tensor],
        losses_of: LossesOf,
        clipped: Iterable[nn.Parameter],
        where: str,
    ) -> tuple[float, dict[str, float]]:
        """One step of the optimisers; returns the loss and its parts.

        losses_of: the loss of some images, and its parts by name. clipped: parameters whose
        gradient's norm is limited. where: for an error. When memory runs out the batch goes through
        the network in halves, whose gradients are added. Raises NotFinite, with the network as it
        was, when the loss is not finite.
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
            nn.utils.clip_grad_norm_(clipped, self.config.clip_grad)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        return value, parts

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
            some = images if whole else images[indices]
            share = len(indices) / len(images)
            loss, parts = losses_of(
                some, targets if whole else {name: t[indices] for name, t in targets.items()}
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
        error.__traceback__ = None  # holds what is to be freed
        release_memory()

    def state(self) -> dict[str, Any]:
        """Everything that the next steps depend on."""
        return {
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "batches": self.batches.state(),
            "random": distributed.gathered(random_states(self.device)),
            "at_once": self.at_once,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a ``state`` of a learner that was set up alike.

        Raises UserError for one of another network, as after a change of its code.
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
                        # fused kernels take it to lie in memory as its parameter does
                        values[name] = torch.empty_like(parameter).copy_(value)
        self.scaler.load_state_dict(state["scaler"])
        self.batches.restore(state["batches"])
        self.at_once = state["at_once"]
        set_random_states(state["random"][distributed.rank()], self.device)


def with_readers(attempt: Callable[[], Result], workers: int, listener: Listener) -> Result:
    """What ``attempt()`` returns, tried again when one of ``workers`` that read images has died.

    Each attempt goes on from what the one before has saved. Raises UserError when too many die.
    """
    for left in reversed(range(ATTEMPTS)):
        try:
            return attempt()
        except (RuntimeError, ConnectionError, EOFError) as error:
            # what is met first depends on where it died
            died = not isinstance(error, RuntimeError) or "DataLoader worker (pid" in str(error)
            if not workers or not died or distributed.size() > 1:
                raise  # of several processes the others would wait for this one
            why = f"a process that reads images died ({first_line(error)})"
            error.__traceback__ = None  # holds the loader, which tells of the death again
        gc.collect()
        if not left:
            raise UserError(
                f"{why}, for the {ATTEMPTS}th time: memory may be short: use fewer --workers; the "
                "same command goes on from what is saved"
            )
        listener.message(f"{why}: going on from what is saved")
    raise AssertionError("unreachable")
