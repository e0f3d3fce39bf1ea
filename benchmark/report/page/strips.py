"""Pictures of predictions within a budget of bytes, best rows of every board first."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmark.report.page.rows import Shown
from benchmark.results.samples import Strip, read_strips

OVERHEAD = 160  # bytes of markup around a picture


@dataclass
class Scored:
    """One scored image of a board, as data URIs. predictions: (index of the row, URI) pairs."""

    name: str
    image: str
    truth: str
    predictions: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class Pictures:
    """The scored images of one board by name. missing: number of rows that did not fit."""

    images: dict[str, Scored] = field(default_factory=dict)
    missing: int = 0


def pictures_of(boards: Sequence[tuple[str, Sequence[Shown]]], budget: int) -> list[Pictures]:
    """Pictures for each (task, rows) within ``budget`` bytes, first rows of all boards first."""
    result = [Pictures() for _ in boards]
    left = budget
    for place in range(max((len(rows) for _, rows in boards), default=0)):
        for (task, rows), pictures in zip(boards, result, strict=True):
            strips = _strips(rows[place], task) if place < len(rows) else []
            if not strips:
                continue
            cost = sum(_cost(strip, strip.name in pictures.images) for strip in strips)
            if cost > left:
                pictures.missing += 1
                continue
            left -= cost
            for strip in strips:
                scored = pictures.images.setdefault(
                    strip.name, Scored(strip.name, _uri(strip.image), _uri(strip.truth))
                )
                scored.predictions.append((place, _uri(strip.prediction)))
    return result


def _strips(shown: Shown, task: str) -> list[Strip]:
    """Pictures of the row's first run with a folder, for ``task``, as its board runs it."""
    if shown.row.shipped:
        return []
    folder = next((run.folder for run in shown.row.runs if run.folder is not None), None)
    return [s for s in read_strips(folder) if s.task == task] if folder is not None else []


def _cost(strip: Strip, known: bool) -> int:
    parts = [strip.prediction] if known else [strip.image, strip.truth, strip.prediction]
    return sum(len(part) * 4 // 3 + OVERHEAD for part in parts)


def _uri(picture: bytes) -> str:
    return "data:image/webp;base64," + b64encode(picture).decode()
