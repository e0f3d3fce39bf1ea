"""Networks for ``torch.hub.load("PATH/OF/THIS/CHECKOUT", "sparsemask", source="local")``."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

dependencies = ["torch", "timm", "segmentation_models_pytorch", "kornia", "pydantic", "safetensors"]
ROOT = str(Path(__file__).parent)
PACKAGES = ("benchmark", "common", "datasets", "models", "tasks")


@contextmanager
def _own_packages() -> Iterator[None]:
    """This checkout's packages can be imported, whoever else has one called ``datasets``.

    Those of others are set aside and come back; then ours must be imported again the next time.
    """
    loaded = [name for name in sys.modules if name.partition(".")[0] in PACKAGES]
    tops = {name.partition(".")[0] for name in loaded}
    others = {top for top in tops if not _is_ours(top)}
    aside = {n: sys.modules.pop(n) for n in loaded if others}
    if ROOT not in sys.path or others:  # torch.hub takes it off again
        sys.path.insert(0, ROOT)
    try:
        yield
    finally:
        if others:
            sys.path.remove(ROOT)
            for name in [n for n in sys.modules if n.partition(".")[0] in PACKAGES]:
                del sys.modules[name]
            sys.modules.update(aside)


def _is_ours(top: str) -> bool:
    places = list(getattr(sys.modules.get(top), "__path__", []))
    return [str(Path(place).parent) for place in places] == [ROOT]


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
    with _own_packages():
        return _network(
            backbone, task, decoder, classes, pretrained, checkpoint, backbone_args or {}
        )


def _network(
    backbone: str,
    task: str,
    decoder: str,
    classes: int,
    pretrained: bool,
    checkpoint: str | None,
    backbone_args: Mapping[str, Any],
) -> nn.Module:
    from benchmark.results.checkpoint import open_checkpoint
    from common.errors import UsageError
    from models.backbones import create_backbone, input_statistics
    from models.create import create_decoder
    from models.predictor import DensePredictor
    from tasks.base import TASKS

    if checkpoint is not None:
        return open_checkpoint(Path(checkpoint)).model
    if classes < 1:
        raise UsageError(f"classes={classes}: expected at least one")
    names = task.split("+")
    for name in names:
        TASKS.get(name)
    heads = {name: classes if name == "segmentation" else 1 for name in names}
    body = create_backbone(backbone, dict(backbone_args), None, pretrained)
    mean, std = input_statistics(backbone, None)
    return DensePredictor(body, create_decoder(decoder, body.features), heads, mean, std).eval()
