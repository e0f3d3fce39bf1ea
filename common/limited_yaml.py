"""YAML that users write: plain values, which aliases cannot multiply without limit."""

from pathlib import Path
from typing import Any

import yaml

from common import limits
from common.limits import LimitError


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
