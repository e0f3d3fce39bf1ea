"""Networks for ``torch.hub.load("PATH/OF/THIS/CHECKOUT", "sparsemask", source="local")``."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

dependencies = ["torch", "timm", "segmentation_models_pytorch", "kornia", "pydantic", "safetensors"]
ROOT = str(Path(__file__).parent)


def sparsemask(
    backbone: str = "mobilenetv2_100",
    task: str = "segmentation",
    decoder: str = "sparsemask",
    classes: int = 21,
    pretrained: bool = False,
    checkpoint: str | None = None,
    backbone_args: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A network in evaluation mode: images [B, 3, H, W], RGB in 0…1 → logits [B, C, H, W] by task.

    backbone: a timm model with at least four strides. task: segmentation (of ``classes``), depth,
    saliency or edges, or several joined by ``+``. decoder: see ``python cli.py list decoders``, or
    ``connectivity:FILE.json``. pretrained: download timm's weights of the backbone; the decoder has
    random ones. checkpoint: a run's folder, whose trained network is returned: it says the rest.
    Raises UserError for what does not fit together.
    """
    if ROOT not in sys.path:  # torch.hub takes it off again
        sys.path.insert(0, ROOT)
    from benchmark.checkpoint import open_checkpoint
    from common.errors import UsageError
    from models.backbones import create_backbone, input_statistics
    from models.predictor import DensePredictor, build_decoder
    from tasks.base import TASKS

    if checkpoint is not None:
        return open_checkpoint(Path(checkpoint)).model
    if classes < 1:
        raise UsageError(f"classes={classes}: expected at least one")
    names = task.split("+")
    for name in names:
        TASKS.get(name)
    heads = {name: classes if name == "segmentation" else 1 for name in names}
    body = create_backbone(backbone, dict(backbone_args or {}), None, pretrained)
    mean, std = input_statistics(backbone, None)
    return DensePredictor(body, build_decoder(decoder, body), heads, mean, std).eval()
