"""SparseACN's connectivity in SparseMask's decoder: the paper's baseline."""

from models.connected_decoder import PresetDecoder
from models.decoders.base import DECODERS, DecoderInfo


@DECODERS.register("sparse-acn")
class SparseACN(PresetDecoder):
    """Each stage takes the maps 1, 2, 4, 8 and 16 places before it in E1 … EL, G, DL … D1."""

    name = "sparse-acn"
    info = DecoderInfo(
        "SparseACN connectivity",
        "Zhu et al.: Sparsely Aggregated Convolutional Networks, ECCV 2018",
    )
