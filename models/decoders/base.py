"""The interface of decoders, and their registry."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from common.errors import UsageError
from common.registry import Registry
from models.backbones import FeatureSpec


@dataclass(frozen=True)
class DecoderInfo:
    """Declared facts about a decoder, known without building one.

    strides: feature strides that a backbone must have. size_divisor: the input's height and width
    are padded to a multiple of it. exportable: torch.export takes it. min_train_batch: the fewest
    images that a training step takes. side_weight: of a side output's loss beside the final one's.
    counts_classifier: SparseMask's tables count the classifier among this decoder's weights.
    full_resolution: it reads the backbone's map at the image's own resolution, where there is one,
    in place of the deepest. revision: increases when the name gets another network; runs of before
    keep theirs, see ``Decoder.earlier``.
    """

    title: str
    source: str
    strides: tuple[int, ...] = ()
    size_divisor: int = 1
    exportable: bool = True
    min_train_batch: int = 1
    side_weight: float = 1.0
    counts_classifier: bool = False
    full_resolution: bool = False
    revision: int = 1


class Decoder(nn.Module, ABC):
    """Feature maps → what the task heads read: one map [B, ``out_channels``, h, w], as a rule.

    A subclass takes ``features`` (the specs of the maps that ``forward`` will get, highest
    resolution first) and, only where it has a choice, ``width`` (channels of its own maps). One
    that returns several tensors brings a ``head`` of its own to read them. ``earlier``: the
    networks that its name had before, by revision.
    """

    info: ClassVar[DecoderInfo]
    earlier: ClassVar[Mapping[int, type["Decoder"]]] = {}
    out_channels: int

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        """Raises UsageError if the features lack a stride that the decoder needs."""
        super().__init__()
        strides = {f.stride for f in features}
        missing = [s for s in self.info.strides if s not in strides]
        if missing:
            raise UsageError(
                f"decoder {self.info.title} needs features of stride {missing[0]}; the backbone "
                f"has {', '.join(map(str, sorted(strides)))}"
            )

    def fuse(self, clamped: Collection[int] = ()) -> "Decoder":  # noqa: ARG002
        """A copy for inference; a decoder may fold its BatchNorms into other layers.

        clamped: indices of the features that a ReLU6 puts out, which another leaves unchanged.
        ``Predictor.fuse`` folds the BatchNorms behind a convolution, for all decoders alike.
        """
        return copy.deepcopy(self).eval()

    @abstractmethod
    def forward(self, features: list[Tensor]) -> Tensor | list[Tensor]:
        """Maps [B, C_i, h_i, w_i] → [B, out_channels, h, w], or what the decoder's head reads."""

    def of(self, task: str) -> "Decoder":  # noqa: ARG002
        """The decoder that ``task`` reads."""
        return self

    def milestones(self) -> dict[nn.Module, str]:
        """Module → the step of ``forward`` that ends with it; empty: each module is a step.

        For a profile of a decoder whose modules do less than its ``forward``.
        """
        return {}

    def head(self, channels: int) -> nn.Module:
        """A new head for one task: what ``forward`` returns → logits [B, channels, h, w].

        In training it may return a list: those logits, then side outputs for deep supervision.
        A side of shape [B, channels, h, w] is trained as the logits are; one of shape
        [B, channels] scores which channels' classes the image holds (``Task.presence_loss``).
        """
        return nn.Conv2d(self.out_channels, channels, 1)


class SideHead(nn.Module):
    """A head whose sides may be averaged with its logits: it gives them where ``with_sides``."""

    gives_sides = False
    """Whether it gives them in evaluation too."""

    @property
    def with_sides(self) -> bool:
        return self.training or self.gives_sides


class SeparateDecoders(nn.Module):
    """A decoder for each task on one backbone: maps → what each task's head reads, by task."""

    def __init__(self, decoders: Mapping[str, Decoder]) -> None:
        super().__init__()
        self.decoders = nn.ModuleDict(decoders)
        self.info = next(iter(decoders.values())).info

    def of(self, task: str) -> Decoder:
        """The decoder that ``task`` reads."""
        decoder = self.decoders[task]
        assert isinstance(decoder, Decoder)
        return decoder

    def fuse(self, clamped: Collection[int] = ()) -> "SeparateDecoders":
        """A copy for inference, each decoder fused."""
        return SeparateDecoders({task: self.of(task).fuse(clamped) for task in self.decoders})

    def forward(self, features: list[Tensor]) -> dict[str, Tensor]:
        return {task: decoder(features) for task, decoder in self.decoders.items()}


DECODERS: Registry[type[Decoder]] = Registry("decoder", "models.decoders")


def last_of_each_stride(features: Sequence[FeatureSpec]) -> dict[int, int]:
    """Stride → index of the deepest feature with that stride."""
    return {spec.stride: index for index, spec in enumerate(features)}
