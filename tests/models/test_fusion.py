"""Folding BatchNorm: the same outputs, and only where nothing else reads what goes in."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

from benchmark.speed.count import MapsOnly, count_deployed, count_macs
from models.backbones import create_backbone, create_without_weights
from models.create import create_decoder
from models.fusion import clamped_features, fold_batch_norms, reparameterised
from models.predictor import DensePredictor


def norms_of(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


def settle(net: nn.Module) -> nn.Module:
    """Statistics and scales that are not those of a new layer, so that losing them shows."""
    torch.manual_seed(1)
    with torch.no_grad():
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                norm.running_mean.normal_(std=0.1)
                norm.running_var.uniform_(0.7, 1.3)
                norm.weight.uniform_(0.7, 1.3)
                norm.bias.normal_(std=0.1)
        for name, parameter in net.named_parameters():
            if name.endswith("gamma"):  # timm's layer scales, which hide a branch as they begin
                parameter.uniform_(0.5, 1.0)
    return net.eval()


class Wired(nn.Module):
    """A convolution and a BatchNorm, joined by ``rule(conv, norm, x)``."""

    def __init__(self, rule: Callable[[nn.Module, nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.conv, self.norm, self.rule = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), rule

    def forward(self, x: Tensor) -> object:
        return self.rule(self.conv, self.norm, x)


def listed(conv: nn.Module, norm: nn.Module, x: Tensor) -> list[Tensor]:
    y = conv(x)
    return [y, norm(y).relu()]


def added(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    y = conv(x)
    return norm(y) + y


@torch.no_grad()
def test_a_convolution_and_its_norm_become_one() -> None:
    net = settle(Wired(lambda conv, norm, x: norm(conv(x)).relu()))
    x = torch.randn(2, 3, 8, 8)
    expected = net(x)
    assert fold_batch_norms(net, x) == 1
    assert not norms_of(net)
    torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "rule",
    [
        listed,  # a feature map that is handed out before its norm
        lambda conv, norm, x: norm(conv(x) * 2),
        lambda conv, norm, x: norm(norm(conv(x))),
        lambda conv, norm, x: norm(conv(x[:1])) + norm(conv(x[1:])),
    ],
)
@torch.no_grad()
def test_what_cannot_be_folded_stays(rule: Callable[..., object]) -> None:
    net = settle(Wired(rule))
    state = copy.deepcopy(net.state_dict())
    assert fold_batch_norms(net, torch.randn(2, 3, 8, 8)) == 0
    assert len(norms_of(net)) == 1
    for key, value in net.state_dict().items():
        assert torch.equal(value, state[key])


def test_a_reader_that_cannot_be_seen_is_found_by_the_outputs() -> None:
    with pytest.raises(RuntimeError, match="folding BatchNorm changes the output by"):
        fold_batch_norms(settle(Wired(added)), torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize("decoder", ["sparsemask", "deeplabv3-light", "smp-fpn"])
@pytest.mark.parametrize("backbone", ["mobilenetv2_035", "test_resnet", "ghostnet_050"])
@torch.no_grad()
def test_a_fused_network_is_the_network(backbone: str, decoder: str) -> None:
    body = create_backbone(backbone)
    model = settle(DensePredictor(body, create_decoder(decoder, body.features), {"a": 5, "b": 1}))
    state = copy.deepcopy(model.state_dict())
    fused = model.fuse()
    x = torch.rand(2, 3, 97, 131)
    expected, seen = model(x), fused(x)
    for task in ("a", "b"):
        scale = float(expected[task].abs().max())
        assert float((seen[task] - expected[task]).abs().max()) <= 1e-4 * scale
    # GhostNet hands out its stem's map before the BatchNorm
    assert len(norms_of(fused)) == (1 if backbone == "ghostnet_050" else 0)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize(
    ("backbone", "clamped"),
    [("mobilenetv2_035", [0, 8]), ("test_resnet", []), ("test_efficientnet", [])],
)
def test_features_that_relu6_has_made(backbone: str, clamped: list[int]) -> None:
    """MobileNetV2's stem and head end in ReLU6, its blocks in no activation."""
    body = create_backbone(backbone).eval()
    assert clamped_features(body, torch.rand(1, 3, 64, 64)) == clamped
    model = DensePredictor(body, create_decoder("sparsemask", body.features), {"a": 1})
    assert model.fuse().decoder.clamped == {f"E{i + 1}" for i in clamped}
    assert model.decoder.clamped == frozenset()


