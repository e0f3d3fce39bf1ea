"""Targets as colour images."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from torch import Tensor

from common.annotators import share
from datasets.base import TARGETS

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
