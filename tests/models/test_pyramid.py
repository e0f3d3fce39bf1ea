"""Maps of the strides that decoders expect, from backbones that have fewer."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.errors import UsageError
from models.backbones import Backbone, create_backbone, create_without_weights
from models.feature_maps import Geometry, evenly
from models.pyramid import STRIDES, Level, levels, resized


@pytest.mark.parametrize(
    ("strides", "made"),
    [
        ((16, 16, 16, 16), [(0, 4), (1, 8), (2, 16), (3, 32)]),
        ((14,) * 4, [(0, 4), (1, 8), (2, 16), (3, 32)]),
        ((16,) * 6, [(0, 4), (1, 4), (2, 8), (3, 16), (4, 16), (5, 32)]),
        ((8, 8), [(0, 4), (0, 8), (1, 16), (1, 32)]),
        ((16,), [(0, 4), (0, 8), (0, 16), (0, 32)]),
        ((8, 16, 32), [(0, 4), (0, 8), (1, 16), (2, 32)]),
        ((4, 8, 16), [(0, 4), (1, 8), (2, 16), (2, 32)]),
        ((16, 32, 64), [(0, 4), (0, 8), (0, 16), (1, 32), (2, 32)]),
        ((7, 14, 28), [(0, 4), (0, 8), (1, 16), (2, 32)]),
        ((8, 8, 16, 16, 32), [(1, 4), (0, 8), (1, 8), (2, 16), (3, 16), (4, 32)]),
        ((2, 4, 16), [(0, 2), (1, 4), (1, 8), (2, 16), (2, 32)]),
    ],
)
def test_what_is_made_of_the_strides_at_hand(
    strides: tuple[int, ...], made: list[tuple[int, int]]
) -> None:
    assert levels(strides) == tuple(Level(*pair) for pair in made)


@pytest.mark.parametrize("strides", [(s,) * n for s in (8, 14, 16, 32) for n in (1, 2, 3, 5, 12)])
def test_every_map_of_one_resolution_is_used_in_order_of_depth(strides: tuple[int, ...]) -> None:
    made = levels(strides)
    assert {level.source for level in made} == set(range(len(strides)))
    assert {level.stride for level in made} == set(STRIDES)
    assert [level.source for level in made] == sorted(level.source for level in made)


def test_blocks_are_evenly_spaced_and_the_last_is_there() -> None:
    assert evenly(12, 4, "x") == (2, 5, 8, 11)  # as DINOv2's and DPT's heads on ViT-B take them
    assert evenly(24, 4, "x") == (5, 11, 17, 23)
    assert evenly(6, 4, "x") == (0, 2, 3, 5)
    assert evenly(5, 5, "x") == (0, 1, 2, 3, 4)
    for depths in (0, 7):
        with pytest.raises(UsageError, match="backbone x has 6 blocks: use depths from 1 to 6"):
            evenly(6, depths, "x")


def test_resizing_averages_where_it_shrinks_and_keeps_a_ramp_where_it_grows() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    torch.testing.assert_close(resized(x, (2, 2)), torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]]))
    assert resized(x, (4, 4)) is x
    ramp = (torch.arange(8.0) + 0.5).expand(1, 1, 8, 8) * 16  # the pixel at a patch's centre
    grown = resized(ramp, (32, 32))[0, 0, 0]
    centres = (torch.arange(32.0) + 0.5) * 4
    torch.testing.assert_close(grown[2:-2], centres[2:-2])


class Patches(nn.Module):
    """A single-scale network of ``depth`` blocks that average the image over patches."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.scale = nn.Parameter(torch.ones(4))

    def forward_intermediates(self, x: Tensor, indices: list[int], **_: Any) -> list[Tensor]:
        assert x.shape[-2] % self.patch == x.shape[-1] % self.patch == 0
        y = nn.functional.avg_pool2d(x, self.patch)
        return [y * self.scale[i] for i in indices]


