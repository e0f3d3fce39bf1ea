"""What is known of timm's models before one is built."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from torch import nn

from common.errors import UsageError
from models.backbones import backbone_names, check_name, create_without_weights

TABLE = Path(__file__).parent / "timm_backbones.json"
"""Measured for all models by ``python -m tests.studies.all_backbones``."""
FEW = 20
"""Models that are not in the table and are measured while somebody waits."""


def backbone_facts(pattern: str = "") -> list[dict[str, Any]]:
    """timm's models whose name contains ``pattern``, a substring or a wildcard, each a mapping.

    usable: whether it makes a backbone; None: not measured. how: "stages", "strides", "short
    pyramid" or "single-scale", see ``Backbone``. strides: of its features; blocks: of a
    single-scale one, the blocks that they come from. params: of what is used. image_size: the only
    one that it takes, None: any. reason: why it is not usable. licence, weights: of timm's
    pretrained weights and where they are downloaded from; None: it has none.
    """
    names = backbone_names(pattern)
    missing = [name for name in names if name not in _table()]
    measured = {name: measured_facts(name) for name in missing} if len(missing) <= FEW else {}
    rows = []
    for name in names:
        facts = _table().get(name) or measured.get(name) or {"usable": None}
        rows.append({"name": name, **facts, **weights_facts(name)})
    return rows


@functools.cache
def _table() -> dict[str, Any]:
    models: dict[str, Any] = json.loads(TABLE.read_bytes())["models"]
    return models


def measured_facts(name: str) -> dict[str, Any]:
    """The facts of one model that need it built, on the meta device."""
    family = timm.model_entrypoint(name).__module__.rpartition(".")[2]
    try:
        backbone = create_without_weights(name)
    except UsageError as error:
        return {"family": family, "usable": False, "reason": str(error)}
    size = backbone.fixed_size
    return {
        "family": family,
        "usable": True,
        "how": backbone.how,
        "strides": [feature.stride for feature in backbone.features],
        "blocks": [feature.depth for feature in backbone.features if feature.depth],
        "params": count(backbone),
        "image_size": None if size is None else list(size),
    }


def for_size(
    name: str, arguments: Mapping[str, Any], size: tuple[int, int], in_channels: int = 3
) -> dict[str, Any]:
    """``arguments`` of the model ``name``, with ``img_size`` where images of ``size`` need it.

    That is where it takes one size only, another one, and ``img_size`` gives it this one. Where
    that does not help they stay, and the network's ``check_size`` says so. Raises UsageError for
    an unknown name and for arguments that the model does not take.
    """
    check_name(name)
    model = name.partition(".")[0]
    known = _table().get(model, {"usable": None})
    fixed = known.get("image_size")
    if "img_size" in arguments or (known["usable"] and fixed in (None, list(size))):
        return dict(arguments)
    if known["usable"] is None and _fixed(name, json.dumps(arguments), in_channels) in (None, size):
        return dict(arguments)
    sized = {**arguments, "img_size": list(size)}
    try:
        taken = _fixed(name, json.dumps(sized), in_channels) in (None, size)
    except UsageError:
        return dict(arguments)
    return sized if taken else dict(arguments)


@functools.lru_cache(maxsize=256)
def _fixed(name: str, arguments: str, in_channels: int) -> tuple[int, int] | None:
    return create_without_weights(name, json.loads(arguments), in_channels).fixed_size


def count(module: nn.Module) -> int:
    """Numbers in the parameters."""
    return sum(p.numel() for p in module.parameters())


def weights_facts(name: str) -> dict[str, Any]:
    """Licence and source of timm's default weights of a model."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        return {"licence": None, "weights": None}
    hub = config.hf_hub_id and f"hf-hub:{config.hf_hub_id}"
    return {"licence": config.license, "weights": hub or config.url or config.file}
