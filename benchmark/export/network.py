"""The network to export: fused, with normalisation, without branches that depend on sizes."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.exportable import make_exportable
from models.predictor import DensePredictor
from tasks.base import Task


class ExportableNetwork(nn.Module):
    """Fused ``model``: images [B, C, H, W] in 0…1 → logits [B, channels, H, W] by task.

    postprocessing: return predictions [B, H, W] in the task's unit instead. both: also return the
    logits, as ``TASK/logits``.
    """

    def __init__(
        self,
        model: DensePredictor,
        tasks: Sequence[Task],
        postprocessing: bool = False,
        both: bool = False,
    ) -> None:
        super().__init__()
        try:
            self.net = model.fuse()
        except RuntimeError:  # folding changes the outputs
            self.net = copy.deepcopy(model).eval()
        self.net = self.net.cpu().to(memory_format=torch.contiguous_format)
        make_exportable(self.net)
        for parameter in self.net.parameters():
            parameter.requires_grad_(False)
        self.tasks = {task.name: task for task in tasks} if postprocessing else {}
        self.both = both
        names = list(self.tasks) or list(model.heads)
        self.outputs = names + ([f"{name}/logits" for name in names] if both else [])
        self.divisor = model.size_divisor
        self.deepest = max(spec.stride for spec in model.backbone.features)
        self.fixed_size = model.backbone.fixed_size
        self.in_channels = model.in_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        # DensePredictor.forward without branches that depend on the size
        height, width = images.shape[-2:]
        x = (images - self.net.mean) / self.net.std
        if self.divisor > 1:
            rows, columns = (
                (side + self.divisor - 1) // self.divisor * self.divisor for side in (height, width)
            )
            x = F.pad(x, (0, columns - width, 0, rows - height))
        size = x.shape[-2:]
        logits = {
            name: F.interpolate(y, size=size, mode="bilinear", align_corners=True)
            for name, y in self.net.maps(x).items()
        }
        if self.divisor > 1:  # a slice would branch on whether it is the whole map
            top, left = (torch.arange(side, device=x.device) for side in (height, width))
            logits = {
                name: y.index_select(2, top).index_select(3, left) for name, y in logits.items()
            }
        if not self.tasks:
            return logits
        outputs = {name: task.predict(logits[name]) for name, task in self.tasks.items()}
        if self.both:
            outputs |= {f"{name}/logits": y for name, y in logits.items()}
        return outputs
