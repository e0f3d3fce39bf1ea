"""Write a ``dataset.yaml`` for an unknown folder: what it seems to hold, and what is not sure."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from benchmark.data.contents import Kind
from benchmark.data.draft import (
    Draft,
    write_bands,
    write_images,
    write_size,
    write_splits,
)
from benchmark.data.draft_targets import write_target
from benchmark.data.groups import (
    Group,
    common_start,
    groups_of,
    joined_groups,
    keys_of,
    merged_groups,
    named_images,
    role_of,
)
from common.errors import DataError, UsageError
from common.files import write_atomic
from datasets.own.description import FILE

TARGETS: tuple[Kind, ...] = ("segmentation", "depth", "saliency", "edges")


def describe(root: Path, overwrite: bool) -> Draft:
    """Look at the folder ``root`` and write its ``dataset.yaml``.

    Raises UsageError if it is no folder, or has one already (unless ``overwrite``), DataError where
    no images with ground truth are found.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: {'is not' if root.exists() else 'there is no'} folder: name one")
    path = root / FILE
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists: edit it, or replace it by --overwrite")
    groups = groups_of(root)
    images, pairs = _matched(root, groups)
    draft = Draft(root)
    name = re.sub(r"[^\w.-]+", "-", root.resolve().name).strip("-.") or "mine"
    draft.write(f"name: {name[:80]}")
    used = {file for chosen in pairs.values() for group in chosen for file in group.files}
    used |= set(images.files)
    rest = [group for group in groups if not used & set(group.files)]
    write_images(draft, images, [group.label for group in rest if group.kind == "images"])
    draft.write("targets:")
    for kind, chosen in pairs.items():
        write_target(draft, kind, chosen, images)
    write_bands(draft, images)
    write_size(draft, images)
    write_splits(draft, images)
    draft.write("licence: ''", comment="of your data: model cards and exports name it")
    draft.write("citation: ''")
    draft.notes += [f"not used: {len(group.files)} files {group.label}" for group in rest]
    write_atomic(path, "\n".join(draft.lines) + "\n", "DIR")
    return draft


# --- what belongs together -----------------------------------------------------------------------


def _matched(root: Path, groups: Sequence[Group]) -> tuple[Group, dict[Kind, list[Group]]]:
    """The images, and the groups of each kind of ground truth with their names."""
    # folders of one kind may be scenes, or different kinds of images
    attempts = [merged_groups(groups), joined_groups(groups)]
    for attempt in [*attempts, *([_stripped(group) for group in some] for some in attempts)]:
        images = _choose_images(root, attempt)
        pairs = {kind: _partners(images, attempt, kind) for kind in TARGETS}
        pairs = {kind: chosen for kind, chosen in pairs.items() if chosen}
        if pairs:
            return images, pairs
    seen = ", ".join(f"{group.label} ({len(group.files)})" for group in groups[:6])
    raise DataError(
        f"{root}: no ground truth of the names of {images.label}: give images and their labels, "
        f"depth, masks or edges the same name (there is {seen})"
    )


def _choose_images(root: Path, groups: Sequence[Group]) -> Group:
    candidates = [group for group in groups if group.kind == "images"]
    if not candidates:  # maps of many values that no name calls depth may be grey photographs
        candidates = [
            group for group in groups if group.kind == "depth" and role_of(group.stem) == "unknown"
        ]
        if len(candidates) > 1 or len(groups) == 1:
            candidates = []
        for group in candidates:
            group.kind, group.sure = "images", False
    if not candidates:
        seen = ", ".join(f"{g.label} ({len(g.files)}, {g.kind})" for g in groups[:6])
        problem = f"no group of files looks like photographs: there is {seen}"
        raise DataError(f"{root}: {problem}: call the photographs' folder images")

    def rank(group: Group) -> tuple[int, bool, int]:
        partners = [_share(group, other) for other in groups if other.kind in TARGETS]
        named = named_images(group.stem)
        return sum(share >= 0.5 for share in partners), named, len(group.files)

    return max(candidates, key=rank)


def _share(images: Group, other: Group) -> float:
    """The share of the files of ``other`` that have an image of their name, or of the images."""
    last = min(images.wildcards, other.wildcards)
    mine, theirs = keys_of(images, last), keys_of(other, last)
    if len(mine) < len(images.files) or len(theirs) < len(other.files):
        return 0.0  # several files of one name
    return len(mine.keys() & theirs.keys()) / max(min(len(mine), len(theirs)), 1)


def _partners(images: Group, groups: Sequence[Group], kind: Kind) -> list[Group]:
    """The best group of a kind; of edges all that have the best's number of pairs, one a person."""
    candidates = [group for group in groups if group.kind == kind]
    if kind == "edges":
        candidates += [part for group in candidates for part in _annotators(images, group)]
    shares = [(group, _share(images, group)) for group in candidates]
    shares = [(group, share) for group, share in shares if share >= 0.5]
    if not shares:
        return []
    best, _ = max(shares, key=lambda pair: pair[1] * len(pair[0].files))
    if kind != "edges":
        return [best]
    most = len(best.files)
    return [group for group, _ in shares if len(group.files) >= 0.5 * most]


def _annotators(images: Group, group: Group) -> list[Group]:
    """``group`` by the number that its names end in, one a person; empty if that gives no pairs."""
    people: dict[str, list[str]] = defaultdict(list)
    for file in group.files:
        match = re.search(r"[_-]\d+(?=\.\w+$)", file)
        if match is None:
            return []
        people[match[0]].append(file)
    start, end = group.stem.rsplit("*", 1)
    split = [
        replace(group, stem=f"{start}*{number}{end}", files=files)
        for number, files in sorted(people.items())
    ]
    return [part for part in split if _share(images, part) >= 0.5] if len(split) > 1 else []


def _stripped(group: Group) -> Group:
    """``group`` with the word that all its names begin with in the pattern: ``img_*.png``."""
    names = [PurePosixPath(file).name for file in group.files]
    match = re.match(r"[A-Za-z][A-Za-z_.-]*[_.-]", common_start(names))
    folder, _, name = group.stem.rpartition("*")
    if match is None or len(names) < 2:
        return group
    return replace(group, stem=f"{folder}{match[0]}*{name}")
