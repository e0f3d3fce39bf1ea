"""timm backbones as lists of feature maps: all that other modules know of a backbone.

MobileNet and EfficientNet families (the timm models whose ``forward_intermediates`` knows
``extra_blocks``) give every stage: stem, all block stages and, where there is one, the 1×1 head
convolution; MobileNetV2 has nine. Others give the last map of each stride; those with fewer than
four strides (plain vision transformers have one) the outputs of their blocks or stages, resized
without parameters to the strides 4, 8, 16 and 32, or the last one's through a neck that learns.
"""

import contextlib
import functools
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from common.errors import DataError, UsageError, UserError, first_line
from common.registry import import_all, unknown_name
from models.feature_maps import Backbone as Backbone  # both are imported from here, too
from models.feature_maps import FeatureSpec as FeatureSpec
from models.feature_maps import Geometry, declared_strides, measure, remove
from models.neck import NECKS
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
    """Raises UsageError for an argument of another option, and for wrong ``depths`` or ``neck``."""
    depths = arguments.get("depths", 1)
    if isinstance(depths, bool) or not isinstance(depths, int) or depths < 1:
        raise UsageError(
            f"--backbone-arg depths={depths}: expected how many blocks' outputs are used, from 1"
        )
    if "neck" in arguments:
        _check_neck(arguments)
    for key, value in arguments.items():
        if key in NOT_TAKEN and (key, value) != ("in_chans", 3):  # 3 is what it is anyway
            raise UsageError(f"--backbone-arg {key}={value}: is not taken: {NOT_TAKEN[key]}")


