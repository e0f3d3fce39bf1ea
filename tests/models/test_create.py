"""create_decoder: any decoder on the feature maps of any encoder."""

import json
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch

from common.errors import UsageError
from models.backbones import FeatureSpec, create_without_weights
from models.connectivity import preset
from models.create import check_width, create_decoder, decoder_class, has_width
from models.decoders.base import DECODERS

MAPS = [(8, 2), (8, 4), (12, 8), (16, 16), (20, 32)]


def maps(features: list[tuple[int, int]], height: int, width: int) -> list[torch.Tensor]:
    return [torch.rand(2, c, height // s, width // s) for c, s in features]


@pytest.mark.parametrize("name", DECODERS.names())
def test_every_decoder_reads_the_maps_of_an_smp_encoder(name: str) -> None:
    """The image, which the library hands out first, is left out."""
    encoder = smp.encoders.get_encoder("resnet18", weights=None).eval()
    features = [(channels, 2**i) for i, channels in enumerate(encoder.out_channels)]
    decoder = create_decoder(name, features[1:]).eval()
    with torch.no_grad():
        given = encoder(torch.rand(2, 3, 64, 96))[1:]
        assert [(m.shape[1], 64 // m.shape[2]) for m in given] == features[1:]
        out = decoder(given)
        logits = decoder.head(5).eval()(out)
    if isinstance(out, torch.Tensor):
        assert out.shape[:2] == (2, decoder.out_channels)
        assert out.shape[-2:] == logits.shape[-2:]
    assert logits.shape[:2] == (2, 5)
    assert logits.shape[2] * 96 == logits.shape[3] * 64


@pytest.mark.parametrize("strides", [(1, 2, 4), (4, 8), (8,), (2, 2, 4, 4, 8), (4, 14)])
@pytest.mark.parametrize("name", ["sparsemask", "unet-connectivity", "fully-dense", "fcn"])
def test_any_list_of_strides_will_do(name: str, strides: tuple[int, ...]) -> None:
    features = [(4 + i, stride) for i, stride in enumerate(strides)]
    decoder = create_decoder(name, features)
    first = strides[-1 if name == "fcn" else 0]
    out = decoder(maps(features, 56, 112))
    assert out.shape == (2, decoder.out_channels, 56 // first, 112 // first)


def test_pairs_and_specs_are_alike() -> None:
    torch.manual_seed(0)
    pairs = create_decoder("sparsemask", MAPS).eval()
    torch.manual_seed(0)
    specs = create_decoder("sparsemask", [FeatureSpec(*pair) for pair in MAPS]).eval()
    given = maps(MAPS, 64, 64)
    assert torch.equal(pairs(given), specs(given))


def test_the_width_is_the_decoders_own_unless_given() -> None:
    own, given = create_decoder("unet-connectivity", MAPS), create_decoder("dss-light", MAPS)
    assert own.out_channels == 64
    assert given.channels == DECODERS.get("dss-light")(own_specs()).channels
    assert create_decoder("unet-connectivity", MAPS, width=8).out_channels == 8


@pytest.mark.parametrize("name", DECODERS.names())
def test_only_a_decoder_that_has_a_choice_takes_a_width(name: str) -> None:
    with torch.device("meta"):
        networks = [create_decoder(name, MAPS, width=width) for width in (8, 16)]
        sizes = {sum(p.numel() for m in (n, n.head(5)) for p in m.parameters()) for n in networks}
    assert has_width(decoder_class(name)) == (len(sizes) == 2)
    check_width(name, None)
    if len(sizes) == 1:
        with pytest.raises(UsageError, match=f"--width 16: decoder {name} has no width to choose"):
            check_width(name, 16)


def test_decoders_with_a_width_are_named() -> None:
    check_width("connectivity:any.json", 16)
    with pytest.raises(UsageError) as caught:
        check_width("fcn", 16)
    _, _, names = str(caught.value).partition("have one: ")
    assert names.split(", ") == [
        "connectivity:FILE.json", "dss", "dss-light", "efficientvit-head", "encoder-sum",
        "fully-dense", "seaformer-head", "sparse-acn", "sparsemask", "sparsemask-stride1",
        "unet-connectivity",
    ]  # fmt: skip


def own_specs() -> list[FeatureSpec]:
    return [FeatureSpec(*pair) for pair in MAPS]


def test_a_file_wires_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(preset("sparse-acn", [s for _, s in MAPS]).to_json()))
    name = f"connectivity:{file}"
    mine, own = create_decoder(name, MAPS, width=8), create_decoder("sparse-acn", MAPS, width=8)
    mine.load_state_dict(own.state_dict())
    given = maps(MAPS, 64, 64)
    assert torch.equal(mine(given), own(given))
    content = json.loads(file.read_text())
    file.unlink()
    known = {"strides": content["encoder"]["strides"], "stages": content["stages"]}
    create_decoder(name, MAPS, width=8, wiring=known).load_state_dict(own.state_dict())
    with pytest.raises(UsageError, match=r"mine\.json: no such connectivity file"):
        create_decoder(name, MAPS)


@pytest.mark.parametrize(
    ("name", "features", "options", "message"),
    [
        ("sparsemsk", MAPS, {}, "unknown decoder 'sparsemsk': did you mean sparsemask"),
        ("connectivity:", MAPS, {}, "unknown decoder 'connectivity:'"),
        ("fcn", [], {}, "features: none: give"),
        ("fcn", [(8, 2), 16], {}, r"features\[1\]: 16: expected \(channels, stride\)"),
        ("fcn", [(8, 2, 3)], {}, r"features\[0\]: \(8, 2, 3\): expected"),
        ("fcn", [(8, 0)], {}, r"features\[0\]: \(8, 0\): expected"),
        ("fcn", [(8, 2.0)], {}, r"features\[0\]: \(8, 2.0\): expected"),
        ("fcn", [FeatureSpec(0, 2)], {}, r"features\[0\]: .*: expected"),
        ("fcn", [(8, 4), (8, 2)], {}, r"features\[1\]: stride 2 after 4: give the maps from"),
        ("smp-unet", [(8, 4), (8, 8)], {}, "needs features of stride 16; .* has 4, 8"),
        ("sparsemask", MAPS, {"width": 0}, "width=0: expected at least one"),
    ],
)
def test_what_cannot_be_built_is_said(
    name: str, features: list[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        create_decoder(name, features, **options)


@pytest.mark.parametrize(("width", "millions"), [(64, 0.80), (512, 6.85)])
def test_sparsemask_on_resnet101(width: int, millions: float) -> None:
    """Table 2 of the paper prints 45 + 7 M: with the classifier's 2.05 M, and of no stated width.

    Two convolutions of E5 (2,048 channels), three of G, two of E4 (1,024), one of E1 (64) and of
    each D.
    """
    backbone = create_without_weights("resnet101")
    encoder = sum(p.numel() for p in backbone.parameters())
    assert round((encoder + 2048 * 1000 + 1000) / 1e6) == 45
    with torch.device("meta"):
        decoder = create_decoder("sparsemask", backbone.features, width=width)
    weights = sum(m.weight.numel() for m in decoder.modules() if isinstance(m, torch.nn.Conv2d))
    assert weights == width * ((2 + 3) * 2048 + 2 * 1024 + 64 + 2 * width)
    assert round(weights / 1e6, 2) == millions
