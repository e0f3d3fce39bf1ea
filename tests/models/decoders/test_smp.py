"""Decoders of segmentation-models-pytorch: what each gets, and what it makes of it."""

from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor

from models.backbones import FeatureSpec
from models.decoders.base import DECODERS

SPECS = [
    FeatureSpec(c, s) for c, s in ((4, 2), (6, 2), (8, 4), (12, 8), (16, 16), (20, 16), (24, 32))
]
LAST = (1, 2, 3, 5, 6)
PYRAMIDS = ("smp-fpn", "smp-linknet", "smp-segformer", "smp-unet", "smp-upernet")
NAMES = [name for name in DECODERS.names() if name.startswith("smp-")]


def maps_of(height: int = 64, width: int = 96) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, s.channels, height // s.stride, width // s.stride) for s in SPECS]


def decoder_of(name: str) -> Any:
    torch.manual_seed(1)
    return DECODERS.get(name)(SPECS).eval()


@pytest.mark.parametrize("name", PYRAMIDS)
def test_a_pyramid_gets_what_the_librarys_encoders_would_give(name: str) -> None:
    """The image, then the last map of each of the strides 2 to 32."""
    decoder, maps = decoder_of(name), maps_of()
    with torch.no_grad():
        own = decoder.net([torch.rand(2, 3, 64, 96), *(maps[i] for i in LAST)])
        assert torch.equal(decoder(maps), own)


@pytest.mark.parametrize("name", ["smp-deeplabv3", "smp-pspnet"])
def test_the_others_get_the_deepest_map(name: str) -> None:
    decoder, maps = decoder_of(name), maps_of()
    with torch.no_grad():
        assert torch.equal(decoder([maps[-1]]), decoder.net(maps))
        assert torch.equal(decoder(maps), decoder.net(maps))


def test_deeplabv3plus_joins_stride_32_with_stride_4() -> None:
    decoder, maps = decoder_of("smp-deeplabv3plus"), maps_of()
    net = decoder.net
    with torch.no_grad():
        coarse = F.interpolate(net.aspp(maps[-1]), (16, 24), mode="bilinear", align_corners=True)
        expected = net.block2(torch.cat([coarse, net.block1(maps[2])], dim=1))
        torch.testing.assert_close(decoder(maps), expected)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "smp-dpt"])
def test_the_settings_are_those_of_the_librarys_model(name: str) -> None:
    """Same parameters as the whole library model has on an encoder of the same channels."""
    models = {m.__name__.lower(): m for m in (smp.FPN, smp.Linknet, smp.Segformer, smp.Unet,
              smp.UPerNet, smp.DeepLabV3, smp.DeepLabV3Plus, smp.PSPNet)}  # fmt: skip
    arguments = {"encoder_depth": 5} if name == "smp-pspnet" else {}
    with torch.device("meta"):
        model = models[name.removeprefix("smp-")]("resnet18", encoder_weights=None, **arguments)
        specs = [FeatureSpec(c, 2**i) for i, c in enumerate(model.encoder.out_channels) if i]
        own = DECODERS.get(name)(specs).net
    shapes = {key: value.shape for key, value in model.decoder.state_dict().items()}
    assert {key: value.shape for key, value in own.state_dict().items()} == shapes
    assert DECODERS.get(name).out_channels == model.segmentation_head[0].in_channels


def test_dpts_fusion_is_the_librarys() -> None:
    """What is left of the library's decoder, without the readout and resampling of tokens."""
    with torch.device("meta"):
        model = smp.DPT("tu-vit_tiny_patch16_224", encoder_weights=None)
        own = DECODERS.get("smp-dpt")(SPECS).net

    def shapes(module: Any) -> list[dict[str, Any]]:
        return [{key: x.shape for key, x in part.state_dict().items()} for part in module]

    assert shapes(own.fuse) == shapes(model.decoder.fusion_blocks)
    theirs = [block.project_to_feature_dim for block in model.decoder.reassemble_blocks]
    for mine, other in zip(own.project, theirs, strict=True):
        assert (mine.kernel_size, mine.padding, mine.bias) == ((3, 3), (1, 1), None)
        assert (other.kernel_size, other.padding, other.bias) == ((3, 3), (1, 1), None)
        assert mine.out_channels == other.out_channels
