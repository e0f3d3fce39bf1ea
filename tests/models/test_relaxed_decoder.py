"""The decoder of a search and the fixed one against the paper's formula, in single precision."""

import copy
import operator
import pickle
from collections.abc import Sequence

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.backbones import FeatureSpec
from models.connected_decoder import ConnectedDecoder
from models.connectivity import fully_dense, sparsemask
from models.relaxed_decoder import RelaxedDecoder
from tests.oracles.literal_decoder import LiteralDecoder
from tests.support import wirings

FEATURES = [FeatureSpec(c, s) for c, s in ((5, 2), (3, 2), (4, 4), (6, 8), (40, 16))]


def maps_of(
    features: Sequence[FeatureSpec], height: int = 37, width: int = 53, seed: int = 0
) -> list[Tensor]:
    """Beyond 0…6 on both sides, so that every relu6 cuts."""
    random = torch.Generator().manual_seed(seed)
    return [
        3 + 4 * torch.randn(4, f.channels, -(-height // f.stride), -(-width // f.stride),
                            generator=random)
        for f in features
    ]  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> tuple[ConnectedDecoder, list[Tensor]]:
    """A fixed or a relaxed decoder of one to nine features, wired at random."""
    count = draw(st.integers(1, 9))
    strides = sorted(
        draw(st.lists(st.sampled_from([2, 4, 8, 16, 32]), min_size=count, max_size=count))
    )
    # below and above the number of output channels: statistics are had in two ways
    specs = [FeatureSpec(draw(st.sampled_from([2, 5, 30])), stride) for stride in strides]
    wiring = draw(wirings(tuple(strides)))
    torch.manual_seed(draw(st.integers(0, 99)))
    if draw(st.booleans()):
        decoder: ConnectedDecoder = RelaxedDecoder(
            specs, wiring, width=3, noise=draw(st.sampled_from([0.0, 0.1])),
            connection_bn=draw(st.booleans()),
        )  # fmt: skip
        with torch.no_grad():
            decoder.raw.uniform_(0, 2)
    else:
        decoder = ConnectedDecoder(specs, wiring, width=3)
    for name, buffer in decoder.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    # at least two pixels at the deepest map: of one, BatchNorm has nothing to tell apart
    size = draw(st.sampled_from([(33, 65), (49, 37), (64, 96)]))
    return decoder.train(draw(st.booleans())), maps_of(specs, *size)


def gradients(net: nn.Module, maps: list[Tensor]) -> tuple[Tensor, list[Tensor], bool]:
    """Output, gradients of the maps, and whether single precision can decide the case.

    Near relu6's corners rounding decides the gradient, and a BatchNorm of next to no variance
    magnifies it.
    """
    fair = [True]

    def watch_corners(module: nn.Module, inputs: object, out: Tensor) -> None:
        fair.append(float(torch.minimum(out.abs(), (out - 6).abs()).detach().min()) > 2e-5)

    def watch_variance(module: nn.Module, inputs: tuple[Tensor], out: object) -> None:
        if module.training:
            fair.append(float(inputs[0].detach().var((0, 2, 3)).min()) > 1e-2)

    hooks = [norm.register_forward_hook(watch_corners) for norm in net.norms.values()]
    hooks += [
        norm.register_forward_hook(watch_variance)
        for norm in net.modules()
        if isinstance(norm, nn.BatchNorm2d)
    ]
    torch.manual_seed(5)  # the noise
    leaves = [m.clone().requires_grad_() for m in maps]
    out = net(leaves)
    pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
    (out * pull).sum().backward()
    for hook in hooks:
        hook.remove()
    return out.detach(), [torch.zeros(()) if x.grad is None else x.grad for x in leaves], all(fair)


def assert_close(
    seen: Tensor, literal: Tensor, exact: Tensor, what: str, scale: float = 0.0
) -> None:
    """Within 1e-5 of the scale, or as near as the formula's own rounding lets the literal come.

    Where large terms cancel (behind a BatchNorm the gradient of a lone weight is 0), nothing in
    single precision meets 1e-5 of the little that is left: ``scale`` is the size of the largest
    gradient of its kind.
    """
    largest, noise = float(exact.abs().max()), float((literal - exact).abs().max())
    error = float((seen - exact).abs().max())
    assert error <= max(1e-5 * max(largest, scale), 10 * noise, 1e-7), (what, error, largest, noise)


@given(cases())
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much],
    derandomize=True,  # of random cases one in hundreds misses the bound, by cancelling sums
)  # fmt: skip
def test_grouped_is_literal_in_single_precision(
    case: tuple[ConnectedDecoder, list[Tensor]],
) -> None:
    decoder, maps = case
    literal = LiteralDecoder(decoder)
    exact = copy.deepcopy(literal).double()
    doubles, exact_pulls, fair = gradients(exact, [m.double() for m in maps])
    assume(fair)
    singles, literal_pulls, _ = gradients(literal, maps)
    seen, pulls, _ = gradients(decoder, maps)
    assert_close(seen, singles, doubles, "output")
    scale = max(float(g.abs().max()) for g in exact_pulls)
    for index, three in enumerate(zip(pulls, literal_pulls, exact_pulls, strict=True), 1):
        assert_close(*three, f"gradient of E{index}", scale)

    def part(joint: nn.ModuleDict, key: str, tensor: str) -> Tensor:
        stage, source = key.split()
        at = decoder.consumers[source].index(int(stage)) * decoder.width
        return operator.attrgetter(tensor)(joint[source])[at : at + decoder.width]

    scale = max(float(conv.weight.grad.abs().max()) for conv in exact.convs.values())
    for key in literal.convs:
        three = (part(decoder.convs, key, "weight.grad"), *(
            net.convs[key].weight.grad for net in (literal, exact)
        ))  # fmt: skip
        assert_close(*three, f"gradient of {key}", scale)
    if isinstance(decoder, RelaxedDecoder):
        three = (decoder.raw.grad, literal.raw.grad, exact.raw.grad)
        # a sum over all output pixels, of both signs
        assert_close(*three, "gradient of the weights", scale=0.1 * doubles.numel() ** 0.5)
        for key in literal.connection_norms:
            for name in ("running_mean", "running_var"):
                seen = part(decoder.connection_norms, key, name)
                pair = (getattr(net.connection_norms[key], name) for net in (literal, exact))
                assert_close(seen, *pair, f"{name} of {key}")


