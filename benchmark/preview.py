"""A contact sheet of a data set: images, their coloured targets, and both after augmentation."""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmark.config import RunConfig
from benchmark.learning import make_augment, seed_everything
from common.annotators import share
from common.errors import UsageError
from datasets.base import DATASETS, TARGETS
from datasets.pipeline import Resized, open_split

GAP = 4
FALLBACK_PALETTE = "tab20"


def class_colours(palette: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """[256, 3] in 0…255: the data set's colours, black beyond; without any, 20 that repeat."""
    if palette:
        return np.array([*palette, *[(0, 0, 0)] * (256 - len(palette))])
    table: np.ndarray = matplotlib.colormaps[FALLBACK_PALETTE](np.arange(256) % 20)[:, :3] * 255
    return table


def known_range(depth: Tensor) -> tuple[float, float]:
    """Least and greatest known depth of a map, in metres."""
    known = depth[depth != TARGETS["depth"].ignore]
    return (float(known.min()), float(known.max())) if known.numel() else (1.0, 1.0)


def colour_target(
    name: str,
    target: Tensor,
    palette: Sequence[tuple[int, int, int]] = (),
    extent: tuple[float, float] | None = None,
    predicted: bool = False,
) -> np.ndarray:
    """A target [H, W] as RGB uint8 [H, W, 3]; ignored pixels are black.

    Depth: near is bright, over ``extent`` in metres, or each map stretched to its own range. Masks:
    white on grey. Edges: the brighter, the more annotators. predicted: the map is a prediction; of
    masks and edges it holds probabilities.
    """
    values = target.numpy()
    known = values != TARGETS[name].ignore
    if predicted and name in ("saliency", "edges"):
        values = np.rint(255 * values).astype(np.uint8)
        return np.stack([values] * 3, axis=2)
    if name == "segmentation":
        picture = class_colours(palette)[values]
    elif name == "depth":
        low, high = np.log(extent or known_range(target))
        log = np.log(np.where(known, values, 1.0))
        nearness = 1 - (log - low) / max(high - low, 1e-6)
        picture = matplotlib.colormaps["magma"](nearness)[..., :3] * 255
    elif name == "edges":
        picture = 255 * share(target).clamp(min=0).numpy()[..., None].repeat(3, axis=2)
    else:
        picture = np.where(values == 1, 255, 60)[..., None].repeat(3, axis=2)
    return np.where(known[..., None], picture, 0).astype(np.uint8)


def contact_sheet(config: RunConfig, split: str, count: int, targets: Sequence[str] = ()) -> bytes:
    """A PNG: a row for each sample, with its image, targets, and both after augmentation.

    config: resolved. targets: their names; default: the task's own. Without augmentation if
    several targets are asked for.
    """
    assert config.image_size is not None
    assert config.zoom is not None
    part = open_split(config.dataset, config.data, config.task, config.image_size, split)
    names = list(targets) or [config.task]
    for name in names:
        if name not in part[0].targets:
            has = ", ".join(part[0].targets)
            raise UsageError(f"--target {name}: data set {config.dataset} has {has}")
    palette = DATASETS.get(config.dataset).info.palette
    augment = make_augment(config)
    seed_everything(config.seed)
    data = Resized(part, config.image_size, names, targets=True)
    step = max(1, len(part) // count)
    rows = []
    for index in range(0, min(len(part), step * count), step):
        image, maps = data[index].image, data[index].targets
        tiles = [image.permute(1, 2, 0).numpy()]
        tiles += [colour_target(n, m, palette) for n, m in maps.items()]
        if len(names) == 1:
            moved, changed = augment(image[None].float() / 255, {n: maps[n][None] for n in names})
            tiles.append((moved[0].permute(1, 2, 0) * 255).to(torch.uint8).numpy())
            tiles += [colour_target(n, m[0], palette) for n, m in changed.items()]
        rows.append(tiles)
    height = max(tile.shape[0] for tiles in rows for tile in tiles) + GAP
    widths = [max(tiles[i].shape[1] for tiles in rows) + GAP for i in range(len(rows[0]))]
    sheet = Image.new("RGB", (sum(widths) - GAP, height * len(rows) - GAP), "white")
    for y, tiles in enumerate(rows):
        for x, tile in enumerate(tiles):
            sheet.paste(Image.fromarray(tile), (sum(widths[:x]), y * height))
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()
