"""SparseMask: the wiring of the authors' search."""

from models.connected_decoder import PAPER, PresetDecoder
from models.decoders.base import DECODERS, DecoderInfo


@DECODERS.register("sparsemask")
class SparseMask(PresetDecoder):
    """The authors' wiring for MobileNetV2, transferred by stride to other backbones."""

    name = "sparsemask"
    info = DecoderInfo("SparseMask (the authors' wiring)", PAPER)
