"""Patterns of file names, and the files of a folder that match them, paired by name."""

import functools
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from common.errors import DataError
from common.limits import printable

MOST_WILDCARDS = 6
"""Of a pattern; with many, matching a long name takes very long."""
MOST_CHOICES = 4
PARTS = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]"  # a character, a class of them: as good as any letter
    r"|\((?:\?[<>:=!Pa-zA-Z-]*)?|\)|\|"
    r"|(?P<many>(?:[*+]|\{\d*,\})[?+]?)|\{(?:\d*,)?(?P<times>\d+)\}[?+]?|(?P<few>\?[?+]?)",
    re.DOTALL,
)
"""The parts of a regular expression that matter for how long it takes."""
WILDCARDS = re.compile(r"\*\*/|\*|\?|\[[^\]/]+\]")


def check_pattern(text: str) -> str:
    """``text`` unchanged. Raises ValueError unless it stays in the folder."""
    path = PurePosixPath(text)
    if not text or path.is_absolute() or ".." in path.parts or "\\" in text or "\0" in text:
        raise ValueError("write a path relative to the folder, with / between, and without ..")
    if "{" in text:
        raise ValueError("write a list, [a/*.jpg, a/*.png], in place of braces")
    try:
        count = wildcards(text)
    except re.error as error:  # of [z-a]
        raise ValueError(f"no pattern: {error}") from None
    if count > MOST_WILDCARDS:
        raise ValueError(f"{count} wildcards, at most {MOST_WILDCARDS} are possible")
    return text


def check_expression(text: str) -> str:
    """``text`` unchanged. Raises ValueError unless it is a regular expression that ends soon.

    A repeated group that repeats or chooses inside, ``(a+)+``, tries exponentially many ways on a
    name of some 30 characters, and Python's matching cannot be interrupted.
    """
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"no regular expression: {error}") from None
    if _choices(text) > MOST_CHOICES:
        raise ValueError(
            f"may take too long: repeat at most {MOST_CHOICES} times without limit, with * or +, "
            "and no group that repeats or chooses inside"
        )
    return text


def _choices(text: str) -> float:
    """The number of repeats without limit; a repeated group counts as often as it is repeated."""
    counts, last, end = [0.0], 0.0, 0
    for match in PARTS.finditer(text):
        part = match[0]
        if last and match.start() != end:
            last = 0.0
        end = match.end()
        if part[0] == "(":
            counts.append(0.0)
        elif part == ")":
            last = counts.pop() if len(counts) > 1 else 0.0
            counts[-1] += last
            continue
        elif part == "|" or match["few"]:
            counts[-1] += 0.25
        elif match["times"]:
            counts[-1] += last * (int(match["times"]) - 1)
        elif match["many"]:
            counts[-1] += math.inf if last else 1.0
        last = 0.0
    return sum(counts)


@functools.cache
def compiled(pattern: str) -> re.Pattern[str]:
    """A regular expression of ``pattern`` with a group for each wildcard.

    ``*`` and ``?`` do not match ``/``, ``**/`` matches any number of folders. A last ``*`` leaves
    out the ending of a file's name: ``rgb/*`` and ``rgb/*.*`` mean what ``rgb/*.png`` does.
    """
    parts, end, ending = [], 0, ""
    if pattern.endswith("*.*"):
        pattern, ending = pattern.removesuffix(".*"), r"\.[^/.]*"
    elif pattern.endswith(".*"):
        pattern, ending = pattern.removesuffix(".*"), r"\.[^/]*"
    elif pattern.endswith("*"):
        ending = r"(?:\.[^/.]*)?"
    for match in WILDCARDS.finditer(pattern):
        parts.append(re.escape(pattern[end : match.start()]))
        wildcard, end = match[0], match.end()
        known = {"**/": "((?:[^/]+/)*)", "*": "([^/]*)", "?": "([^/])"}
        parts.append(known.get(wildcard) or f"({_character_class(wildcard)})")
    if pattern.endswith("*") and ending:  # as little as the ending leaves
        parts[-1] = "([^/]*?)"
    parts += [re.escape(pattern[end:]), ending]
    return re.compile("".join(parts))


def _character_class(wildcard: str) -> str:
    inner = wildcard[1:-1].replace("\\", "\\\\")
    if inner[0] in "!^":
        inner = f"^{inner[1:]}"
    return f"[{inner}]"


def wildcards(pattern: str) -> int:
    """The number of wildcards of a pattern."""
    return compiled(pattern).groups


def fewest_wildcards(patterns: Iterable[str]) -> int:
    """The number of wildcards that each of ``patterns`` has at least."""
    return min(wildcards(pattern) for pattern in patterns)


