"""What every decoder promises, whatever it does; and the connected decoder against the formula."""

import copy
import io
import pickle
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from common.errors import UsageError
from models.backbones import Backbone, FeatureSpec, create_backbone
from models.connected_decoder import ConnectedDecoder
from models.connectivity import Connectivity, fully_dense, preset, sparse_acn, unet
from models.create import create_decoder
from models.decoders.base import DECODERS, Decoder, last_of_each_stride
from models.predictor import DensePredictor
from tests.support import wirings

# what a decoder meets: several maps to a stride, one a stride, none of stride 2, NHWC inside
BACKBONES = {
    "mobilenetv2_035": (2, 2, 4, 8, 16, 16, 32, 32, 32),
    "test_resnet": (2, 4, 8, 16, 32),
    "test_convnext": (4, 8, 16, 32),
    "test_mambaout": (4, 8, 16, 32),
}
FULL = {"darknet17": (1, 2, 4, 8, 16)}
"""With the map of the image's own resolution, for decoders that ask for it."""
# odd; one pixel high at the deepest map; one pixel at the deepest map
SIZES = [(97, 131), (33, 64), (32, 32)]

FOUR = (4, 8, 16, 32)

Make = Callable[[Sequence[FeatureSpec]], Decoder]


@cache
def backbone_of(name: str) -> Backbone:
    torch.manual_seed(0)
    return create_backbone(name, full_resolution=name in FULL).eval()


