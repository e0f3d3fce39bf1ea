"""What lies in an unknown folder: groups of files of one kind, by their contents and names.

A guess for ``data init``, which says how sure it is; nothing else relies on it.
"""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from datasets.decoding import decoded, read_array
from datasets.files import SUFFIXES
from datasets.own.decode import ARRAYS, TIFFS, read_tiff
from datasets.own.patterns import files_below, key_of, wildcards

Kind = Literal["images", "segmentation", "depth", "saliency", "edges", "unknown"]
SAMPLES = 24
"""Files of a group that are opened, spread over it."""
FEW_VALUES = 64
"""A map of classes has at most so many values; a photograph has more."""
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
    seen: list["Content"] = field(default_factory=list)

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


@dataclass
class Content:
    """One opened file. size: height, width. values: those of bytes and integers, if they are few.

    numbers: a sample of the values of a deep file. extreme: the share of bytes that are nearly 0 or
    255. marked: the share above half, of it thin: lost when each object shrinks by a pixel.
    """

    size: tuple[int, int]
    channels: int
    dtype: str
    coloured: bool = False
    lossy: bool = False
    values: set[int] = field(default_factory=set)
    many: bool = False
    colours: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    numbers: NDArray[Any] | None = None
    extreme: float = 0.0
    marked: float = 0.0
    thin: float = 0.0


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
            group.seen.append(_content(root / file))
        except DataError:
            continue  # `data check` names damaged files


def _open(root: Path, group: Group) -> None:
    """Look into some files of ``group``; sets its kind."""
    look(root, group, SAMPLES)
    if not group.seen:
        return
    by_content, group.sure = _kind(group.seen)
    role = role_of(group.stem)
    group.kind = by_content
    # photographs too may have 16 bits and one channel, as of thermal cameras, or be floats
    if role != "unknown" and (not group.sure or (by_content == "depth" and role == "images")):
        group.kind = role
        group.sure = role == by_content


def _kind(seen: Sequence[Content]) -> tuple[Kind, bool]:
    """What contents are most likely, and whether they can hardly be anything else."""
    values = set().union(*(content.values for content in seen))
    many = any(content.many for content in seen)
    if all(content.channels >= 3 for content in seen):
        deep = any(content.numbers is not None for content in seen)
        colours = set().union(*(content.colours for content in seen))
        if deep or many or len(colours) > FEW_VALUES or any(c.lossy for c in seen):
            return "images", True
        return ("segmentation", True) if any(c.coloured for c in seen) else _marks(seen, values)
    if any(content.coloured for content in seen):  # a palette
        return "segmentation", True
    if any(content.dtype not in ("uint8", "bool") for content in seen):
        whole = all("int" in content.dtype for content in seen)
        few = whole and not many and len(values) <= FEW_VALUES
        return ("segmentation", False) if few else ("depth", not whole)
    if many or len(values) > FEW_VALUES:
        return ("saliency", False) if _extreme(seen) > 0.9 else ("images", False)
    return _marks(seen, values)


def _extreme(seen: Sequence[Content]) -> float:
    """The mean share of pixels that are nearly black or white."""
    return sum(content.extreme for content in seen) / len(seen)


def unknown_grey(values: set[int]) -> int | None:
    """The grey of unknown pixels if ``values`` are a trimap's, 0, about 128 and 255; else None."""
    inner = values - {0, 255}
    grey = min(inner, default=0)
    return grey if len(values) == 3 and len(inner) == 1 and 64 <= grey <= 191 else None


def _marks(seen: Sequence[Content], values: set[int]) -> tuple[Kind, bool]:
    """Of maps with few values: classes, masks of objects, or thin boundaries."""
    inner = sorted(values - {0, 255})
    soft = len(inner) > 3 and inner[-1] - inner[0] >= 64 and 255 in values
    if unknown_grey(values) is not None or (soft and _extreme(seen) > 0.9):
        return "saliency", False
    if not values <= {0, 1, 255} or len(values) < 2:
        return "segmentation", len(values) > 2
    if any({1, 255} <= content.values for content in seen):
        return "segmentation", False
    marked = [content for content in seen if content.marked]
    thin = sum(content.thin for content in marked) / max(len(marked), 1)
    return ("edges", False) if thin > 0.9 else ("saliency", False)


def _content(path: Path) -> Content:
    """Raises DataError for a file that cannot be read."""
    suffix = path.suffix.lower()
    if suffix in (*ARRAYS, *TIFFS):
        array = read_array(path) if suffix in ARRAYS else read_tiff(path, None)
        array = array.reshape(*array.shape[:2], -1)
        return _of_array(array)
    with decoded(path) as picture:
        lossy = picture.format in ("JPEG", "WEBP", "MPO")
        if picture.mode[0] in "IF":
            return _of_array(np.array(picture)[..., None])
        grey_palette = picture.mode == "P"
        rgb = np.array(picture.convert("RGB"))
        indices = np.array(picture) if grey_palette else None
    coloured = bool((rgb != rgb[..., :1]).any())
    content = _of_array(rgb if coloured else rgb[..., :1], lossy)
    content.coloured, content.lossy = coloured, lossy
    if coloured:
        codes = (rgb.reshape(-1, 3).astype(np.int64) << [16, 8, 0]).sum(1)
        found, counts = np.unique(codes, return_counts=True)
        if len(found) <= 4 * FEW_VALUES:
            content.colours = Counter(
                {(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255): int(n)
                 for c, n in zip(found, counts, strict=True)}
            )  # fmt: skip
        else:
            content.many = True
        if indices is not None:
            content.values, content.channels = set(np.unique(indices).tolist()), 1
            content.many = False
    return content


def _of_array(array: NDArray[Any], lossy: bool = False) -> Content:
    """lossy: few values are then many that were changed a little."""
    height, width, channels = array.shape
    content = Content((height, width), channels, str(array.dtype))
    if channels > 1:
        content.many = channels > 3 or array.dtype != np.uint8
        content.numbers = (
            array[:: max(1, height // 32), :: max(1, width // 32)] if content.many else None
        )
        return content
    values = array[..., 0]
    if array.dtype.kind == "f" or array.dtype.itemsize > 1:
        content.numbers = values[:: max(1, height // 64), :: max(1, width // 64)].ravel()
        if array.dtype.kind == "f":
            content.many = True
            return content
    found, counts = np.unique(values, return_counts=True)
    content.many = len(found) > FEW_VALUES or (lossy and len(found) > 2)
    if not content.many:
        content.values = set(found.tolist())
    top = max(int(found[-1]), 1)
    marks = values > top / 2
    content.marked = float(marks.mean())
    if array.dtype == np.uint8:  # a mask with soft edges is nearly all 0 and 255
        content.extreme = float(counts[(found < 16) | (found > 239)].sum() / counts.sum())
    if marks.any():
        inner = marks[1:-1, 1:-1] & marks[:-2, 1:-1] & marks[2:, 1:-1]
        inner &= marks[1:-1, :-2] & marks[1:-1, 2:]
        content.thin = 1 - float(inner.sum() / marks.sum())
    return content
