"""What every decoder is, and their registry."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from common.errors import UsageError
from common.registry import Registry
from models.backbones import FeatureSpec


@dataclass(frozen=True)
class DecoderInfo:
    """Declared facts about a decoder, known before one is built.

    strides: feature strides that a backbone must have. size_divisor: the input's height and width
    are padded to a multiple of it. exportable: torch.export takes it. counts_classifier: the
    published count of its weights includes the classifier, which is the head here.
    """

    title: str
    source: str
    strides: tuple[int, ...] = ()
    size_divisor: int = 1
    exportable: bool = True
    counts_classifier: bool = False


class Decoder(nn.Module, ABC):
    """Feature maps → one map [B, ``out_channels``, h, w], which the task heads read.

    A subclass takes ``features`` (the specs of the maps that ``forward`` will get, highest
    resolution first) and ``width`` (channels of its own maps, where it has a choice).
    """

    info: ClassVar[DecoderInfo]
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

    @abstractmethod
    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps [B, C_i, h_i, w_i] → [B, out_channels, h, w]."""


DECODERS: Registry[type[Decoder]] = Registry("decoder", "models.decoders")


def last_of_each_stride(features: Sequence[FeatureSpec]) -> dict[int, int]:
    """Stride → index of the deepest feature with that stride."""
    return {spec.stride: index for index, spec in enumerate(features)}
