"""Training loss of edges, which takes into account that annotators disagree."""

import torch
import torch.nn.functional as F
from torch import Tensor

AGREED = 0.5
NEGATIVE = 1.1


def balanced_bce(logits: Tensor, share: Tensor) -> Tensor:
    """Class-balanced cross-entropy on the pixels that are not in dispute.

    logits, share: [B, H, W]; share: of the annotators that mark a pixel, -1 = ignore. A pixel is an
    edge if at least half of them mark it, background if nobody does, and else left out. In each
    image the background together weighs 1.1 times as much as the edges together; the loss is the
    weighted mean, averaged over the images that have a pixel to learn from; 0 without any.
    Source: Xie and Tu 2015 (HED); Liu et al. 2017 (RCF).
    """
    edge = (share >= AGREED).to(logits.dtype)
    none = (share == 0).to(logits.dtype)
    edges, nones = edge.sum((1, 2), keepdim=True), none.sum((1, 2), keepdim=True)
    total = (edges + nones).clamp(min=1)
    weight = edge * nones / total + NEGATIVE * none * edges / total
    # an image of one class only has no balance to keep
    weight = torch.where((edges == 0) | (nones == 0), edge + none, weight)
    loss = F.binary_cross_entropy_with_logits(logits, edge, reduction="none")
    weights = weight.sum((1, 2))
    means = (weight * loss).sum((1, 2)) / weights.clamp(min=1e-6)
    return means.sum() / (weights > 0).sum().clamp(min=1)