def key_of(pattern: str, path: str, last: int) -> str | None:
    """What the ``last`` wildcards of ``pattern`` stand for in ``path``; None if it does not match.

    ``rgb_*.jpg`` and ``depth_*.png`` give ``rgb_017.jpg`` and ``depth_017.png`` one key, ``017``.
    """
    match = compiled(pattern).fullmatch(path)
    if match is None:
        return None
    texts = [text.strip("/") for text in match.groups()[match.re.groups - last :]]
    return "/".join(filter(None, texts)) or PurePosixPath(path).stem


def closer(path: str, some: Iterable[str], others: Iterable[str]) -> bool:
    """Whether a pattern of ``some`` matches ``path`` with more of its letters than all ``others``.

    Of ``*_mask.png`` and ``*.png`` the first is closer to ``7_mask.png``.
    """
    mine, theirs = (
        max((_letters(pattern) for pattern in patterns if compiled(pattern).fullmatch(path)),
            default=-1)
        for patterns in (some, others)
    )  # fmt: skip
    return mine > theirs


def _letters(pattern: str) -> int:
    """The number of characters besides wildcards."""
    return len(WILDCARDS.sub("", pattern))


def files_below(root: Path, patterns: Sequence[str]) -> list[str]:
    """All files that ``patterns`` may match, relative to ``root``, sorted.

    Follows links to folders that do not lead upwards. Names that begin with a dot are left out.
    """
    starts = {_start(pattern) for pattern in patterns}
    tops = {s for s in starts if not any(o != s and _within(s, o) for o in starts)}
    found: set[str] = set()
    for top in tops:
        found.update(_walk(root, top))
    return sorted(found)


def _start(pattern: str) -> str:
    """The folder of a pattern, up to its first wildcard."""
    plain = pattern[: match.start()] if (match := WILDCARDS.search(pattern)) else pattern
    return plain.rpartition("/")[0]


def _within(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def _walk(root: Path, top: str) -> Iterator[str]:
    # real paths of a folder and those around it, so that a link that leads upwards ends there
    around: dict[str, frozenset[str]] = {}
    for folder, folders, names in os.walk(root / top, followlinks=True):
        real = str(Path(folder).resolve())
        outer = around.get(str(Path(folder).parent), frozenset())
        if real in outer:
            folders.clear()
            continue
        around[folder] = outer | {real}
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = Path(folder).relative_to(root).as_posix()
        for name in names:
            if not name.startswith("."):
                yield name if inner == "." else f"{inner}/{name}"


class Matches:
    """Files by key for each group of patterns, of one walk through ``root``.

    groups: patterns by what they are for, as ``images`` or ``targets.depth``. last: the number of
    wildcards, the last ones of a pattern, that keys come from; None: as many as all patterns have.
    Raises DataError for patterns that match nothing, and for two files of a group with one key.
    """

    def __init__(
        self, root: Path, groups: Mapping[str, Sequence[str]], last: int | None = None
    ) -> None:
        self.root = root
        patterns = [pattern for group in groups.values() for pattern in group]
        self.files = files_below(root, patterns)
        self.last = fewest_wildcards(patterns) if last is None else last
        self.groups = {name: self._group(name, group) for name, group in groups.items()}

    def _group(self, name: str, patterns: Sequence[str]) -> dict[str, str]:
        keys: dict[str, str] = {}
        for pattern in patterns:
            matched = False
            for file in self.files:
                key = key_of(pattern, file, self.last)
                if key is None:
                    continue
                matched = True
                if keys.setdefault(key, file) != file:
                    raise DataError(
                        f"{self.root}: {keys[key]} and {file} are both {name} of "
                        f"'{printable(key, 80)}': remove one, narrow the pattern, or give all "
                        "patterns as many *"
                    )
            if not matched:
                raise DataError(
                    f"{self.root}: {name}: {pattern} matches no file: {self._hint(pattern)}"
                )
        return keys

    def _hint(self, pattern: str) -> str:
        """What is there in place of files that match ``pattern``."""
        start = _start(pattern)
        if not os.path.isdir(self.root / start):  # noqa: PTH112 - False for what is too long
            return f"there is no folder {start}"
        inside = [file for file in self.files if _within(file, start)]
        if not inside:
            return f"{start or 'the folder'} has no files"
        kinds = Counter(PurePosixPath(file).suffix or PurePosixPath(file).name for file in inside)
        seen = ", ".join(f"{count} *{kind}" for kind, count in kinds.most_common(3))
        return f"{start or 'the folder'} has {seen}, such as {inside[0]}"
