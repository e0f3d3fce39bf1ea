"""ViTDet's neck: the paper's layers, on backbones of one stride only."""

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from common.errors import UsageError
from models.backbones import Backbone, FeatureSpec, create_backbone, create_without_weights
from models.create import create_decoder
from models.neck import SimpleFeaturePyramid
from models.predictor import DensePredictor

NECK = {"neck": "vitdet"}


def images(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def with_neck() -> Backbone:
    torch.manual_seed(0)
    return create_backbone("test_vit", NECK).eval()


def test_parameters_are_those_of_the_papers_layers() -> None:
    """test_vit has 64 channels."""
    backbone = create_without_weights("test_vit", NECK)
    assert backbone.neck is not None
    stride_4 = (64 * 32 * 2 * 2 + 32) + 2 * 32 + (32 * 16 * 2 * 2 + 16)
    stride_8 = 64 * 32 * 2 * 2 + 32
    one_by_one = (16 + 32 + 64 + 64) * 256
    three_by_three = 4 * 256 * 256 * 3 * 3
    norms = 4 * 2 * (256 + 256)
    expected = stride_4 + stride_8 + one_by_one + three_by_three + norms
    assert sum(p.numel() for p in backbone.neck.parameters()) == expected == 2_427_024
    trunk = sum(p.numel() for p in create_without_weights("test_vit").parameters())
    assert sum(p.numel() for p in backbone.parameters()) == trunk + expected


def normed(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """Over the channels of each pixel."""
    centred = x - x.mean(1, keepdim=True)
    scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    weight, bias = (state[f"{name}.{kind}"].view(1, -1, 1, 1) for kind in ("weight", "bias"))
    return scaled * weight + bias


@torch.no_grad()
def test_maps_are_those_of_the_papers_formulas() -> None:
    """From the last block's tokens behind the last norm."""
    backbone = with_neck()
    assert backbone.neck is not None
    for parameter in backbone.neck.parameters():
        parameter.add_(torch.randn_like(parameter) / 10)
    net: Any = backbone.net
    tokens = net.norm(net.blocks(net.norm_pre(net._pos_embed(net.patch_embed(images(64, 96))))))
    last = tokens[:, net.num_prefix_tokens :].transpose(1, 2).reshape(2, 64, 4, 6)
    state = backbone.neck.state_dict()

    def doubled(x: Tensor, name: str) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        blocks = torch.einsum("bchw,cdij->bdhiwj", x, weight)
        return blocks.flatten(2, 3).flatten(3) + bias.view(1, -1, 1, 1)

    halved = torch.stack([last[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0)
    once = F.gelu(normed(doubled(last, "scales.0.0"), state, "scales.0.1"))
    scaled = [doubled(once, "scales.0.3"), doubled(last, "scales.1"), last, halved]
    found = backbone(images(64, 96))
    assert [tuple(m.shape) for m in found] == [
        (2, 256, 16, 24), (2, 256, 8, 12), (2, 256, 4, 6), (2, 256, 2, 3),
    ]  # fmt: skip
    for i, (x, seen) in enumerate(zip(scaled, found, strict=True)):
        layers = f"projections.{i}"
        x = torch.einsum("bchw,dc->bdhw", x, state[f"{layers}.0.weight"][..., 0, 0])
        x = F.conv2d(normed(x, state, f"{layers}.1"), state[f"{layers}.2.weight"], padding=1)
        torch.testing.assert_close(seen, normed(x, state, f"{layers}.3"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("test_vit", 6),
        ("vit_small_patch14_dinov2", 12),
        ("vit_small_patch8_224", 12),
        ("mixer_s32_224", 8),  # of one size
    ],
)
def test_every_patch_size_has_the_four_strides(name: str, depth: int) -> None:
    backbone = create_without_weights(name, NECK).to("meta")
    assert backbone.how == "single-scale"
    features = backbone.features
    assert features == tuple(FeatureSpec(256, stride) for stride in (4, 8, 16, 32))
    assert [feature.depth for feature in features] == [depth] * 4
    for side in [224] if backbone.fixed_size else [64, 224]:
        maps = backbone(torch.empty(1, 3, side, side, device="meta"))
        assert [m.shape[-1] for m in maps] == [side // 4, side // 8, side // 16, side // 32]


@pytest.mark.parametrize("size", [(80, 112), (70, 98)])
def test_maps_of_odd_sizes_cover_the_image(size: tuple[int, int]) -> None:
    """An image whose side 32 does not divide comes from a backbone of one size only."""
    neck = SimpleFeaturePyramid(8)
    height, width = size
    maps = neck(torch.rand(1, 8, height // 14, width // 14), size)
    expected = [(-(-height // s), -(-width // s)) for s in (4, 8, 16, 32)]
    assert [tuple(m.shape[-2:]) for m in maps] == expected


def test_the_last_row_of_an_odd_map_is_pooled_too() -> None:
    neck = SimpleFeaturePyramid(8)
    x = torch.zeros(1, 8, 5, 5)
    x[..., 4, 4] = torch.arange(8.0)
    before, after = (neck(y, (80, 80))[3][..., 2, 2] for y in (torch.zeros_like(x), x))
    assert float((after - before).detach().abs().max()) > 0.01


def test_gradients_reach_every_parameter() -> None:
    model = predictor().train()
    model(images(97, 75))["x"].square().mean().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert idle == []
    neck = model.backbone.neck
    assert neck is not None
    assert all(float(p.grad.abs().max()) > 0 for p in neck.parameters())


def predictor(decoder: str = "unet-connectivity") -> DensePredictor:
    backbone = with_neck()
    return DensePredictor(backbone, create_decoder(decoder, backbone.features), {"x": 2}).eval()


@torch.no_grad()
def test_a_fused_copied_and_loaded_network_is_the_same() -> None:
    model = predictor()
    expected = model(images(75, 97))["x"]
    torch.testing.assert_close(model.fuse()(images(75, 97))["x"], expected, rtol=1e-4, atol=1e-5)
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.zero_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images(75, 97))["x"], expected)


def test_weights_of_a_file_need_no_neck(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = timm.create_model("test_vit")
    path = tmp_path / "vit.safetensors"
    save_file(whole.state_dict(), path)
    backbone = create_backbone("test_vit", NECK, weights=path)
    state = whole.state_dict()
    own = backbone.net.state_dict()
    assert "blocks.5.mlp.fc2.weight" in own
    assert all(torch.equal(tensor, state[name]) for name, tensor in own.items())
    assert not any(name.startswith("neck") for name in state)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("test_vit", {"neck": "other"}, "neck=other: there is no such neck; there is vitdet$"),
        ("test_vit", {"neck": 3}, "neck=3: there is no such neck"),
        ("test_vit", {**NECK, "depths": 2}, "depths=2: is not taken with neck=vitdet"),
        ("test_vit", {**NECK, "out_indices": [1]}, r"out_indices=\[1\]: is not taken with neck="),
        ("test_resnet", NECK, "test_resnet, which has maps of several strides already"),
        ("mobilenetv2_035", NECK, "which has maps of several strides already"),
        ("levit_128s", NECK, "which has maps of several strides already"),  # a short pyramid
    ],
)
def test_necks_that_do_not_fit_are_named(
    name: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        create_backbone(name, arguments)
    assert str(caught.value).startswith("--backbone-arg ")
    assert "\n" not in str(caught.value)
