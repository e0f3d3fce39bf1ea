"""Seeds, mixed precision, and the state of the random number generators."""

import contextlib
import random
from typing import Any

import numpy as np
import torch


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


State = dict[str, Any]


def random_states(device: torch.device) -> State:
    """Of Python's, NumPy's and torch's global generators."""
    version, numbers, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    states: State = {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *map(float, rest)],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: State, device: torch.device) -> None:
    """The reverse of ``random_states``."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = states["numpy"]
    keys = keys.numpy().astype(np.uint32)
    np.random.set_state((kind, keys, int(position), int(has_gauss), cached))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
