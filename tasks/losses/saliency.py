"""Losses for a foreground map. logits: [B, H, W]; target: 0 or 1, [B, H, W]."""

import torch.nn.functional as F
from torch import Tensor


def bce(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy, mean over valid pixels."""
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (loss * valid).sum() / valid.sum().clamp(min=1)


def iou(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """1 − soft IoU of each image, averaged. As in BASNet (Qin et al., CVPR 2019)."""
    p, g = logits.sigmoid() * valid, target * valid
    intersection = (p * g).sum((1, 2))
    union = (p + g).sum((1, 2)) - intersection
    return (1 - (intersection + 1) / (union + 1)).mean()


def ssim(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """(1 − SSIM) / 2 in 11×11 windows, by kornia. As in BASNet."""
    import kornia

    p, g = logits.sigmoid() * valid, target * valid
    loss: Tensor = kornia.losses.ssim_loss(p[:, None], g[:, None], window_size=11)
    return loss
