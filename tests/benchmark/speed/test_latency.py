import itertools
import time
from functools import partial

import pytest
import torch
from torch import nn

from benchmark.speed.count import count_decoder_conv_weights, count_macs, count_parameters
from benchmark.speed.latency import Latency, time_calls, time_models
from models.backbones import Backbone, create_backbone
from models.create import create_decoder
from models.predictor import DensePredictor
from tests.support import FakeTime


class Parts(nn.Module):
    """Known sizes: 3→4 3×3 at full size, 4→8 1×1 at full size, 8→2 1×1 with bias."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.decoder = nn.Conv2d(4, 8, 1, bias=False)
        self.heads = nn.ModuleDict({"depth": nn.Conv2d(8, 2, 1)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.heads["depth"](self.decoder(self.backbone(x)))


def test_parameters_by_hand():
    assert count_parameters(Parts()) == {"backbone": 108, "decoder": 32, "head": 18}


def test_macs_by_hand():
    pixels = 10 * 12
    expected = {"backbone": 108 * pixels, "decoder": 32 * pixels, "head": 16 * pixels}
    assert count_macs(Parts(), (10, 12)) == expected


def test_counts_leave_the_model_as_it_is():
    model = Parts().train()
    before = model.backbone.weight.clone()
    count_macs(model, (8, 8))
    assert model.training
    assert torch.equal(model.backbone.weight, before)
    assert model.backbone.weight.device.type == "cpu"


@pytest.fixture(scope="module")
def mobilenet() -> Backbone:
    return create_backbone("mobilenetv2_100")


def predictor(backbone: Backbone, decoder: str, **heads: int) -> DensePredictor:
    with torch.device("meta"):
        return DensePredictor(backbone, create_decoder(decoder, backbone.features), heads)


def dss_weights(width: int) -> int:
    """3×3, 3×3, 5×5, 5×5, 5×5 and 7×7 kernels, two convolutions each."""
    sides = ((9, 16, 2), (9, 24, 2), (25, 32, 4), (25, 96, 4), (25, 1280, 8), (49, 1280, 8))
    return sum(area * f * width * (into + f * width) for area, into, f in sides)


@pytest.mark.parametrize(
    ("decoder", "weights"),
    [
        ("sparsemask", 559_104),
        ("unet-connectivity", 162_304),
        ("fcn", 26_880),
        ("deeplabv3-light", 666_112),
        # the last maps of five strides have 16 + 24 + 32 + 96 + 1280 channels
        ("hed", 21 * (1448 + 5)),
        ("dss", dss_weights(64)),
        ("dss-light", dss_weights(4)),
    ],
)
def test_the_papers_decoder_weights(mobilenet, decoder, weights):
    """SparseMask's table 1 where it has the decoder: MobileNetV2, 21 classes."""
    assert count_decoder_conv_weights(predictor(mobilenet, decoder, segmentation=21)) == weights


def test_a_head_of_several_layers_is_counted_once(mobilenet):
    """HED, at 64×64: five 1×1 convolutions, and the fusion of whole maps; for each task."""
    model = predictor(mobilenet, "hed", edges=1, segmentation=3)
    scores = 16 * 32**2 + 24 * 16**2 + 32 * 8**2 + 96 * 4**2 + 1280 * 2**2
    macs = count_macs(model, (64, 64))
    assert macs["head"] == 4 * (scores + 5 * 64**2)
    assert macs["decoder"] == 0
    assert count_parameters(model)["head"] == 4 * (1448 + 5 + 5 + 1)  # with six biases


def test_mobilenet_macs_match_the_literature(mobilenet):
    """MobileNetV2: 300 M multiply-accumulates at 224×224, of which the classifier is 1.28 M."""
    model = predictor(mobilenet, "fcn", x=1)
    assert count_macs(model, (224, 224))["backbone"] == pytest.approx(299.5e6, rel=0.01)


