"""YAML that users write: plain values, which aliases cannot multiply without limit."""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from common import limits
from common.limits import LimitError, printable


class LimitedLoader(yaml.SafeLoader):
    """PyYAML's safe loader with limits on nesting, on nodes, and on what aliases multiply.

    A node counts again for each alias of it. Raises LimitError.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = self._nodes = 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        anchor, before = getattr(event, "anchor", None), self._nodes
        line = f"line {event.start_mark.line + 1}: "
        if isinstance(event, yaml.AliasEvent):
            if anchor in self.anchors and anchor not in self._sizes:
                raise LimitError(f"{line}*{anchor} stands within what it stands for")
            self._nodes += self._sizes.get(str(anchor), 0)
        self._nodes += 1
        self._depth += 1
        if self._depth > limits.YAML_DEPTH:
            raise LimitError(f"{line}more than {limits.YAML_DEPTH} levels of lists and mappings")
        if self._nodes > limits.YAML_NODES:
            raise LimitError(f"{line}more than {limits.YAML_NODES} values, aliases written out")
        node = super().compose_node(parent, index)
        if anchor is not None and not isinstance(event, yaml.AliasEvent):
            self._sizes[anchor] = self._nodes - before
        self._depth -= 1
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number. Raises LimitError for one of more than 19 digits."""
        # also as 0x, 0b and 1:30; Python refuses texts of more than 4,300 digits
        if len(node.value) <= 200:
            value = int(super().construct_yaml_int(node))
            if abs(value) < limits.INTEGER:
                return value
        line = node.start_mark.line + 1
        raise LimitError(f"line {line}: a whole number of more than 19 digits")


LimitedLoader.add_constructor("tag:yaml.org,2002:int", LimitedLoader.construct_yaml_int)
# YAML 1.2: a number needs no point before its exponent, and a date is a text, as in JSON
LimitedLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
LimitedLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in LimitedLoader.yaml_implicit_resolvers.items()
}


WRONG = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError)
"""What PyYAML raises for an invalid document; a value that does not fit its tag raises any."""


def read_yaml_text(path: Path) -> str:
    """The text of a YAML file.

    Raises OSError, LimitError for a file that is too large, and ValueError for one that is no UTF-8
    text.
    """
    try:
        return limits.read_bytes(path, limits.YAML).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None


def parse_value(text: str) -> Any:
    """The value that a KEY=VALUE option gives: a number, true, null, [a, b], {a: 1} or a text.

    Raises ValueError for what is no YAML and for what JSON cannot hold.
    """
    try:
        value = yaml.load(text, LimitedLoader)
    except (yaml.YAMLError, *WRONG) as error:
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ValueError(
            f"not a value ({printable(problem, 200)}): put a text in quotes, as in '\"a: b\"'"
        ) from None
    check_json(value)
    return value


def check_json(value: Any) -> None:
    """Raises ValueError for a value, or one within it, that JSON cannot hold."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is no text: put it in quotes")
            check_json(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_json(inner)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
    elif not isinstance(value, str | bool | int | None):
        raise ValueError(
            f"a {type(value).__name__} cannot be kept in a result: give numbers, texts, true, "
            "false, null, lists or mappings"
        )
