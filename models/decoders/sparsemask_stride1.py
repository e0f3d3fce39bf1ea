"""SparseMask from a backbone's map of stride 1 on, as on VGG-16 for edges."""

from dataclasses import replace

from models.decoders.base import DECODERS
from models.decoders.sparsemask import SparseMask


@DECODERS.register("sparsemask-stride1")
class SparseMaskStride1(SparseMask):
    """The authors' wiring on VGG-16's convolutions before each pooling, strides 1 to 16.

    These are the maps of HED, beside which the paper's table 6 has it. Matched by stride, the
    stages and maps of stride 32 have no partner: D5 ← E5, G; D1 ← G, E5, D5, E2. The paper does
    not say which maps of VGG-16 it reads, nor how many weights it has there. On a backbone without
    a map of stride 1 this is ``sparsemask``.
    """

    info = replace(SparseMask.info, title="SparseMask (stride 1)", full_resolution=True)
