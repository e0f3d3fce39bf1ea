"""Maps of several sizes, bilinearly upsampled to one size and summed."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

AVERAGE = 0
"""Stands for a stride where the map is a 1×1 average."""
ROWS = 64
"""Rows of a map up to which a matrix product upsamples it faster than interpolation does."""


def upsampled_sum(maps: Mapping[int, Tensor], stride: int, size: Sequence[int]) -> Tensor:
    """Σ of ``maps`` [B, C, h, w], by stride, upsampled with align_corners: [B, C, *size].

    The map of ``stride`` has that size already. Without gradients the result may reuse its memory.
    """
    first = next(iter(maps.values()))
    if (
        not torch.is_grad_enabled()
        and first.device.type == "cpu"
        and first.dtype in (torch.float32, torch.float64)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    ):
        return _by_matrices(dict(maps), stride, size)
    # finest first, so that a full-size sum takes up the 1×1 map by broadcasting
    finest_first = sorted(maps.items(), key=lambda item: item[0] or float("inf"))
    parts = [x if s in (stride, AVERAGE) else _interpolated(x, size) for s, x in finest_first]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total.expand(-1, -1, *size)


def _interpolated(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


def _by_matrices(maps: dict[int, Tensor], stride: int, size: Sequence[int]) -> Tensor:
    """The same, for inference that runs operation by operation on the CPU.

    There each full-size map that is written and read again costs more than the arithmetic.
    Bilinear is linear along the columns, then linear along the rows: the columns are interpolated
    while the maps are small, and one matrix product with the weights of all their rows writes, or
    adds to, the full-size sum once.
    """
    height, width = size
    total = maps.pop(stride, None)
    weights, rows = [], []
    for x in maps.values():
        if x.shape[-2] > ROWS:
            part = _interpolated(x, size)
            total = part if total is None else total + part
            continue
        unit = torch.eye(x.shape[-2], dtype=x.dtype)[None]
        weights.append(F.interpolate(unit, size=height, mode="linear", align_corners=True)[0].T)
        rows.append(_interpolated(x, (x.shape[-2], width)))
    if rows:
        matrix, values = torch.cat(weights, 1), torch.cat(rows, 2).movedim(1, -1).flatten(2)
        matrix = matrix.expand(len(values), -1, -1)
        if total is None:
            flat = torch.bmm(matrix, values)
        else:
            flat = total.movedim(1, -1).flatten(2).baddbmm_(matrix, values)
        total = flat.view(len(flat), height, width, -1).movedim(-1, 1)
    assert total is not None
    return total
