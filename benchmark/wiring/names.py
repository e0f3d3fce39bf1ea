"""Wirings of the command line: load them, transfer them to a backbone, describe them."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import UsageError
from models.backbones import FeatureSpec, create_without_weights
from models.connectivity import (
    ARCHITECTURES,
    Connectivity,
    Transfer,
    find,
    is_preset,
    preset,
)


def load_wiring(text: str) -> Connectivity:
    """The wiring of preset ``text``, on MobileNetV2's nine features, or of file ``text``.

    Raises UsageError if it is neither, or the file holds no connectivity.
    """
    if not is_preset(text):
        return Connectivity.load(Path(text).expanduser())
    home = Connectivity.load(ARCHITECTURES / "sparsemask-voc2012.json")
    wiring = preset(text, home.strides)
    return replace(wiring, name=text, backbone=home.backbone)


def carry(source: Connectivity, backbone: str, arguments: Mapping[str, Any]) -> Transfer:
    """``source`` transferred to the timm model ``backbone``; its origin records the source.

    blocks there: of a single-scale backbone, the number of the block that each feature comes from.
    Raises UsageError for an unknown backbone and for wrong ``arguments``.
    """
    features = create_without_weights(backbone, arguments).features
    carried = source.onto(features, backbone)
    blocks = [f.depth for f in features if f.depth]
    origin = {
        "source": "transferred by stride",
        "from": {"name": source.name, "backbone": source.backbone, "strides": list(source.strides)},
        **({"backbone_args": dict(arguments)} if arguments else {}),
        **({"blocks": blocks} if blocks else {}),
        **({"origin": dict(source.origin)} if source.origin else {}),
    }
    return replace(carried, wiring=replace(carried.wiring, origin=origin))


def matches(source: Connectivity, carried: Transfer) -> list[list[str]]:
    """A row for each source feature: its name, stride, counterpart, and a remark."""
    rows = []
    blocks = carried.wiring.origin.get("blocks", ())
    for index, stride in enumerate(source.strides, 1):
        target = carried.partner.get(index)
        if target is None:
            rows.append([f"E{index}", str(stride), "–", f"no feature of stride {stride}"])
            continue
        sharing = sorted(i for i, t in carried.partner.items() if t == target and i != index)
        remark = f"folded with {', '.join(f'E{i}' for i in sharing)}" if sharing else ""
        block = f" (block {blocks[target - 1]})" if blocks else ""
        rows.append([f"E{index}", str(stride), f"E{target}{block}", remark])
    return rows


def transfer_lines(source: Connectivity, carried: Transfer) -> Iterator[str]:
    """Lines on renamed, folded and dropped stages and connections, then the new wiring."""
    targets = {stage: 1 if stage == 1 else carried.partner.get(stage) for stage in source.stages}
    for stage, target in sorted(targets.items(), reverse=True):
        if target is None:
            yield f"D{stage} dropped: no feature of stride {source.strides[stage - 1]}"
        elif target not in carried.wiring.stages:
            yield f"D{stage} dropped: nothing reaches D1 through D{target}"
        elif target != stage or list(targets.values()).count(target) > 1:
            yield f"D{stage} → D{target}"
    by_image: dict[Any, list[str]] = {}
    for connection, image in carried.moved.items():
        by_image.setdefault(image, []).append(arrow(*connection))
    for image, names in by_image.items():
        if len(names) > 1:
            yield f"folded into {arrow(*image)}: {', '.join(names)}"
    reasons = itertools.groupby(
        sorted(carried.lost.items(), key=lambda item: (item[1], -item[0][0])), lambda item: item[1]
    )
    for reason, connections in reasons:
        yield f"dropped, {reason}: {', '.join(arrow(*c) for c, _ in connections)}"
    if not carried.moved:
        yield f"nothing is left: D1 takes the deepest feature, E{len(carried.wiring.strides)}"
    yield ""
    yield from lines(carried.wiring)
    yield f"connections: {source.connections} before, {carried.wiring.connections} after"


def arrow(stage: int, source: str) -> str:
    """A connection as text: ``D1 ← E5``."""
    return f"D{stage} ← {source}"


def lines(wiring: Connectivity) -> list[str]:
    """A line ``D1 ← E5, G`` for each stage, the deepest first."""
    return [f"D{s} ← {', '.join(i)}" for s, i in sorted(wiring.stages.items(), reverse=True)]


def on_backbone(text: str, backbone: str) -> tuple[Connectivity, tuple[FeatureSpec, ...]]:
    """The wiring ``text`` on the timm model ``backbone``, and the backbone's features.

    Raises UsageError as ``load_wiring`` and ``carry`` do.
    """
    features = create_without_weights(backbone).features
    wiring = find(text, [f.undilated for f in features])
    name = text if is_preset(text) else wiring.name
    return replace(wiring, name=name, backbone=backbone), features


def features_of(wiring: Connectivity) -> tuple[FeatureSpec, ...] | None:
    """Features of a wiring's own backbone; None if timm has none of that name and strides.

    Strides are those that they have undilated, in files of before also those of a dilated backbone.
    """
    try:
        features = create_without_weights(wiring.backbone, _arguments(wiring)).features
    except UsageError:
        return None
    known = [tuple(f.undilated for f in features), tuple(f.stride for f in features)]
    return features if wiring.strides in known else None


def _arguments(wiring: Connectivity) -> Mapping[str, Any] | None:
    """What the wiring's file says of its backbone's arguments."""
    arguments = wiring.origin.get("backbone_args")
    return arguments if isinstance(arguments, dict) else None
