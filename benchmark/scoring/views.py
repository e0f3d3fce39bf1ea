"""Apply a trained network to an image at a size, in several views, in windows."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.base import Task

Size = tuple[int, int]


@dataclass(frozen=True)
class Views:
    """Test-time augmentation; its name is part of a score's protocol.

    flip: add the mirrored image. scales: of the image; the views' activations are averaged. window:
    (height, width) of pieces of larger images; neighbours share at least a third. sides: average a
    decoder's side outputs with its logits; ``give_sides`` makes the network hand them out.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    window: Size | None = None
    sides: bool = False

    @property
    def name(self) -> str:
        """Part of a protocol id: ``+flip+scales0.75,1``; "" for one plain forward."""
        scales = ",".join(f"{scale:g}" for scale in self.scales)
        parts = [
            "+flip" if self.flip else "",
            f"+scales{scales}" if self.scales != (1.0,) else "",
            f"+window{self.window[0]}x{self.window[1]}" if self.window else "",
            "+sides" if self.sides else "",
        ]
        return "".join(parts)


def predict(
    model: nn.Module, tasks: Sequence[Task], image: Tensor, size: Size, views: Views
) -> dict[str, Tensor]:
    """Each task's prediction [*size] of one image [C, h, w] in 0…1 on the model's device.

    Logits are upsampled to ``size`` first; several views, and side outputs, are averaged there.
    """
    by_name = {task.name: task for task in tasks}
    total: dict[str, Tensor] = {}
    count: dict[str, int] = dict.fromkeys(by_name, 0)
    for view, scale, flipped in _views(image[None], views):
        for output, logits in _windowed(model, view, views.window).items():
            name = output.partition("/")[0]  # a side of a task is TASK/side1
            y = logits.flip(-1) if flipped else logits
            y = F.interpolate(y.float(), size, mode="bilinear", align_corners=False)
            activated = by_name[name].activate(y, scale)
            total[name] = total[name] + activated if name in total else activated
            count[name] += 1
    return {name: task.decide(total[name] / count[name])[0] for name, task in by_name.items()}


def _views(image: Tensor, views: Views) -> Iterator[tuple[Tensor, float, bool]]:
    height, width = image.shape[-2:]
    for scale in views.scales:
        size = max(round(height * scale), 1), max(round(width * scale), 1)
        scaled = image
        if size != (height, width):
            scaled = F.interpolate(
                image, size, mode="bilinear", align_corners=False, antialias=scale < 1
            )
        yield scaled, scale, False
        if views.flip:
            yield scaled.flip(-1), scale, True


def _windowed(model: nn.Module, image: Tensor, window: Size | None) -> Mapping[str, Tensor]:
    """Logits of an image [1, C, h, w] by task, from windows if it is larger than ``window``.

    Overlapping windows are averaged. A smaller image is padded to the window.
    """
    if window is None:
        logits_of: dict[str, Tensor] = model(image.contiguous(memory_format=torch.channels_last))
        return logits_of
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, max(window[1] - width, 0), 0, max(window[0] - height, 0)))
    sums: dict[str, Tensor] = {}
    hits = image.new_zeros(1, 1, *padded.shape[-2:])
    starts = (_starts(length, side) for length, side in zip(padded.shape[-2:], window, strict=True))
    for top, left in itertools.product(*starts):
        area = (..., slice(top, top + window[0]), slice(left, left + window[1]))
        hits[area] += 1
        piece = padded[area].contiguous(memory_format=torch.channels_last)
        for name, logits in model(piece).items():
            if name not in sums:
                sums[name] = logits.new_zeros(1, logits.shape[1], *padded.shape[-2:])
            sums[name][area] += logits
    return {name: (total / hits)[..., :height, :width] for name, total in sums.items()}


def _starts(length: int, side: int) -> list[int]:
    """First pixels of windows of ``side`` pixels that cover ``length`` evenly."""
    if length <= side:
        return [0]
    step = max(side * 2 // 3, 1)
    count = -(-(length - side) // step) + 1
    return [round(i * (length - side) / (count - 1)) for i in range(count)]
