"""Perturbation pruning: drop what the loss of the trained network of all connections misses least.

The size of a connection's weight says little of its worth; the loss without it does (Wang et al.:
Rethinking Architecture Selection in Differentiable NAS, ICLR 2021).
"""

import math
from collections.abc import Mapping, Sequence, Set

import torch
from torch import Tensor, nn

from models.connectivity import Connection, alive_stages
from models.feature_maps import Backbone
from models.predictor import DensePredictor
from models.relaxed_decoder import RelaxedDecoder
from tasks.base import Task

IMAGES = 4
"""Images of a training batch on which a connection's worth is measured, the same for all."""
SHARE = 0.5
"""Share of the connections that a round drops: each round measures all that are left."""
Batch = tuple[Tensor, Mapping[str, Tensor]]


@torch.no_grad()
def ranked(
    model: DensePredictor, tasks: Sequence[Task], batch: Batch
) -> tuple[list[float], list[float]]:
    """Each connection's rank in 0…1, and the loss at the end of each round.

    A connection's rank is above that of all dropped before it, so that those above any threshold
    are one of a nested sequence of wirings. A round measures the loss without each connection that
    is left, and without what then reaches the output no more, on a ``batch`` (images [B, C, H, W]
    in 0…1 and targets), with the batch's own statistics in every BatchNorm.
    """
    decoder = model.decoder
    assert isinstance(decoder, RelaxedDecoder)
    model.train()
    drop, decoder.direct_drop = decoder.direct_drop, 0.0
    backbone = model.backbone
    images, targets = batch
    recorded = _recorded(model, images)

    def loss(kept: Set[Connection]) -> float:
        if not kept:
            return math.inf
        decoder.kept = kept
        model.backbone = recorded
        outputs = model.outputs(images)
        return sum(float(t.loss(outputs[t.name], targets[t.target])) for t in tasks)

    left = set(decoder.connections)
    dropped: list[set[Connection]] = []
    losses = [loss(left)]
    while len(left) > 1:
        worth = {c: loss(_without(left, {c}, decoder)) for c in sorted(left)}
        goal = math.floor(len(left) * (1 - SHARE))
        before = left
        for connection in sorted(worth, key=lambda c: (worth[c], c)):
            fewer = _without(left, {connection}, decoder)
            if fewer and len(left) > max(goal, 1):
                left = fewer
        if left == before:
            break
        dropped.append(before - left)
        losses.append(loss(left))
    model.backbone, decoder.kept, decoder.direct_drop = backbone, None, drop
    rounds = [*dropped, left]
    rank = {c: (number + 1) / len(rounds) for number, some in enumerate(rounds) for c in some}
    return [rank[c] for c in decoder.connections], losses


def _without(
    kept: Set[Connection], gone: Set[Connection], decoder: RelaxedDecoder
) -> set[Connection]:
    """``kept`` less ``gone`` and what then reaches the output no more; empty if nothing does."""
    stages: dict[int, tuple[str, ...]] = {}
    for stage, source in decoder.connections:
        if (stage, source) in kept and (stage, source) not in gone:
            stages[stage] = (*stages.get(stage, ()), source)
    alive = alive_stages(stages)
    return {(stage, source) for stage, sources in alive.items() for source in sources}


def below(number: int, rounds: int) -> float:
    """A threshold that drops the first ``number`` of the rounds: between their ranks.

    Ranks are 1/rounds … 1, which single precision rounds to either side.
    """
    return (number + 0.5) / rounds


class _Recorded(nn.Module):
    """Stands for a backbone that gives these maps again."""

    def __init__(self, maps: list[Tensor]) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, _: Tensor) -> list[Tensor]:
        return self.maps


def _recorded(model: DensePredictor, images: Tensor) -> Backbone:
    """A stand-in for the backbone, which takes the images once: pruning leaves its maps alone."""
    found: list[list[Tensor]] = []
    hook = model.backbone.register_forward_hook(lambda _, __, maps: found.append(maps))
    try:
        model.outputs(images)
    finally:
        hook.remove()
    return _Recorded(found[0])  # type: ignore[return-value]
