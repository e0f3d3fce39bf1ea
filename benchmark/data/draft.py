"""The text of a ``dataset.yaml`` in the making: each part, and what is not sure of it."""

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from benchmark.data.groups import Group, keys_of
from common.errors import DataError
from datasets.files import read_list
from datasets.own.description import Splits
from datasets.own.splits import Names, by_hash, group_of

UNSURE = "NOT SURE"
FILL_IN = "FILL_IN"
SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
GREY = "grey, read as RGB; bands: {names: [grey]} makes a network of one channel"
PIXELS = 256 * 320
"""About so many pixels have the images that are proposed for training."""


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


def patterns_of(groups: Iterable[Group]) -> str:
    """The patterns of ``groups``, as a list where there are several."""
    patterns = [text_of(pattern) for group in groups for pattern in group.patterns]
    return patterns[0] if len(patterns) == 1 else f"[{', '.join(patterns)}]"


def write_images(draft: Draft, images: Group, others: Sequence[str]) -> None:
    """The pattern of the images. others: of what looks like images too."""
    doubts = [f"{', '.join(others[:3])} look like images too"] if others else []
    if not images.sure:
        doubts.append("maps of one channel, which may be depth")
    one = {content.channels for content in images.seen} == {1}
    bytes_alone = all(content.dtype == "uint8" for content in images.seen)
    hint = GREY if one and bytes_alone else ""
    draft.write(f"images: {patterns_of([images])}", "; ".join(doubts))
    if hint:
        draft.lines.append(f"# {hint}")
    draft.notes.append(f"{len(images.files)} images {images.label}" + (f": {hint}" if hint else ""))


def write_bands(draft: Draft, images: Group) -> None:
    """The bands of images that are not 8-bit grey or RGB."""
    channels = Counter(content.channels for content in images.seen).most_common(1)[0][0]
    seen = [content for content in images.seen if content.channels == channels]
    plain = all(content.dtype == "uint8" for content in seen)
    if plain and channels in (1, 3):  # grey images are read as RGB
        return
    known = {1: ["grey"], 4: ["red", "green", "blue", "nir"]}
    names = known.get(channels, [f"band_{index + 1}" for index in range(channels)])
    draft.notes.append(f"{channels} bands" if channels > 1 else "1 band")
    several = f"bands.names: names and order of the {channels} bands" if channels > 1 else ""
    draft.write("bands:", several)
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
    rounded = [float(f"{value:.4g}") for value in values]
    return f"[{', '.join(f'{value:.10g}' for value in rounded)}]"


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
    names = sorted(keys_of(images, images.wildcards))
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

    def misfit(seeded: Splits) -> float:
        chosen = by_hash(names, seeded)
        if not all(chosen.values()):
            return math.inf
        shares = {"val": seeded.val, "test": seeded.test}
        wanted = {split: float(share or 0) * len(names) for split, share in shares.items()}
        return max(abs(len(chosen[split]) - count) / count for split, count in wanted.items())

    tries = [splits.model_copy(update={"seed": seed}) for seed in range(100)]
    return next((one for one in tries if misfit(one) <= 0.3), min(tries, key=misfit))


def _lists(root: Path, images: Group) -> dict[str, str]:
    """The text files that name images of each split."""
    names = Names(keys_of(images, images.wildcards), [])
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
    for pattern in (r"(.*)/", r"(.*)[_-]\d+$", r"(.*)[_-][A-Za-z]+\d+$"):
        if all(re.search(pattern, name) for name in names):
            groups = Counter(group_of(name, pattern) for name in names)
            if 5 <= len(groups) <= len(names) / 2:
                return pattern
    return None
