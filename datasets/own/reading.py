"""Reading ``dataset.yaml``; what is wrong in it is named with its line and a near match."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from common.errors import DataError, UsageError
from common.limits import printable
from common.marked_yaml import MarkedYaml, Place, read_marked_yaml
from common.registry import nearest
from common.validation import message_of
from datasets.own.class_names import read_class_names
from datasets.own.description import (
    FILE,
    Bands,
    Depth,
    Description,
    Edges,
    Part,
    Saliency,
    Segmentation,
    Splits,
    Targets,
)
from datasets.own.patterns import check_pattern


def read_description(root: Path) -> Description:
    """The description of the folder ``root``.

    Raises UsageError that names file, line, key, value and near match for what is wrong in it, and
    DataError where the folder has none.
    """
    path = root / FILE
    try:
        status = path.stat()
    except (OSError, ValueError):
        remedy = f"python cli.py data init {root} writes one"
        raise DataError(f"{path}: the description is missing: {remedy}") from None
    return _read(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=64)
def _read(path: Path, changed: int, size: int) -> Description:  # noqa: ARG001
    """changed, size: so that an edited file is read again."""
    try:
        marked = read_marked_yaml(path)
    except UsageError as error:
        if "alias" in str(error):  # YAML's own meaning of *
            raise UsageError(f"{error}: put a pattern that begins with * in quotes") from None
        raise
    content = marked.content
    if not isinstance(content, Mapping):
        raise UsageError(f"{path}: holds no keys: write name:, images: and targets:")
    return validated(marked, _with_class_names(marked, content))


def validated(marked: MarkedYaml, content: Mapping[Any, Any]) -> Description:
    """``content`` checked; errors name the line of ``marked``. Raises UsageError."""
    try:
        return Description.model_validate(content)
    except ValidationError as error:
        # an unknown key is often why a known one is missing
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        raise UsageError(_explained(marked, first)) from None


def _explained(marked: MarkedYaml, error: Any) -> str:
    place: Place = tuple(error["loc"])
    # pydantic names the member of a union behind the key
    missing = error["type"] == "missing" and isinstance(error["input"], Mapping)
    while place and place not in marked.lines and not missing:
        place = place[:-1]
    key = ".".join(map(str, place))
    where = f"{marked.where(place)}: {key}" if key else str(marked.path)
    if error["type"] == "extra_forbidden":
        known = _keys_around(place)
        name = str(place[-1])
        if close := nearest(name, known, 1):
            return f"{where}: unknown key: did you mean {close[0]}?"
        if any(character in name for character in "*/"):
            return f"{where}: unknown key: write several patterns as a list, [a/*.png, b/*.png]"
        return f"{where}: unknown key: expected one of {', '.join(known)}"
    message = message_of(error)
    if missing:
        return f"{where}: {message}: write it"
    if error["type"] == "string_type":
        message += ", put it in quotes"
    if isinstance(error["input"], Mapping | BaseModel):
        return f"{where}: {message}"
    return f"{where}: {message} (got {printable(repr(error['input']), 200)})"


def _keys_around(place: Place) -> list[str]:
    """The keys that may stand beside the last one of ``place``."""
    kinds: dict[Place, type[Part]] = {
        (): Description,
        ("targets",): Targets,
        ("targets", "segmentation"): Segmentation,
        ("targets", "depth"): Depth,
        ("targets", "saliency"): Saliency,
        ("targets", "edges"): Edges,
        ("splits",): Splits,
        ("bands",): Bands,
    }
    return [key for key in kinds[place[:-1]].model_fields if key != "ids"]


def _with_class_names(marked: MarkedYaml, content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """``content`` with the lines of a file of class names in the file's place."""
    place = ("targets", "segmentation", "classes")
    targets = content.get("targets")
    targets = targets if isinstance(targets, Mapping) else {}
    labels = targets.get("segmentation")
    labels = labels if isinstance(labels, Mapping) else {}
    file = labels.get("classes")
    if not isinstance(file, str):
        return content
    where = f"{marked.where(place)}: {'.'.join(place)}"
    try:
        check_pattern(file)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None
    try:
        classes = read_class_names(marked.path.parent / file)
    except DataError as error:
        raise UsageError(f"{where}: {error}") from None
    return {**content, "targets": {**targets, "segmentation": {**labels, "classes": classes}}}
