"""DensePredictor: backbone, decoder and a head for each task, as one network."""

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UsageError
from models.backbones import Backbone
from models.connected_decoder import ConnectedDecoder
from models.connectivity import Connectivity
from models.decoders.base import DECODERS, Decoder, SeparateDecoders
from models.fusion import clamped_features, fold_batch_norms

WIRED = "connectivity:"


class DensePredictor(nn.Module):
    """Images [B, 3, H, W] in 0…1 → logits by task, each [B, channels, H, W].

    In training, a decoder with deep supervision adds its side outputs as ``TASK/side1``, …, of the
    same shape, or [B, channels] where a side is about the whole image.

    Normalisation by ``mean`` and ``std``, padding to what backbone and decoder take, and the
    bilinear resizing to the input size are part of the network, so that what is timed is what is
    used.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        decoder: Decoder | SeparateDecoders,
        heads: Mapping[str, int],
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.heads = nn.ModuleDict(
            {task: decoder.of(task).head(channels) for task, channels in heads.items()}
        )
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.size_divisor = math.lcm(backbone.size_divisor, decoder.info.size_divisor)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        height, width = images.shape[-2:]
        x = (images - self.mean) / self.std
        padded = [-size % self.size_divisor for size in (height, width)]
        if any(padded):
            x = F.pad(x, (0, padded[1], 0, padded[0]))
        size = x.shape[-2:]
        logits = self.maps(x)
        for name, y in logits.items():
            if y.ndim == 4:
                if y.shape[-2:] != size:
                    y = F.interpolate(y, size=size, mode="bilinear", align_corners=True)
                logits[name] = y[..., :height, :width]
        return logits

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """Normalised, padded images → what the heads say, at their own size, by name."""
        features = self.decoder(self.backbone(x))
        found = {}
        for task, head in self.heads.items():
            out = head(features[task] if isinstance(features, dict) else features)
            final, *sides = out if isinstance(out, list) else [out]
            found[task] = final
            found.update({f"{task}/side{i}": side for i, side in enumerate(sides, 1)})
        return found

    @torch.no_grad()
    def fuse(self) -> "DensePredictor":
        """A copy for inference, of the same outputs: BatchNorm folded, dead parts gone."""
        fused = copy.deepcopy(self).eval()
        height, width = self.backbone.fixed_size or (64, 64)
        same = torch.Generator().manual_seed(0)
        example = torch.rand(1, 3, height, width, generator=same).to(self.mean.device)
        fused.decoder = self.decoder.fuse(clamped_features(fused.backbone, example))
        fold_batch_norms(fused, example)
        return fused

    def check_size(self, height: int, width: int) -> None:
        """Raises UsageError if the backbone cannot take images of this size."""
        fixed = self.backbone.fixed_size
        if fixed is not None and fixed != (height, width):
            raise UsageError(
                f"the backbone takes images of {fixed[0]}×{fixed[1]} only, not {height}×{width}: "
                f"use --image-size {fixed[0]}x{fixed[1]} or --backbone-arg img_size=…"
            )


def wiring_file(decoder: str) -> Path | None:
    """The file that ``connectivity:FILE.json`` names; None for a decoder of the registry."""
    return Path(decoder.removeprefix(WIRED)).expanduser() if decoder.startswith(WIRED) else None


def build_decoder(
    name: str, backbone: Backbone, wiring: Mapping[str, Any] | None = None
) -> Decoder:
    """The decoder called ``name``, or wired by ``connectivity:FILE.json``, for ``backbone``.

    wiring: the file's strides and stages, where they are known; then it is not read. Raises
    UsageError for an unknown name, a file that is no connectivity, and features that the decoder
    cannot use.
    """
    file = wiring_file(name)
    if file is None:
        return DECODERS.get(name)(backbone.features)
    strides = [f.stride for f in backbone.features]
    source = Connectivity.load(file) if wiring is None else Connectivity.recorded(file.stem, wiring)
    return ConnectedDecoder(backbone.features, source.transfer(strides))
