"""Small pictures of a run's predictions on a few scored images, for the report's strips."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmark.experiment.config import ResolvedRun
from benchmark.experiment.numerics import autocast
from benchmark.experiment.plan import info_of
from benchmark.results.layout import PICTURES
from common.drawing import photograph
from common.files import write_atomic
from common.limits import PICTURE, LimitError, read_bytes
from datasets.base import TARGETS
from datasets.pipeline import Resized
from tasks.base import Task

COUNT = 3
WIDTH = 192
PARTS = ("image", "truth", "prediction")
MOST = 60  # strips of a run to read; four tasks have 12


@dataclass(frozen=True)
class Strip:
    """Image, truth and prediction of one scored image as WebP. name: of its sample."""

    task: str
    name: str
    image: bytes
    truth: bytes
    prediction: bytes


@torch.inference_mode()
def save_strips(
    folder: Path, config: ResolvedRun, model: nn.Module, tasks: Sequence[Task], data: Resized
) -> None:
    """Write ``samples/TASK_NUMBER_NAME_PART.webp`` of images spread evenly over ``data``.

    All runs on one split draw the same images.
    """
    device = torch.device(config.device)
    palette = info_of(config).palette
    model.eval()
    chosen = np.linspace(0, len(data) - 1, min(COUNT, len(data))).astype(int)
    for number, index in enumerate(dict.fromkeys(chosen.tolist())):
        sample = data.get(index)
        if sample is None:
            continue
        image = sample.image[None].to(device, memory_format=torch.channels_last).float() / 255
        with autocast(config.amp, config.device):
            logits = model(image)
        for task in tasks:
            target = sample.targets.get(task.target)
            if target is None:
                continue
            height, width = target.shape
            prediction = task.predict_at(logits[task.name][0], height, width).cpu()
            pictures = (
                photograph(sample.image.numpy()),
                TARGETS.get(task.target)().draw(target, palette),
                task.draw(prediction, target, palette),
            )
            safe = "".join(c if c.isalnum() or c in "-." else "-" for c in sample.name)[-60:]
            for part, picture in zip(PARTS, pictures, strict=True):
                path = folder / PICTURES / f"{task.name}_{number}_{safe}_{part}.webp"
                write_atomic(path, _small(picture, width / height))


def read_strips(folder: Path) -> list[Strip]:
    """The strips in a run's folder, in order.

    A strip with a part that is missing or no small WebP picture is left out.
    """
    strips = []
    for path in sorted((folder / PICTURES).glob(f"*_{PARTS[0]}.webp"))[:MOST]:
        stem = path.name.removesuffix(f"_{PARTS[0]}.webp")
        files = [path.with_name(f"{stem}_{part}.webp") for part in PARTS]
        task, _, rest = stem.partition("_")
        try:
            parts = [_picture(file) for file in files]
        except (OSError, LimitError):
            continue
        if all(parts):
            strips.append(Strip(task, rest.partition("_")[2], *parts))
    return strips


def _picture(path: Path) -> bytes:
    """The content of a WebP file; empty if it is none, or larger than ``WIDTH`` pixels a side.

    A reader's browser would unpack a picture of any size.
    """
    data = read_bytes(path, PICTURE)
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return b""
    if data[12:16] == b"VP8 ":
        sides = [int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28)]
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        sides = [(bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1]
    else:  # an extended header, which we never write, could hide another size
        return b""
    return data if max(sides) <= WIDTH else b""


def _small(picture: np.ndarray, aspect: float) -> bytes:
    """RGB [H, W, 3] as WebP, ``WIDTH`` pixels along the longer side."""
    longer, shorter = WIDTH, max(1, round(WIDTH * min(aspect, 1 / aspect)))
    size = (longer, shorter) if aspect >= 1 else (shorter, longer)
    out = io.BytesIO()
    small = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)
    small.save(out, "WEBP", quality=75, method=6)
    return out.getvalue()
