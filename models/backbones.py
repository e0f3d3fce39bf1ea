"""timm backbones as lists of feature maps: all that other modules know of a backbone.

MobileNet and EfficientNet families (the timm models whose ``forward_intermediates`` knows
``extra_blocks``) give every stage: stem, all block stages and, where there is one, the 1×1 head
convolution; MobileNetV2 has nine. All others give the last map of each stride.
"""

import copy
import functools
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from common.errors import DataError, UsageError, UserError, first_line
from common.registry import import_all, unknown_name
from models.weights import Wanted, load_weights, metadata_of

MIN_STRIDES = 4
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_FILES = "give a file of weights with --weights"
_MAPS = "the decoder takes the backbone's feature maps"
NOT_TAKEN = {
    "num_classes": "the classes are the data set's, and the network's head is the decoder's",
    "features_only": _MAPS,
    "feature_cls": _MAPS,
    "in_chans": "the channels are those of the data set's images",
    "pretrained": "use --pretrained",
    "model_name": "use --backbone",
    **dict.fromkeys(
        ("checkpoint_path", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay"), _FILES
    ),
}
"""Arguments of ``timm.create_model`` that other options decide, and what to do instead."""


@dataclass(frozen=True)
class FeatureSpec:
    """One feature map: its channels and its declared stride (input pixels per map pixel)."""

    channels: int
    stride: int


class Backbone(nn.Module):
    """A timm network that returns feature maps.

    Input: normalised images [B, ``in_channels``, H, W]; ``size_divisor`` must divide H and W, and
    where ``fixed_size`` is set, (H, W) must equal it. Output: one map [B, C_i, h_i, w_i] for each
    of ``features``, from the highest resolution to the lowest; a map at the input's own resolution
    (VGG) only with ``full_resolution``. ``note``: a line about the weights that it was given from a
    file, "" without one.
    """

    def __init__(
        self, net: nn.Module, staged: bool, in_channels: int = 3, full_resolution: bool = False
    ) -> None:
        super().__init__()
        self.net = net
        self.staged = staged
        self.in_channels = in_channels
        self.channels_last_maps = _is_channels_last(net)
        # a map at the input's own resolution costs most decoders more than it helps
        self.skip = 0 if staged or full_resolution else sum(s < 2 for s in _strides(net))
        self.fixed_size: tuple[int, int] | None = None
        self.size_divisor = 1
        self.features: tuple[FeatureSpec, ...] = ()
        self.note = ""

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.staged:
            final, maps = self.net.forward_intermediates(x, extra_blocks=True)  # type: ignore[operator]
            # with a head convolution the final map is one of its own, else the last block's
            return [*maps, final] if hasattr(self.net, "bn2") else list(maps)
        maps = self.net(x)[self.skip :]
        return [m.permute(0, 3, 1, 2) for m in maps] if self.channels_last_maps else list(maps)


@functools.cache
def _enter_variants() -> None:
    """Let timm know the models of ``models/variants/``."""
    import_all("models.variants")


def backbone_names(pattern: str = "") -> list[str]:
    """timm's model names that contain ``pattern``, a substring or a wildcard."""
    _enter_variants()
    wildcard = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    return list(timm.list_models(wildcard))


@functools.lru_cache(maxsize=1024)
def check_name(name: str) -> None:
    """Raises UsageError unless timm has the model ``name``, with its weight tag if it has one."""
    _enter_variants()
    model, _, tag = name.partition(".")
    if not timm.is_model(model):
        raise unknown_name("backbone", name, timm.list_models(), "python cli.py list backbones")
    tagged = timm.list_pretrained(f"{model}.*")
    if tag and name not in tagged:
        raise unknown_name("backbone", name, tagged, f"python cli.py list backbones {model}")


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raises UsageError for an argument of ``timm.create_model`` that another option decides."""
    for key, value in arguments.items():
        if key in NOT_TAKEN and (key, value) != ("in_chans", 3):  # 3 is what it is anyway
            raise UsageError(f"--backbone-arg {key}={value}: is not taken: {NOT_TAKEN[key]}")


def create_backbone(
    name: str,
    arguments: Mapping[str, Any] | None = None,
    weights: Path | None = None,
    pretrained: bool = False,
    in_channels: int = 3,
    weights_key: str | None = None,
    full_resolution: bool = False,
) -> Backbone:
    """The timm model ``name`` as a Backbone.

    arguments: passed to ``timm.create_model``. weights: a ``.safetensors`` or ``.pth`` file of
    this architecture, and weights_key: the entry or prefix in it, see ``load_weights``.
    pretrained: timm's own weights, from its hub. in_channels: of the images; where weights are of
    RGB images, their first convolution is adapted as timm does. full_resolution: give the map at
    the image's own resolution in place of the deepest one, whose layers are left out; of a backbone
    that has no such map (most) it changes nothing.

    Raises UsageError for an unknown name or argument and for single-scale models, DataError for
    weights that do not fit.
    """
    check_name(name)
    arguments = dict(arguments or {})
    check_arguments(arguments)
    inputs = {} if in_channels == 3 else {"in_chans": in_channels}
    full = _create(name, arguments, pretrained, num_classes=0, **inputs)
    staged = "extra_blocks" in inspect.signature(_intermediates(full)).parameters
    unused: tuple[str, ...] = ()
    if staged:
        net, tensors = full, {key: key for key in full.state_dict()}
        if not hasattr(full, "bn2"):  # MobileNetV3 convolves after pooling, for the classifier
            unused = ("conv_head", "norm_head")
    else:
        net = _create(name, arguments, False, features_only=True, **inputs)
        strides = _strides(net)
        if full_resolution and strides[0] < 2 and "out_indices" not in arguments:
            shallower = {"out_indices": tuple(range(len(strides) - 1))}
            net = _create(name, arguments, False, features_only=True, **shallower, **inputs)
        tensors = _names_in(full, net)
    backbone = Backbone(net, staged, in_channels, full_resolution)
    _probe(backbone, name, getattr(full, "pretrained_cfg", {}), arguments)
    if weights is not None:
        needed = [key for key in tensors.values() if key.partition(".")[0] not in unused]
        wanted = Wanted(name, full, needed, lambda: _on_meta(name, arguments), in_channels)
        backbone.note = load_weights(wanted, weights, weights_key)
    for module in filter(functools.partial(hasattr, full), unused):
        setattr(full, module, nn.Identity())
    if not staged:
        source = full.state_dict()
        net.load_state_dict({key: source[other] for key, other in tensors.items()}, strict=False)
    return backbone


def create_without_weights(
    name: str,
    arguments: Mapping[str, Any] | None = None,
    in_channels: int = 3,
    full_resolution: bool = False,
) -> Backbone:
    """The timm model ``name`` for counting: on the meta device, if timm can build it there.

    Arguments and errors as of ``create_backbone``.
    """
    options: Any = {"in_channels": in_channels, "full_resolution": full_resolution}
    try:
        with torch.device("meta"):
            return create_backbone(name, arguments, **options)
    except Exception:  # a model may compute with values as it is built; else this fails alike
        return create_backbone(name, arguments, **options)


def input_statistics(
    name: str, weights: Path | None, in_channels: int = 3
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of each input channel in 0…1: the weight file's own, else timm's for the model.

    Of other channels than RGB each has the mean over the three.

    Raises DataError for a ``.safetensors`` file that cannot be read or whose values are no numbers.
    """
    check_name(name)
    mean, std = _usual_statistics(name)
    if weights is not None and weights.suffix == ".safetensors":
        metadata = metadata_of(weights)
        mean = _numbers(weights, "mean", metadata.get("mean"), mean, in_channels)
        std = _numbers(weights, "std", metadata.get("std"), std, in_channels)
    return for_channels(mean, in_channels), for_channels(std, in_channels)


def for_channels(numbers: Sequence[float], in_channels: int) -> tuple[float, ...]:
    """``numbers``, one for each of ``in_channels`` or of RGB, whose mean others get."""
    if len(numbers) == in_channels:
        return tuple(numbers)
    return (sum(numbers) / len(numbers),) * in_channels


@functools.lru_cache(maxsize=1024)
def _usual_statistics(name: str) -> tuple[Any, Any]:
    config = timm.get_pretrained_cfg(name)
    mean = tuple(config.mean) if config else IMAGENET_MEAN
    std = tuple(config.std) if config else IMAGENET_STD
    return mean, std


def _numbers(
    path: Path, key: str, text: str | None, default: tuple[float, ...], in_channels: int
) -> tuple[float, ...]:
    """The numbers of a file's metadata: one, three or one for each of ``in_channels``."""
    if text is None:
        return default
    try:
        numbers = tuple(float(part) for part in text.strip("[]() ").split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3, in_channels):
        more = "" if in_channels == 3 else f", nor {in_channels}"
        raise DataError(
            f"{path}: {key} '{text}' in its metadata is neither one number nor three{more}"
        )
    return numbers * in_channels if len(numbers) == 1 else numbers


def _create(name: str, arguments: Mapping[str, Any], pretrained: bool, **kwargs: Any) -> nn.Module:
    def attempt(**more: Any) -> nn.Module:
        net: nn.Module = timm.create_model(
            name, pretrained=pretrained, **{**more, **arguments}, **kwargs
        )
        return net

    try:
        try:
            # lets Swin and its kin take other sizes than the one they were trained at
            return attempt(strict_img_size=False)
        except (TypeError, RuntimeError):  # most models know no such argument
            return attempt()
    except Exception as error:  # a wrong argument raises almost anything
        if pretrained and isinstance(error, (OSError, RuntimeError)):
            raise UserError(
                f"backbone {name}: its pretrained weights could not be had ({first_line(error)}); "
                "without network, give a file with --weights"
            ) from error
        if "in_chans" in kwargs and _takes(name, arguments, kwargs):
            raise UsageError(
                f"backbone {name} takes RGB images only, not {kwargs['in_chans']} channels: use "
                f"another one ({first_line(error)})"
            ) from error
        if arguments:
            arguments_text = " ".join(f"--backbone-arg {k}={v}" for k, v in arguments.items())
            raise UsageError(
                f"backbone {name} does not take {arguments_text}: {first_line(error)}"
            ) from error
        if kwargs.get("features_only"):
            raise UsageError(
                f"backbone {name} gives no feature maps in timm: {first_line(error)}"
            ) from error
        raise


def _takes(name: str, arguments: Mapping[str, Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether timm builds the model for RGB images."""
    rgb = {key: value for key, value in kwargs.items() if key != "in_chans"}
    try:
        _create(name, arguments, False, **rgb)
    except Exception:  # the arguments are wrong besides, which the caller tells
        return False
    return True


def _intermediates(net: nn.Module) -> Any:
    return getattr(net, "forward_intermediates", lambda x: x)


def _strides(features: nn.Module) -> list[int]:
    """Declared strides of all maps of a ``features_only`` model."""
    strides: list[int] = features.feature_info.reduction()  # type: ignore[union-attr,operator]
    return strides


def _is_channels_last(net: nn.Module) -> bool:
    output = getattr(net, "output_fmt", "NCHW")
    return bool(getattr(output, "value", output) == "NHWC")


def _on_meta(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The model with its classifier, without numbers."""
    with torch.device("meta"):
        return _create(name, arguments, False)


def _names_in(full: nn.Module, features: nn.Module) -> dict[str, str]:
    """The names of a ``features_only`` model's tensors, each with that in the whole model.

    timm renames on the way (``stages.0`` → ``stages_0``, or a prefix ``model.`` or ``body.``).
    """
    source = full.state_dict()
    flat = {key.replace(".", "_"): key for key in source}
    names = {}
    for key, tensor in features.state_dict().items():
        there = key.replace(".", "_")
        bare = there.removeprefix("model_").removeprefix("body_")
        other = flat.get(there, flat.get(bare))
        if other is not None and source[other].shape == tensor.shape:
            names[key] = other
        elif not key.endswith("num_batches_tracked"):
            raise DataError(f"timm's features of this backbone have {key}, the model has not")
    return names


@dataclass(frozen=True)
class _Geometry:
    """Facts of a backbone's architecture from forwards; they do not depend on its weights."""

    features: tuple[FeatureSpec, ...]
    size_divisor: int
    fixed_size: tuple[int, int] | None


_geometries: dict[str, _Geometry] = {}
"""By name and arguments: a run, a sweep or a table of decoders builds one backbone many times."""


def _probe(
    backbone: Backbone, name: str, config: Mapping[str, Any], arguments: Mapping[str, Any]
) -> None:
    """Set ``features``, ``size_divisor`` and ``fixed_size`` from forwards on the meta device."""
    facts = [name, arguments, backbone.in_channels, backbone.skip]
    key = json.dumps(facts, sort_keys=True, default=repr)
    if key not in _geometries:
        _geometries[key] = _geometry(backbone, name, config, arguments)
    geometry = _geometries[key]
    backbone.features, backbone.size_divisor = geometry.features, geometry.size_divisor
    backbone.fixed_size = geometry.fixed_size


def _geometry(
    backbone: Backbone, name: str, config: Mapping[str, Any], arguments: Mapping[str, Any]
) -> _Geometry:
    """Raises UsageError for a backbone that runs at no size or has too few strides."""
    twin = copy.deepcopy(backbone).to("meta").eval()

    def shapes(height: int, width: int) -> list[tuple[int, ...]] | None:
        with torch.no_grad():
            images = torch.empty(1, backbone.in_channels, height, width, device="meta")
            try:
                return [tuple(m.shape) for m in twin(images)]
            except (RuntimeError, AssertionError, ValueError):
                return None

    img_size = arguments.get("img_size")
    own = (img_size, img_size) if isinstance(img_size, int) else img_size
    own = tuple(own or tuple(config.get("input_size") or (3, 224, 224))[-2:])
    size: tuple[int, ...] = (256, 256)
    divisor, fixed = 1, None
    maps = shapes(256, 256)
    if maps is not None and shapes(160, 224) is not None:
        # 97×131 and 65×95 leave different remainders at every stride
        odd = shapes(97, 131) is not None and shapes(65, 95) is not None
        divisor = 1 if odd else 32
    else:
        size, maps = own, shapes(*own)
        if maps is None:
            on = "" if backbone.in_channels == 3 else f" on {backbone.in_channels} channels"
            tried = f"neither at 256×256 nor at {own[0]}×{own[1]}{on}"
            raise UsageError(f"backbone {name} runs {tried}")
        fixed = (own[0], own[1])
    if backbone.staged:
        strides: Sequence[int] = [round(size[0] / shape[2]) for shape in maps]
    else:
        strides = _strides(backbone.net)[backbone.skip :]
    distinct = sorted(set(strides))
    if len(distinct) < MIN_STRIDES:
        raise UsageError(
            f"backbone {name} is single-scale or nearly so: its maps have "
            f"stride {', '.join(map(str, distinct))} only, and the decoders need at least "
            f"{MIN_STRIDES} different strides; see python cli.py list backbones"
        )
    features = tuple(
        FeatureSpec(shape[1], stride) for shape, stride in zip(maps, strides, strict=True)
    )
    return _Geometry(features, divisor, fixed)
