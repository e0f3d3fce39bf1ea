"""Losses for class maps. logits: [B, C, H, W]; target: class indices [B, H, W].

Pixels of ``ignore_index`` are left out.
"""

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, target: Tensor, ignore_index: int = 255) -> Tensor:
    """Mean over labelled pixels; 0 where a batch has none."""
    total = F.cross_entropy(logits, target.long(), ignore_index=ignore_index, reduction="sum")
    return total / (target != ignore_index).sum().clamp(min=1)


def lovasz(logits: Tensor, target: Tensor, ignore_index: int = 255) -> Tensor:
    """Lovász-softmax, by segmentation-models-pytorch: the mean over the classes that occur.

    Berman et al., CVPR 2018.
    """
    if bool((target == ignore_index).all()):
        return logits.sum() * 0
    import segmentation_models_pytorch as smp  # late: it imports timm, which takes seconds

    loss: Tensor = smp.losses.LovaszLoss("multiclass", ignore_index=ignore_index)(
        logits, target.long()
    )
    return loss


def dice(logits: Tensor, target: Tensor, ignore_index: int = 255) -> Tensor:
    """Soft Dice loss, by segmentation-models-pytorch: the mean over all classes of the network.

    A class that the batch does not hold counts 0, as there: where few of many classes occur, the
    loss is small. 1 − 2 Σpg / (Σp + Σg) of the others, over the labelled pixels of the batch.
    """
    import segmentation_models_pytorch as smp  # late: it imports timm, which takes seconds

    loss: Tensor = smp.losses.DiceLoss("multiclass", ignore_index=ignore_index)(
        logits, target.long()
    )
    return loss


def presence(logits: Tensor, target: Tensor, ignore_index: int = 255) -> Tensor:
    """Binary cross-entropy of each class's presence in an image: the SE-loss of EncNet.

    logits: [B, C]; target: class indices [B, H, W]. An image without a labelled pixel is left out.
    Zhang et al., CVPR 2018.
    """
    count, classes = logits.shape
    labels = target.long().masked_fill(target == ignore_index, classes).flatten(1)
    present = logits.new_zeros(count, classes + 1).scatter_(1, labels, 1.0)[:, :classes]
    loss = F.binary_cross_entropy_with_logits(logits, present, reduction="none").mean(1)
    labelled = present.amax(1)
    return (loss * labelled).sum() / labelled.sum().clamp(min=1)
