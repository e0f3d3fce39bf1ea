"""A training loss written as a sum of named terms: ``ce``, ``ce+lovasz``, ``bce+0.5*ssim``."""

import math
from collections.abc import Callable, Mapping

from torch import Tensor

from common.errors import UsageError
from common.registry import nearest

Term = Callable[[Tensor, Tensor], Tensor]


class Loss:
    """Weighted sum of ``terms``; each maps (logits [B, C, H, W], target [B, H, W]) to a scalar."""

    def __init__(self, text: str, terms: Mapping[str, Term]) -> None:
        """Raises UsageError for an unknown term and for a weight that is no number."""
        self.terms: list[tuple[float, Term]] = []
        for part in text.replace(" ", "").split("+"):
            weight, star, name = part.rpartition("*")
            if name not in terms:
                close = nearest(name, terms, 1)
                hint = f"did you mean {close[0]}? " if close else ""
                raise UsageError(
                    f"--loss {text}: no term '{name}': {hint}terms: {', '.join(terms)}"
                )
            try:
                factor = float(weight) if star else 1.0
            except ValueError:
                factor = math.nan
            if not math.isfinite(factor):
                raise UsageError(f"--loss {text}: the weight '{weight}' is no number")
            self.terms.append((factor, terms[name]))

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        total = logits.new_zeros(())
        for weight, term in self.terms:
            total = total + weight * term(logits, target)
        return total
