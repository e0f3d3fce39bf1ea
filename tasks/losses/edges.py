"""Training losses of edges, which take into account that annotators disagree."""

import torch
import torch.nn.functional as F
from torch import Tensor

AGREED = 0.5
NEGATIVE = 1.1


def summed_bce(logits: Tensor, share: Tensor) -> Tensor:
    """Class-balanced cross-entropy as HED trains: summed over an image, averaged over the images.

    logits, share: [B, H, W]; share: of the annotators that mark a pixel, -1 = ignore. A pixel is an
    edge if at least half of them mark it; all others are background, disputed ones too. An edge
    weighs the image's share of background, background the share of edges, so that an image of one
    class only weighs nothing. Some 10⁴ times ``balanced_bce``: the published rate is 1e-6.
    Source: Xie and Tu 2015, and their code.
    """
    edge = (share >= AGREED).to(logits.dtype)
    none = ((share >= 0) & (share < AGREED)).to(logits.dtype)
    edges, nones = edge.sum((1, 2), keepdim=True), none.sum((1, 2), keepdim=True)
    weight = (edge * nones + none * edges) / (edges + nones).clamp(min=1)
    loss = F.binary_cross_entropy_with_logits(logits, edge, reduction="none")
    return (weight * loss).sum((1, 2)).mean()


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
