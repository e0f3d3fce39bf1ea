"""U-Net's connectivity in SparseMask's decoder: the paper's baseline."""

from models.connected_decoder import PAPER, PresetDecoder
from models.decoders.base import DECODERS, DecoderInfo


@DECODERS.register("unet-connectivity")
class UnetConnectivity(PresetDecoder):
    """D_l ← E_l, D_{l+1}; 1×1 convolutions of one width, as in the paper's table 1."""

    name = "unet-connectivity"
    info = DecoderInfo("U-Net connectivity", PAPER)
