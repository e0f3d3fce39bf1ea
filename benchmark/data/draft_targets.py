"""The targets of a ``dataset.yaml`` in the making: classes, units and values by what files hold."""

import math
import re
from collections.abc import Callable, Mapping, Sequence, Set

import numpy as np

from benchmark.data.contents import Kind, unknown_grey
from benchmark.data.draft import FILL_IN, Draft, patterns_of, text_of
from benchmark.data.groups import Group, keys_of, look
from common.errors import DataError
from datasets.labels import voc_colour
from datasets.own.class_names import read_class_names
from datasets.own.decode import UNITS
from datasets.own.description import MOST_CLASSES

CLASS_FILES = ("classes.txt", "labels.txt", "names.txt", "class_names.txt")
LABELS = 400
"""Files of labels or masks that are opened for their values."""


def write_target(draft: Draft, kind: Kind, chosen: Sequence[Group], images: Group) -> None:
    """The part of one kind of ground truth. chosen: its files, of edges a group for each person."""
    group = chosen[0]
    sure = "" if all(g.sure for g in chosen) else f"it may be something else than {kind}"
    draft.write(f"  {kind}:", sure)
    draft.write(f"    files: {patterns_of(chosen)}")
    last = min(images.wildcards, *(group.wildcards for group in chosen))
    names = set().union(*(keys_of(g, last) for g in chosen))
    without = len(keys_of(images, last).keys() - names)
    if without:
        draft.write("    partial: true", f"{without} of {len(images.files)} images have no {kind}")
    draft.notes.append(f"{len(names)} {kind} {', '.join(g.label for g in chosen)}")
    if alone := len(names - keys_of(images, last).keys()):
        draft.notes.append(f"{alone} of these without an image")
    if kind == "segmentation":
        _write_classes(draft, group)
    elif kind == "depth":
        _write_depth(draft, group)
    else:
        _write_marks(draft, kind, chosen)


def _write_classes(draft: Draft, group: Group) -> None:
    look(draft.root, group, LABELS)
    looked = f"from {len(group.seen)} of {len(group.files)} files"
    colours = sorted(group.colours)
    values = sorted(group.values - {255, 65535})
    voc = {voc_colour(index): index for index in range(256)}
    if colours and not values and set(colours) <= set(voc):
        values = sorted({voc[colour] for colour in colours} - {255})
    if colours and not values:  # in colours, and no palette to number them
        draft.write("    classes:", f"{len(colours)} colours {looked}")
        draft.lines += [f"      - class_{index}" for index in range(len(colours))]
        draft.write("    palette:")
        draft.lines += [f"      class_{i}: {list(colour)}" for i, colour in enumerate(colours)]
        return
    spread = _spread(sorted(group.values))
    names = _class_names(draft, spread or values, len(spread) or max(values, default=0) + 1)
    if isinstance(names, dict):
        _write_by_value(draft, names, group.values)
    elif spread:  # else 255, a class, would be ignored
        more = ", or 128 for unknown ones, as in trimaps" if len(spread) == 3 else ""
        draft.write("    classes:", f"255 may stand for pixels to ignore{more}")
        usual = ["background", "object"] if len(spread) == 2 else [f"class_{v}" for v in spread]
        chosen = names if len(names) == len(spread) else usual
        by_value = zip(spread, chosen, strict=True)
        draft.lines += [f"      {value}: {text_of(name)}" for value, name in by_value]
    elif names:
        draft.write("    classes:", comment="names from a file beside the data")
        draft.lines += [f"      - {text_of(name)}" for name in names]
    elif (count := max(values, default=0) + 1) <= 64 or len(values) >= 0.25 * count:
        draft.write("    classes:", f"{count} classes without names, {looked}")
        draft.lines += [f"      - class_{value}" for value in range(count)]
    else:
        draft.write("    classes:", f"{len(values)} values without names, {looked}")
        draft.lines += [f"      {value}: class_{value}" for value in values]
    if 255 in group.values and not spread and not isinstance(names, dict):
        draft.write("    ignore: 255", _doubt_of_255(group))
    if colours and set(colours) <= set(voc):
        draft.write("    palette: voc", comment="colours decide, as in PASCAL VOC")


def _write_by_value(draft: Draft, names: Mapping[int, str], values: Set[int]) -> None:
    """Classes by value; of ``values`` those without a name are ignored."""
    draft.write("    classes:", comment="values and names from a file beside the data")
    draft.lines += [f"      {value}: {text_of(name)}" for value, name in names.items()]
    if ignored := sorted(values - names.keys()):
        unnamed = ", ".join(str(value) for value in ignored if value != 255)
        doubt = f"no name for the values {unnamed}" if unnamed else ""
        draft.write(f"    ignore: [{', '.join(map(str, ignored))}]", doubt)


def _spread(values: Sequence[int]) -> Sequence[int]:
    """``values`` if they lie evenly between 0 and 255, both among them, to be seen; else none."""
    last = len(values) - 1
    even = 1 <= last <= 15 and all(abs(v - 255 * i / last) <= 1 for i, v in enumerate(values))
    return values if even else ()


