"""What lies in an unknown folder: groups of files of one kind, by their contents and names.

A guess for ``data init``, which says how sure it is; nothing else relies on it.
"""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from benchmark.data.contents import Content, Kind, content_of, kind_of
from common.errors import DataError
from datasets.files import SUFFIXES
from datasets.own.decode import ARRAYS
from datasets.own.patterns import files_below, key_of, wildcards

SAMPLES = 24
"""Files of a group that are opened, spread over it."""
OTHER_BANDS = "grey gray thermal infrared nir ir"
"""Words of names of photographs that are seldom meant where there are others too."""
WORDS: dict[Kind, str] = {
    "images": "image images img imgs rgb color colour photo photos jpegimages left leftimg8bit "
    "input frame frames picture pictures raw "
    f"{OTHER_BANDS}",
    "segmentation": "label labels seg segmentation semantic annotation annotations annot class "
    "classes gtfine labelids segmentationclass trainannot valannot testannot",
    "depth": "depth depths dense lidar disp disparity disparities range distance tof",
    "saliency": "mask masks saliency salient matte alpha foreground trimap trimaps",
    "edges": "edge edges boundary boundaries contour contours",
}
"""Words of names that say what files are."""


@dataclass
class Group:
    """Files of one kind. stem: their pattern without endings. seen: contents of some of them.

    sure: whether contents alone decide the kind.
    """

    stem: str
    endings: tuple[str, ...]
    files: list[str]
    kind: Kind = "unknown"
    sure: bool = True
    seen: list[Content] = field(default_factory=list)

    @property
    def patterns(self) -> list[str]:
        """A pattern for each ending."""
        return [f"{self.stem}{ending}" for ending in self.endings]

    @property
    def label(self) -> str:
        """The patterns as one text."""
        return ", ".join(self.patterns)

    @property
    def wildcards(self) -> int:
        """The number of wildcards of each pattern."""
        return wildcards(self.patterns[0])

    @property
    def values(self) -> set[int]:
        """All values that the opened files have."""
        return set().union(*(content.values for content in self.seen))

    @property
    def colours(self) -> Counter[tuple[int, int, int]]:
        """All colours of the opened files, with their numbers of pixels."""
        total: Counter[tuple[int, int, int]] = Counter()
        for content in self.seen:
            total.update(content.colours)
        return total


def groups_of(root: Path) -> list[Group]:
    """The groups below ``root``, each of one folder. Raises DataError where there is no file."""
    known = (*SUFFIXES, *ARRAYS)
    files = [f for f in files_below(root, ["**/*"]) if PurePosixPath(f).suffix.lower() in known]
    if not files:
        raise DataError(
            f"{root}: holds no image or array ({', '.join(known)}): name another folder"
        )
    groups = [
        Group(stem, (PurePosixPath(members[0]).suffix,), members)
        for stem, members in _by_name(files)
    ]
    for group in groups:
        _open(root, group)
    return _sorted(group for group in groups if group.seen)


def merged_groups(groups: Sequence[Group]) -> list[Group]:
    """``groups``, those of one kind whose patterns differ in one folder, or in endings, as one."""
    return joined_groups(_merged(list(groups)))


def _sorted(groups: Iterable[Group]) -> list[Group]:
    """Largest first."""
    return sorted(groups, key=lambda group: (-len(group.files), group.label))


def joined_groups(groups: Iterable[Group]) -> list[Group]:
    """``groups``, those of one kind that differ in their ending alone as one: JPEG and PNG.

    Not those of which files share a name, or with numbers of other types: a copy, another unit.
    """
    families: dict[Any, list[Group]] = defaultdict(list)
    for group in groups:
        types = frozenset(content.dtype for content in group.seen)
        families[group.stem, group.kind, types].append(group)
    joined: list[Group] = []
    for (stem, kind, _), members in families.items():
        files = sorted(file for group in members for file in group.files)
        if len({PurePosixPath(file).with_suffix("") for file in files}) < len(files):
            joined += members
            continue
        endings = tuple(ending for group in _sorted(members) for ending in group.endings)
        seen = [content for group in members for content in group.seen]
        joined.append(Group(stem, endings, files, kind, all(g.sure for g in members), seen))
    return _sorted(joined)


def keys_of(group: Group, last: int) -> dict[str, str]:
    """The files of ``group`` by what the ``last`` wildcards of their pattern stand for."""
    patterns = ((f"{group.stem}{PurePosixPath(file).suffix}", file) for file in group.files)
    keys = ((key_of(pattern, file, last), file) for pattern, file in patterns)
    return {key: file for key, file in keys if key is not None}


# --- names ---------------------------------------------------------------------------------------


