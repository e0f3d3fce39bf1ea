"""Ground truth that holds the boundaries that people drew."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.annotators import IGNORE, annotators, pack, share, unpack
from common.drawing import RGB, Palette, grey, hatched
from datasets.base import TARGETS, TargetKind, TargetStatistics


class EdgeStatistics(TargetStatistics):
    """Several annotators' boundaries in one map, see ``common.annotators``."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        super().__init__(facts)
        self.marked = 0.0
        self.known = self.pixels = self.empty = 0
        self.least, self.most = 0, 0

    def add(self, target: Tensor) -> str | None:
        if not (count := annotators(target)):
            return "no pixel that an annotator has looked at"
        marks = share(target)
        self.least = min(self.least, count) if self.maps else count
        self.most = max(self.most, count)
        self.maps += 1
        self.pixels += marks.numel()
        self.known += int((marks >= 0).sum())
        self.marked += float(marks.clamp(min=0).double().sum())
        self.empty += int(marks.max() <= 0)
        return None

    def summary(self) -> dict[str, Any]:
        return {
            "boundary share": self.marked / max(self.known, 1),
            "ignored share": 1 - self.known / max(self.pixels, 1),
            "fewest annotators": self.least,
            "most annotators": self.most,
            "maps without a boundary": self.empty,
        }

    def doubts(self) -> list[str]:
        return [f"{self.empty} maps without a boundary"] if self.empty else []


@TARGETS.register("edges")
class Marks(TargetKind):
    """All annotators' marks, packed by ``common.annotators``. Drawn brighter where more agree."""

    ignore = IGNORE
    dtype = torch.int32
    statistics = EdgeStatistics

    def resize(self, target: Tensor, size: tuple[int, int]) -> Tensor:
        """Nearest where the map grows; where it shrinks, no edge is lost."""
        height, width = target.shape
        grown = super().resize(target, (max(size[0], height), max(size[1], width)))
        return _shrunk(grown, size) if size[0] < height or size[1] < width else grown

    def draw(self, target: Tensor, palette: Palette = ()) -> RGB:  # noqa: ARG002
        marks = share(target).numpy()
        return hatched(grey(255 * marks.clip(min=0)), marks < 0)


def _shrunk(packed: Tensor, size: tuple[int, int]) -> Tensor:
    """A marked pixel marks the one that it falls into; nearest would break thin lines."""
    rows, columns = (
        ((torch.arange(old) + 0.5) * new / old).long()
        for old, new in zip(packed.shape, size, strict=True)
    )
    unpacked = unpack(packed)
    if not len(unpacked):
        return packed.new_zeros(size)
    marks = torch.zeros(len(unpacked), *size, dtype=torch.bool)
    annotator, y, x = unpacked.nonzero(as_tuple=True)
    marks[annotator, rows[y], columns[x]] = True
    known = F.interpolate((packed != 0)[None, None].float(), size, mode="nearest-exact")[0, 0]
    return pack(marks, known > 0)
