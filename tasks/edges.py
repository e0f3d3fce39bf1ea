"""Edge detection: the probability that people see a boundary at a pixel."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from common.annotators import IGNORE, share
from tasks.base import TASKS, PixelProbability
from tasks.losses.base import Term
from tasks.losses.edges import balanced_bce, summed_bce
from tasks.metrics.edges import EdgeMetrics

QUICK = 9


@TASKS.register("edges")
class Edges(PixelProbability):
    """Logits [B, 1, H, W]; target: every annotator's marks, as ``common.annotators`` packs them."""

    name = "edges"
    title = "Edge detection"
    target = "edges"
    columns = ("ods", "ois", "ap", "r50")
    ignore = IGNORE
    default_loss = "bce"
    caption = (
        "Prediction: white is certainly an edge, black certainly none. Ground truth: the "
        "brighter, the more annotators drew it."
    )

    def __init__(self, loss: str | None = None) -> None:
        super().__init__(loss)

    def loss_terms(self) -> Mapping[str, Term]:
        return {
            "bce": lambda logits, target: balanced_bce(logits[:, 0], share(target)),
            "bce-sum": lambda logits, target: summed_bce(logits[:, 0], share(target)),
        }

    def accumulator(self) -> EdgeMetrics:
        return EdgeMetrics()

    def validator(self) -> EdgeMetrics:
        """With a tenth of the thresholds, in a tenth of the time: enough to compare epochs."""
        return EdgeMetrics(thresholds=QUICK)

    def best_constant(self, targets: Iterable[Tensor]) -> float:  # noqa: ARG002
        """0, no edge anywhere: no other constant map has a line in it either."""
        return 0.0
