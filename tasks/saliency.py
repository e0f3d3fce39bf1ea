"""Salient object detection: the probability that a pixel belongs to the salient object."""

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from tasks.base import TASKS, PixelProbability
from tasks.losses import saliency as losses
from tasks.losses.base import Term
from tasks.metrics.saliency import SaliencyMetrics


@TASKS.register("saliency")
class Saliency(PixelProbability):
    """Logits [B, 1, H, W]; target: 1 = salient, 0 = background, 255 = ignore (padding)."""

    name = "saliency"
    title = "Salient object detection"
    target = "saliency"
    columns = ("maxf", "meanf", "mae", "smeasure", "maxe")
    ignore = 255
    default_loss = "bce+iou"
    caption = (
        "Prediction: white is certainly salient, black certainly not. Ground truth: white "
        "is salient."
    )

    def __init__(self, loss: str | None = None) -> None:
        super().__init__(loss)

    def loss_terms(self) -> Mapping[str, Term]:
        def term(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Term:
            def masked(logits: Tensor, target: Tensor) -> Tensor:
                valid = (target != self.ignore).to(logits.dtype)
                return function(logits[:, 0], target.to(logits.dtype) * valid, valid)

            return masked

        return {"bce": term(losses.bce), "iou": term(losses.iou), "ssim": term(losses.ssim)}

    def truth(self, target: Tensor) -> Tensor:
        return target == 1

    def accumulator(self) -> SaliencyMetrics:
        return SaliencyMetrics(keep_curves=True)  # for the interval of maxF

    def best_constant(self, targets: Iterable[Tensor]) -> float:
        """0, or 1 where most pixels are salient: the constant of least mean absolute error."""
        salient = pixels = 0
        for target in targets:
            salient += int((target == 1).sum())
            pixels += int((target != self.ignore).sum())
        return float(2 * salient > pixels)
