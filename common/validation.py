"""What is wrong with a value that a user gave, in words that say what is expected."""

import re
from collections.abc import Mapping
from typing import Any

NUMBERS = {
    "greater_than": ("gt", "expected a number above"),
    "greater_than_equal": ("ge", "expected at least"),
    "less_than": ("lt", "expected a number below"),
    "less_than_equal": ("le", "expected at most"),
}
KINDS = {
    "int": "expected a whole number",
    "float": "expected a number",
    "finite_number": "expected a finite number",
    "bool": "expected true or false",
    "string_type": "expected a text",
    "string_unicode": "expected a text",
    "tuple": "expected a list",
    "list": "expected a list",
    "dict": "expected KEY: VALUE pairs",
    "model": "expected KEY: VALUE pairs",
    "path": "expected a path",
    "missing": "is missing",
    "extra_forbidden": "unknown key",
}
"""By the beginning of pydantic's types of errors."""


def message_of(error: Mapping[str, Any]) -> str:
    """What is expected in place of the value of an entry of pydantic's ``errors()``."""
    kind, context = str(error["type"]), error.get("ctx", {})
    if kind == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    if kind in NUMBERS:
        bound, text = NUMBERS[kind]
        return f"{text} {str(context[bound]).removesuffix('.0')}"
    if kind == "literal_error":
        return f"expected {str(context['expected']).replace(chr(39), '')}"
    if kind == "too_short":
        return f"has {context['actual_length']} values, expected at least {context['min_length']}"
    if kind == "too_long":
        return f"has more values than {context['max_length']}, which are expected"
    if kind == "missing" and isinstance(error["input"], list | tuple):
        return f"has {len(error['input'])} values, expected more"
    start = next((start for start in KINDS if kind.startswith(start)), None)
    return KINDS[start] if start else str(error["msg"])


def size_of(value: Any) -> Any:
    """(height, width) of ``HxW``, of a number for a square, or of two numbers. None stays.

    Raises ValueError for anything else.
    """
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,9})(?:[x×](\d{1,9}))?", str(value).lower().replace(" ", ""))
    if match and isinstance(value, int | str):
        return int(match[1]), int(match[2] or match[1])
    if isinstance(value, list | tuple) and [type(side) for side in value] == [int, int]:
        return tuple(value)
    raise ValueError("write HxW, as in 240x320, or one number for a square")
