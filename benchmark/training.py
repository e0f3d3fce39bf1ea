"""The training loop: one for all tasks."""

import contextlib
import copy
import gc
import itertools
import math
import random
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler

from benchmark import distributed
from benchmark.config import NetworkConfig, RunConfig
from benchmark.events import Listener
from benchmark.resuming import Keeper, random_states, set_random_states
from benchmark.weighting import Weighting
from common import stopping
from common.errors import UsageError, UserError, first_line
from datasets.augment import Augment
from datasets.pipeline import Readable, Resized, collate_readable
from models.decoders.base import DecoderInfo
from tasks.base import Task

PLAIN = DecoderInfo("plain", "")

Validate = Callable[[nn.Module], dict[str, float]]
Save = Callable[[str, nn.Module, dict[str, Any]], None]
Log = Callable[[int, Mapping[str, float]], None]
Result = TypeVar("Result")
ATTEMPTS = 4
OTHERS = 1_000_003
"""Between the seeds of two processes' augmentations."""
LOG_EVERY = 10
"""Steps whose mean loss is one row of the log."""


class NotFinite(UserError):
    """The loss became NaN or infinite: the run cannot go on."""


@dataclass
class History:
    """What training tells afterwards: one row an epoch, and the best of them.

    at_once: images that went through the network together at the end.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    steps: int = 0
    at_once: int = 0


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


class _From(Sampler[list[int]]):
    """The batches of ``inner`` from number ``first`` on, of each what this process takes."""

    def __init__(self, inner: BatchSampler) -> None:
        self.inner, self.first = inner, 0

    def __iter__(self) -> Iterator[list[int]]:
        mine = slice(distributed.rank(), None, distributed.size())
        return (batch[mine] for batch in itertools.islice(self.inner, self.first, None))

    def __len__(self) -> int:
        return len(self.inner)


def heed_no_interrupt(worker: int) -> None:  # noqa: ARG001
    """Ctrl-C reaches every process of a terminal: those that read images end with their owner."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Batches:
    """One pass over ``data`` in random batches, on the run's device; another order each time.

    Of several processes each gets its part of every batch.

    A batch: images [B, 3, H, W] in 0…1, and the stacked targets [B, H, W] by name. What does not
    fill a batch is left out. After ``restore`` the next pass is the rest of the one that ``state``
    was taken in.
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

    def __iter__(self) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        self.generator.set_state(self._begin)
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)  # as loaders do
        self.sampler.first = self._taken
        for images, targets, bad in self.loader:
            self.data.bad.update(bad)  # of other processes, which tell what they met
            stacked = {name: torch.stack([t[name] for t in targets]) for name in targets[0]}
            self._taken += 1
            yield (
                images.to(self.device, non_blocking=True).float().div_(255),
                {name: t.to(self.device, non_blocking=True) for name, t in stacked.items()},
            )
        self._begin, self._taken = self.generator.get_state(), 0


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
        self.network = distributed.parallel(model, config.sync_bn)
        self.modules = {"model": model, **modules}
        self.optimizers = list(optimizers)
        enabled = config.amp and self.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=enabled)
        self.at_once = config.batch_size
        self.initial = [group["lr"] for group in self.optimizers[0].param_groups]

    def set_rate(self, factor: float) -> None:
        """Multiply the first optimiser's initial learning rates."""
        for group, lr in zip(self.optimizers[0].param_groups, self.initial, strict=True):
            group["lr"] = lr * factor

    def step(
        self,
        images: Tensor,
        targets: Mapping[str, Tensor],
        losses_of: Callable[[Tensor, Mapping[str, Tensor]], tuple[Tensor, dict[str, Tensor]]],
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
        losses_of: Callable[[Tensor, Mapping[str, Tensor]], tuple[Tensor, dict[str, Tensor]]],
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
        if at_once < self.least:
            raise UserError(
                f"memory ran out with {min(self.at_once, count)} images at once, of which there "
                "must be "
                f"{self.least} or more: use a smaller --crop-size or --image-size"
            ) from error
        self.at_once = at_once
        error.__traceback__ = None  # holds what is to be freed
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

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
            died = not isinstance(error, RuntimeError) or "DataLoader worker" in str(error)
            if not workers or not died:
                raise
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


def out_of_memory(error: BaseException) -> bool:
    """Whether the system or the GPU had no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)


@dataclass
class _Epoch:
    """What a training under way remembers besides its network: all of it is JSON."""

    number: int = 1
    losses: list[float] = field(default_factory=list)
    of_task: dict[str, list[float]] = field(default_factory=dict)
    best: float = -math.inf
    first: dict[str, float] = field(default_factory=dict)


def train(
    config: RunConfig,
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
    assert config.epochs is not None
    assert config.validate_every is not None
    device = torch.device(config.device)
    augment, batches = make_augment(config), Batches(config, data)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(config, model)
    weighting = Weighting(config.loss_weighting, [t.name for t in tasks], config.task_weights)
    weighting.to(device)
    if config.loss_weighting == "uncertainty":
        assert config.lr is not None
        assert config.decoder_lr_factor is not None
        optimizer.add_param_group({"params": [weighting.log_variance], "weight_decay": 0.0,
                                   "lr": config.lr * config.decoder_lr_factor})  # fmt: skip
    modules: dict[str, nn.Module] = {"weighting": weighting}
    average = None
    if config.ema is not None:
        average = AveragedModel(model, multi_avg_fn=_averaging(config.ema), use_buffers=True)
        modules["average"] = average
    learner = Learner(config, model, [optimizer], batches, modules, info.min_train_batch)
    if distributed.rank():
        torch.manual_seed(config.seed + OTHERS * distributed.rank())  # its own augmentation
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
    while now.number <= config.epochs:
        model.train()
        with stopping.deferred():
            for images, targets in batches:
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
                scores = validate(scored)
            except stopping.Stopped:
                set_random_states(before, device)  # loaders draw from them
                if keeper is not None:
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
            keeper.save(history.steps, state())
    if average is not None:
        model.load_state_dict(copy.deepcopy(average.module.state_dict()))
    distributed.copy_from_lead(model)
    save("last", model, history.epochs[-1])
    history.at_once = learner.at_once
    return history
