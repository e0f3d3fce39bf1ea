"""Which samples belong to which split: by lists, patterns, or a hash of the sample's name."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from common.errors import DataError, UsageError
from common.limits import printable
from datasets.files import Line, read_list
from datasets.own.description import Splits
from datasets.own.patterns import compiled, wildcards

AMBIGUOUS = ""


def share_of(name: str, seed: int) -> float:
    """A number in 0…1 that depends on ``name`` and ``seed`` alone, evenly spread."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8]) / 2**64


def group_of(name: str, pattern: str | None) -> str:
    """The part of a sample's name that ``pattern`` finds, which stays in one split; or the name."""
    match = re.search(pattern, name) if pattern else None
    if match is None:
        return name
    return (match[1] if match.re.groups else match[0]) or name


def check_group(names: Iterable[str], pattern: str, where: str) -> None:
    """Raises UsageError if ``pattern`` finds nothing in any name: each would be its own group."""
    names = list(names)
    if names and not any(re.search(pattern, name) for name in names):
        shown = printable(min(names), 80)
        raise UsageError(
            f"{where}: matches none of the {len(names)} names, such as '{shown}': a sample's name "
            "is what the wildcards of the patterns stand for"
        )


def by_hash(names: Iterable[str], splits: Splits) -> dict[str, list[str]]:
    """``names`` by split, sorted. A name's split does not depend on the others."""
    test, val = (float(share or 0) for share in (splits.test, splits.val))
    chosen: dict[str, list[str]] = {name: [] for name in splits.names}
    for name in sorted(names):
        share = share_of(group_of(name, splits.group), splits.seed or 0)
        split = "test" if share < test else "val" if share < test + val else "train"
        chosen[split].append(name)
    return chosen


class Names:
    """Finds the sample that a line of a list means.

    images: image file of each sample. others: patterns and files of the other groups, so that
    a line that also names these is checked.
    """

    def __init__(
        self, images: Mapping[str, str], others: Sequence[tuple[str, Mapping[str, str]]]
    ) -> None:
        self.images, self.others = images, others
        self._tails: dict[str, str] = {}
        for name, file in images.items():
            path = PurePosixPath(file)
            for form in (path, path.with_suffix("")):
                for start in range(len(form.parts)):
                    tail = "/".join(form.parts[start:])
                    if self._tails.setdefault(tail, name) != name:
                        self._tails[tail] = AMBIGUOUS

    def sample(self, line: Line) -> str:
        """The sample's name. Raises DataError where the line names none, or several."""
        texts = [line.text, *re.split(r"[\s,;]+", line.text)[:1]]
        for text in dict.fromkeys(texts):
            plain = text.strip("\"'").removeprefix("./").lstrip("/")
            name = plain if plain in self.images else self._tails.get(plain)
            if name == AMBIGUOUS:
                raise DataError(f"{line.where}: '{printable(plain, 80)}' is several images: "
                                "write more of its path")  # fmt: skip
            if name is not None:
                self._check_others(line, name)
                return name
        known = next(iter(self.images.values()))
        raise DataError(
            f"{line.where}: '{printable(line.text, 120)}' is no image: write one a line, such as "
            f"{known}, or its name"
        )

    def _check_others(self, line: Line, name: str) -> None:
        """Raises DataError if the line has a file of another sample beside the image."""
        tokens = [token.lstrip("/") for token in re.split(r"[\s,;]+", line.text)[1:]]
        for pattern, files in self.others:
            for token in tokens:
                own = files.get(name)
                matches = compiled(pattern).fullmatch(token) is not None
                if matches and own is not None and own != token:
                    raise DataError(
                        f"{line.where}: {printable(token, 120)} is not the file that belongs to "
                        f"{self.images[name]}, which is {own}: rename one of them"
                    )


def by_lists(
    root: Path, lists: Mapping[str, str], split: str, names: Names
) -> Iterator[tuple[str, str] | DataError]:
    """The samples of ``split`` in the order of its list, each with the line that names it.

    Of a pattern, the samples whose images match it, sorted.

    In place of a line that names no sample, or repeats one, its error. Raises DataError for a list
    that cannot be read.
    """
    if wildcards(pattern := lists[split]):
        matches = compiled(pattern).fullmatch
        chosen = sorted(name for name, image in names.images.items() if matches(image))
        if not chosen:
            raise DataError(f"{root}: splits.{split}: {pattern} matches no image")
        yield from ((name, pattern) for name in chosen)
        return
    seen: dict[str, str] = {}
    for line in read_list(root / lists[split], "write the name of an image in each line"):
        try:
            name = names.sample(line)
            if name in seen:
                problem = f"'{printable(name, 80)}' stands in {seen[name]} already"
                raise DataError(f"{line.where}: {problem}: remove one")
        except DataError as error:
            yield error
            continue
        seen[name] = line.where
        yield name, line.where
