"""Wirings named on the command line: read, carried to a backbone, told in words."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import UsageError
from common.limits import RESULT, printable, read_bytes
from models.backbones import FeatureSpec, create_without_weights
from models.connectivity import (
    ARCHITECTURES,
    MOST_FEATURES,
    Connection,
    Connectivity,
    Transfer,
    candidates,
    find,
    is_preset,
    preset,
)

SEARCH, FOUND = "search.json", "found.json"


def named(text: str) -> Connectivity:
    """The wiring that ``text`` names: a preset on MobileNetV2's nine features, or a file's.

    Raises UsageError for what is neither and for a file that is no connectivity.
    """
    if not is_preset(text):
        return Connectivity.load(Path(text).expanduser())
    home = Connectivity.load(ARCHITECTURES / "sparsemask-voc2012.json")
    found = preset(text, home.strides)
    return replace(found, name=text, backbone=home.backbone)


Step = Annotated[int, Field(ge=0, le=10**12)]
Weight = Annotated[float, Field(ge=0, le=1)]


class SearchConnection(BaseModel):
    """An input that a search may give to a stage."""

    stage: int
    source: str


class Search(BaseModel):
    """The record of a search, ``search.json``: what pruning and pictures need, and all the rest.

    weights: w/2 in 0…1 of every one of ``connections``, a row for each of ``iterations``; final:
    the last ones. inputs: of each stage, with MaskConnect.
    """

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")

    format: Literal[1]
    method: str
    task: str
    dataset: str
    config: dict[str, Any]
    inputs: int | None = None
    merge: bool = True
    absorb: bool = True
    backbone: str
    strides: tuple[int, ...] = Field(max_length=MOST_FEATURES)
    threshold: float = Field(ge=0, lt=1)
    connections: list[SearchConnection] = Field(min_length=1)
    iterations: list[Step] = Field(min_length=1)
    weights: list[list[Weight]]
    final: list[Weight]

    @property
    def pairs(self) -> list[Connection]:
        """The connections as the wiring has them."""
        return [(c.stage, c.source) for c in self.connections]

    @model_validator(mode="after")
    def _check(self) -> "Search":
        count = len(self.strides)
        for stage, source in self.pairs:
            if not 1 <= stage <= count or source not in candidates(stage, count):
                raise ValueError(f"{arrow(stage, source)} cannot be with {count} features")
        if len(set(self.pairs)) < len(self.pairs):
            raise ValueError("a connection stands twice")
        if len(self.weights) != len(self.iterations):
            rows, logged = len(self.weights), len(self.iterations)
            raise ValueError(f"{rows} rows of weights for {logged} iterations")
        for row in (*self.weights, self.final):
            if len(row) != len(self.connections):
                raise ValueError(f"{len(row)} weights for {len(self.connections)} connections")
        return self


def read_search(folder: Path) -> Search:
    """The record in a search folder. Raises UsageError that names the file and what is wrong."""
    path = folder / SEARCH
    try:
        return Search.model_validate_json(read_bytes(path, RESULT))
    except FileNotFoundError:
        raise UsageError(f"{path}: not there: name the folder that a search wrote") from None
    except (OSError, ValueError) as error:  # of the limits, or of pydantic
        seen = printable(_told(error), 200)
        raise UsageError(f"{path}: not the record of a search ({seen})") from error


def load_search(folder: Path) -> tuple[Connectivity, Search]:
    """The found wiring and the record of a search folder.

    Raises UsageError that names the file which is missing, damaged or of another search.
    """
    search = read_search(folder)
    found = Connectivity.load(folder / FOUND)
    if found.strides != search.strides:
        raise UsageError(f"{folder}: found.json and search.json have other strides")
    return found, search


def _told(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"].removeprefix("Value error, ")


def carry(source: Connectivity, backbone: str, arguments: Mapping[str, Any]) -> Transfer:
    """``source`` on the timm model ``backbone``; its origin says where it came from.

    Raises UsageError for an unknown or a single-scale backbone and for wrong arguments.
    """
    strides = [f.stride for f in create_without_weights(backbone, arguments).features]
    carried = source.carried(strides, backbone)
    origin = {
        "source": "transferred by stride",
        "from": {"name": source.name, "backbone": source.backbone, "strides": list(source.strides)},
        **({"backbone_args": dict(arguments)} if arguments else {}),
        **({"origin": dict(source.origin)} if source.origin else {}),
    }
    return replace(carried, wiring=replace(carried.wiring, origin=origin))


def matches(source: Connectivity, carried: Transfer) -> list[list[str]]:
    """A row for each feature of the source: it, its stride, what stands for it, a remark."""
    rows = []
    for index, stride in enumerate(source.strides, 1):
        target = carried.partner.get(index)
        if target is None:
            rows.append([f"E{index}", str(stride), "–", f"no feature of stride {stride}"])
            continue
        sharing = sorted(i for i, t in carried.partner.items() if t == target and i != index)
        remark = f"folded with {', '.join(f'E{i}' for i in sharing)}" if sharing else ""
        rows.append([f"E{index}", str(stride), f"E{target}", remark])
    return rows


def told(source: Connectivity, carried: Transfer) -> Iterator[str]:
    """Lines that tell what became of stages and connections, then the wiring itself."""
    became = {stage: 1 if stage == 1 else carried.partner.get(stage) for stage in source.stages}
    for stage, target in sorted(became.items(), reverse=True):
        if target is None:
            yield f"D{stage} dropped: no feature of stride {source.strides[stage - 1]}"
        elif target not in carried.wiring.stages:
            yield f"D{stage} dropped: nothing reaches D1 through D{target}"
        elif target != stage or list(became.values()).count(target) > 1:
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
    """One connection in words."""
    return f"D{stage} ← {source}"


def lines(wiring: Connectivity) -> list[str]:
    """A line ``D1 ← E5, G`` for each stage, the deepest first."""
    return [f"D{s} ← {', '.join(i)}" for s, i in sorted(wiring.stages.items(), reverse=True)]


def on_backbone(text: str, backbone: str) -> tuple[Connectivity, tuple[FeatureSpec, ...]]:
    """The wiring that ``text`` names on the timm model ``backbone``, and its features.

    Raises UsageError as ``named`` and ``carry`` do.
    """
    features = create_without_weights(backbone).features
    found = find(text, [f.stride for f in features])
    name = text if is_preset(text) else found.name
    return replace(found, name=name, backbone=backbone), features


def features_of(wiring: Connectivity) -> tuple[FeatureSpec, ...] | None:
    """The features of a wiring's own backbone; None if timm has none of that name and strides."""
    try:
        features = create_without_weights(wiring.backbone).features
    except UsageError:
        return None
    return features if tuple(f.stride for f in features) == wiring.strides else None