@pytest.mark.parametrize("patch", [14, 16])
@pytest.mark.parametrize("size", [(64, 96), (160, 192)])
def test_maps_lie_over_the_image_whatever_the_patch(patch: int, size: tuple[int, int]) -> None:
    """Each pixel of an image that holds its own x lies where a map's pixel says."""
    backbone = Backbone(Patches(patch), blocks=True)
    made = levels((patch,) * 4)
    grid = 14 if patch == 14 else 1
    backbone.geometry = Geometry((), 32, None, grid, (0, 1, 2, 3), False, made, True)
    height, width = size
    image = (torch.arange(width) + 0.5).expand(1, 3, height, width)
    for level, found in zip(made, backbone(image), strict=True):
        assert found.shape[-2:] == (height // level.stride, width // level.stride)
        expected = (torch.arange(width // level.stride) + 0.5) * level.stride
        inner = (expected > 2 * patch) & (
            expected < width - 2 * patch
        )  # the border is held constant
        error = (found[0, 0, 0].detach() - expected)[inner].abs()
        assert float(error.max()) < 0.1 * patch


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "vit_tiny_patch16_224"])
def test_a_plain_transformer_gives_its_blocks_outputs_normalised(name: str) -> None:
    """Recomputed from the network's parts: tokens without the class token, by its last norm."""
    backbone = create_backbone(name).eval()
    net: Any = backbone.net
    assert backbone.how == "single-scale"
    assert [feature.stride for feature in backbone.features] == list(STRIDES)
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x = net.norm_pre(net._pos_embed(net.patch_embed(images)))
        outputs = []
        for block in net.blocks:
            x = block(x)
            tokens = net.norm(x)[:, net.num_prefix_tokens :]
            outputs.append(tokens.transpose(1, 2).reshape(1, -1, 4, 6))
        maps = backbone(images)
    count = len(net.blocks)
    for i, (feature, found) in enumerate(zip(backbone.features, maps, strict=True)):
        depth = math.floor((i + 1) * count / 4)
        assert feature.depth == depth
        size = (64 // feature.stride, 96 // feature.stride)
        torch.testing.assert_close(found, resized(outputs[depth - 1], size))


def test_depths_and_indices_choose_the_blocks() -> None:
    every = create_without_weights("test_vit", {"depths": 6})
    assert [(f.depth, f.stride) for f in every.features] == [
        (1, 4), (2, 4), (3, 8), (4, 16), (5, 16), (6, 32),
    ]  # fmt: skip
    two = create_without_weights("test_vit", {"out_indices": [1, 3]})
    assert [f.depth for f in two.features] == [2, 2, 4, 4]
    assert create_without_weights("test_vit", {"out_indices": [-5, -3]}).geometry == two.geometry
    deeper = {f"blocks.{i}" for i in (4, 5)}
    assert deeper <= set(two.geometry.unread)
    assert not any(key.startswith(("net.blocks.4", "net.blocks.5")) for key in two.state_dict())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("test_vit", {"depths": 7}, "backbone test_vit has 6 blocks: use depths from 1 to 6"),
        ("test_vit", {"depths": 0}, "--backbone-arg depths=0: expected how many blocks"),
        ("test_vit", {"depths": True}, "--backbone-arg depths=True: expected how many blocks"),
        ("test_vit", {"depths": "all"}, "--backbone-arg depths=all: expected how many blocks"),
        ("test_vit", {"depths": 2, "out_indices": [1]}, "out_indices chooses them"),
        ("test_resnet", {"depths": 2}, "test_resnet takes no depths=2: it has maps of several"),
        ("test_vit", {"out_indices": [1, 9]}, r"out_indices=\[1, 9\]"),
        ("test_vit", {"out_indices": "last"}, "out_indices=last"),
    ],
)
def test_blocks_that_are_not_there_are_named(
    name: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        create_without_weights(name, arguments)


def test_a_short_pyramid_keeps_its_maps_and_gets_the_missing_ones() -> None:
    """LeViT has the strides 16, 32 and 64 of images of one size."""
    backbone = create_backbone("levit_128s").eval()
    assert backbone.how == "short pyramid"
    assert backbone.fixed_size == (224, 224)
    net: Any = backbone.net
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = net.forward_intermediates(images, intermediates_only=True)
        maps = backbone(images)
    assert [tuple(m.shape[-2:]) for m in own] == [(14, 14), (7, 7), (4, 4)]
    assert [f.stride for f in backbone.features] == [4, 8, 16, 32, 32]
    assert torch.equal(maps[2], own[0])
    assert torch.equal(maps[3], own[1])
    torch.testing.assert_close(maps[0], resized(own[0], (56, 56)))


def test_what_no_map_is_made_from_is_left_out_and_runs_of_before_load() -> None:
    """MobileNetV5's fusion adapter reads all stages and no decoder reads it."""
    backbone = create_without_weights("test_vit", {"out_indices": [0]})
    assert "blocks.5" in backbone.geometry.unread
    whole = create_without_weights("test_vit")
    backbone = backbone.to_empty(device="cpu")
    state = {key: torch.full_like(tensor, 2.0, device="cpu")
             for key, tensor in whole.state_dict().items()}  # fmt: skip
    assert set(state) > set(backbone.state_dict())
    backbone.load_state_dict(state)
    assert all(bool((tensor == 2.0).all()) for tensor in backbone.parameters())
    unknown = {**state, "net.other.weight": torch.zeros(1)}
    with pytest.raises(RuntimeError, match=r"net\.other\.weight"):
        backbone.load_state_dict(unknown)
