"""The losses that drive connection weights to 0 or 1 (paper, section 3.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor

EPSILON = 1e-10


def cross_entropy(p: Tensor, q: Tensor) -> Tensor:
    """−p·log q − (1 − p)·log(1 − q), element by element; the paper's L_m."""
    return -p * torch.log(q + EPSILON) - (1 - p) * torch.log(1 - q + EPSILON)


def sparse_loss(stages: Sequence[Tensor]) -> Tensor:
    """Σ over stages of mean L_m(p, p) + L_m(α, mean p), with α = min(2 / inputs, 0.5).

    stages: the weights p of each stage's connections, in 0…1. The first term is least where every
    p is 0 or 1, the second where a stage keeps two inputs (or half, of fewer than four).
    """
    total = stages[0].new_zeros(())
    for p in stages:
        alpha = p.new_tensor(min(2 / len(p), 0.5))
        total = total + cross_entropy(p, p).mean() + cross_entropy(alpha, p.mean())
    return total


def l1_loss(stages: Sequence[Tensor]) -> Tensor:
    """Σ over stages of mean |p|."""
    return torch.stack([p.abs().mean() for p in stages]).sum()


LOSSES = {"sparse": sparse_loss, "l1": l1_loss}