def _by_name(files: Iterable[str]) -> Iterable[tuple[str, list[str]]]:
    """Stems of patterns, and files: by folder and ending, and by what stands around a number."""
    folders: dict[tuple[str, str], list[str]] = defaultdict(list)
    for file in files:
        path = PurePosixPath(file)
        folders[str(path.parent), path.suffix].append(file)
    for (folder, suffix), members in sorted(folders.items()):
        shapes: dict[str, list[str]] = defaultdict(list)
        for file in members:
            shapes[_shape(PurePosixPath(file).name)].append(file)
        prefix = "" if folder == "." else f"{folder}/"
        repeated = [shape for shape in shapes.values() if len(shape) > 1]
        # several shapes of many files each are roles; as many shapes as files are just names
        if 1 < len(shapes) <= 6 and len(repeated) == len(shapes):
            for shape, same in shapes.items():
                yield f"{prefix}{shape}".removesuffix(suffix), same
        else:
            yield f"{prefix}*{_common_end(members, suffix)}".removesuffix(suffix), members


def _shape(name: str) -> str:
    """A name with ``*`` for what lies between its first and last number, and without ids."""
    words = re.split(r"(?<=[_.\-])|(?=[_.\-])", name)
    numbers = [index for index, word in enumerate(words) if re.search(r"\d", word)]
    if not numbers:
        suffix = PurePosixPath(name).suffix
        end = re.search(r"[_\-.][A-Za-z]+$", name.removesuffix(suffix))
        return f"*{end[0] if end else ''}{suffix}"
    first, last = numbers[0], numbers[-1]
    # letters before a number are a role only if a sign divides them from it: rgb_0001, not IMG0001
    return "".join([*words[:first], "*", *words[last + 1 :]])


def _common_end(files: Sequence[str], suffix: str) -> str:
    """What all names end in, from a ``_``, ``-`` or ``.`` on; at least the ending."""
    names = [PurePosixPath(file).name for file in files]
    end = names[0]
    for name in names:
        while not name.endswith(end):
            end = end[1:]
    match = re.search(r"[_\-.][A-Za-z][\w.\-]*$", end)
    whole = match[0] if match and len(names) > 1 else suffix
    return whole if whole.endswith(suffix) and not re.search(r"\d", whole) else suffix


def _merged(groups: list[Group]) -> list[Group]:
    """``merged_groups``, unsorted."""
    families: dict[Any, list[Group]] = defaultdict(list)
    for group in groups:
        parts = group.stem.split("/")
        for place in range(len(parts) - 1):
            hole = (*parts[:place], None, *parts[place + 1 :])
            families[group.kind, group.endings, hole].append(group)
    taken: set[int] = set()
    merged: list[Group] = []
    for (kind, endings, hole), members in sorted(families.items(), key=lambda item: -len(item[1])):
        members = [group for group in members if id(group) not in taken]
        roles = {role_of(group.stem) for group in members} - {"unknown"}
        if len(members) < 2 or len(roles) > 1:
            continue
        taken |= {id(group) for group in members}
        place = hole.index(None)
        folder = _wildcard([group.stem.split("/")[place] for group in members])
        stem = "/".join(folder if part is None else part for part in hole)
        files = sorted(file for group in members for file in group.files)
        seen = [content for group in members for content in group.seen]
        sure = all(group.sure for group in members)
        merged.append(Group(stem, endings, files, kind, sure, seen))
    rest = [group for group in groups if id(group) not in taken]
    return rest + (_merged(merged) if merged else [])


def common_start(names: Sequence[str]) -> str:
    """What all ``names`` begin with."""
    first, last = min(names), max(names)
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(character for character, _ in pairs)


def _wildcard(names: Sequence[str]) -> str:
    """``*``, with what all ``names`` begin or end in where that is a word: ``*annot``."""
    start, end = common_start(names), common_start([name[::-1] for name in names])[::-1]
    start, end = (affix if re.fullmatch(r"[\W_]*[A-Za-z]{3,}[\W_]*", affix) else ""
                  for affix in (start, end))  # fmt: skip
    return f"{start}*" if start else f"*{end}"


def _words(stem: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", stem.lower()))


def named_images(stem: str) -> bool:
    """Whether a pattern names photographs, and not those of other bands."""
    return role_of(stem) == "images" and not _words(stem) & set(OTHER_BANDS.split())


def role_of(stem: str) -> Kind:
    """The kind that the words of a pattern name, or ``unknown``; ``images`` is the weakest."""
    words = _words(stem)
    kinds: list[Kind] = ["segmentation", "depth", "saliency", "edges", "images"]
    return next((kind for kind in kinds if words & set(WORDS[kind].split())), "unknown")


# --- contents ------------------------------------------------------------------------------------


def look(root: Path, group: Group, count: int) -> None:
    """Open ``count`` files of ``group``, spread over it."""
    step = max(1, len(group.files) // count)
    group.seen = []
    for file in group.files[::step][:count]:
        try:
            group.seen.append(content_of(root / file))
        except DataError:
            continue  # `data check` names damaged files


def _open(root: Path, group: Group) -> None:
    """Look into some files of ``group``; sets its kind."""
    look(root, group, SAMPLES)
    if not group.seen:
        return
    by_content, group.sure = kind_of(group.seen)
    role = role_of(group.stem)
    group.kind = by_content
    # photographs too may have 16 bits and one channel, as of thermal cameras, or be floats
    if role != "unknown" and (not group.sure or (by_content == "depth" and role == "images")):
        group.kind = role
        group.sure = role == by_content
