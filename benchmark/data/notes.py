"""Remarks about files, one for each cause: a thousand missing files are one line."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from common.words import count_of
from datasets.labels import LabelError, outside


@dataclass
class _Group:
    where: str
    cause: str
    alike: bool = True
    places: set[str] = field(default_factory=set)
    labels: dict[int, "_Label"] = field(default_factory=dict)
    known: str = ""


@dataclass
class _Label:
    first: str
    files: int = 0
    pixels: int = 0

    def __str__(self) -> str:
        pixels, files = count_of(self.pixels, "pixel"), count_of(self.files, "file")
        return f"{pixels} of {files}, first {self.first}"


class Notes:
    """Remarks of the form ``where: cause``, in the order in which their causes came up.

    root: the data set's folder. Causes are one if they differ only in numbers and in files below
    it.
    """

    def __init__(self, root: Path | None) -> None:
        below = rf"{re.escape(str(root))}/[^:()]*|" if root is not None else ""
        self._varies = re.compile(below + r"\S*/\S*|-?\d+(\.\d+)?")
        self._groups: dict[tuple[str, str], _Group] = {}

    def add(self, where: str, cause: str, kind: str | None = None) -> None:
        """Note ``cause`` at ``where``: a file, a line of a list, or a sample ``split: name``.

        kind: what makes causes one, if not their text.
        """
        key = _noun(where), kind or self._varies.sub("#", cause)
        group = self._groups.setdefault(key, _Group(where, cause))
        group.alike &= cause == group.cause
        group.places.add(where)

    def add_error(self, error: Exception) -> None:
        """Note an error of the text ``where: cause``; of labels that are no class, each."""
        where, separator, cause = str(error).partition(": ")
        if isinstance(error, LabelError):
            self.add(where, cause, f"labels outside {error.known}")
            group = self._groups["files", f"labels outside {error.known}"]
            group.known = error.known
            for label, pixels in error.counts.items():
                of = group.labels.setdefault(label, _Label(where))
                of.files, of.pixels = of.files + 1, of.pixels + pixels
        elif separator:
            self.add(where, cause)
        else:
            self.add_alone(where)

    def add_alone(self, text: str) -> None:
        """Note what is not about one file or sample."""
        self._groups[("", text)] = _Group("", text, places={""})

    def texts(self) -> list[str]:
        """A text for each cause: ``77 files: cause, first where``."""
        return [_text(noun, group) for (noun, _), group in self._groups.items()]


def _noun(where: str) -> str:
    if re.search(r":\d+$", where):
        return "lines"
    return "samples" if ": " in where else "files"


def _text(noun: str, group: _Group) -> str:
    alone = f"{group.where}: {group.cause}" if group.where else group.cause
    count = len(group.places)
    if count == 1:
        return alone
    if group.labels:
        labels = {label: str(of) for label, of in sorted(group.labels.items())}
        return f"{count} {noun}: {outside(labels, group.known)}"
    if group.alike:
        return f"{count} {noun}: {group.cause}, first {group.where}"
    return f"{count} {noun}, first {alone}"
