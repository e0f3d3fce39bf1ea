"""LR-ASPP, Hamburger, DPT, EfficientViT's and SeaFormer's heads beside what is published."""

import io
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.segmentation.lraspp import LRASPPHead

from models.decoders.base import DECODERS, Decoder
from models.decoders.hamburger import EPSILON, RANK, STEPS, LowRank
from models.feature_maps import FeatureSpec
from tests.models.decoders.test_contract import batch_norm, settle


def specs(*pairs: tuple[int, int]) -> list[FeatureSpec]:
    return [FeatureSpec(*pair) for pair in pairs]


def random_maps(features: list[FeatureSpec], side: int, count: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(count, f.channels, side // f.stride, side // f.stride, generator=generator)
        for f in features
    ]


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def macs(network: nn.Module, inputs: Any) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(inputs)
    return counter.get_total_flops() // 2


def network_of(decoder: Decoder, classes: int) -> nn.Sequential:
    return nn.Sequential(decoder, decoder.head(classes))


def test_lraspp_is_torchvisions() -> None:
    """The same weights give the same maps, with as many parameters and MACs, on the channels of
    MobileNetV3-Large dilated to stride 16."""
    features = specs((16, 2), (24, 4), (40, 8), (960, 16))
    torch.manual_seed(0)
    mine = settle(network_of(DECODERS.get("lraspp")(features), 21)).eval()
    theirs = LRASPPHead(40, 960, 21, 128).eval()
    names = {
        "cbr.0": "0.local.0", "cbr.1": "0.local.1", "scale.1": "0.gate",
        "high_classifier": "1.deep", "low_classifier": "1.fine",
    }  # fmt: skip
    own = mine.state_dict()
    theirs.load_state_dict(
        {
            key: own[f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}"]
            for key in theirs.state_dict()
        }
    )
    maps = random_maps(features, 128)
    inputs = {"low": maps[2], "high": maps[3]}
    with torch.no_grad():
        torch.testing.assert_close(mine(maps), theirs(inputs))
    assert count(mine) == count(theirs) == 960 * 128 * 2 + 2 * 128 + (128 + 40 + 2) * 21
    assert macs(mine, maps) == macs(theirs, inputs)


@pytest.mark.parametrize(
    ("backbone", "width", "blocks", "millions", "giga"),
    [("efficientvit_b0", 32, 1, 0.7, 4.4), ("efficientvit_b1", 64, 3, 4.8, 25.0)],
)
def test_efficientvits_head_has_the_published_size(
    monkeypatch: pytest.MonkeyPatch,
    backbone: str,
    width: int,
    blocks: int,
    millions: float,
    giga: float,
) -> None:
    """The whole networks for Cityscapes' 19 classes at 1024×2048, as the authors list them."""
    monkeypatch.setattr("models.decoders.efficientvit_head.BLOCKS", blocks)
    # not on the meta device, which timm 1.0.22 cannot run it on
    body = timm.create_model(backbone, features_only=True).eval()
    info = body.feature_info
    features = specs(*zip(info.channels(), info.reduction(), strict=True))
    decoder = DECODERS.get("efficientvit-head")(features, width=width)
    network = nn.Sequential(body, network_of(decoder, 19)).eval()
    assert round(count(network) / 1e6, 1) == millions
    # all of it is proportional to the area, the linear attention too: a sixteenth of it
    counted = 16 * macs(network, torch.zeros(1, 3, 256, 512)) / 1e9
    assert counted == pytest.approx(giga, rel=0.02)


def test_hamburger_has_the_size_of_segnexts() -> None:
    """SegNeXt-T has 4.3 M for ADE20K's 150 classes, its backbone 4.2 M with 1000 classes' 257 k.

    Its three maps have 64, 160 and 256 channels; the rank of its settings is 16. Counted at
    512×512.
    """
    features = specs((32, 4), (64, 8), (160, 16), (256, 32))
    network = network_of(DECODERS.get("hamburger")(features), 150).eval()
    squeeze, square, classifier = (64 + 160 + 256) * 256, 256 * 256, 256 * 150
    norms, biases = 3 * 2 * 256, 256 + 150
    weights = squeeze + 3 * square + classifier
    assert count(network) == weights + norms + biases
    assert round(4.2 - 0.257 + count(network) / 1e6, 1) == 4.3
    places = 64 * 64
    # 7 updates of both factors and a last one of the coefficients; their start, and the product
    updates = 2 * 7 + 1
    factors = (updates + 2) * places * 256 * 16 + updates * (places + 256) * 16 * 16
    assert macs(network, random_maps(features, 512, count=1)) == weights * places + factors


@pytest.mark.parametrize("training", [True, False])
def test_the_low_rank_map_is_the_classical_factorisation(training: bool) -> None:
    """Lee and Seung's rules, H ← H · WᵀX / WᵀWH and W ← W · XHᵀ / WHHᵀ, image by image."""
    layer = LowRank(8).double().train(training)
    images = torch.rand(2, 8, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for image, found in zip(images, layer(images), strict=True):
        x, w = image.flatten(1).numpy(), layer.bases.numpy()
        assert w.shape == (8, RANK)
        np.testing.assert_allclose((w**2).sum(0), 1, rtol=1e-6)  # drawn in float32
        h = np.exp(w.T @ x)
        h /= h.sum(0)
        errors = [np.linalg.norm(w @ h - x)]
        for step in range(STEPS[training] + 1):
            h = h * (w.T @ x) / (w.T @ w @ h + EPSILON)
            if step < STEPS[training]:
                w = w * (x @ h.T) / (w @ h @ h.T + EPSILON)
            errors.append(np.linalg.norm(w @ h - x))
        np.testing.assert_allclose(found.flatten(1).numpy(), w @ h, rtol=1e-9)
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.5 * errors[0]


def test_the_low_rank_map_repeats_in_evaluation() -> None:
    one, other = LowRank(8).eval(), LowRank(8).eval()
    image = torch.rand(1, 8, 4, 4)
    assert torch.equal(one(image), one(image))
    assert torch.equal(one(image), other(image))


def test_the_low_rank_map_is_computed_in_single_precision() -> None:
    layer, image = LowRank(8).eval(), torch.rand(2, 8, 6, 4)
    with torch.autocast("cpu", torch.bfloat16):
        single, half = layer(image), layer(image.bfloat16())
    assert torch.equal(single, layer(image))
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, layer(image.bfloat16().float()).bfloat16())


def test_the_low_rank_map_has_a_shape_on_the_meta_device() -> None:
    assert LowRank(8).to("meta")(torch.empty(2, 8, 6, 4, device="meta")).shape == (2, 8, 6, 4)


def test_the_low_rank_map_is_saved_for_any_batch_and_size() -> None:
    layer, dims = LowRank(8).eval(), [torch.export.Dim(n, min=2, max=64) for n in "bhw"]
    program = torch.export.export(
        layer, (torch.rand(2, 8, 6, 4),), dynamic_shapes=({0: dims[0], 2: dims[1], 3: dims[2]},)
    )
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    image = torch.rand(5, 8, 7, 9)
    torch.testing.assert_close(torch.export.load(file).module()(image), layer(image))


def test_dpt_has_the_size_of_its_parts() -> None:
    """A 3×3 convolution for each map; four fusions of two residual blocks and a 1×1 convolution."""
    features = specs((24, 4), (40, 8), (112, 16), (320, 32))
    decoder = DECODERS.get("smp-dpt")(features)
    project = 9 * (24 + 40 + 112 + 320) * 256
    residual = 2 * (9 * 256 * 256 + 2 * 256)
    assert count(decoder) == project + 4 * (2 * residual + 256 * 256 + 256)
    assert decoder(random_maps(features, 64))[0].shape == (256, 32, 32)


def test_seaformers_head_has_the_size_of_its_parts() -> None:
    """SeaFormer-T's: maps of 32, 128 and 160 channels, fused to 64 and 96, for 150 classes."""
    features = specs((16, 4), (32, 8), (128, 16), (160, 32))
    network = network_of(DECODERS.get("seaformer-head")(features), 150).eval()
    # 1×1 convolutions of the fine and of the coarse map, a depthwise one, the classifier
    fine = 32 * 64 + 64 * 96 + 96 + 96 * 150
    middle, coarse = 128 * 64, 160 * 96
    norms = 2 * (2 * 64 + 2 * 96 + 96)
    assert count(network) == fine + middle + coarse + norms + 150 == 47_222
    maps = random_maps(features, 512, count=1)
    assert macs(network, maps) == fine * 64 * 64 + middle * 32 * 32 + coarse * 16 * 16


def enlarged(x: Tensor, size: int) -> Tensor:
    """Square maps, linearly between the centres of pixels and constant beyond the outermost."""
    centres = ((torch.arange(size) + 0.5) * x.shape[-1] / size - 0.5).clamp(0, x.shape[-1] - 1)
    weights = (1 - (centres[:, None] - torch.arange(x.shape[-1])).abs()).clamp(min=0).double()
    return weights @ x @ weights.T


@torch.no_grad()
def test_seaformers_head_is_the_published_formula() -> None:
    """x ← BN(W x) · enlarged(relu6(BN(V c) + 3) / 6) for each coarser c, then relu(BN(w · x))."""
    features = specs((4, 8), (5, 16), (6, 32))
    torch.manual_seed(0)
    decoder = settle(DECODERS.get("seaformer-head")(features, width=6).double()).eval()
    maps = [3 * m.double() for m in random_maps(features, 64)]  # gates at 0 and 1 too

    def layer(x: Tensor, convolution: nn.Module, norm: nn.Module) -> Tensor:
        weight = convolution.weight[:, :, 0, 0]
        if convolution.groups == 1:
            return batch_norm(torch.einsum("oc,bchw->bohw", weight, x), norm, training=False)
        return batch_norm(weight[:, :, None] * x, norm, training=False)

    x = maps[0]
    for fusion, coarse in zip(decoder.fusions, maps[1:], strict=True):
        gate = (layer(coarse, *fusion.gate) + 3).clamp(0, 6) / 6
        assert {0.0, 1.0} < set(gate.flatten().tolist())
        x = layer(x, *fusion.local) * enlarged(gate, 8)
    torch.testing.assert_close(decoder(maps), layer(x, *decoder.mix[0]).clamp(min=0))