def test_a_search_starts_with_every_connection_half_on() -> None:
    decoder = RelaxedDecoder(FEATURES, width=4)
    assert len(decoder.connections) == 5 * 6
    assert torch.equal(decoder.weights, torch.full((30,), 0.5))
    assert [len(p) for p in decoder.by_stage(decoder.weights)] == [2, 4, 6, 8, 10]
    assert decoder.connections[0] == (5, "E5")
    assert decoder.connections[-1] == (1, "D2")
    # scales that training could use in place of the weights do not exist
    learned = {name.split(".")[0] for name, _ in decoder.named_parameters()}
    assert learned == {"raw", "convs"}


def test_noise_acts_in_training_only_and_stays_in_range() -> None:
    decoder = RelaxedDecoder(FEATURES, width=4, noise=0.5)
    torch.manual_seed(0)
    drawn = torch.stack([decoder.gates() for _ in range(400)]).detach()
    assert drawn.min() == 0
    assert drawn.max() == 2
    assert abs(float(drawn.std()) - 0.5) < 0.05
    assert torch.equal(decoder.eval().gates(), decoder.raw)


def test_weights_outside_are_brought_back() -> None:
    decoder = RelaxedDecoder(FEATURES, width=4)
    with torch.no_grad():
        decoder.raw[:3] = torch.tensor([-1.0, 3.0, 0.25])
    decoder.clamp_()
    assert decoder.raw[:4].tolist() == [0, 2, 0.25, 1]
    assert decoder.weights[:4].tolist() == [0, 1, 0.125, 0.5]


