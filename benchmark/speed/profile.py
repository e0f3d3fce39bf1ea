"""Profile of a forward: the time of its parts beside the best that this machine can do.

Hooks mark where a module begins or ends. A part is all that happens from one mark to the next, so
that no time is lost between two parts.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from typing_extensions import TypedDict

from benchmark.speed.latency import Setup, forward_call, time_calls
from models.decoders.base import Decoder
from models.predictor import DensePredictor

BETWEEN = "between"
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
MATRIX = {"cpu": 1024, "cuda": 8192}
VALUES = {"cpu": 2**26, "cuda": 2**28}
"""Values of 4 bytes in the tensor to copy, which is far larger than a cache."""


@dataclass(frozen=True)
class Peaks:
    """Measured peaks of a device.

    flops_per_s: of a large matrix product, two operations for each multiply-accumulate.
    bytes_per_s: of a large copy, read and written bytes together.
    """

    flops_per_s: float
    bytes_per_s: float
    dtype: str


class Part(TypedDict):
    """A part of a forward.

    share: of the sum of all parts. macs, bytes: of the whole batch. bound: the resource that limits
    it at the device's peaks, compute or memory. roofline_ms: the time at these peaks;
    roofline_share: roofline_ms / ms.
    """

    name: str
    ms: float
    share: float
    macs: int
    bytes: int
    bound: str
    roofline_ms: float
    roofline_share: float


class Profile(TypedDict):
    """A forward and its parts, timed in turns.

    whole_ms: median without hooks. sum_ms: sum of the parts' medians, with hooks.
    """

    whole_ms: float
    sum_ms: float
    parts: list[Part]
    peaks: dict[str, Any]


def parts_of(model: DensePredictor) -> list[tuple[nn.Module, str, str]]:
    """(module, name of the part that ends where it begins, name of the one that ends with it).

    Where a name is empty, the part goes on. After the last mark comes the resizing.
    """
    neck = getattr(model.backbone, "neck", None)
    marks: list[tuple[nn.Module, str, str]] = [(model.backbone, "normalise", "backbone")]
    if neck is not None:  # the last that a backbone calls
        marks = [(model.backbone, "normalise", ""), (neck, "backbone", "neck")]
    decoder = model.decoder
    named = decoder.milestones() if isinstance(decoder, Decoder) else {}
    steps = [(module, "", name) for module, name in named.items()]
    if not steps:
        between = f"decoder, {BETWEEN}"
        children = _steps(decoder)
        steps = [(module, between, name) for name, module in children]
        steps.append((decoder, "", between if children else "decoder"))
    marks += steps
    marks += [(head, "", "head") for head in model.heads.values()]
    return marks


def _steps(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Children by name; members of containers, which are not called, and of an only child."""
    children = list(module.named_children())
    if len(children) == 1 and list(children[0][1].children()):
        return _steps(children[0][1])
    steps = []
    for name, child in children:
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            steps += [(f"{name}.{inner}", part) for inner, part in child.named_children()]
        else:
            steps.append((name, child))
    return steps


@contextmanager
def watched(model: DensePredictor, mark: Callable[[str], None]) -> Iterator[None]:
    """Inside the block, ``model``'s forward calls ``mark(name)`` at the end of each part."""
    hooks = []

    def mark_it(name: str) -> Callable[..., None]:
        return lambda *_: mark(name)

    for module, before, after in parts_of(model):
        if before:
            hooks.append(module.register_forward_pre_hook(mark_it(before)))
        if after:
            hooks.append(module.register_forward_hook(mark_it(after)))
    hooks.append(model.register_forward_hook(mark_it("resize")))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations of convolutions and matrix products, and bytes that all operations move.

    An operation reads its inputs and writes its outputs; views move nothing.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.bytes = 0
        self.parts: dict[str, tuple[int, int]] = {}

    def mark(self, name: str) -> None:
        """Add the counts since the last mark to part ``name``."""
        flops, moved = self.parts.get(name, (0, 0))
        self.parts[name] = (flops + self.flops, moved + self.bytes)
        self.flops = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _consists_of_others(func):  # inference_mode does not decompose it
            with self:
                return func._op_dk(COMPOSITE, *args, **kwargs)
        out = func(*args, **kwargs)
        name = func._overloadpacket.__name__
        # no operation in place is registered, nor by older torch the CPU's kernel of attention
        known_as = name.removesuffix("_").removesuffix("_for_cpu")
        formula = flop_registry.get(getattr(torch.ops.aten, known_as, None))
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        inputs, outputs = _tensors((args, kwargs)), _tensors(out)
        known = {t.untyped_storage().data_ptr() for t in inputs}
        changed = func._schema.is_mutable
        written = [t for t in outputs if changed or t.untyped_storage().data_ptr() not in known]
        if written and not name.startswith(("empty", "new_empty")):
            # a copy does not read its first argument, which it overwrites
            read = inputs[1:] if name.startswith("copy_") else inputs
            self.bytes += sum(map(_bytes, read)) + sum(map(_bytes, written))
        return out


