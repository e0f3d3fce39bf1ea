"""The text of a ``dataset.yaml`` in the making: each part, and what is not sure of it."""

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from benchmark.data.groups import Group, Kind, keys_of, look
from common.errors import DataError
from datasets.files import read_list
from datasets.labels import voc_colour
from datasets.own.decode import UNITS
from datasets.own.description import Splits
from datasets.own.patterns import wildcards
from datasets.own.reading import NUMBERED
from datasets.own.splits import Names, by_hash, group_of

UNSURE = "NOT SURE"
FILL_IN = "FILL_IN"
SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
CLASS_FILES = ("classes.txt", "labels.txt", "names.txt", "class_names.txt")
PIXELS = 256 * 320
"""About so many pixels have the images that are proposed for training."""
LABELS = 400
"""Label maps that are opened for their values."""


@dataclass
class Draft:
    """A description in the making. unsure: what the user should look at. notes: what is certain."""

    root: Path
    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)

    def write(self, text: str, unsure: str = "", comment: str = "") -> None:
        """A line of the file; with a comment where something is not sure."""
        if unsure:
            named = unsure.startswith("bands.")
            self.unsure.append(unsure if named else f"{text.strip().removesuffix(':')}: {unsure}")
            comment = f"{UNSURE}: {unsure}"
        self.lines.append(f"{text}  # {comment}" if comment else text)


def text_of(value: object) -> str:
    """A YAML scalar: in quotes where YAML would read something else."""
    text = str(value)
    plain = re.fullmatch(r"[A-Za-z_][\w ./*?-]*", text) and not re.search(r"[ .]$|: | #", text)
    words = {"yes", "no", "on", "off", "true", "false", "null", "y", "n", "none"}
    return text if plain and text.lower() not in words else json.dumps(text, ensure_ascii=False)


def write_target(draft: Draft, kind: Kind, chosen: Sequence[Group], images: Group) -> None:
    """The part of one kind of ground truth. chosen: its files, of edges a group for each person."""
    group = chosen[0]
    sure = "" if all(g.sure for g in chosen) else f"it may be something else than {kind}"
    patterns = [text_of(g.pattern) for g in chosen]
    files = patterns[0] if len(patterns) == 1 else f"[{', '.join(patterns)}]"
    draft.write(f"  {kind}:", sure)
    draft.write(f"    files: {files}")
    last = min(wildcards(images.pattern), *(wildcards(g.pattern) for g in chosen))
    names = set().union(*(keys_of(g, last) for g in chosen))
    without = len(keys_of(images, last).keys() - names)
    if without:
        draft.write("    partial: true", f"{without} of {len(images.files)} images have no {kind}")
    draft.notes.append(f"{len(names)} {kind} {', '.join(g.pattern for g in chosen)}")
    if alone := len(names - keys_of(images, last).keys()):
        draft.notes.append(f"{alone} of these without an image")
    {"segmentation": _write_classes, "depth": _write_depth}.get(kind, _write_marks)(draft, group)


def _write_classes(draft: Draft, group: Group) -> None:
    look(draft.root, group, LABELS)
    looked = f"from {len(group.seen)} of {len(group.files)} files"
    colours = sorted(group.colours)
    values = sorted(group.values - {255, 65535})
    voc = {voc_colour(index): index for index in range(256)}
    if colours and not values and set(colours) <= set(voc):
        values = sorted({voc[colour] for colour in colours} - {255})
    if colours and not values:  # in colours, and no palette to number them
        names = [f"class_{i}" for i in range(len(colours))]
        draft.write("    classes:", f"{len(colours)} colours {looked}")
        draft.lines += [f"      - {text_of(name)}" for name in names]
        draft.write("    palette:")
        pairs = zip(names, colours, strict=True)
        draft.lines += [f"      {text_of(name)}: {list(colour)}" for name, colour in pairs]
        return
    if values == [0] and 255 in group.values:  # else nothing but one class would be scored
        draft.write("    classes:", "255 may stand for pixels to ignore")
        draft.lines += ["      0: background", "      255: object"]
        return
    count = values[-1] + 1 if values else 1
    by_value = _names_by_value(draft.root, values)
    if by_value:
        draft.write("    classes:", comment="values and names from a file beside the data")
        draft.lines += [f"      {value}: {text_of(name)}" for value, name in by_value.items()]
        if unnamed := [value for value in values if value not in by_value]:
            without = f"no name for the values {', '.join(map(str, unnamed))}"
            draft.write(f"    ignore: [{', '.join(map(str, [*unnamed, 255]))}]", without)
            return
    elif known := _class_names(draft.root, count):
        draft.write("    classes:", comment="names from a file beside the data")
        draft.lines += [f"      - {text_of(name)}" for name in known]
    elif count <= 64 or len(values) >= 0.25 * count:
        draft.write("    classes:", f"{count} classes without names, {looked}")
        draft.lines += [f"      - class_{value}" for value in range(count)]
    else:
        draft.write("    classes:", f"{len(values)} values without names, {looked}")
        draft.lines += [f"      {value}: class_{value}" for value in values]
    if 255 in group.values:
        draft.write("    ignore: 255")
    if colours and set(colours) <= set(voc):
        draft.write("    palette: voc", comment="colours decide, as in PASCAL VOC")


