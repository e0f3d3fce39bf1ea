#!/usr/bin/env bash
# Software: segmentation-models-pytorch 0.6.0 (torch 2.14.0, torchvision 0.29.0, timm 1.0.31). It
# installs torch: several GB on Linux, where pip brings the build for CUDA.
#
# Behaviour: with ignore_index, SoftCrossEntropyLoss and SoftBCEWithLogitsLoss add up the losses of
# the other pixels and divide by the number of all of them. Where half of the pixels are ignored the
# loss and its gradient are half of torch's cross_entropy on the same tensors, so that images with
# many void pixels count less and the learning rate shrinks with them. FocalLoss of the same package
# divides by the pixels that count. DiceLoss in multiclass mode sets the terms of classes that are
# absent from the batch to 0 and then takes the mean over all classes: a prediction that is wrong
# everywhere has a loss of 1/21 on an image of one of 21 classes, and of 1/2 with two classes.
#
# Expected: a mean over the pixels, or the classes, that are there, as of torch and of FocalLoss.
#
# Output seen:
#   loss                     a half ignored    that half cut off
#   torch cross_entropy              1.3414               1.3414
#   FocalLoss                        0.3322               0.3322
#   SoftCrossEntropyLoss             0.6707               1.3414
#   SoftBCEWithLogitsLoss            0.4797               0.9593
#   DiceLoss where all is wrong, one class present: of 2 0.5000, of 21 0.0476
#
# For a dense-prediction benchmark: a recipe that names one of these losses trains at a learning
# rate that depends on the share of void pixels; a loss of another package under the same name is
# another recipe.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install -q --disable-pip-version-check \
    segmentation-models-pytorch==0.6.0 torch==2.14.0 torchvision==0.29.0 timm==1.0.31

env/bin/python - <<'PYTHON'
import torch
import torch.nn.functional as F
from segmentation_models_pytorch import losses

VOID = 255
torch.manual_seed(0)
logits, classes = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
scores, mask = torch.randn(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) > 0.5).float()


def pair(loss, outputs, target):
    """The loss where the right half is ignored, and where it is cut off."""
    ignored = target.clone()
    ignored[..., 4:] = VOID
    cut = outputs[..., :4].contiguous(), target[..., :4].contiguous()
    return loss(outputs, ignored).item(), loss(*cut).item()


rows = {
    "torch cross_entropy": pair(
        lambda x, y: F.cross_entropy(x, y, ignore_index=VOID), logits, classes
    ),
    "FocalLoss": pair(losses.FocalLoss("multiclass", ignore_index=VOID), logits, classes),
    "SoftCrossEntropyLoss": pair(
        losses.SoftCrossEntropyLoss(smooth_factor=0.0, ignore_index=VOID), logits, classes
    ),
    "SoftBCEWithLogitsLoss": pair(
        losses.SoftBCEWithLogitsLoss(ignore_index=VOID), scores, mask
    ),
}
print("loss                     a half ignored    that half cut off")
for name, (ignored, cut) in rows.items():
    print(f"{name:24}{ignored:15.4f}{cut:21.4f}")
    share = 0.5 if name.startswith("Soft") else 1.0
    assert abs(ignored / cut - share) < 1e-4, f"{name}: {ignored / cut} of the loss"

wrong = {}
for count in (2, 21):
    outputs = torch.zeros(1, count, 8, 8)
    outputs[:, 1] = 20.0  # sure of class 1 everywhere, where class 0 is
    wrong[count] = losses.DiceLoss("multiclass")(outputs, torch.zeros(1, 8, 8).long()).item()
    assert abs(wrong[count] - 1 / count) < 1e-3, f"DiceLoss of {count} classes: {wrong[count]}"
print(
    f"DiceLoss where all is wrong, one class present: of 2 {wrong[2]:.4f}, of 21 {wrong[21]:.4f}"
)
PYTHON
