"""A profile: parts in their order, work counted by hand, nothing left behind."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import flop_registry

from benchmark.speed.count import count_macs
from benchmark.speed.latency import Setup
from benchmark.speed.profile import Counter, Peaks, measured_peaks, parts_of, profile, watched
from models.backbones import create_backbone
from models.create import create_decoder
from models.predictor import DensePredictor
from tests.support import FakeTime


def predictor(decoder: str, name: str = "test_resnet", **arguments: str) -> DensePredictor:
    backbone = create_backbone(name, arguments)
    return DensePredictor(
        backbone, create_decoder(decoder, backbone.features), {"classes": 3}
    ).eval()


@torch.inference_mode()
def parts_seen(model: DensePredictor) -> list[str]:
    seen: list[str] = []
    with watched(model, seen.append):
        model(torch.rand(1, 3, 64, 64))
    before = list(seen)
    model(torch.rand(1, 3, 64, 64))
    assert seen == before  # no hook is left
    return seen


def test_stages_of_a_wired_decoder_in_their_order():
    model = predictor("sparsemask").fuse()
    seen = parts_seen(model)
    stages = [f"D{stage}" for stage in model.decoder.order]
    sources = list(model.decoder.consumers)
    assert seen[:2] == ["normalise", "backbone"]
    assert seen[-2:] == ["head", "resize"]
    inner = seen[2:-2]
    first = [source for source in sources if source[0] != "D"]
    assert inner[: len(first)] == first
    assert list(dict.fromkeys(inner[len(first) :])) == stages
    assert inner[-1] == "D1"


def test_modules_of_another_decoder():
    seen = parts_seen(predictor("smp-fpn"))
    assert [name for name in seen if name[:3] == "seg"] == [f"seg_blocks.{i}" for i in range(4)]
    assert {"p5", "p2", "merge", "decoder, between"} <= set(seen)
    assert parts_seen(predictor("fcn")) == ["normalise", "backbone", "decoder", "head", "resize"]


@torch.inference_mode()
def test_work_by_hand():
    conv, x = nn.Conv2d(4, 8, 1, bias=False), torch.rand(2, 4, 5, 6)
    matrix, other = torch.rand(1, 7, 8), torch.rand(1, 8, 9)
    with Counter() as counter:
        y = conv(x)
        counter.mark("convolution")
        y.flatten(1).view(2, -1)
        counter.mark("view")
        y += 1
        counter.mark("in place")
        x[:, :1].expand(-1, 4, -1, -1) + 1
        counter.mark("expanded")
        torch.zeros(1, 7, 9).baddbmm_(matrix, other)
        counter.mark("product")
    reads = 4 * (x.numel() + conv.weight.numel())
    assert counter.parts["convolution"] == (2 * 2 * 4 * 8 * 30, reads + 4 * y.numel())
    assert counter.parts["view"] == (0, 0)
    assert counter.parts["in place"] == (0, 2 * 4 * y.numel())
    assert counter.parts["expanded"] == (0, 4 * (60 + 240))
    assert counter.parts["product"][0] == 2 * 7 * 8 * 9


class Takes(nn.Conv2d):
    """A convolution of ``ms`` milliseconds."""

    def __init__(self, clock: FakeTime, ms: float, *arguments: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.clock, self.ms = clock, ms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.clock.now += self.ms / 1000
        return super().forward(x)


class Parts(nn.Module):
    def __init__(self, clock: FakeTime) -> None:
        super().__init__()
        self.backbone = Takes(clock, 2, 3, 4, 3, padding=1, bias=False)
        self.decoder = Takes(clock, 3, 4, 8, 1, bias=False)
        self.heads = nn.ModuleDict({"depth": Takes(clock, 5, 8, 2, 1)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.heads["depth"](self.decoder(self.backbone(x)))


def test_a_profile_by_hand(monkeypatch):
    """Two images of 64 pixels, where a multiply-accumulate and a byte take a nanosecond each."""
    clock = FakeTime()
    monkeypatch.setattr("benchmark.speed.latency.time", clock)
    monkeypatch.setattr("benchmark.speed.profile.time", clock)
    peaks = Peaks(2e9, 1e9, "float32")
    found = profile(Parts(clock), (8, 8), "cpu", 2, Setup(), peaks, min_time=0.02)
    assert found["whole_ms"] == pytest.approx(10)
    assert found["sum_ms"] == pytest.approx(10)
    names = ("name", "macs", "bytes", "bound", "ms", "share", "roofline_ms", "roofline_share")
    rows = {part["name"]: [part[name] for name in names] for part in found["parts"]}
    assert rows.pop("normalise") == ["normalise", 0, 0, "memory", 0, 0, 0, 0]
    assert rows.pop("resize") == ["resize", 0, 0, "memory", 0, 0, 0, 0]
    # bytes: four for each value of images, weights, biases and outputs
    by_hand = [
        ("backbone", 128 * 27 * 4, 4 * (384 + 108 + 512), "compute", 2, 0.2, 0.013824, 0.006912),
        ("decoder", 128 * 4 * 8, 4 * (512 + 32 + 1024), "memory", 3, 0.3, 0.006272, 0.006272 / 3),
        ("head", 128 * 8 * 2, 4 * (1024 + 16 + 2 + 256), "memory", 5, 0.5, 0.005192, 0.0010384),
    ]
    for row, expected in zip(rows.values(), by_hand, strict=True):
        assert row[:4] == list(expected[:4])
        assert row[4:] == pytest.approx(expected[4:])


@pytest.mark.parametrize("decoder", ["unet-connectivity", "smp-unet"])
def test_a_profile_of_what_is_timed(decoder):
    model = predictor(decoder)
    ready, setup = Setup().prepared(model)
    found = profile(ready, (64, 64), "cpu", 2, setup, Peaks(2e9, 1e9, "float32"), min_time=0.02)
    parts = {part["name"]: part for part in found["parts"]}
    macs = count_macs(model, (64, 64))
    assert parts["backbone"]["macs"] == 2 * macs["backbone"]
    assert parts["head"]["macs"] == 2 * macs["head"]
    assert found["whole_ms"] > 0


def test_a_neck_is_a_part_of_its_own():
    model = predictor("fcn", "test_vit", neck="vitdet")
    seen = parts_seen(model)
    assert seen == ["normalise", "backbone", "neck", "decoder", "head", "resize"]
    setup, peaks = Setup(), Peaks(2e9, 1e9, "float32")
    found = profile(model, (64, 64), "cpu", 1, setup, peaks, min_time=0.02)
    parts = {part["name"]: part["macs"] for part in found["parts"]}
    macs = count_macs(model, (64, 64))
    assert {name: parts[name] for name in macs} == macs


def test_parts_end_with_modules_of_the_network_itself():
    model = predictor("smp-unet").fuse()
    own = set(model.modules())
    assert all(module in own for module, _, _ in parts_of(model))


@pytest.mark.slow
def test_peaks_of_this_machine():
    peaks = measured_peaks("cpu", seconds=0.05)
    assert peaks.dtype == "float32"
    # from a phone's core to a server's sockets
    assert 1e9 < peaks.flops_per_s < 1e14
    assert 1e9 < peaks.bytes_per_s < 1e13
    assert measured_peaks("cpu", amp=True, seconds=0.05).dtype == "bfloat16"


# --- one count, and figures worked out by hand ---------------------------------------------------

HEIGHT, WIDTH = 64, 96


def resnet18() -> int:
    """7×7 at stride 2, then four stages of two blocks of two 3×3; a 1×1 where a stage halves."""
    pixels = HEIGHT * WIDTH // 4
    total = pixels * 49 * 3 * 64
    pixels, channels = pixels // 4, 64
    total += 4 * pixels * 9 * 64 * 64
    for wide in (128, 256, 512):
        pixels //= 4
        total += pixels * (9 * channels * wide + 3 * 9 * wide * wide + channels * wide)
        channels = wide
    return total


def pvt_v2_b0() -> int:
    """Overlapping patches; attention to keys of an image reduced by a strided convolution; an MLP
    with a depthwise 3×3."""
    total, pixels, before = 0, HEIGHT * WIDTH, 3
    stages = zip((32, 64, 160, 256), (8, 4, 2, 1), (8, 8, 4, 4), strict=True)
    for stage, (width, reduction, ratio) in enumerate(stages):
        pixels //= 4 if stage else 16
        total += pixels * (9 if stage else 49) * before * width
        keys = pixels // reduction**2
        inside = ratio * width
        block = 2 * pixels * width * width  # queries, and the projection behind
        block += 2 * keys * width * width + 2 * pixels * keys * width
        if reduction > 1:
            block += keys * reduction**2 * width * width
        block += pixels * (2 * width * inside + 9 * inside)
        total += 2 * block
        before = width
    return total


def vit_tiny() -> int:
    """Patches of 16×16 to 192 channels, a class token, twelve blocks with an MLP of four times."""
    patches, width = HEIGHT * WIDTH // 256, 192
    tokens = patches + 1
    block = tokens * (3 + 1 + 2 * 4) * width * width + 2 * tokens * tokens * width
    return patches * 3 * 256 * width + 12 * block


@pytest.mark.parametrize(
    ("name", "macs"),
    [("resnet18", resnet18()), ("pvt_v2_b0", pvt_v2_b0()), ("vit_tiny_patch16_224", vit_tiny())],
)
def test_macs_of_a_table_and_of_a_profile_are_those_by_hand(
    monkeypatch: pytest.MonkeyPatch, name: str, macs: int
) -> None:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    monkeypatch.delitem(flop_registry, kernel, raising=False)  # older torch does not know it
    backbone = create_backbone(name).eval()
    model = DensePredictor(backbone, create_decoder("fcn", backbone.features), {"x": 3}).eval()
    assert count_macs(model, (HEIGHT, WIDTH))["backbone"] == macs
    with torch.inference_mode(), Counter() as counter, watched(model, counter.mark):
        model(torch.rand(1, 3, HEIGHT, WIDTH))
    assert counter.parts["backbone"][0] == 2 * macs
