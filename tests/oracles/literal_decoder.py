"""The paper's formula as it is written: every connection convolved, normalised and upsampled alone.

The oracle of tests, and what benchmarks are measured against. It takes its parameters from a
ConnectedDecoder or a RelaxedDecoder.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.connected_decoder import ConnectedDecoder
from models.relaxed_decoder import RelaxedDecoder


class LiteralDecoder(nn.Module):
    """The same function as ``decoder``, connection by connection."""

    def __init__(self, decoder: ConnectedDecoder) -> None:
        super().__init__()
        self.stages = dict(decoder.connectivity.stages)
        self.out_channels = decoder.out_channels
        self.norms, self.convs = nn.ModuleDict(), nn.ModuleDict()
        self.connection_norms = nn.ModuleDict()
        relaxed = isinstance(decoder, RelaxedDecoder)
        self.raw = nn.Parameter(decoder.raw.detach().clone()) if relaxed else None
        self.noise = decoder.noise if relaxed else 0.0
        self.place = (
            {f"{s} {t}": i for i, (s, t) in enumerate(decoder.connections)} if relaxed else {}
        )
        for stage in decoder.order:
            norm = decoder.norms[f"D{stage}"]
            self.norms[str(stage)] = nn.BatchNorm2d(decoder.width, affine=norm.affine)
            self.norms[str(stage)].load_state_dict(norm.state_dict())
            for source in self.stages[stage]:
                key = f"{stage} {source}"
                at = decoder.consumers[source].index(stage) * decoder.width
                part = slice(at, at + decoder.width)
                weight = decoder.convs[source].weight[part]
                conv = nn.Conv2d(weight.shape[1], decoder.width, 1, bias=False)
                conv.weight = nn.Parameter(weight.detach().clone())
                self.convs[key] = conv
                if relaxed and source in decoder.connection_norms:
                    joint = decoder.connection_norms[source]
                    alone = nn.BatchNorm2d(decoder.width, affine=False)
                    alone.running_mean = joint.running_mean[part].clone()
                    alone.running_var = joint.running_var[part].clone()
                    self.connection_norms[key] = alone
        self.to(decoder.convs[next(iter(decoder.consumers))].weight.dtype)
        self.train(decoder.training)

    def forward(self, features: list[Tensor]) -> Tensor:
        gates = None
        if self.raw is not None:
            gates = self.raw
            if self.training and self.noise:
                gates = gates + self.noise * torch.randn_like(gates)
            gates = gates.clamp(0, 2)
        sources = {f"E{i}": f for i, f in enumerate(features, 1)}
        sources["G"] = features[-1].mean((2, 3), keepdim=True)
        for stage in sorted(self.stages, reverse=True):
            size = features[stage - 1].shape[-2:]
            total = 0
            for source in self.stages[stage]:
                key = f"{stage} {source}"
                x = self.convs[key](F.relu6(sources[source]))
                if key in self.connection_norms:
                    x = self.connection_norms[key](x)
                x = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
                if gates is not None:
                    x = x * gates[self.place[key]]
                total = total + x
            sources[f"D{stage}"] = self.norms[str(stage)](total)
        return F.relu6(sources["D1"])
