"""Losses for depth. log_depth: [B, H, W], log metres; target: metres, where ``valid`` is true."""

import torch
from torch import Tensor


def silog(log_depth: Tensor, target: Tensor, valid: Tensor, variance_focus: float = 0.85) -> Tensor:
    """Scale-invariant log error √(mean d² − λ (mean d)²), d = log p − log g. 0 without valid pixel.

    Eigen et al. 2014; λ = 0.85 as in BTS (Lee et al. 2019).
    """
    d = (log_depth - torch.log(target.clamp(min=1e-6)))[valid]
    if d.numel() == 0:
        return log_depth.sum() * 0
    variance = (d * d).mean() - variance_focus * d.mean() ** 2
    return (variance + 1e-8).sqrt()


def gradient_matching(log_depth: Tensor, target: Tensor, valid: Tensor, scales: int = 4) -> Tensor:
    """Mean |∇(log p − log g)| at ``scales`` subsamplings, over neighbours that are both valid.

    Li and Snavely: MegaDepth, CVPR 2018.
    """
    d = log_depth - torch.log(target.clamp(min=1e-6))
    total = log_depth.new_zeros(())
    for scale in range(scales):
        step = 2**scale
        r, v = d[:, ::step, ::step], valid[:, ::step, ::step]
        for dim in (1, 2):
            if r.shape[dim] < 2:
                continue
            both = v.narrow(dim, 1, v.shape[dim] - 1) & v.narrow(dim, 0, v.shape[dim] - 1)
            change = r.diff(dim=dim).abs() * both
            total = total + change.sum() / both.sum().clamp(min=1)
    return total / scales
