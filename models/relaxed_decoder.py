"""The connected decoder in a search: each connection has a weight, which may go to 0.

A stage is D_l = BN(Σ_t w_l^t · up(bn_l^t(conv1x1_l^t(relu6(t))))), without affine parameters in the
BatchNorms. Computed connection by connection this holds a full-size map for each. Here nothing is
held for a connection: w and the BatchNorm of a 1×1 convolution are a scale and a shift
of its output channels, known before the convolution from the mean and the covariance of its input,
so that a connection's weight, BatchNorm and convolution are one convolution, and what reaches a
stage from sources of one size is summed before one upsampling.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones import FeatureSpec
from models.connected_decoder import PAPER, WIDTH, ConnectedDecoder
from models.connectivity import Connection, Connectivity, fully_dense
from models.decoders.base import DecoderInfo

FEW = 4
"""Pixels per channel up to which a connection's statistics come from its output."""
Gate = Literal["noisy", "sampled"]


class RelaxedDecoder(ConnectedDecoder):
    """Maps [B, C_i, h_i, w_i] → relu6(D_1) [B, width, h_1, w_1], with a weight per connection.

    ``raw`` [connections]: the weights w, initially 1, in the order of ``connections``: in 0…2, or
    with a mean of 1 in each stage where they are ``sampled``. ``clamp_`` brings back what training
    has pushed outside.

    gate: how w acts in training: ``noisy``, as clamp(w + noise · N(0, 1), 0, 2) (SparseMask), or
    ``sampled``, as 1 for ``inputs`` connections of a stage, drawn in proportion to w, and 0 for the
    others, with a straight-through gradient (MaskConnect: Ahmed and Torresani, ECCV 2018). In
    evaluation w acts as it is, or as 1 for the ``inputs`` largest of a stage.

    kept: the connections of an alive wiring, to which passes are restricted; None for all.
    direct_drop: probability that a training step leaves out a connection of the encoder straight
    into D1. Short paths learn fastest and would be all that a short search keeps (Zhou et al.,
    NeurIPS 2020); a step without them is cheaper too.
    """

    info = DecoderInfo("relaxed", PAPER)

    def __init__(
        self,
        features: Sequence[FeatureSpec],
        connectivity: Connectivity | None = None,
        width: int = WIDTH,
        *,
        gate: Gate = "noisy",
        noise: float = 0.1,
        inputs: int = 2,
        connection_bn: bool = True,
        direct_drop: float = 0.0,
    ) -> None:
        connectivity = connectivity or fully_dense([f.undilated for f in features])
        super().__init__(features, connectivity, width)
        self.gate, self.noise, self.inputs = gate, noise, inputs
        self.direct_drop = direct_drop
        self.connections = [
            (stage, source) for stage in self.order for source in self.connectivity.stages[stage]
        ]
        place = {connection: index for index, connection in enumerate(self.connections)}
        self.raw = nn.Parameter(torch.ones(len(self.connections)))
        self.places = {
            source: [place[stage, source] for stage in users]
            for source, users in self.consumers.items()
        }
        self.norms = nn.ModuleDict(
            {name: nn.BatchNorm2d(width, affine=False) for name in self.norms}
        )
        self.connection_norms = nn.ModuleDict(
            {
                source: nn.BatchNorm2d(width * len(users), affine=False)
                for source, users in self.consumers.items()
            }
            if connection_bn
            else {}
        )
        self.kept: Set[Connection] | None = None
        self._routes: Mapping[str, Sequence[int]] = self.consumers
        self._gates: Tensor | None = None

    @property
    def weights(self) -> Tensor:
        """Each connection's weight in 0…1, for the sparse loss and the threshold.

        w/2; of a ``sampled`` gate the share of w in the stage's weights.
        """
        if self.gate == "sampled":
            return torch.cat([raw / raw.sum() for raw in self.by_stage(self.raw.clamp_min(0))])
        return self.raw.clamp(0, 2) / 2

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring the stored weights back into 0…2; call it after each step of the optimiser.

        Of a ``sampled`` gate only the order counts, which an upper bound would erase: there the
        weights get a mean of 1 in each stage instead.
        """
        if self.gate == "noisy":
            self.raw.clamp_(0, 2)
            return
        for raw in self.by_stage(self.raw.clamp_min_(0)):
            raw.copy_(raw / raw.mean() if raw.any() else torch.ones_like(raw))

    def by_stage(self, values: Tensor) -> list[Tensor]:
        """``values`` [connections], split by stage in the order of ``order``."""
        counts = [len(self.connectivity.stages[stage]) for stage in self.order]
        return list(torch.split(values, counts))

    def gates(self) -> Tensor:
        """The factor of each connection: [connections]."""
        if self.gate == "sampled":
            chosen = []
            for raw in self.by_stage(self.raw.detach()):
                count = min(self.inputs, len(raw))
                if self.training:  # a small floor lets a weight of 0 come back
                    picked = torch.multinomial(raw + 1e-3, count)
                else:
                    picked = raw.topk(count).indices
                chosen.append(torch.zeros_like(raw).index_fill_(0, picked, 1.0))
            return torch.cat(chosen) + (self.raw - self.raw.detach())
        raw = self.raw
        if self.training and self.noise:
            raw = raw + self.noise * torch.randn_like(raw)
        return raw.clamp(0, 2)

    def routes(self) -> Mapping[str, Sequence[int]]:
        return self._routes

    def _drawn_routes(self) -> Mapping[str, Sequence[int]]:
        """The routes of this pass: of ``kept`` connections, less those that are dropped."""
        kept = set(self.connections) if self.kept is None else set(self.kept)
        if self.training and self.direct_drop:
            last = self.order[-1]
            direct = [(s, n) for s, n in self.connections if s == last and n[0] != "D"]
            drawn = (torch.rand(len(direct)) < self.direct_drop).tolist()
            dropped = {connection for connection, out in zip(direct, drawn, strict=True) if out}
            if any(stage == last for stage, _ in kept - dropped):  # the output keeps an input
                kept -= dropped
        routes = {n: [s for s in users if (s, n) in kept] for n, users in self.consumers.items()}
        return {source: users for source, users in routes.items() if users}

    def forward(self, features: list[Tensor]) -> Tensor:
        # the statistics of a batch need full precision
        with torch.autocast(features[0].device.type, enabled=False):
            self._gates = self.gates().to(features[0].dtype)
            if self.kept is not None or (self.training and self.direct_drop):
                self._routes = self._drawn_routes()
            try:
                return super().forward(
                    [f if f.dtype == torch.float64 else f.float() for f in features]
                )
            finally:
                self._gates, self._routes = None, self.consumers

    def convolved(self, source: str, x: Tensor) -> Tensor:
        conv = self.convs[source]
        assert isinstance(conv, nn.Conv2d)
        assert self._gates is not None
        weight, places = conv.weight.flatten(1), self.places[source]
        rows: slice | Tensor = slice(None)
        if len(users := self._routes[source]) < len(places):
            taken = [self.consumers[source].index(stage) for stage in users]
            rows = torch.cat([torch.arange(self.width) + self.width * i for i in taken])
            rows = rows.to(weight.device)
            weight, places = weight[rows], [places[i] for i in taken]
        gates = self._gates[places].repeat_interleave(self.width)
        if source not in self.connection_norms:
            return F.conv2d(x, (weight * gates[:, None])[:, :, None, None])
        norm = self.connection_norms[source]
        assert isinstance(norm, nn.BatchNorm2d)
        outputs, channels = weight.shape
        if not self.training:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            y = F.conv2d(x, weight[:, :, None, None]) - norm.running_mean[rows, None, None]
            return y * (gates * (norm.running_var[rows] + norm.eps).rsqrt())[:, None, None]
        # of few pixels the output is small, and statistics through a covariance lose digits
        if x.numel() // channels <= FEW * channels or channels > outputs:
            y = F.conv2d(x, weight[:, :, None, None])
            variance, mean = torch.var_mean(y, (0, 2, 3), correction=0)
            _track(norm, mean, variance, y.numel() // outputs, rows)
            scale = gates * (variance + norm.eps).rsqrt()
            return (y - mean[:, None, None]) * scale[:, None, None]
        # around its mean the input's covariance keeps its digits; a constant shift moves no
        # gradient
        centre = x.detach().mean((0, 2, 3))
        x = x - centre[:, None, None]
        flat = x.movedim(1, -1).reshape(-1, channels)
        offset = flat.mean(0)
        covariance = flat.T @ flat / len(flat) - offset[:, None] * offset
        mean = weight @ offset
        variance = ((weight @ covariance) * weight).sum(1).clamp_min(0)
        _track(norm, mean + weight @ centre, variance, len(flat), rows)
        scale = gates * (variance + norm.eps).rsqrt()
        return F.conv2d(x, (weight * scale[:, None])[:, :, None, None], -scale * mean)


@torch.no_grad()
def _track(
    norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int, rows: slice | Tensor
) -> None:
    """Update the running statistics of ``rows`` as BatchNorm does, the variance without bias."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.num_batches_tracked += 1
    for running, value in (
        (norm.running_mean, mean), (norm.running_var, variance * (count / max(count - 1, 1))),
    ):  # fmt: skip
        running[rows] = running[rows].lerp(value, norm.momentum)
