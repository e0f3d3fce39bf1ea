"""FCN: the head reads the deepest feature map."""

from collections.abc import Sequence

from torch import Tensor

from models.backbones import FeatureSpec
from models.decoders.base import DECODERS, Decoder, DecoderInfo


@DECODERS.register("fcn")
class FCN(Decoder):
    """Maps → E_L [B, C_L, h_L, w_L] as it is. Long et al. 2015 without skips (FCN-32s)."""

    info = DecoderInfo(
        "FCN",
        "Long, Shelhamer, Darrell: FCN, CVPR 2015, as in SparseMask table 1",
        counts_classifier=True,
    )

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        super().__init__(features)
        self.out_channels = features[-1].channels

    def forward(self, features: list[Tensor]) -> Tensor:
        return features[-1]