def _class_names(root: Path, at_least: int) -> list[str]:
    """Names from a text file beside the data that has one for each class; else none."""
    for file in CLASS_FILES:
        try:
            names = [line.text for line in read_list(root / file, "")]
        except DataError:
            continue
        if at_least <= len(names) <= 254 and len(set(names)) == len(names):
            return names
    return []


def _names_by_value(root: Path, values: Sequence[int]) -> dict[int, str]:
    """Names from a file of ``VALUE NAME`` lines, if most values of the labels have one."""
    for file in CLASS_FILES:
        try:
            matches = [NUMBERED.fullmatch(line.text) for line in read_list(root / file, "")]
        except DataError:
            continue
        names = {int(match[1][:6]): match[2] for match in matches if match}
        distinct = len(names) == len(set(names.values())) == len(matches) <= 254
        if distinct and 2 * len(names.keys() & set(values)) > len(values):
            return names
    return {}


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
    if re.search(r"disp", group.pattern.lower()):
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
    draft.write(f"    range: [{low:g}, {high:g}]", doubt,
                "nearest and farthest depth in metres that count")  # fmt: skip


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


def _write_marks(draft: Draft, group: Group) -> None:
    top = max(group.values, default=255)
    if top <= 128:
        draft.write("    threshold: 0", f"the largest value is {top}, which counts as the object")


def write_bands(draft: Draft, images: Group) -> None:
    """The bands of images that are not 8-bit grey or RGB."""
    channels = Counter(content.channels for content in images.seen).most_common(1)[0][0]
    seen = [content for content in images.seen if content.channels == channels]
    plain = all(content.dtype == "uint8" for content in seen)
    if plain and channels in (1, 3):  # grey images are read as RGB
        return
    names = ["red", "green", "blue", "nir"] if channels == 4 else []
    names = names or [f"band_{index + 1}" for index in range(channels)]
    draft.notes.append(f"{channels} bands")
    draft.write("bands:", f"bands.names: names and order of the {channels} bands")
    draft.write(f"  names: [{', '.join(names)}]")
    parts = [c.numbers.reshape(-1, channels) for c in seen if c.numbers is not None]
    values = np.concatenate(parts).astype(float)
    tops = np.full(channels, 255.0)
    if not plain:
        tops = np.array([float(f"{max(x, 1e-6):.3g}") for x in np.quantile(values, 0.999, axis=0)])
        draft.write(f"  max: {_numbers(tops)}", "bands.max: the value of each band that becomes 1")
    finite = np.where(np.isfinite(values), values, 0) / tops
    draft.write(f"  mean: {_numbers(finite.mean(0))}", comment=f"of {len(seen)} images, after max")
    draft.write(f"  std: {_numbers(finite.std(0).clip(min=1e-3))}")


def _numbers(values: np.ndarray) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in values)}]"


def write_size(draft: Draft, images: Group) -> None:
    """A size to train at, of the images' proportions."""
    sizes = Counter(content.size for content in images.seen)
    (height, width), _ = sizes.most_common(1)[0]
    several = f"{len(sizes)} sizes, such as " if len(sizes) > 1 else ""
    comment = f"of training; the images have {several}{height}x{width}"
    draft.write(f"image_size: {list(_size(height, width))}", comment=comment)


