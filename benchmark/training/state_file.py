"""The saved state of a training: one safetensors file with a digest, no pickle."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from benchmark.experiment.numerics import State
from common.errors import UserError


def _freeze(value: Any, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON; its tensors are added to ``tensors``, named by number."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, Mapping):  # keys need not be strings
        return {"items": [[key, _freeze(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_freeze(item, tensors) for item in value]
    return value


def _thaw(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _thaw(item, tensors) for key, item in value["items"]}
    if isinstance(value, list):
        return [_thaw(item, tensors) for item in value]
    return value


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def pack(state: Mapping[str, Any]) -> bytes:
    """The file's content. Tuples become lists."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_freeze(state, tensors))
    return to_bytes(tensors, {"state": text, "sha256": _digest(text, tensors)})


def unpack(path: Path) -> State:
    """The state in ``path``. Raises UserError, with the path, for a damaged file."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _digest(facts["state"], tensors) != facts["sha256"]:
            raise ValueError("its digest differs")
        state: State = _thaw(json.loads(facts["state"]), tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())})") from error
    return state
