"""Class names of a text file, with or without the values that stand for them."""

import re
from collections.abc import Sequence
from pathlib import Path

from common.errors import DataError
from common.limits import printable
from datasets.files import Line, read_list

FIRST = re.compile(r"(?P<value>\d{1,9})\s*[:,;=\s]\s*(?P<name>.+)")
LAST = re.compile(r"(?P<name>.+?)\s*[:,;=\t]\s*(?P<value>\d{1,9})")
LAST_BY_SPACE = re.compile(r"(?P<name>.+?) +(?P<value>\d{1,9})")
COLOUR = re.compile(r"(?<!\d)\d{1,3}([\s,;]+)\d{1,3}\1\d{1,3}(?!\d)")
REMEDY = "write VALUE NAME, or a name alone, in every line, or classes: into dataset.yaml itself"


def read_class_names(path: Path) -> list[str] | dict[int, str]:
    """Names in the order of the values 0, 1, …; or by value, if every line of the file has one.

    A value stands before its name, ``7 road``, ``7: road``, or behind it, ``road,7``. Raises
    DataError that names the line for what may be read in two ways, and for what stands twice.
    """
    lines = read_list(path, "write a class name in each line")
    # one sign between words: the expressions would take long over a thousand spaces
    lines = [Line(line.where, re.sub(r"\s+", _one_space, line.text)) for line in lines]
    for line in lines:
        if COLOUR.search(line.text):
            problem = f"'{printable(line.text, 80)}' seems to hold a colour"
            remedy = "write VALUE NAME, and the colours as palette: into dataset.yaml"
            raise DataError(f"{line.where}: {problem}: {remedy}")
    pairs = _pairs(lines)
    names = [line.text for line in lines] if pairs is None else [name for _, name in pairs]
    values = [] if pairs is None else [value for value, _ in pairs]
    for kind, entries in (("class", names), ("value", values)):
        seen: dict[object, Line] = {}
        for entry, line in zip(entries, lines, strict=False):
            if entry in seen:
                problem = (
                    f"the {kind} {printable(str(entry), 80)} stands in {seen[entry].where} too"
                )
                raise DataError(f"{line.where}: {problem}: keep one of the lines")
            seen[entry] = line
    return names if pairs is None else dict(pairs)


def _one_space(match: re.Match[str]) -> str:
    return "\t" if "\t" in match[0] else " "


def _pairs(lines: Sequence[Line]) -> list[tuple[int, str]] | None:
    """Value and name of each line; None if the lines are names alone."""
    for form in (FIRST, LAST, LAST_BY_SPACE):
        matches = [form.fullmatch(line.text) for line in lines]
        pairs = [(int(match["value"]), match["name"]) for match in matches if match]
        if len(pairs) == len(lines):
            if form is not LAST_BY_SPACE:
                _check_names(lines, [name for _, name in pairs])
            elif len({name for _, name in pairs}) < len(pairs):
                return None  # zone 1, zone 2
            elif [value for value, _ in pairs] != list(range(len(pairs))):
                problem = f"'{printable(lines[0].text, 80)}' may be a name, or a name and its value"
                raise DataError(f"{lines[0].where}: {problem}: {REMEDY}")
            return pairs
        if form is not LAST_BY_SPACE and 2 * len(pairs) > len(lines):
            line = lines[matches.index(None)]
            problem = f"'{printable(line.text, 80)}' has no value as most of the lines"
            raise DataError(f"{line.where}: {problem}: {REMEDY}")
    return None


def _check_names(lines: Sequence[Line], names: Sequence[str]) -> None:
    """Raises DataError where the ``names`` beside the values are, or hold, values again."""
    for form in (re.compile(r"\d+"), LAST):
        if all(form.fullmatch(name) for name in names):
            text = printable(lines[0].text, 80)
            raise DataError(f"{lines[0].where}: '{text}' holds two values: {REMEDY}")
