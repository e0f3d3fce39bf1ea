"""Backbone, decoder and a head for each task, as one network."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UsageError
from models.backbones import IMAGENET_MEAN, IMAGENET_STD, Backbone, for_channels
from models.decoders.base import Decoder, SeparateDecoders, SideHead
from models.fusion import check_same, clamped_features, fold_batch_norms, reparameterised

Kind = TypeVar("Kind", bound="Predictor")


class Predictor(nn.Module):
    """``backbone``, ``decoder``, ``heads`` by task; kinds differ in what ``forward`` returns.

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
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        """mean, std: of each channel of the images; default: ImageNet's."""
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.heads = nn.ModuleDict(
            {task: decoder.of(task).head(channels) for task, channels in heads.items()}
        )
        mean = mean or for_channels(IMAGENET_MEAN, backbone.in_channels)
        std = std or for_channels(IMAGENET_STD, backbone.in_channels)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.size_divisor = math.lcm(backbone.size_divisor, decoder.info.size_divisor)

    @classmethod
    def of(cls: type[Kind], other: "Predictor") -> Kind:
        """``other`` as a predictor of this kind, with the same parts and mode."""
        same = cls(other.backbone, other.decoder, {})
        same.heads, same.mean, same.std = other.heads, other.mean, other.std
        return same.train(other.training)

    @property
    def in_channels(self) -> int:
        """Channels of the images; 3 is RGB."""
        return self.mean.shape[1]

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """Images [B, ``in_channels``, H, W] in 0…1 → logits by task, each [B, channels, H, W].

        In training, and after ``give_sides``, a decoder with deep supervision adds its side outputs
        as ``TASK/side1``, …, of the same shape, or [B, channels] where a side is about the whole
        image.
        """
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
        """Normalised, padded images → outputs of the heads, at their own size, by name."""
        features = self.decoder(self.backbone(x))
        logits = {}
        for task, head in self.heads.items():
            out = head(features[task] if isinstance(features, dict) else features)
            final, *sides = out if isinstance(out, list) else [out]
            logits[task] = final
            logits.update({f"{task}/side{i}": side for i, side in enumerate(sides, 1)})
        return logits

    def give_sides(self) -> None:
        """Let ``outputs`` hold the sides in evaluation too, to be averaged with the logits.

        Raises UsageError for a decoder that has none to average.
        """
        heads = [head for head in self.heads.values() if isinstance(head, SideHead)]
        if not heads:
            raise UsageError(
                f"--merge-sides: decoder {self.decoder.info.title} has no side outputs to merge: "
                "leave it out"
            )
        for head in heads:
            head.gives_sides = True

    @torch.no_grad()
    def fuse(self: Kind) -> Kind:
        """A copy for inference with the same outputs.

        Branches of the backbone are re-parameterised, BatchNorm is folded, unused parts removed.
        """
        fused = copy.deepcopy(self).eval()
        # Inception's maps have no pixel left at 64×64
        height, width = self.backbone.fixed_size or (128, 128)
        generator = torch.Generator().manual_seed(0)
        example = torch.rand(1, self.in_channels, height, width, generator=generator)
        example = example.to(self.mean)  # its device and type
        before = fused.backbone(example)
        fused.backbone.net = reparameterised(fused.backbone.net)
        check_same(before, fused.backbone(example), "re-parameterising the backbone")
        fused.decoder = self.decoder.fuse(clamped_features(fused.backbone, example))
        fold_batch_norms(fused, example)
        return fused

    def check_size(self, height: int, width: int, option: str = "--image-size") -> None:
        """Raises UsageError if the backbone cannot take images of this size, which option sets."""
        fixed = self.backbone.fixed_size
        if fixed is not None and fixed != (height, width):
            raise UsageError(
                f"the backbone takes images of {fixed[0]}×{fixed[1]} only, not {height}×{width}: "
                f"use {option} {fixed[0]}x{fixed[1]}"
            )


class DensePredictor(Predictor):
    """Images [B, ``in_channels``, H, W] in 0…1 → ``outputs``: logits by task."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.outputs(images)


class TaskPredictor(Predictor):
    """A predictor of one task: images [B, C, H, W] in 0…1 → its logits [B, channels, H, W].

    Side outputs of a decoder with deep supervision are in ``outputs`` only.
    """

    def forward(self, images: Tensor) -> Tensor:
        (task,) = self.heads
        return self.outputs(images)[task]


def channels_of(network: nn.Module) -> int:
    """Channels of the images that ``network`` takes: its ``in_channels``, else RGB's three."""
    return int(getattr(network, "in_channels", 3))


def plain(model: DensePredictor) -> Predictor:
    """``model`` for users of Python: with one task it returns the logits without a dict."""
    return TaskPredictor.of(model) if len(model.heads) == 1 else model
