"""EncNet's encoding against the literal formula, and what the context does."""

from typing import Any

import torch
from torch import Tensor

from models.backbones import FeatureSpec
from models.decoders.base import DECODERS
from models.decoders.encnet import Encoding

SPECS = [FeatureSpec(6, 16), FeatureSpec(8, 32)]


def literal(x: Tensor, centres: Tensor, smoothing: Tensor) -> Tensor:
    """e_k = Σ_i a_ik (x_i − d_k) with a_ik = exp(−s_k ‖x_i − d_k‖²) / Σ_j exp(−s_j ‖x_i − d_j‖²)"""
    out = torch.zeros(len(x), *centres.shape, dtype=x.dtype)
    for b in range(len(x)):
        for i in range(x.shape[1]):
            residuals = x[b, i] - centres
            share = (-smoothing * (residuals**2).sum(1)).exp()
            out[b] += (share / share.sum())[:, None] * residuals
    return out


def test_the_encoding_is_the_formula_with_its_gradients() -> None:
    torch.manual_seed(0)
    layer = Encoding(5, 3).double()
    x = torch.randn(2, 7, 5, dtype=torch.float64, requires_grad=True)
    leaves = [x, layer.codewords, layer.smoothing]
    pull = torch.randn(2, 3, 5, dtype=torch.float64)
    expected = literal(*leaves)
    seen = layer(x)
    torch.testing.assert_close(seen, expected)
    for a, b in zip(
        torch.autograd.grad((seen * pull).sum(), leaves),
        torch.autograd.grad((expected * pull).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_the_encoding_holds_in_mixed_precision() -> None:
    """Vectors far from the origin and near their codewords, where bfloat16 squares all agree."""
    torch.manual_seed(0)
    layer = Encoding(64, 4)
    centre = 10 * torch.rand(64)
    with torch.no_grad():
        layer.codewords.copy_(centre + 0.3 * torch.randn(4, 64))
        layer.smoothing.fill_(0.3)
        x = (centre + 0.3 * torch.randn(1, 50, 64)).requires_grad_(False)
        with torch.autocast("cpu", torch.bfloat16):
            seen = layer(x).float()
        expected = layer(x)
    error = (seen - expected).norm() / expected.norm()
    assert error < 0.1


def test_the_context_scales_channels_and_tells_classes() -> None:
    torch.manual_seed(0)
    decoder: Any = DECODERS.get("encnet")(SPECS).eval()
    maps = [torch.randn(2, 6, 4, 6), torch.randn(2, 8, 2, 3)]
    with torch.no_grad():
        scaled, context = decoder(maps)
        gate = torch.sigmoid(context @ decoder.attention.weight.T + decoder.attention.bias)
        x = decoder.conv(maps[-1])
        torch.testing.assert_close(scaled, (x * (1 + gate[:, :, None, None])).relu())
        head = decoder.head(5)
        logits, presence = head([scaled, context])
        torch.testing.assert_close(presence, head.presence(context))
        assert presence.shape == (2, 5)
        assert torch.equal(head.eval()([scaled, context]), logits)