def _consists_of_others(func: Any) -> bool:
    has: Callable[[str, Any], bool] = torch._C._dispatch_has_kernel_for_dispatch_key
    return func._overloadpacket not in flop_registry and has(func.name(), COMPOSITE)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _bytes(tensor: Tensor) -> int:
    """Bytes of the values in memory, where an expanded dimension lies once."""
    repeated = [n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if not stride]
    return tensor.numel() * tensor.element_size() // max(1, torch.Size(repeated).numel())


class Clock:
    """Times parts in milliseconds: by events on CUDA, else by the host's clock."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.cuda = device, device.type == "cuda"
        self.marks: list[tuple[str, Any]] = []

    def mark(self, name: str) -> None:
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self.device))
            self.marks.append((name, event))
        else:
            self.marks.append((name, time.perf_counter()))

    def parts(self) -> dict[str, float]:
        """Part → ms since the mark before; the first mark is the start. Removes all marks."""
        if self.cuda:
            torch.cuda.synchronize(self.device)
        times: dict[str, float] = {}
        for (_, start), (name, end) in zip(self.marks, self.marks[1:], strict=False):
            passed = start.elapsed_time(end) if self.cuda else (end - start) * 1000
            times[name] = times.get(name, 0.0) + passed
        self.marks.clear()
        return times


@torch.inference_mode()
def profile(
    model: DensePredictor,
    size: tuple[int, int],
    device: str,
    batch: int,
    setup: Setup,
    peaks: Peaks,
    min_time: float = 2.0,
) -> Profile:
    """Time, work and roofline share of the parts of a forward of images [batch, C, *size]."""
    call = forward_call(model, size, device, batch, setup)
    kind = torch.device(device)
    counter, clock = Counter(), Clock(kind)
    with watched(model, counter.mark), counter:
        call()
    calls: list[dict[str, float]] = []

    def watched_call() -> None:
        with watched(model, clock.mark):
            clock.mark("start")
            call()
        calls.append(clock.parts())

    both: dict[str, Callable[[], object]] = {"whole": call, "watched": watched_call}
    timed = time_calls(both, kind, batch, min_time=min_time, block=0.001)
    medians = {name: statistics.median(c[name] for c in calls) for name in calls[0]}
    total = sum(medians.values())
    parts: list[Part] = []
    for name, ms in medians.items():
        flops, moved = counter.parts[name]
        compute = flops / peaks.flops_per_s * 1000
        memory = moved / peaks.bytes_per_s * 1000
        best = max(compute, memory)
        parts.append(
            {
                "name": name,
                "ms": ms,
                "share": ms / total,
                "macs": flops // 2,
                "bytes": moved,
                "bound": "compute" if compute > memory else "memory",
                "roofline_ms": best,
                "roofline_share": best / ms if ms > 0 else 0.0,
            }
        )
    return {
        "whole_ms": timed["whole"].median_ms,
        "sum_ms": total,
        "parts": parts,
        "peaks": asdict(peaks),
    }


@torch.inference_mode()
def measured_peaks(device: str, amp: bool = False, seconds: float = 1.0) -> Peaks:
    """Measure the device's peaks on many large matrix products, convolutions and copies.

    Uses torch's number of threads. A 3×3 convolution counts as a product too, because on the CPU
    another library computes it. Computes in float32, with TF32 where convolutions use it, or in the
    type of ``amp``. seconds: of each.
    """
    kind = torch.device(device)
    cuda = kind.type == "cuda"
    dtype = (torch.float16 if cuda else torch.bfloat16) if amp else torch.float32
    side, values = MATRIX[kind.type], VALUES[kind.type]
    a, b = (torch.rand(side, side, device=kind).to(dtype) for _ in range(2))
    channels, pixels = side // 4, 64
    image = torch.rand(side // 1024, channels, pixels, pixels, device=kind).to(dtype)
    image = image.contiguous(memory_format=torch.channels_last)
    weights = torch.rand(channels, channels, 3, 3, device=kind).to(dtype)
    source = torch.zeros(values, device=kind)
    copied = torch.ones_like(source)
    calls: dict[str, Callable[[], object]] = {
        "product": lambda: torch.mm(a, b),
        "convolution": lambda: torch.conv2d(image, weights, padding=1),
        "copy": lambda: copied.copy_(source),
    }
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        best = time_calls(calls, kind, min_time=seconds, min_calls=10)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    flops = {"product": 2 * side**3, "convolution": 2 * 9 * channels * image.numel()}
    return Peaks(
        max(flops[name] / best[name].p5_ms * 1000 for name in flops),
        2 * 4 * values / best["copy"].p5_ms * 1000,
        str(dtype).removeprefix("torch."),
    )