# --- networks that are deployed with other weights than they train with --------------------------


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


QUICK = ("repghostnet_050", "repvgg_a0", "fastvit_t8", "levit_128s", "shvit_s1", "iformer_t",
         "efficientvim_m1", "lcnetv2_base")  # fmt: skip
SLOW = ("mobileone_s0", "repvit_m0_9", "ghostnetv3_050", "efficientvit_m0", "tiny_vit_5m_224",
        "fastvit_mci0", "nextvit_small")  # fmt: skip


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
@torch.no_grad()
def test_a_deployed_backbone_has_the_maps_and_fewer_weights(name: str) -> None:
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    body = create_backbone(name)
    settle(body)
    images = torch.rand(1, 3, *(body.fixed_size or (64, 96)))
    expected = body(images)
    before = count(body)
    twin = copy.deepcopy(body).to("meta")
    body.net = reparameterised(body.net)
    assert count(reparameterised(body.net)) == count(body) < before
    for wanted, found in zip(expected, body(images), strict=True):
        assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())
    twin.net = reparameterised(twin.net)
    assert {k: v.shape for k, v in twin.state_dict().items()} == {
        k: v.shape for k, v in body.state_dict().items()
    }


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_resnet", "levit_128s"])
def test_a_network_of_another_type_is_fused_in_it(name: str) -> None:
    body = create_backbone(name)
    model = settle(DensePredictor(body, create_decoder("fcn", body.features), {"a": 3})).double()
    fused = model.fuse()
    images = torch.rand(1, 3, *(body.fixed_size or (64, 96)), dtype=torch.float64)
    assert {p.dtype for p in fused.parameters()} == {torch.float64}
    torch.testing.assert_close(fused(images)["a"], model(images)["a"], rtol=1e-5, atol=1e-5)


def test_mobileone_is_deployed_at_its_published_size() -> None:
    """MobileOne-S0 has 2.1 M parameters and 275 M multiply-accumulates at 224×224, with its
    classifier of 1,000 classes on 1,024 channels (Vasu et al., CVPR 2023, table 9)."""
    body = create_without_weights("mobileone_s0")
    maps = MapsOnly(body)
    classifier = 1024 * 1000 + 1000
    assert round((maps.deployed + classifier) / 1e6, 1) == 2.1
    assert round((maps.count(224, 224, True)[1] + 1024 * 1000) / 1e6) == 275
    assert maps.params == count(body) > 4 * maps.deployed


@torch.no_grad()
def test_a_fused_network_is_the_deployed_one() -> None:
    body = create_backbone("repghostnet_050")
    model = settle(DensePredictor(body, create_decoder("fcn", body.features), {"a": 3}))
    fused = model.fuse()
    assert not [name for name, _ in fused.named_modules() if "fusion_conv" in name]
    images = torch.rand(1, 3, 97, 131)
    torch.testing.assert_close(fused(images)["a"], model(images)["a"], rtol=1e-4, atol=1e-4)
    deployed = count_deployed(model, (64, 96))
    other = copy.deepcopy(model)
    other.backbone.net = reparameterised(model.backbone.net)
    assert deployed == {
        "params": count(other), "macs": sum(count_macs(other, (64, 96)).values())
    }  # fmt: skip
    plain = create_backbone("test_resnet")
    assert not count_deployed(
        DensePredictor(plain, create_decoder("fcn", plain.features), {"a": 3}), (64, 96)
    )
