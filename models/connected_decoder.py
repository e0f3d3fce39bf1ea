"""The decoder that a Connectivity wires: U-Net and SparseMask differ in its data only.

A derived stage of the paper is D_l = BN(Σ_t up(conv1x1(relu6(t)))). Two facts make it cheap at the
same result: all 1×1 convolutions that read one source are one convolution with more
output channels, and bilinear upsampling is linear, so that everything that reaches a stage from
sources of one size is summed before a single upsampling.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones import FeatureSpec
from models.connectivity import GLOBAL, Connectivity, preset
from models.decoders.base import Decoder, DecoderInfo
from models.upsampling import AVERAGE, upsampled_sum

PAPER = "Wu, Zhang, Huang: SparseMask, ICCV 2019"
WIDTH = 64
"""Channels of a stage, as in the paper's table 1."""


class ConnectedDecoder(Decoder):
    """Maps [B, C_i, h_i, w_i] → relu6(D_1) [B, width, h_1, w_1], wired by ``connectivity``."""

    info = DecoderInfo("connected", PAPER)

    def __init__(
        self, features: Sequence[FeatureSpec], connectivity: Connectivity, width: int = WIDTH
    ) -> None:
        super().__init__(features)
        self.connectivity = connectivity.alive()
        self.out_channels = self.width = width
        self.strides = [f.stride for f in features]
        stages = self.connectivity.stages
        self.order = sorted(stages, reverse=True)
        self.consumers: dict[str, list[int]] = {}
        for stage in self.order:
            for source in stages[stage]:
                self.consumers.setdefault(source, []).append(stage)

        def channels(source: str) -> int:
            if source == GLOBAL:
                return features[-1].channels
            return features[int(source[1:]) - 1].channels if source[0] == "E" else width

        self.convs = nn.ModuleDict(
            {
                source: nn.Conv2d(channels(source), width * len(users), 1, bias=False)
                for source, users in self.consumers.items()
            }
        )
        self.norms = nn.ModuleDict({f"D{stage}": nn.BatchNorm2d(width) for stage in self.order})
        self.clamped: frozenset[str] = frozenset()

    def convolved(self, source: str, x: Tensor) -> Tensor:
        """Output of ``source`` to its ``routes``, at its own size: [B, width · users, h, w]."""
        out: Tensor = self.convs[source](x)
        return out

    def routes(self) -> Mapping[str, Sequence[int]]:
        """The stages that each source feeds in this pass; a source that feeds none is absent."""
        return self.consumers

    def forward(self, features: list[Tensor]) -> Tensor:
        # inputs of each stage so far: a sum per stride, under AVERAGE that of the 1×1 averages
        waiting: dict[int, dict[int, Tensor]] = {stage: {} for stage in self.order}
        routes = self.routes()

        def hand_out(source: str, x: Tensor, stride: int) -> None:
            x = x if source in self.clamped else F.relu6(x)
            parts = torch.split(self.convolved(source, x), self.width, dim=1)
            for stage, part in zip(routes[source], parts, strict=True):
                sums = waiting[stage]
                sums[stride] = sums[stride] + part if stride in sums else part

        for source in routes:
            if source[0] == "E":
                index = int(source[1:]) - 1
                hand_out(source, features[index], self.strides[index])
            elif source == GLOBAL:
                hand_out(source, features[-1].mean((2, 3), keepdim=True), AVERAGE)
        out = features[-1]
        for stage in self.order:
            if not (sums := waiting.pop(stage)):
                continue  # none of its inputs has a route in this pass
            size = features[stage - 1].shape[-2:]
            total = upsampled_sum(sums, self.strides[stage - 1], size)
            out = self.norms[f"D{stage}"](total)
            if f"D{stage}" in routes:
                hand_out(f"D{stage}", out, self.strides[stage - 1])
        return F.relu6(out)

    def milestones(self) -> dict[nn.Module, str]:
        """E1 … and G end with their convolution; a stage with its sum and its own convolution."""
        return {
            **{self.norms[f"D{stage}"]: f"D{stage}" for stage in self.order},
            **{self.convs[source]: source for source in self.consumers},
            self: f"D{self.order[-1]}",
        }

    @torch.no_grad()
    def fuse(self, clamped: Collection[int] = ()) -> "ConnectedDecoder":
        """A copy for inference, with the stages' BatchNorm folded into the convolutions.

        clamped: indices of the features that a ReLU6 puts out, which another leaves unchanged.
        BatchNorm follows the sum, so that its scale goes to every convolution of the stage, and
        its shift to one of them: interpolation leaves a constant as it is.
        """
        fused = copy.deepcopy(self).eval()
        fused.clamped = frozenset(f"E{index + 1}" for index in clamped)
        shifted: set[int] = set()
        for source, users in self.consumers.items():
            old = self.convs[source]
            assert isinstance(old, nn.Conv2d)
            scales, shifts = [], []
            for stage in users:
                norm = self.norms[f"D{stage}"]
                assert isinstance(norm, nn.BatchNorm2d)
                assert norm.running_mean is not None
                assert norm.running_var is not None
                scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
                shift = norm.bias - norm.running_mean * scale
                scales.append(scale)
                shifts.append(torch.zeros_like(shift) if stage in shifted else shift)
                shifted.add(stage)
            new = nn.Conv2d(old.in_channels, old.out_channels, 1, device="meta")
            new.weight = nn.Parameter(old.weight * torch.cat(scales)[:, None, None, None])
            new.bias = nn.Parameter(torch.cat(shifts))
            fused.convs[source] = new
        for stage in self.order:
            fused.norms[f"D{stage}"] = nn.Identity()
        return fused


class PresetDecoder(ConnectedDecoder):
    """A ConnectedDecoder with the wiring of the preset ``name`` for the backbone's strides."""

    name: ClassVar[str]

    def __init__(self, features: Sequence[FeatureSpec], width: int = WIDTH) -> None:
        super().__init__(features, preset(self.name, [f.undilated for f in features]), width)
