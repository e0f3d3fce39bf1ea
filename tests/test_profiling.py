"""A profile: parts in their order, work counted by hand, nothing left behind."""

import pytest
import torch
from torch import nn

from benchmark.profiling import Counter, Peaks, measured_peaks, parts_of, profile, watched
from benchmark.speed import Setup, count_macs
from models.backbones import create_backbone
from models.predictor import DensePredictor, build_decoder


def predictor(decoder: str) -> DensePredictor:
    backbone = create_backbone("test_resnet")
    return DensePredictor(backbone, build_decoder(decoder, backbone), {"classes": 3}).eval()


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


@pytest.mark.parametrize("decoder", ["unet-connectivity", "smp-unet"])
def test_a_profile_of_what_is_timed(decoder):
    model, setup = predictor(decoder), Setup()
    ready, setup = setup.prepared(model)
    found = profile(ready, (64, 64), "cpu", 2, setup, Peaks(2e9, 1e9, "float32"), min_time=0.02)
    parts = {part["name"]: part for part in found["parts"]}
    macs = count_macs(model, (64, 64))
    assert parts["backbone"]["macs"] == 2 * macs["backbone"]
    assert parts["head"]["macs"] == 2 * macs["head"]
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1)
    assert sum(part["ms"] for part in parts.values()) == pytest.approx(found["sum_ms"])
    assert found["whole_ms"] > 0
    backbone = parts["backbone"]
    # one multiply-accumulate and one byte take a nanosecond each
    best = max(backbone["macs"], backbone["bytes"]) / 1e6
    assert backbone["roofline_ms"] == pytest.approx(best)
    assert backbone["bound"] == ("compute" if backbone["macs"] > backbone["bytes"] else "memory")
    assert backbone["roofline_share"] == pytest.approx(best / backbone["ms"])


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