def _doubt_of_255(group: Group) -> str:
    """Why 255 may be the same class as 1, where some files have one of them and some the other."""
    with_one = sum(1 in content.values for content in group.seen)
    instead = sum({0, 255} == content.values for content in group.seen)
    both = any({1, 255} <= content.values for content in group.seen)
    if both or not with_one or not instead or group.values != {0, 1, 255}:
        return ""
    return (
        f"{with_one} files have 1 and {instead} have 255, none both: if 255 is the object too, "
        "describe them as saliency with threshold: 0"
    )


def _class_names(draft: Draft, values: Sequence[int], at_least: int) -> list[str] | dict[int, str]:
    """Names from a file beside the data: ``at_least`` so many, or by value for most; else none."""
    for file in CLASS_FILES:
        path = draft.root / file
        if not path.is_file():
            continue
        try:
            names = read_class_names(path)
        except DataError as error:
            draft.notes.append(f"not used: {error}")
            continue
        by_value = isinstance(names, dict)
        fits = 2 * len({*names} & {*values}) > len(values) if by_value else len(names) >= at_least
        if fits and len(names) <= MOST_CLASSES:
            return names
    return []


def _write_depth(draft: Draft, group: Group) -> None:
    parts = [content.numbers for content in group.seen if content.numbers is not None]
    raw = (
        np.concatenate([np.asarray(part, float).ravel() for part in parts])
        if parts
        else np.zeros(0)
    )
    integers = all("int" in content.dtype for content in group.seen)
    invalid = [0.0]
    if integers and raw.max(initial=0) > 255:
        invalid.append(65535.0)
    if (raw == -1).any():
        invalid.append(-1.0)
    known = raw[np.isfinite(raw) & ~np.isin(raw, invalid) & (raw > 0)]
    if re.search(r"disp", group.stem.lower()):
        draft.write(f"    focal_times_baseline: {FILL_IN}",
                    "focal length in pixels × baseline in metres")  # fmt: skip
        draft.write("    range: [0.1, 100]", "nearest and farthest depth in metres")
        return
    unit, others = _unit(known, integers)
    median = float(np.median(known)) if known.size else 0.0
    doubt = ""
    if others or not known.size:
        more = ", ".join(f"{other:g} ({median * other:.3g} m)" for other in others)
        doubt = f"median {median * unit:.3g} m" + (f"; others: {more}" if more else "")
    comment = f"{UNITS.get(unit, '')}: median {median * unit:.3g} m"
    draft.write(f"    metres_per_unit: {unit:.10g}", doubt, comment)
    draft.write(f"    invalid: [{', '.join(f'{value:g}' for value in invalid)}]")
    low, high = (np.quantile(known, [0.001, 0.999]) * unit) if known.size else (0.1, 10.0)
    low, high = _rounded(float(low), math.floor), _rounded(float(high) * 1.05, math.ceil)
    doubt = ""
    if median and high > 20 * median * unit:
        doubt = f"far beyond the median: is {float(known.max()):g} a reading, or one of invalid?"
    scaled = "; another unit needs another range" if others else ""
    draft.write(f"    range: [{low:g}, {high:g}]", doubt,
                f"nearest and farthest depth in metres that count{scaled}")  # fmt: skip


def _unit(known: np.ndarray, integers: bool) -> tuple[float, list[float]]:
    """The likeliest unit in metres, and others that are possible too."""
    if not known.size:
        return 0.001 if integers else 1.0, []
    median = float(np.median(known))
    fractions = bool((known != np.round(known)).any())
    if fractions and 0.05 <= median <= 80:
        return 1.0, []
    units = (0.001, 1 / 256, 1 / 5000, 0.01, 1.0) if integers else (1.0, 0.01, 0.001)
    likely = [unit for unit in units if 0.3 <= median * unit <= 80] or [1.0]
    others = [unit for unit in units if unit != likely[0] and 0.1 <= median * unit <= 500]
    return likely[0], others


def _rounded(value: float, how: Callable[[float], int]) -> float:
    """``value`` to one digit, or two, down or up."""
    scale = 10 ** (math.floor(math.log10(value)) - 1)
    steps = how(value / scale / 5) * 5
    return float(f"{max(steps, 1) * scale:.6g}")


def _write_marks(draft: Draft, kind: Kind, chosen: Sequence[Group]) -> None:
    """The values that are no object, or no boundary, unless these are simply below half."""
    for group in chosen:
        look(draft.root, group, LABELS)
    contents = [content for group in chosen for content in group.seen]
    values = set().union(*(content.values for content in contents))
    grey = unknown_grey(values)
    low = [max(c.values) for c in contents if c.values and 0 < max(c.values) <= 128]
    high = any(content.many or max(content.values, default=0) > 128 for content in contents)
    if any({1, 255} <= content.values for content in contents):
        if kind == "saliency":
            draft.write("    ignore: 255", "1 is taken for the object, 255 for pixels to ignore")
            draft.write("    threshold: 0")
        else:
            draft.write("    threshold: 0", "1 and 255 stand in one file, and both count")
    elif kind == "saliency" and grey is not None:
        draft.write(f"    ignore: {grey}", f"{grey} is taken for unknown pixels, as in trimaps")
    elif low and not high:
        doubt = f"the largest value is {max(low)}, which counts as the object"
        draft.write("    threshold: 0", doubt)
    elif 1 in low:
        doubt = f"the largest value is 1 in {low.count(1)} of {len(contents)} files"
        draft.write("    threshold: 0", f"{doubt}, and all above 0 counts")