@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_maskconnect_draws_inputs_in_proportion_to_the_weights(inputs: int) -> None:
    decoder = RelaxedDecoder(FEATURES, width=4, gate="sampled", inputs=inputs)
    weights = torch.rand(30, generator=torch.Generator().manual_seed(0)) * 2
    with torch.no_grad():
        decoder.raw.copy_(weights)
    torch.manual_seed(0)
    drawn = torch.stack([decoder.gates() for _ in range(2000)]).detach()
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    shares = decoder.by_stage(drawn.mean(0))
    for share, raw in zip(shares, decoder.by_stage(weights), strict=True):
        assert float(share.sum()) == pytest.approx(min(inputs, len(raw)), abs=1e-4)
        if inputs == 1:
            torch.testing.assert_close(share, raw / raw.sum(), rtol=0, atol=0.05)
    chosen = decoder.eval().gates()
    for gates, raw in zip(decoder.by_stage(chosen), decoder.by_stage(weights), strict=True):
        largest = raw.topk(min(inputs, len(raw))).indices
        assert set(gates.nonzero().flatten().tolist()) == set(largest.tolist())
    decoder.gates().sum().backward()
    assert torch.equal(decoder.raw.grad, torch.ones(30))  # straight through


def test_sampled_weights_keep_their_order_at_any_rate() -> None:
    decoder = RelaxedDecoder(FEATURES, width=4, gate="sampled")
    shares = decoder.by_stage(decoder.weights.detach())
    assert [float(share.sum()) for share in shares] == pytest.approx([1] * 5)
    pushed = torch.randn(30, generator=torch.Generator().manual_seed(0)) + 3
    with torch.no_grad():
        for _ in range(20):
            decoder.raw += pushed
            decoder.clamp_()
        decoder.raw[:2] = -1  # all of a stage
        decoder.clamp_()
    for raw, share, push in zip(
        *map(decoder.by_stage, (decoder.raw.detach(), decoder.weights.detach(), pushed)),
        strict=True,
    ):
        assert float(raw.mean()) == pytest.approx(1)
        assert float(share.sum()) == pytest.approx(1)
        if len(raw) > 2:
            assert torch.equal(share.argsort(), push.argsort())
    assert decoder.raw[:2].tolist() == [1, 1]


def test_one_image_trains() -> None:
    """The global average of one image is one value a channel: BatchNorm has nothing to divide."""
    torch.manual_seed(0)
    decoder = RelaxedDecoder(FEATURES, width=4).train()
    out = decoder([m[:1] for m in maps_of(FEATURES)])
    out.square().mean().backward()
    assert out.isfinite().all()
    assert decoder.raw.grad.isfinite().all()
    assert decoder.raw.grad.abs().sum() > 0


def test_mixed_precision_keeps_the_statistics_whole() -> None:
    torch.manual_seed(0)
    decoder = RelaxedDecoder(FEATURES, width=4, noise=0.0).train()
    maps = maps_of(FEATURES)
    expected = decoder(maps)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(decoder(maps), expected)


def test_copies_are_the_same() -> None:
    torch.manual_seed(0)
    decoder = RelaxedDecoder(FEATURES, width=4).eval()
    maps = maps_of(FEATURES)
    for twin in (copy.deepcopy(decoder), pickle.loads(pickle.dumps(decoder))):
        assert torch.equal(twin(maps), decoder(maps))


# --- fuse ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wiring", [fully_dense, sparsemask])
def test_fused_gives_the_same_without_batch_norm(wiring) -> None:
    torch.manual_seed(0)
    strides = [f.stride for f in FEATURES]
    decoder = ConnectedDecoder(FEATURES, wiring(strides), width=6).eval()
    with torch.no_grad():
        for norm in decoder.norms.values():
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 3)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.2, 2)
        maps = maps_of(FEATURES)
        expected = decoder(maps)
        fused = decoder.fuse()
        seen = fused(maps)
        again = decoder(maps)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert float((seen - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert torch.equal(again, expected)  # the original is as it was
    assert float(expected.std()) > 0.1
