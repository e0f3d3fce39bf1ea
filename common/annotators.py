"""Several annotators' marks of one image in one integer map, which can be cropped and warped.

Data sets write such maps and tasks read them, without an import of each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


IGNORE = 0
MOST = 22  # a float holds integers up to 2^24, and warping goes through one


def pack(marks: Tensor, valid: Tensor | None = None) -> Tensor:
    """Marks of A annotators, bool [A, H, W] → int32 [H, W].

    Bit a of a pixel is annotator a's mark, bit A is always set, which gives A. Where ``valid``
    [H, W] is false the pixel is ``IGNORE``. Raises ValueError for no annotator or more than 22.
    """
    import torch

    count = len(marks)
    if not 1 <= count <= MOST:
        raise ValueError(f"{count} annotators: expected 1 to {MOST}")
    bits = 2 ** torch.arange(count, dtype=torch.int32, device=marks.device)
    packed = (marks.bool() * bits[:, None, None]).sum(0, dtype=torch.int32) + 2**count
    return packed if valid is None else torch.where(valid.bool(), packed, IGNORE)


def annotators(packed: Tensor) -> int:
    """Number of annotators of a packed map; 0 where every pixel is ignored."""
    return max(int(packed.max()).bit_length() - 1, 0)


def unpack(packed: Tensor) -> Tensor:
    """The marks, bool [A, H, W], of a map [H, W] of ``pack``; ignored pixels have none."""
    import torch

    bits = torch.arange(annotators(packed), device=packed.device)
    marks: Tensor = (packed.long()[None] >> bits[:, None, None]) & 1
    return marks.bool()


def share(packed: Tensor) -> Tensor:
    """float32, of the shape of ``packed`` (any): the share of annotators that mark a pixel.

    Each pixel has its own number of annotators, so that a batch may mix images; -1 where ignored.
    """
    import torch

    values = packed.long()
    # exact: the integers are far below 2^53
    highest = values.clamp(min=1).double().log2().floor().long()
    rest = values - 2**highest
    marks = torch.zeros_like(values)
    for bit in range(MOST):
        marks += (rest >> bit) & 1
    counted = marks.float() / highest.clamp(min=1)
    return torch.where(values == IGNORE, -1.0, counted)
