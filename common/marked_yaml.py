"""YAML with the line number of every value."""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.errors import UsageError
from common.limited_yaml import WRONG, LimitedLoader, read_yaml_text
from common.limits import LimitError, printable

Place = tuple[Hashable, ...]
"""The keys and list indices that lead to a value."""


@dataclass(frozen=True)
class MarkedYaml:
    """The content of a YAML file. lines: number by the place of a key or list item."""

    path: Path
    content: Any
    lines: dict[Place, int]

    def where(self, place: Place) -> str:
        """``FILE:LINE`` of a place, or of the nearest one around it that the file has."""
        while place and place not in self.lines:
            place = place[:-1]
        return f"{self.path}:{self.lines.get(place, 1)}"


def read_marked_yaml(path: Path) -> MarkedYaml:
    """The one document of a YAML file.

    Raises UsageError that names file and line for text that is no YAML or exceeds the limits, and
    for a key that stands twice.
    """
    try:
        text = read_yaml_text(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be read ({reason})") from None
    try:
        loader = LimitedLoader(text)
        node = loader.get_single_node()
        if node is None:
            return MarkedYaml(path, None, {})
        _check_keys(path, node)
        content = loader.construct_document(node)
        lines: dict[Place, int] = {}
        _collect(loader, node, (), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        reason = printable(" ".join(filter(None, (error.context, error.problem))), 300)
        raise UsageError(f"{path}:{line}: not YAML: {reason}") from None
    except LimitError as error:
        raise UsageError(f"{path}: {error}: write less into one file") from None
    except WRONG as error:
        reason = printable(" ".join(str(error).split()), 300)
        raise UsageError(f"{path}: not YAML: {reason}") from None
    return MarkedYaml(path, content, lines)


def _check_keys(path: Path, node: yaml.Node) -> None:
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines:
                    raise UsageError(
                        f"{path}:{line}: {key.value}: stands in line {lines[key.value]} already: "
                        "keep one of them"
                    )
                lines[key.value] = line
            _check_keys(path, value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(path, item)


def _collect(
    loader: yaml.SafeLoader, node: yaml.Node, place: Place, lines: dict[Place, int]
) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, loader.construct_object(key, deep=True))
            lines[inner] = key.start_mark.line + 1
            _collect(loader, value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            inner = (*place, index)
            lines[inner] = item.start_mark.line + 1
            _collect(loader, item, inner, lines)
