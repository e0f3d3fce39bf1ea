"""Training batches: order, augmentation, and the position in a pass."""

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, RandomSampler, Sampler

from benchmark.experiment import distributed
from benchmark.experiment.config import Resolved
from benchmark.experiment.readers import Loader
from common.errors import UsageError
from datasets.augment import Augment
from datasets.pipeline import Readable, Resized
from models.decoders.base import DecoderInfo
from models.predictor import Predictor


class _From(Sampler[list[int]]):
    """This process's share of the batches of ``inner``, from number ``first`` on."""

    def __init__(self, inner: BatchSampler) -> None:
        self.inner, self.first = inner, 0

    def __iter__(self) -> Iterator[list[int]]:
        mine = slice(distributed.rank(), None, distributed.size())
        return (batch[mine] for batch in itertools.islice(self.inner, self.first, None))

    def __len__(self) -> int:
        return len(self.inner)


class Batches:
    """Passes over ``data`` in random batches, on the run's device; each has another order.

    A batch: images [B, C, H, W] in 0…1, and the stacked targets [B, H, W] by name. Each of several
    processes gets its part of every batch; an incomplete last batch is dropped. After ``restore``
    the next pass is the rest of the saved one, or the following one if none is left.
    """

    def __init__(self, config: Resolved, data: Resized) -> None:
        self.device = torch.device(config.device)
        self.data = data
        self.generator = torch.Generator().manual_seed(config.seed)
        order = RandomSampler(data, generator=self.generator)
        size = min(config.batch_size, len(data) // distributed.size() * distributed.size())
        self.sampler = _From(BatchSampler(order, size, drop_last=True))
        self.loader = Loader(
            Readable(data, replaced=True),
            config.workers,
            batch_sampler=self.sampler,
            persistent_workers=config.workers > 0,
            generator=torch.Generator(),  # the number of draws depends on the workers
            pin_memory=self.device.type == "cuda",
        )
        self._begin, self._taken = self.generator.get_state(), 0

    def __len__(self) -> int:
        return len(self.loader)

    def state(self) -> dict[str, Any]:
        """The random state at the start of this pass, and the number of batches taken from it."""
        return {"begin": self._begin, "taken": self._taken}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state``."""
        self._begin, self._taken = state["begin"], state["taken"]

    def _start(self) -> None:
        """Set the random state from which the pass draws its order."""
        self.generator.set_state(self._begin)
        # loaders draw one number before the order
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)

    def __iter__(self) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        self._start()
        if self._taken == len(self):  # the saved pass is complete
            for _ in self.sampler.inner:
                pass
            self._begin, self._taken = self.generator.get_state(), 0
            self._start()
        self.sampler.first = self._taken
        for images, targets, bad in self.loader:
            self.data.bad.update(bad)  # errors that worker processes report
            stacked = {name: torch.stack([t[name] for t in targets]) for name in targets[0]}
            self._taken += 1
            yield (
                images.to(self.device, non_blocking=True).float().div_(255),
                {name: t.to(self.device, non_blocking=True) for name, t in stacked.items()},
            )


def make_augment(config: Resolved) -> Augment:
    """The augmentation of ``config``."""
    return Augment(
        config.image_size, config.crop_size, config.zoom, config.flip, config.colour,
        config.rotate, config.channels,
    )  # fmt: skip


def check_batch(config: Resolved, info: DecoderInfo, images: int | None) -> None:
    """Raises UsageError if a training step has too few images for the decoder.

    images: number in the training split; None if unknown.
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


def check_norms(config: Resolved, model: Predictor, images: int | None) -> None:
    """Raises UsageError if one image a step leaves a BatchNorm one value per channel.

    Torch refuses that in training. images: as for ``check_batch``. Decided by a forward on the meta
    device, as it depends on every layer of backbone, decoder and heads.
    """
    processes = distributed.asked()
    count = min(config.batch_size, images or config.batch_size) // processes
    if count > 1 or config.sync_bn:
        return
    size = config.crop_size or config.image_size
    twin = copy.deepcopy(model).to("meta").train()
    try:
        with torch.no_grad():
            twin.outputs(torch.empty(1, model.mean.shape[1], *size, device="meta"))
    except Exception as error:  # a layer that has no meta kernel says nothing of BatchNorm
        if "more than 1 value per channel" in str(error):
            option = "--crop-size" if config.crop_size else "--image-size"
            few = config.batch_size < 2 * processes
            batch = f"--batch-size {2 * processes}" if few else "more training images"
            raise UsageError(
                f"one image of {size[0]}x{size[1]} a step leaves a BatchNorm one value per "
                f"channel, which cannot be trained: use {batch} or a larger {option}"
            ) from None