def _check_neck(arguments: Mapping[str, Any]) -> None:
    neck = arguments["neck"]
    if not isinstance(neck, str) or neck not in NECKS:
        known = ", ".join(NECKS)
        raise UsageError(f"--backbone-arg neck={neck}: there is no such neck; there is {known}")
    for key in ("depths", "out_indices"):
        if key in arguments:
            raise UsageError(
                f"--backbone-arg {key}={arguments[key]}: is not taken with neck={neck}, which "
                "reads the last block only: leave one of them out"
            )


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

    arguments: passed to ``timm.create_model``, but for ``depths``: of how many blocks of a
    single-scale backbone, evenly spaced, the outputs are used (4), and ``neck``: one of ``NECKS``,
    which makes the maps from the last block's output. weights: a ``.safetensors`` or
    ``.pth`` file of this architecture, and weights_key: the entry or prefix in it, see
    ``load_weights``.
    pretrained: timm's own weights, from its hub. in_channels: of the images; where weights are of
    RGB images, their first convolution is adapted as timm does. full_resolution: give the map at
    the image's own resolution in place of the deepest one, whose layers are left out; of a backbone
    that has no such map (most) it changes nothing.

    Raises UsageError for an unknown name or argument and for models without maps, DataError for
    weights that do not fit.
    """
    check_name(name)
    arguments = dict(arguments or {})
    check_arguments(arguments)
    depths, neck = arguments.pop("depths", None), arguments.pop("neck", None)
    inputs = {} if in_channels == 3 else {"in_chans": in_channels}
    whole = {key: value for key, value in arguments.items() if key != "out_indices"}
    full = _create(name, whole, pretrained, num_classes=0, **inputs)
    staged = "extra_blocks" in inspect.signature(_intermediates(full)).parameters
    net = full if staged else _maps_of_strides(name, full, arguments, inputs, full_resolution)
    blocks = net is None
    net = full if net is None else net
    tensors = {key: key for key in full.state_dict()} if net is full else _names_in(full, net)
    backbone = Backbone(net, staged, blocks, in_channels, full_resolution)
    config = getattr(full, "pretrained_cfg", {})
    _measure(backbone, name, config, arguments, depths)
    if neck is not None:
        if backbone.how != "single-scale":
            raise UsageError(
                f"--backbone-arg neck={neck}: is not taken by backbone {name}, which has maps of "
                "several strides already: leave it out"
            )
        _measure(backbone, name, config, arguments, depths=1)
    unread = backbone.geometry.unread
    if weights is not None:
        idle = tuple(f"{module}." for module in unread)
        needed = [other for key, other in tensors.items() if not key.startswith(idle)]
        wanted = Wanted(name, full, needed, lambda: _on_meta(name, whole), in_channels)
        backbone.note = load_weights(wanted, weights, weights_key)
    if net is not full:
        source = full.state_dict()
        net.load_state_dict({key: source[other] for key, other in tensors.items()}, strict=False)
    remove(net, unread)
    if neck is not None:
        backbone.add_neck(neck)
    return backbone


def _maps_of_strides(
    name: str,
    full: nn.Module,
    arguments: Mapping[str, Any],
    inputs: Mapping[str, Any],
    full_resolution: bool,
) -> nn.Module | None:
    """timm's ``features_only`` model; None: it has few strides, and its blocks' outputs are taken.

    Raises UsageError for a model that has few strides and hands out nothing else.
    """
    # whoever dilates a network wants no coarser maps than it has
    by_blocks = hasattr(full, "forward_intermediates") and "output_stride" not in arguments
    declared = getattr(full, "feature_info", None)
    few = isinstance(declared, list) and len({f["reduction"] for f in declared}) < MIN_STRIDES
    if few and by_blocks:
        return None
    try:
        net = _create(name, arguments, False, features_only=True, **inputs)
    except UsageError:
        if by_blocks:
            return None
        raise
    strides = declared_strides(net)
    if full_resolution and strides[0] < 2 and "out_indices" not in arguments:
        shallower = {"out_indices": tuple(range(len(strides) - 1))}
        net = _create(name, arguments, False, features_only=True, **shallower, **inputs)
    distinct = sorted(set(declared_strides(net)))
    if len(distinct) >= MIN_STRIDES or "output_stride" in arguments:
        return net
    if by_blocks:
        return None
    raise UsageError(
        f"backbone {name}: its maps have stride {', '.join(map(str, distinct))} only, and timm "
        f"{timm.__version__} gives none of its blocks: use a newer timm (1.0.31 has them all)"
    )


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
        # lets plain transformers, or Swin and its kin, take other sizes than they were trained at
        for more in ({"dynamic_img_size": True}, {"strict_img_size": False}):
            with contextlib.suppress(TypeError, RuntimeError):  # most models know no such argument
                return attempt(**more)
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


_geometries: dict[str, Geometry] = {}
"""By name and arguments: a run, a sweep or a table of decoders builds one backbone many times."""


def _measure(
    backbone: Backbone,
    name: str,
    config: Mapping[str, Any],
    arguments: Mapping[str, Any],
    depths: int | None,
) -> None:
    """Set the geometry, and measure it once for each architecture."""
    facts = [name, arguments, depths, backbone.in_channels, backbone.skip]
    key = json.dumps(facts, sort_keys=True, default=repr)
    if key not in _geometries:
        measured = measure(backbone, name, config, arguments, depths)
        if "output_stride" in arguments:
            measured = replace(
                measured, features=_with_undilated(backbone, measured, name, arguments)
            )
        _geometries[key] = measured
    backbone.geometry = _geometries[key]


def _with_undilated(
    backbone: Backbone, measured: Geometry, name: str, arguments: Mapping[str, Any]
) -> tuple[FeatureSpec, ...]:
    """The features of a dilated backbone with the strides that they have undilated.

    Where ``out_indices`` leaves so few strides that the undilated backbone gives other maps, the
    dilated strides stay.
    """
    plain = {key: value for key, value in arguments.items() if key != "output_stride"}
    try:
        with torch.random.fork_rng(devices=[]):  # what is built next draws the same numbers
            twin = create_without_weights(
                name, plain, backbone.in_channels, backbone.full_resolution
            )
    except UsageError:
        return measured.features
    if twin.blocks or len(twin.features) != len(measured.features):
        return measured.features
    return tuple(
        replace(feature, undilated=other.stride)
        for feature, other in zip(measured.features, twin.features, strict=True)
    )
