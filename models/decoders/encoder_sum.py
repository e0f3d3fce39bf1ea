"""Every encoder feature straight into the output: the plainest wiring, a baseline."""

from models.connected_decoder import PresetDecoder
from models.decoders.base import DECODERS, DecoderInfo


@DECODERS.register("encoder-sum")
class EncoderSum(PresetDecoder):
    """D1 ← EL … E1, as a fully convolutional network with skips from every stage."""

    name = "encoder-sum"
    info = DecoderInfo(
        "All encoder features into D1", "Long, Shelhamer, Darrell: FCN, CVPR 2015 (all skips)"
    )