@cache
def images_of(height: int, width: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@cache
def maps_of(name: str, height: int, width: int) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return tuple(backbone_of(name)(images_of(height, width)))


def fresh_maps(name: str, height: int = 64, width: int = 96) -> list[Tensor]:
    return [m.clone() for m in maps_of(name, height, width)]


def predictor_of(backbone: str, make: Make, channels: int = 3) -> DensePredictor:
    body = copy.deepcopy(backbone_of(backbone))
    return DensePredictor(body, make(body.features), {"task": channels})


class Network(nn.Module):
    """A decoder and a head of three channels, of which together the contract is asked."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.head = decoder.head(3)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.head(self.decoder(maps))


def settle(decoder: nn.Module) -> nn.Module:
    """Give BatchNorm statistics that are not those of a new layer, so that losing them shows."""
    random = torch.Generator().manual_seed(1)
    for name, buffer in decoder.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(-torch.rand(buffer.shape, generator=random))
        if name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=random))
    return decoder


@pytest.mark.parametrize("name", [*BACKBONES, *FULL])
def test_the_backbones_here_have_the_strides_they_stand_for(name: str) -> None:
    assert tuple(f.stride for f in backbone_of(name).features) == (BACKBONES | FULL)[name]


class DecoderContract:
    """A subclass gives ``make`` and ``backbone`` as fixtures."""

    @pytest.fixture
    def network(self, make: Make, backbone: str) -> nn.Module:
        torch.manual_seed(0)
        return settle(Network(make(backbone_of(backbone).features))).eval()

    @pytest.mark.parametrize("size", SIZES)
    def test_logits_have_the_size_of_the_image(
        self, make: Make, backbone: str, size: tuple[int, int]
    ) -> None:
        predictor = predictor_of(backbone, make).eval()
        with torch.no_grad():
            logits = predictor(images_of(*size))["task"]
        assert logits.shape == (2, 3, *size)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()

    def test_the_map_is_what_is_declared(self, network: nn.Module, backbone: str) -> None:
        maps = fresh_maps(backbone)
        with torch.no_grad():
            out = network(maps)
            assert out.shape[:2] == (2, 3)
            assert out.ndim == 4
            assert out.dtype == torch.float32
            assert float(out.std()) > 1e-3  # a constant would pass all that follows
            double = copy.deepcopy(network).double()([m.double() for m in maps])
        assert double.dtype == torch.float64
        torch.testing.assert_close(double.float(), out, rtol=1e-4, atol=1e-4)
        for given_map, kept in zip(maps, maps_of(backbone, 64, 96), strict=True):
            assert torch.equal(given_map, kept)  # the features are not the decoder's to change

    def test_evaluation_repeats_and_treats_each_image_alone(
        self, network: nn.Module, backbone: str
    ) -> None:
        state = copy.deepcopy(network.state_dict())
        with torch.no_grad():
            both = network(fresh_maps(backbone))
            assert torch.equal(network(fresh_maps(backbone)), both)
            alone = network([m[1:] for m in fresh_maps(backbone)])
        torch.testing.assert_close(alone, both[1:], rtol=1e-4, atol=1e-5)
        for key, value in network.state_dict().items():
            assert torch.equal(value, state[key]), key

    def test_the_smallest_batch_trains_and_reaches_image_and_parameters(
        self, make: Make, backbone: str
    ) -> None:
        torch.manual_seed(0)
        predictor = predictor_of(backbone, make).train()
        fewest = predictor.decoder.info.min_train_batch
        images = images_of(64, 96, fewest).clone().requires_grad_()
        sum(y.square().mean() for y in predictor(images).values()).backward()  # type: ignore
        assert images.grad is not None
        assert images.grad.abs().sum() > 0
        for name, parameter in predictor.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            if not name.startswith("backbone."):
                assert parameter.grad.abs().sum() > 0, name
        if fewest > 1:  # declared only where it is needed
            with pytest.raises(ValueError, match="more than 1 value per channel"):
                predictor(images_of(64, 96, fewest - 1))

    def test_sides_come_in_training_alone_and_are_maps_or_about_the_image(
        self, make: Make, backbone: str
    ) -> None:
        predictor = predictor_of(backbone, make)
        with torch.no_grad():
            final, *sides = predictor.train()(images_of(64, 90)).items()
            assert list(predictor.eval()(images_of(64, 90))) == ["task"]
        assert final[0] == "task"
        assert [name for name, _ in sides] == [f"task/side{i + 1}" for i in range(len(sides))]
        for name, side in sides:
            assert side.shape in ((2, 3, 64, 90), (2, 3)), name
            assert side.isfinite().all(), name

    def test_mixed_precision_stays_finite(self, make: Make, backbone: str) -> None:
        predictor = predictor_of(backbone, make).train()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = predictor(images_of(64, 96))
        for name, y in outputs.items():
            assert y.is_floating_point(), name
            assert y.isfinite().all(), name

    def test_saved_and_copied_networks_are_the_same(
        self, make: Make, network: nn.Module, backbone: str
    ) -> None:
        file = io.BytesIO()
        torch.save(network.state_dict(), file)
        file.seek(0)
        torch.manual_seed(99)
        loaded = Network(make(backbone_of(backbone).features)).eval()
        loaded.load_state_dict(torch.load(file, weights_only=True))
        with torch.no_grad():
            expected = network(fresh_maps(backbone))
            for twin in (loaded, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
                assert torch.equal(twin(fresh_maps(backbone)), expected)

    def test_export_is_as_declared(self, network: nn.Module, backbone: str) -> None:
        maps = fresh_maps(backbone)
        info = network.decoder.info
        try:
            exported = torch.export.export(network, (maps,)).module()
        except Exception as error:  # torch.export raises almost anything
            if info.exportable:
                raise AssertionError("declared exportable") from error
            return
        assert info.exportable, "export works: declare it"
        with torch.no_grad():
            torch.testing.assert_close(exported(maps), network(maps))

    def test_what_is_declared_is_needed_and_enough(
        self, make: Make, network: nn.Module, backbone: str
    ) -> None:
        features = backbone_of(backbone).features
        info = network.decoder.info
        # no backbone has fewer than four strides
        enough = [i for i, f in enumerate(features) if f.stride in (info.strides or FOUR)]
        with torch.no_grad():
            modest = Network(make([features[i] for i in enough])).eval()
            out = modest([fresh_maps(backbone)[i] for i in enough])
        assert out.shape[:2] == (2, 3)
        for stride in info.strides:
            without = [f for f in features if f.stride != stride]
            with pytest.raises(UsageError) as caught:
                make(without)
            wanted = f"decoder {info.title} needs features of stride {stride}; "
            has = ", ".join(str(s) for s in sorted({f.stride for f in without}))
            assert str(caught.value) == f"{wanted}the backbone has {has}"


class TestRegistered(DecoderContract):
    """Every registered decoder on every backbone that has the strides it needs."""

    @pytest.fixture(
        params=[
            (name, backbone)
            for name in DECODERS.names()
            for backbone, strides in BACKBONES.items()
            if set(DECODERS.get(name).info.strides) <= set(strides)
        ],
        ids="-".join,
    )
    def pair(self, request: pytest.FixtureRequest) -> tuple[str, str]:
        return request.param

    @pytest.fixture
    def make(self, pair: tuple[str, str]) -> Make:
        return lambda features: create_decoder(pair[0], features, width=8)

    @pytest.fixture
    def backbone(self, pair: tuple[str, str]) -> str:
        return pair[1]


class TestFullResolution(TestRegistered):
    """Those that read the map of stride 1, on a backbone that has it."""

    @pytest.fixture(
        params=[
            (name, backbone)
            for name in DECODERS.names()
            for backbone in FULL
            if DECODERS.get(name).info.full_resolution
        ],
        ids="-".join,
    )
    def pair(self, request: pytest.FixtureRequest) -> tuple[str, str]:
        return request.param


class TestFullyDense(DecoderContract):
    """The connected decoder with all connections (the paper's FDN)."""

    @pytest.fixture
    def make(self) -> Make:
        return lambda features: ConnectedDecoder(
            features, fully_dense([f.stride for f in features]), width=8
        )

    @pytest.fixture(params=["mobilenetv2_035", "test_convnext"])
    def backbone(self, request: pytest.FixtureRequest) -> str:
        return request.param


@pytest.mark.parametrize("name", DECODERS.names())
def test_every_decoder_declares_itself(name: str) -> None:
    info = DECODERS.get(name).info
    assert info.title
    assert info.source
    assert info.size_divisor >= 1
    # what no backbone of the contract has would never be tested
    assert any(set(info.strides) <= set(strides) for strides in BACKBONES.values())


def test_the_deepest_feature_of_a_stride_counts() -> None:
    features = [FeatureSpec(c, s) for c, s in ((8, 2), (9, 2), (10, 4), (11, 4), (12, 8))]
    assert last_of_each_stride(features) == {2: 1, 4: 3, 8: 4}


# --- exact numbers of convolution weights (the paper's table 1) ----------------------------------

MOBILENETV2 = tuple(
    FeatureSpec(channels, stride)
    for channels, stride in zip(
        (32, 16, 24, 32, 64, 96, 160, 320, 1280), (2, 2, 4, 8, 16, 16, 32, 32, 32), strict=True
    )
)
STRIDES = tuple(f.stride for f in MOBILENETV2)


def convolution_weights(*modules: nn.Module) -> int:
    layers = [m for module in modules for m in module.modules() if isinstance(m, nn.Conv2d)]
    return sum(layer.weight.numel() for layer in layers)


@pytest.mark.parametrize(
    ("connectivity", "connections", "weights"),
    [
        (preset("sparsemask", STRIDES), 15, 559_104),
        (fully_dense(STRIDES), 90, 1_931_776),
        (unet(STRIDES), 17, 162_304),
        (sparse_acn(STRIDES), 34, 719_360),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_connected_decoders_have_the_papers_weights(
    connectivity: Connectivity, connections: int, weights: int
) -> None:
    with torch.device("meta"):
        decoder = ConnectedDecoder(MOBILENETV2, connectivity)
    assert connectivity.connections == connections
    assert convolution_weights(decoder) == weights


def test_sparsemask_on_the_maps_of_hed() -> None:
    """VGG-16's five strides from 1 on: what the wiring has at stride 32 has no partner there."""
    with torch.device("meta"):
        backbone = create_backbone("vgg16", full_resolution=True)
        decoder: Any = DECODERS.get("sparsemask-stride1")(backbone.features)
    assert dict(decoder.connectivity.stages) == {5: ("E5", "G"), 1: ("G", "E5", "D5", "E2")}
    # E5 and G have 512 channels and go to two stages each; D5 has 64, E2 128
    assert convolution_weights(decoder) == 64 * (2 * 512 + 2 * 512 + 64 + 128)


@pytest.mark.parametrize(
    ("name", "head", "weights"),
    [
        ("fully-dense", False, 1_931_776),
        ("sparse-acn", False, 719_360),
        ("sparsemask", False, 559_104),
        ("unet-connectivity", False, 162_304),
        ("fcn", True, 26_880),
        ("deeplabv3-light", True, 666_112),
    ],
)
def test_registered_decoders_have_the_papers_weights(name: str, head: bool, weights: int) -> None:
    """Of FCN and DeepLab-V3 the paper counts the convolution to 21 classes too."""
    with torch.device("meta"):
        decoder = DECODERS.get(name)(MOBILENETV2)
        classifier = nn.Conv2d(decoder.out_channels, 21, 1)
    assert convolution_weights(decoder, *([classifier] if head else [])) == weights


# --- the connected decoder against the literal formula -------------------------------------------


def batch_norm(x: Tensor, norm: nn.Module, training: bool) -> Tensor:
    mean, variance = norm.running_mean, norm.running_var
    if training:
        mean = x.mean((0, 2, 3))
        variance = (x - mean[:, None, None]).square().mean((0, 2, 3))
    scaled = (x - mean[:, None, None]) / (variance[:, None, None] + norm.eps).sqrt()
    return scaled * norm.weight[:, None, None] + norm.bias[:, None, None]


def interpolation(coarse: int, fine: int) -> Tensor:
    """Matrix [fine, coarse] of linear interpolation that maps first and last onto each other."""
    matrix = torch.zeros(fine, coarse, dtype=torch.float64)
    for row in range(fine):
        place = row * (coarse - 1) / (fine - 1) if fine > 1 else 0.0
        low = min(int(place), coarse - 1)
        high = min(low + 1, coarse - 1)
        matrix[row, low] += 1 - (place - low)
        matrix[row, high] += place - low
    return matrix


def upsampled(x: Tensor, size: Sequence[int]) -> Tensor:
    rows, columns = (interpolation(n, m) for n, m in zip(x.shape[-2:], size, strict=True))
    return rows @ x @ columns.T


def literal(decoder: ConnectedDecoder, wiring: Connectivity, features: list[Tensor]) -> Tensor:
    """relu6(D_1) with D_l = BN(Σ up(conv1x1(relu6(t)))), connection by connection."""
    stages: dict[int, Tensor] = {}

    def source(name: str) -> Tensor:
        if name == "G":
            return features[-1].mean((2, 3), keepdim=True)
        index = int(name[1:])
        return features[index - 1] if name[0] == "E" else stage(index)

    def stage(index: int) -> Tensor:
        if index not in stages:
            size = features[index - 1].shape[-2:]
            total = torch.zeros((), dtype=torch.float64)
            for name in wiring.stages[index]:
                place = decoder.consumers[name].index(index) * decoder.width
                weight = decoder.convs[name].weight[place : place + decoder.width, :, 0, 0]
                convolved = torch.einsum("oc,bchw->bohw", weight, source(name).clamp(0, 6))
                total = total + upsampled(convolved, size)
            stages[index] = batch_norm(total, decoder.norms[f"D{index}"], decoder.training)
        return stages[index]

    return stage(1).clamp(0, 6)


@st.composite
def wired_decoders(draw: st.DrawFn) -> tuple[ConnectedDecoder, Connectivity, list[Tensor]]:
    """A decoder of one to nine features, wired at random, with maps of odd and even sizes."""
    count = draw(st.integers(1, 9))
    strides = sorted(
        draw(st.lists(st.sampled_from([2, 4, 8, 16, 32]), min_size=count, max_size=count))
    )
    wiring = draw(wirings(tuple(strides)))
    specs = [FeatureSpec(draw(st.integers(1, 4)), stride) for stride in strides]
    height, width = draw(st.integers(3, 41)), draw(st.integers(3, 41))
    torch.manual_seed(draw(st.integers(0, 9)))
    decoder = ConnectedDecoder(specs, wiring, width=3).double()
    settle(decoder)
    with torch.no_grad():
        for norm in decoder.norms.values():
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 3)
    maps = [
        # beyond 0…6 on both sides, so that every relu6 cuts
        3 + 4 * torch.randn(2, s.channels, -(-height // s.stride), -(-width // s.stride)).double()
        for s in specs
    ]
    return decoder, wiring, maps


@given(wired_decoders(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_connected_decoder_is_the_formula(
    case: tuple[ConnectedDecoder, Connectivity, list[Tensor]], training: bool
) -> None:
    decoder, wiring, maps = case
    decoder.train(training)
    results = []
    for compute in (lambda m: literal(decoder, wiring, m), decoder):
        inputs = [m.clone().requires_grad_() for m in maps]
        out = compute(inputs)
        pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).double()
        leaves = [*inputs, *decoder.parameters()]
        gradients = torch.autograd.grad((out * pull).sum(), leaves, allow_unused=True)
        assert out.shape[-2:] == maps[0].shape[-2:]
        results.append([out.detach(), *gradients])
    assert all(g is not None for g in results[1][1 + len(maps) :])  # no parameter is idle
    for expected, seen in zip(*results, strict=True):
        if expected is None:
            assert seen is None
            continue
        scale = float(expected.abs().max())
        torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-6 * scale + 1e-9)


def test_the_connected_decoder_builds_nothing_for_dead_stages() -> None:
    wiring = Connectivity("dead", (2, 4, 8), {3: ("E3",), 2: ("E2", "D3"), 1: ("E1", "E3")})
    features = [FeatureSpec(4, 2), FeatureSpec(5, 4), FeatureSpec(6, 8)]
    decoder = ConnectedDecoder(features, wiring, width=3)
    assert set(decoder.norms) == {"D1"}
    assert convolution_weights(decoder) == 4 * 3 + 6 * 3


def test_width_is_the_number_of_channels() -> None:
    maps = [torch.rand(1, 4, 6, 6), torch.rand(1, 5, 3, 3)]
    decoder: Any = DECODERS.get("unet-connectivity")
    decoder = decoder([FeatureSpec(4, 2), FeatureSpec(5, 4)], width=7)
    assert decoder(maps).shape == (1, 7, 6, 6) == (1, decoder.out_channels, 6, 6)


def test_maps_that_are_not_size_over_stride_are_brought_to_the_tensors_sizes() -> None:
    """Inception's maps, without padding, are smaller than the image over the stride."""
    specs = [FeatureSpec(4, s) for s in (2, 4, 8, 16, 32)]
    maps = [torch.rand(2, 4, n, n + 1) for n in (47, 22, 10, 4, 1)]
    for name in DECODERS.names():
        network = Network(create_decoder(name, specs, width=8)).eval()
        out = network([m.clone() for m in maps])
        assert out.shape[:2] == (2, 3), name
        assert out.isfinite().all(), name
