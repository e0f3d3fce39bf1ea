"""Networks for ``torch.hub.load("PATH/OF/THIS/CHECKOUT", "create_model", …, source="local")``.

The entry points are names of ``benchmark``, and ``sparsemask``, which returns logits by task.
torch.hub lists every callable in this file as an entry point, hence ``import`` of modules only.
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
    return [str(pathlib.Path(place).parent) for place in places] == [ROOT]


def create_model(*arguments: typing.Any, **options: typing.Any) -> torch.nn.Module:
    """``create_model(decoder, backbone, task=…, classes=…, pretrained=…)``: a new network.

    Images [B, 3, H, W], RGB in 0…1 → logits [B, channels, H, W]; of several tasks (``a+b``) logits
    by name. All options and errors: ``benchmark.create_model``.
    """
    with _own_packages():
        from benchmark import create_model

        return create_model(*arguments, **options)


def load_model(run: str) -> torch.nn.Module:
    """The trained network in a run's folder, in eval mode; see ``benchmark.load_model``."""
    with _own_packages():
        from benchmark import load_model

        return load_model(run)


def create_decoder(*arguments: typing.Any, **options: typing.Any) -> torch.nn.Module:
    """``create_decoder(name, features)``: a decoder for the maps of an encoder of your own.

    features: (channels, stride) of each map. More: ``benchmark.create_decoder``.
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
) -> torch.nn.Module:
    """A network in eval mode: images [B, 3, H, W], RGB in 0…1 → logits [B, C, H, W] by task.

    ``create_model``'s network, of one task too as a dictionary. classes: of a segmentation; other
    tasks ignore it. checkpoint: a run's folder, whose trained network is returned; the run says the
    rest. Raises UserError for what does not fit together.
    """
    with _own_packages():
        from benchmark import create_model, load_model
        from benchmark.experiment.network import has_classes
        from models.predictor import DensePredictor

        if checkpoint is not None:
            return DensePredictor.of(load_model(checkpoint))
        model = create_model(
            decoder, backbone, task=task, pretrained=pretrained, backbone_args=backbone_args,
            classes=classes if has_classes(task) else None,
        )  # fmt: skip
        return DensePredictor.of(model).eval()
