"""Peak memory of a forward.

On CUDA the allocator counts it. On the CPU only the whole process has a peak of resident memory, of
all that it ever did: so a fresh process builds the network with random weights, runs it once,
resets the peak and runs it again.
"""

import ctypes
import gc
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from typing_extensions import TypedDict

from benchmark.experiment.network import NetworkSpec
from benchmark.speed.fresh import FreshProcess
from benchmark.speed.latency import Setup, forward_call
from common.errors import UserError, reason

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
FORWARDS = 2
HOW = {
    "cpu": "peak resident memory of a fresh process above that between forwards",
    "cuda": "max_memory_allocated above what is allocated between forwards",
}


class Memory(TypedDict):
    """Peak memory of a forward, in bytes.

    forward_bytes: activations, outputs and workspace, above weights and input. weights_bytes:
    parameters and buffers of the network that runs, fused where the setup says so. how: which
    counter is read. error: why forward_bytes is null, where it is.
    """

    forward_bytes: int | None
    weights_bytes: int | None
    how: str
    error: str | None


def fresh_process() -> FreshProcess:
    """A process to measure memory in; its idle threads leave the processor to others."""
    return FreshProcess(OMP_WAIT_POLICY="passive")


def peak_memory(
    network: NetworkSpec,
    size: tuple[int, int],
    batch: int = 1,
    setup: Setup | None = None,
    device: str = "cpu",
    threads: int | None = None,
    process: FreshProcess | None = None,
) -> Memory:
    """Peak memory of a forward of images [batch, C, *size].

    setup: how the network runs. threads: of the CPU; default: torch's number in this process.
    process: an open ``fresh_process()``, with which a network takes about a second; without it,
    importing torch takes a few more.
    """
    kind = torch.device(device).type
    memory = Memory(forward_bytes=None, weights_bytes=None, how=HOW[kind], error=None)
    try:
        with ExitStack() as stack:
            measure: Callable[..., tuple[int, int]] = _measure
            if kind != "cuda":
                process = process or stack.enter_context(fresh_process())
                measure = partial(process.call, _measure)
            memory["forward_bytes"], memory["weights_bytes"] = measure(
                network=asdict(network),
                size=list(size),
                batch=batch,
                setup=asdict(setup or Setup()),
                device=device,
                threads=threads or torch.get_num_threads(),
            )
    except Exception as error:  # on CUDA the network runs here and may raise almost anything
        memory["error"] = reason(error)
    return memory


@torch.inference_mode()
def _measure(
    network: Mapping[str, Any],
    size: list[int],
    batch: int,
    setup: Mapping[str, Any],
    device: str,
    threads: int,
) -> tuple[int, int]:
    """Bytes of a forward and of the weights, measured in this process."""
    on_cpu = torch.device(device).type == "cpu"
    if on_cpu:
        torch.set_num_threads(threads)
        reset_peak()
    model = NetworkSpec(**network).build()
    ready, as_run = Setup(**setup).prepared(model)
    del model
    call = forward_call(ready, (size[0], size[1]), device, batch, as_run)
    tensors = [*ready.parameters(), *ready.buffers()]
    weights = sum(t.numel() * t.element_size() for t in tensors)
    call()  # loads and compiles code, chooses kernels
    peaks = [(_peak_of_process if on_cpu else _peak_of_cuda)(call, device) for _ in range(FORWARDS)]
    return max(peaks), weights


def _peak_of_cuda(call: Any, device: str) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_of_process(call: Any, device: str) -> int:  # noqa: ARG001
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    reset_peak()
    before = resident("VmRSS")
    call()
    return max(0, resident("VmHWM") - before)


def reset_peak() -> None:
    """Reset the peak of this process' resident memory. Raises UserError where that is refused."""
    try:
        RESET.write_text("5")
    except OSError:
        raise UserError(
            f"{RESET} cannot be written: this system does not report a forward's peak memory"
        ) from None


def resident(name: str) -> int:
    """Bytes in the line ``name`` of /proc/self/status."""
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
