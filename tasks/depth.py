"""Monocular depth: metres along the optical axis for each pixel."""

import math
from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from common.drawing import (
    RGB,
    Palette,
    Picture,
    colour_depth,
    depth_colours,
    known_range,
    with_legend,
)
from tasks.base import TASKS, Task
from tasks.losses import depth as losses
from tasks.losses.base import Term
from tasks.metrics.base import Accumulator
from tasks.metrics.depth import DepthMetrics

MOST = 65_535
UNITS = (0.001, 1 / 256, 0.01, 0.1, 1.0)
"""Metres a unit of a 16-bit map: the finest that reaches the greatest depth is taken.

Millimetres as in NYU's and 7-Scenes' files, 1/256 m as in KITTI's.
"""


@TASKS.register("depth")
class Depth(Task):
    """Logits [B, 1, H, W]; target: metres, 0 = no reading.

    log depth = log min + (log max − log min) · sigmoid(logit): every output lies in the data set's
    range, and equal steps of the logit are equal ratios of depth.
    """

    name = "depth"
    title = "Monocular depth"
    target = "depth"
    columns: ClassVar[tuple[str, ...]] = ("abs_rel", "rmse", "silog", "delta1", "delta2", "delta3")
    ignore = 0
    default_loss = "silog+0.5*gradient"
    channels = 1
    unit = "m"
    formula = "min_depth * (max_depth / min_depth) ** sigmoid(logits)"
    caption = (
        "Near is bright, over the range of the ground truth's depths. Black: no ground truth, "
        "or as far as its farthest point and beyond."
    )
    pipeline_tag = "depth-estimation"

    def __init__(
        self, min_depth: float, max_depth: float, crop: str | None = None, loss: str | None = None
    ) -> None:
        super().__init__(loss)
        self.min_depth, self.max_depth, self.crop = min_depth, max_depth, crop
        fitting = (unit for unit in UNITS if max_depth / unit <= MOST)
        self.metres_per_unit = next(fitting, UNITS[-1])

    def _log_depth(self, logits: Tensor) -> Tensor:
        low, high = math.log(self.min_depth), math.log(self.max_depth)
        return low + (high - low) * logits[:, 0].sigmoid()

    def _valid(self, target: Tensor) -> Tensor:
        return (target > self.min_depth) & (target < self.max_depth)

    def loss_terms(self) -> Mapping[str, Term]:
        return {
            "silog": lambda x, g: losses.silog(self._log_depth(x), g, self._valid(g)),
            "gradient": lambda x, g: losses.gradient_matching(
                self._log_depth(x), g, self._valid(g)
            ),
        }

    def activate(self, logits: Tensor, scale: float = 1.0) -> Tensor:
        """Log metres; what looks twice as large through the same lens is half as far away."""
        return self._log_depth(logits)[:, None] + math.log(scale)

    def decide(self, activated: Tensor) -> Tensor:
        return activated[:, 0].exp()

    def accumulator(self) -> Accumulator:
        return DepthMetrics(self.min_depth, self.max_depth, self.crop)

    def draw(
        self,
        prediction: Tensor,
        truth: Tensor,
        palette: Palette = (),  # noqa: ARG002
    ) -> RGB:
        """In colours over the range of the ground truth."""
        return colour_depth(prediction.numpy(), known_range(truth.numpy()))

    def maps(
        self,
        image: Tensor,  # noqa: ARG002
        prediction: Tensor,
        palette: Palette = (),  # noqa: ARG002
    ) -> Mapping[str, Picture]:
        """16 bits in ``metres_per_unit``, and colours with a scale in metres.

        0 would be no reading: the least value is 1. ``misfits`` counts what is beyond these ends.
        """
        metres = prediction.numpy()
        values = Image.fromarray(np.clip(self._units(metres), 1, MOST).astype(np.uint16))
        values.info["metres_per_unit"] = str(self.metres_per_unit)
        return {self.name: values, f"{self.name}_view": _view(metres)}

    def _units(self, metres: NDArray[np.float32]) -> NDArray[np.float32]:
        """Whole numbers of ``metres_per_unit``; the farthest where a depth is no number."""
        known = np.where(np.isnan(metres), np.float32(np.inf), metres)
        return np.rint(known / np.float32(self.metres_per_unit))

    @property
    def map_values(self) -> str:
        return f"16 bits, {self.metres_per_unit:g} m a unit"

    def exact(self, prediction: Tensor) -> NDArray[np.float32]:
        """Metres."""
        metres: NDArray[np.float32] = prediction.float().numpy()
        return metres

    def misfits(self, prediction: Tensor) -> str:
        units = self._units(prediction.numpy())
        far, near = int((units > MOST).sum()), int((units < 1).sum())
        parts = []
        if far:
            parts.append(f"{far} pixels beyond {MOST * self.metres_per_unit:g} m are written as it")
        if near:
            parts.append(
                f"{near} nearer than half a unit are written as {self.metres_per_unit:g} m"
            )
        return " and ".join(parts)

    def best_constant(self, targets: Iterable[Tensor]) -> float:
        """The constant of least mean |g − c| / g: the median of the depths weighted by 1 / g.

        As in the metric, every image counts the same, however many of its pixels are valid.
        """
        samples, weights = [], []
        for target in targets:
            values = target[self._valid(target)].double()
            values = values[:: max(1, values.numel() // 2000)]
            samples.append(values)
            weights.append(1 / (values * len(values)))
        depths, order = torch.cat(samples).sort()
        weight = torch.cat(weights)[order].cumsum(0)
        return float(depths[torch.searchsorted(weight, weight[-1] / 2)])


def _view(metres: NDArray[np.float32]) -> Picture:
    log = np.log(np.maximum(metres, 1e-6))
    low, high = float(log.min()), float(log.max())
    picture = (depth_colours(log, low, high) * 255).astype(np.uint8)
    places = np.linspace(0, 1, 6) if high > low else np.zeros(1)
    marks = np.exp(low + places * (high - low))
    # enough decimals that no two marks look alike
    digits = next(
        n for n in range(2, 9) if n == 8 or len({f"{m:.{n}f}" for m in marks}) == len(marks)
    )
    colours = (255 * depth_colours(places, 0, 1)).astype(int).tolist()
    rows = [
        (f"{mark:.{digits}f} m", "", tuple(colour))
        for mark, colour in zip(marks, colours, strict=True)
    ]
    return with_legend(picture, rows)