def _size(height: int, width: int) -> tuple[int, int]:
    """Multiples of 32 of nearly these proportions and about ``PIXELS``, not more than the image."""
    most = [max(32, math.ceil(side / 32) * 32) for side in (height, width)]
    pixels = min(PIXELS, height * width)
    heights, widths = (range(32, side + 1, 32) for side in most)

    def misfit(size: tuple[int, int]) -> float:
        shape = abs(math.log(size[0] * width / (size[1] * height)))
        return shape + 0.05 * abs(math.log(size[0] * size[1] / pixels))

    return min(itertools.product(heights, widths), key=misfit)


def write_splits(draft: Draft, images: Group) -> None:
    """Lists or folders that are there, else shares."""
    lists = _lists(draft.root, images) or _split_folders(images)
    if lists:
        pairs = ", ".join(f"{split}: {text_of(value)}" for split, value in lists.items())
        if "test" in lists or "val" in lists:
            draft.write(f"splits: {{{pairs}}}")
            draft.notes.append(f"splits {pairs}")
            return
    names = sorted(keys_of(images, wildcards(images.pattern)))
    group = _group(names)
    splits = _seeded(names, Splits(val=0.1, test=0.2, group=group))
    counts = ", ".join(f"{len(part)} {split}" for split, part in by_hash(names, splits).items())
    text = f"splits: {{val: 0.1, test: 0.2, seed: {splits.seed}"
    if group:
        clips = len({group_of(name, group) for name in names})
        doubt = f"{clips} clips by their names stay together: {counts}"
        draft.write(f"{text}, group: '{group}'}}", doubt)
    else:
        draft.write(f"{text}}}", comment=f"by a hash of the names: {counts}")


def _seeded(names: Sequence[str], splits: Splits) -> Splits:
    """``splits`` with the first seed that comes near the shares and, if one can, fills all."""

    def misfit(seeded: Splits) -> tuple[int, float]:
        chosen = by_hash(names, seeded)
        shares = {"val": seeded.val, "test": seeded.test}
        wanted = {split: float(share or 0) * len(names) for split, share in shares.items()}
        off = max(abs(len(chosen[split]) - count) / count for split, count in wanted.items())
        return sum(not part for part in chosen.values()), off

    tries = [splits.model_copy(update={"seed": seed}) for seed in range(100)]
    near = (one for one in tries if misfit(one) <= (0, 0.3))
    return next(near, min(tries, key=misfit))


def _lists(root: Path, images: Group) -> dict[str, str]:
    """The text files that name images of each split."""
    names = Names(keys_of(images, wildcards(images.pattern)), [])
    chosen: dict[str, str] = {}
    files = sorted([*root.glob("*.txt"), *root.glob("*/*.txt")])
    for split, words in SPLIT_WORDS.items():
        for file in files:
            if not set(re.findall(r"[a-z]+", file.stem.lower())) & set(words):
                continue
            try:
                lines = read_list(file, "")[:50]
            except DataError:
                continue
            if sum(_names_image(names, line) for line in lines) >= 0.9 * len(lines):
                chosen.setdefault(split, file.relative_to(root).as_posix())
    return chosen


def _names_image(names: Names, line: object) -> bool:
    try:
        names.sample(line)  # type: ignore[arg-type]
    except DataError:
        return False
    return True


def _split_folders(images: Group) -> dict[str, str]:
    """A pattern for each split that has a folder of its own."""
    chosen: dict[str, str] = {}
    for file in images.files:
        parts = PurePosixPath(file).parts
        for place, part in enumerate(parts[:-1]):
            for split, words in SPLIT_WORDS.items():
                if part.lower() in words and split not in chosen:
                    chosen[split] = "/".join(
                        [*parts[: place + 1], *["*"] * (len(parts) - place - 1)]
                    )
    return chosen if "train" in chosen else {}


def _group(names: Sequence[str]) -> str | None:
    """An expression for clips: what stands before the last number, if that repeats."""
    for pattern in (r"(.*)/", r"(.*)[_-]\d+$"):
        if all(re.search(pattern, name) for name in names):
            groups = Counter(group_of(name, pattern) for name in names)
            if 5 <= len(groups) <= len(names) / 2:
                return pattern
    return None
