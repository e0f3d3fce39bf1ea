"""Several processes that train one network, started by torchrun; without it these do nothing.

Every process runs the same commands in the same order. Only the first one, the lead, writes, times
and prints; it hands on what it reads for all.
"""

import contextlib
import copy
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common import stopping
from common.errors import UsageError
from common.files import check_writable, locked
from common.progress import Listener

Value = TypeVar("Value")
PATIENCE = timedelta(hours=2)
"""How long a process waits for another, which may be timing or reading a large data set."""


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process' number, from 0."""
    return dist.get_rank() if size() > 1 else 0


def lead() -> bool:
    """Whether this process is the one that writes and prints."""
    return rank() == 0


def asked() -> int:
    """Number of processes that torchrun has started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def processes(device: str) -> Iterator[None]:
    """Join the processes that torchrun has started in one group: NCCL on GPUs, else Gloo.

    Each takes the GPU of its local rank. Raises UsageError for a device that all would share.
    """
    if asked() == 1:
        yield
        return
    kind = torch.device(device)
    if kind.type == "cuda":
        if kind.index is not None:
            raise UsageError(f"--device {device}: under torchrun write cuda: each takes its own")
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"--nproc-per-node: this machine has {torch.cuda.device_count()} CUDA devices"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if kind.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        with stopping.deferred():  # all stop together, after a step, or none does
            yield
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def alone(folder: Path, listener: Listener) -> Iterator[bool]:
    """Create ``folder`` and lock it; the lead waits until no other process holds the lock.

    Yields whether it waited. Raises UserError for a folder that cannot be written.
    """
    if not lead():
        yield from_lead(False)
        return
    check_writable(folder)
    with locked(folder, lambda: listener.message(f"{folder}: waiting for another process")) as late:
        yield from_lead(late)


def parallel(model: nn.Module, sync_bn: bool, shape: tuple[int, ...]) -> nn.Module:
    """The module to call in training: it averages gradients over the processes.

    model: images → maps by name. shape: of the images that it is tried on.
    """
    if size() == 1:
        return model
    if sync_bn:
        from timm.layers import convert_sync_batchnorm

        convert_sync_batchnorm(model)
    devices = [torch.cuda.current_device()] if next(model.parameters()).is_cuda else None
    with torch.random.fork_rng(devices or []):
        unread = _has_unread(copy.deepcopy(model).train(), shape)
    # looking for them in every step takes time, and torch warns where there are none
    return DistributedDataParallel(model, devices, find_unused_parameters=unread)


def _has_unread(model: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether some trained weights have no part in the maps: of layers that no decoder reads."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    maps = model(torch.zeros(shape, device=weights[0].device))
    total = torch.stack([y.sum() for y in maps.values()]).sum()
    return None in torch.autograd.grad(total, weights, allow_unused=True)


def mean(values: Sequence[float], device: torch.device) -> list[float]:
    """The means over the processes; NaN where one of them has NaN."""
    if size() == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return [float(x) for x in total / size()]


def average_gradients(parameters: Iterator[nn.Parameter]) -> None:
    """Of parameters outside of the network that ``parallel`` has wrapped."""
    for parameter in parameters if size() > 1 else ():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= size()


def any_of(wishes: Sequence[bool], device: torch.device) -> list[bool]:
    """For each wish whether any process has it."""
    if size() == 1:
        return list(wishes)
    total = torch.tensor([int(wish) for wish in wishes], device=device)
    dist.all_reduce(total, dist.ReduceOp.MAX)
    return [bool(x) for x in total]


def from_lead(value: Value) -> Value:
    """The lead's ``value``; those of the others are ignored."""
    if size() == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, 0)
    received: Value = box[0]
    return received


def gathered(value: Value) -> list[Value]:
    """Every process' ``value``, in order of rank."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value)
    return values


def copy_from_lead(module: nn.Module) -> None:
    """Give ``module`` the lead's weights and BatchNorm statistics."""
    if size() > 1:
        tensors: list[Tensor] = [*module.parameters(), *module.buffers()]
        for tensor in tensors:
            dist.broadcast(tensor.data, 0)


def share(count: int) -> range:
    """The indices of ``count`` samples that this process scores: consecutive, none twice.

    Joined in order of rank they are in order, so that bootstraps draw the same images whatever the
    number of processes.
    """
    return range(count * rank() // size(), count * (rank() + 1) // size())


def check_batch(batch: int) -> None:
    """Raises UsageError unless ``batch`` is the same number of images in each process."""
    if batch % asked():
        near = max(batch // asked(), 1) * asked()
        raise UsageError(
            f"--batch-size {batch}: does not divide among {asked()} processes: use {near} or "
            f"{near + asked()}"
        )
