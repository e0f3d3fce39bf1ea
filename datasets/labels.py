"""Label maps: the class index of each pixel, in whatever way the file stores it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import DataError
from common.words import count_of
from datasets.decoding import IGNORE, LARGEST, decoded, opaque, whole_numbers

if TYPE_CHECKING:
    from torch import Tensor

Palette = Sequence[tuple[int, int, int]]
Numbers = NDArray[np.integer]
GREY = "write 8-bit grey"
MAP = f"map {{}}, or to {IGNORE} to ignore {{}}"
MOST = 8
"""Labels that a message names."""


def voc_colour(index: int) -> tuple[int, int, int]:
    """VOC's colour of a label 0…255: bits 0, 3, 6 are red's highest, 1, 4, 7 green's, 2, 5 blue's.

    Source: VOCdevkit, VOClabelcolormap.m.
    """
    red, green, blue = (
        sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3))
        for channel in range(3)
    )
    return red, green, blue


class LabelError(DataError):
    """A label map with labels that are no class.

    counts: pixels by label. known: the labels that there are, as text.
    """

    counts: Mapping[int, int] = MappingProxyType({})
    known = ""

    @classmethod
    def of(cls, path: Path, labels: Numbers, ids: Iterable[int], void: Iterable[int]) -> LabelError:
        """labels: of the pixels that have no class, any shape; they are in neither ids nor void."""
        values, counts = np.unique(labels, return_counts=True)
        pixels = dict(zip(values.tolist(), counts.tolist(), strict=True))
        known = f"{_runs(ids)} and {_runs(void)}"
        text = outside({label: count_of(n, "pixel") for label, n in pixels.items()}, known)
        error = cls(f"{path}: {text}")  # of one argument: loaders' workers make it anew
        error.counts, error.known = pixels, known
        return error


def outside(labels: Mapping[int, str], known: str) -> str:
    """That ``labels``, each with where it is, are none of the ``known`` ones, and what to do."""
    if len(labels) == 1:
        ((label, where),) = labels.items()
        remedy = MAP.format("it to a class", "it")
        return f"label {label} is outside {known} in {where}: {remedy}"
    shown = [f"{label} ({where})" for label, where in list(labels.items())[:MOST]]
    more = f" and {len(labels) - MOST} more" if len(labels) > MOST else ""
    remedy = MAP.format("them to classes", "them")
    return f"labels {', '.join(shown)}{more} are outside {known}: {remedy}"


def read_labels(
    path: Path, ids: Sequence[int], void: Iterable[int] = (), palette: Palette = ()
) -> Tensor:
    """uint8 [H, W] class index: the label ``ids[i]`` becomes i, ``void`` becomes 255.

    255 is void too, unless it is one of ``ids``. palette: the published colour of each label, as
    far as there is one. The label is

    - of a grey image its value, in 8 or 16 bits. Pillow scales fewer bits to 8; what was meant is
      taken from the labels that there are;
    - of a palette image the index, if ``palette`` is not declared or its colours are these. An
      optimiser may have sorted them: then the colours count, and so do greys that are not the
      indices;
    - of colours, also with an opaque alpha, the one that has them in ``palette``.

    Raises DataError on any other label or colour, and on a file with two meanings.
    """
    import torch

    if len(set(map(tuple, palette))) < len(palette):  # colours then tell nothing
        palette = ()
    with decoded(path) as picture:
        if picture.format == "JPEG":
            raise DataError(f"{path}: JPEG changes labels: take the original file, as PNG")
        kind, stored, readings = _readings(path, picture, palette)
    void = {*void, *({IGNORE} - set(ids))}
    table = np.full(2**16 + 1, -1, np.int16)  # the last one is of colours that no label has
    table[list(ids)] = np.arange(len(ids))
    table[list(void)] = IGNORE
    maps = [table[reading][stored] for reading in readings]
    known = [classes for classes in maps if classes.min() >= 0]
    if not known:
        if not kind:
            raise LabelError.of(path, readings[0][stored[maps[0] < 0]], ids, void)
        labels = " or ".join(_runs(np.unique(reading[stored]).tolist()) for reading in readings)
        problem = f"{kind}label {labels} is outside {_runs(ids)} and {_runs(void)}"
        raise DataError(f"{path}: {problem}: {MAP.format('it to a class', 'it')}")
    if len(known) == 2 and (known[0] != known[1]).any():
        one, other = (_runs(np.unique(reading[stored]).tolist()) for reading in readings)
        raise DataError(f"{path}: {kind}labels may be {one} or {other}: {GREY}")
    return torch.from_numpy(known[0].astype(np.uint8))


def _readings(
    path: Path, picture: Image.Image, palette: Palette
) -> tuple[str, Numbers, list[Numbers]]:
    """What a file stores [H, W], and for each way to read it the label of each stored value.

    Two ways, of which one may prove wrong, have a name for errors.
    """
    if picture.mode == "P":
        return _of_palette(path, np.array(picture), picture.getpalette() or [], palette)
    if picture.mode == "1":
        return "1-bit grey: ", np.array(picture, np.uint8), [np.arange(2), np.array([0, 255])]
    if picture.mode == "L":
        values, largest = np.arange(256), picture.info[LARGEST]
        if largest == 255:
            return "", np.array(picture), [values]
        scaled = np.rint(values * largest / 255).astype(int)
        kind = f"{largest.bit_length()}-bit grey, which decoders scale by {255 / largest:.3g}: "
        return kind, np.array(picture), [scaled, values]
    if picture.mode.startswith("I"):
        return "", whole_numbers(path, picture), [np.arange(2**16)]
    if picture.mode in ("LA", "RGB", "RGBA"):
        if not opaque(picture):
            raise DataError(f"{path}: is transparent in places, which is no label: {GREY}")
        return _of_colours(path, picture.mode, np.array(picture.convert("RGB")), palette)
    raise _no_labels(path, picture.mode, palette)


def _no_labels(path: Path, mode: str, palette: Palette) -> DataError:
    remedy = "take the original file, or " if palette else ""
    problem = f"mode {mode} is no map of class indices"
    return DataError(f"{path}: {problem}: {remedy}write an 8-bit grey or palette image")


def _codes(colours: Numbers) -> Numbers:
    """Colours [..., 3] as one number each."""
    red, green, blue = np.moveaxis(colours.astype(np.int64), -1, 0)
    return np.asarray((red << 16) + (green << 8) + blue)


def _label_of(colours: Numbers, palette: Palette) -> Numbers:
    """The label [N] of each of the colours [N, 3]; -1 of one that none has."""
    labels = {colour: label for label, colour in enumerate(map(tuple, palette))}
    return np.array([labels.get(tuple(colour), -1) for colour in colours.tolist()], int)


def _of_palette(
    path: Path, stored: Numbers, flat: list[int], palette: Palette
) -> tuple[str, Numbers, list[Numbers]]:
    colours = np.full((256, 3), -1)
    colours[: len(flat) // 3] = np.reshape(flat[: len(flat) // 3 * 3], (-1, 3))
    indices = np.arange(256)
    used = np.flatnonzero(np.bincount(stored.ravel(), minlength=256))
    declared = {i: tuple(palette[i]) for i in used.tolist() if i < len(palette)}
    changed = [i for i, colour in declared.items() if tuple(colours[i]) != colour]
    if palette and not changed:
        return "", stored, [indices]
    labels = np.full(256, -1)
    labels[used] = _label_of(colours[used], palette)
    if palette and (labels[used] >= 0).all():
        return "", stored, [labels]
    red = colours[:, 0]
    if (colours[used] == red[used, None]).all() and (red[used] >= 0).all():
        if set(red[used].tolist()) <= {0, 255}:
            return "black and white of a palette: ", stored, [indices, red]
        return "", stored, [red]
    if changed:
        index = changed[0]
        colour = tuple(colours[index].tolist()) if 3 * index < len(flat) else "none"
        raise DataError(
            f"{path}: colour {colour} of label {index} should be {palette[index]}: the palette "
            "was changed, and the labels may be too: take the original file, or save right "
            "labels as 8-bit grey"
        )
    return "", stored, [indices]


def _of_colours(
    path: Path, mode: str, colours: Numbers, palette: Palette
) -> tuple[str, Numbers, list[Numbers]]:
    codes, stored, counts = np.unique(_codes(colours), return_inverse=True, return_counts=True)
    stored = stored.reshape(colours.shape[:2])
    table = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1)
    labels = _label_of(table, palette)
    if palette and (labels >= 0).all():
        return "", stored, [labels]
    if (table == table[:, :1]).all():  # a grey image may be saved in colour
        return "", stored, [table[:, 0]]
    if not palette:
        raise _no_labels(path, mode, palette)
    unknown = np.flatnonzero(labels < 0)
    worst = unknown[counts[unknown].argmax()]
    more = f", and {len(unknown) - 1} more colours" if len(unknown) > 1 else ""
    problem = f"colour {tuple(table[worst].tolist())} of {counts[worst]} pixels{more}"
    raise DataError(f"{path}: {problem}: no label has it: take the original file, or {GREY}")


def _runs(values: Iterable[int]) -> str:
    """``0…6, 9`` for the numbers 0 to 6 and 9."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1][1:] = [value]
        else:
            runs.append([value])
    return ", ".join("…".join(map(str, run)) for run in runs)
