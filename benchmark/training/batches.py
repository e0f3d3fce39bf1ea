"""Training batches: order, augmentation, and where a pass stands."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler

from benchmark.experiment import distributed
from benchmark.experiment.config import Resolved
from common.errors import UsageError
from common.stopping import heed_no_interrupt
from datasets.augment import Augment
from datasets.pipeline import Readable, Resized, collate_readable, start_method
from models.decoders.base import DecoderInfo


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

    def __init__(self, config: Resolved, data: Resized) -> None:
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
            multiprocessing_context=start_method(config.workers),
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


def make_augment(config: Resolved) -> Augment:
    """The augmentation that ``config`` asks for."""
    return Augment(
        config.image_size, config.crop_size, config.zoom, config.flip, config.colour,
        config.rotate,
    )  # fmt: skip


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
