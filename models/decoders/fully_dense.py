"""The Fully Dense Network with fixed connections: where a search starts, unpruned."""

from models.connected_decoder import PAPER, PresetDecoder
from models.decoders.base import DECODERS, DecoderInfo


@DECODERS.register("fully-dense")
class FullyDense(PresetDecoder):
    """Every allowed connection: L(L + 1) of them for L features."""

    name = "fully-dense"
    info = DecoderInfo("Fully Dense Network", PAPER)