def neck_macs(channels: int, height: int, width: int) -> int:
    """Of ViTDet's neck at a map [channels, height, width] of stride 16, layer by layer."""
    pixels, half, quarter = height * width, channels // 2, channels // 4
    transposed = 4 * pixels * channels * half * 2 + 16 * pixels * half * quarter
    sizes = (16 * pixels, 4 * pixels, pixels, pixels // 4)
    one_by_one = zip(sizes, (quarter, half, channels, channels), strict=True)
    return transposed + sum(n * (c * 256 + 9 * 256 * 256) for n, c in one_by_one)


def test_a_neck_is_counted_apart():
    plain = predictor(create_backbone("test_vit", {"depths": 1}), "fcn", depth=1)
    model = predictor(create_backbone("test_vit", {"neck": "vitdet"}), "fcn", depth=1)
    before, params = count_parameters(plain), count_parameters(model)
    assert params == {"backbone": before["backbone"], "neck": 2_427_024, "decoder": 0, "head": 257}
    assert sum(params.values()) == sum(p.numel() for p in model.parameters())
    macs = count_macs(model, (64, 96))
    assert macs["neck"] == neck_macs(64, 4, 6)
    assert macs["backbone"] == count_macs(plain, (64, 96))["backbone"]
    assert "neck" not in before


def test_necks_take_turns_and_equal_ones_are_timed_once(monkeypatch):
    with_neck = create_backbone("test_vit", {"neck": "vitdet"})
    plain = create_backbone("test_vit")
    parts = {"fcn": with_neck, "sparsemask": with_neck, "plain": plain}
    models = {}
    for name, backbone in parts.items():
        decoder = create_decoder("fcn" if name == "plain" else name, backbone.features)
        models[name] = DensePredictor(backbone, decoder, {"x": 1})
    rounds = []

    def timed(calls, device, batch, **_):
        rounds.append(dict(batch))
        return {name: call() for name, call in calls.items()}

    monkeypatch.setattr("benchmark.speed.latency.time_calls", timed)
    batches = {"fcn": 2, "sparsemask": 2, "plain": 1}
    seen = time_models(models, (64, 96), "cpu", batches, necks=True)
    assert rounds == [{**batches, "fcn/neck": 2}]
    assert list(seen) == ["fcn", "sparsemask", "plain", "fcn/neck", "sparsemask/neck"]
    assert seen["sparsemask/neck"] is seen["fcn/neck"]
    assert [tuple(m.shape) for m in seen["fcn/neck"]] == [
        (2, 256, 16, 24), (2, 256, 8, 12), (2, 256, 4, 6), (2, 256, 2, 3),
    ]  # fmt: skip
    time_models(models, (64, 96), "cpu", {**batches, "sparsemask": 1}, necks=True)
    assert rounds[1].keys() - batches.keys() == {"fcn/neck", "sparsemask/neck"}
    time_models(models, (64, 96), "cpu", batches)
    assert rounds[2] == batches
    assert not with_neck.neck._forward_pre_hooks


class Sleeper(nn.Module):
    def __init__(self, seconds: float, log: list[float]) -> None:
        super().__init__()
        self.seconds, self.log = seconds, log

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.log.append(self.seconds)
        time.sleep(self.seconds)
        return x


def test_models_are_timed_in_turns():
    log: list[float] = []
    models = {"a": Sleeper(0.002, log), "b": Sleeper(0.004, log)}
    timed = time_models(models, (8, 8), min_time=0.05, warmup_time=0.0, block=0.01)
    changes = sum(x != y for x, y in itertools.pairwise(log))
    assert changes >= 6
    assert set(timed) == {"a", "b"}
    for latency in timed.values():
        assert isinstance(latency, Latency)
        assert latency.calls >= 20
        assert latency.warmup_calls >= 3
        assert latency.p5_ms <= latency.median_ms <= latency.p95_ms
        assert latency.fps == pytest.approx(1000 / latency.median_ms)
    assert timed["a"].p5_ms >= 2
    assert timed["b"].p5_ms >= 4


def test_turns_rotate_and_the_first_call_of_each_is_not_counted(monkeypatch):
    """Calls take 1/64 s, and a whole second after another network's, as with a cold cache."""
    clock, log = FakeTime(), []
    monkeypatch.setattr("benchmark.speed.latency.time", clock)

    def call(name: str) -> None:
        clock.now += 1 / 64 if log[-1:] == [name] else 1
        log.append(name)

    timed = time_calls(
        {name: partial(call, name) for name in "abc"}, torch.device("cpu"),
        min_time=6 / 64, min_calls=6, warmup_time=0, block=2 / 64,
    )  # fmt: skip
    warmup, *turns = "aaabbbccc", "aaabbbccc", "bbbcccaaa", "cccaaabbb"
    assert "".join(log) == warmup + "".join(turns)
    for latency in timed.values():
        assert (latency.calls, latency.warmup_calls) == (6, 3)
        assert latency.p5_ms == latency.median_ms == latency.p95_ms == 1000 / 64
