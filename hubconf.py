"""Networks for ``torch.hub.load("PATH/OF/THIS/CHECKOUT", "create_model", …, source="local")``.

The entry points are functions of ``benchmark``, and ``sparsemask``, which returns logits by task.
torch.hub lists every callable in this file as an entry point, so it imports modules only.
"""

import collections.abc
import contextlib
import pathlib
import sys
import typing

import torch

dependencies = ["torch", "timm", "segmentation_models_pytorch", "kornia", "pydantic", "safetensors"]
ROOT = str(pathlib.Path(__file__).parent)
PACKAGES = ("benchmark", "common", "datasets", "models", "tasks")


@contextlib.contextmanager
def _own_packages() -> collections.abc.Iterator[None]:
    """Make this checkout's packages importable, even if another ``datasets`` is loaded.

    Loaded packages of the same names are set aside and restored at the end.
    """
    loaded = [name for name in sys.modules if name.partition(".")[0] in PACKAGES]
    tops = {name.partition(".")[0] for name in loaded}
    others = {top for top in tops if not _is_ours(top)}
    aside = {n: sys.modules.pop(n) for n in loaded if others}
    if ROOT not in sys.path or others:  # torch.hub removes it again
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
    return [str(pathlib.Path(place).parent) for place in places] == [ROOT]


def create_model(*arguments: typing.Any, **options: typing.Any) -> torch.nn.Module:
    """``create_model(decoder, backbone, task=…, classes=…, pretrained=…)``: a new network.

    Images [B, in_channels, H, W] in 0…1 → logits [B, channels, H, W], or a dictionary of them by
    task for several tasks (``a+b``). Options and errors: ``benchmark.create_model``.
    """
    with _own_packages():
        from benchmark import create_model

        return create_model(*arguments, **options)


def load_model(run: str) -> torch.nn.Module:
    """The trained network of a run's folder, in eval mode; see ``benchmark.load_model``."""
    with _own_packages():
        from benchmark import load_model

        return load_model(run)


def create_decoder(*arguments: typing.Any, **options: typing.Any) -> torch.nn.Module:
    """``create_decoder(name, features)``: a decoder for the feature maps of any encoder.

    features: (channels, stride) of each map. Options and errors: ``benchmark.create_decoder``.
    """
    with _own_packages():
        from benchmark import create_decoder

        return create_decoder(*arguments, **options)


def list_decoders(pattern: str = "") -> list[str]:
    """Names of decoders that contain ``pattern``, a substring or a wildcard."""
    with _own_packages():
        from benchmark import list_decoders

        return list_decoders(pattern)


def sparsemask(
    backbone: str = "mobilenetv2_100",
    task: str = "segmentation",
    decoder: str = "sparsemask",
    classes: int = 21,
    pretrained: bool = False,
    checkpoint: str | None = None,
    backbone_args: collections.abc.Mapping[str, typing.Any] | None = None,
    in_channels: int = 3,
    width: int | None = None,
) -> torch.nn.Module:
    """A network in eval mode: images [B, in_channels, H, W] in 0…1 → logits [B, C, H, W] by task.

    The network of ``create_model``, with a dictionary as output for one task too. classes: for
    segmentation; other tasks ignore it. checkpoint: a run's folder, whose trained network is
    returned; other arguments are ignored then. Raises UserError for options that conflict.
    """
    with _own_packages():
        from benchmark import create_model, load_model
        from benchmark.experiment.network import has_classes
        from models.predictor import DensePredictor

        if checkpoint is not None:
            return DensePredictor.of(load_model(checkpoint))
        model = create_model(
            decoder, backbone, task=task, pretrained=pretrained, backbone_args=backbone_args,
            classes=classes if has_classes(task) else None, in_channels=in_channels,
            width=width,
        )  # fmt: skip
        return DensePredictor.of(model).eval()
