"""Views and windows: how a trained network is applied to an image."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmark.experiment.network import create_model
from benchmark.scoring.rescore import prepare_views
from benchmark.scoring.views import Views, _starts, predict
from common.errors import UsageError
from tasks.depth import Depth
from tasks.saliency import Saliency
from tasks.segmentation import Segmentation

CLASSES = ("a", "b", "c")


class Pixelwise(nn.Module):
    """Logits from each pixel alone, so that windows and mirroring cannot change them."""

    def __init__(self, task: str, channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.task, self.conv = task, nn.Conv2d(3, channels, 1)
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.sizes.append(tuple(x.shape[-2:]))
        return {self.task: self.conv(x)}


@given(st.integers(1, 400), st.integers(1, 120))
def test_windows_cover_everything_and_overlap_by_a_third(length, side):
    starts = _starts(length, side)
    assert starts[0] == 0
    assert starts[-1] == max(length - side, 0)
    steps = [b - a for a, b in itertools.pairwise(starts)]
    assert all(0 < step <= max(side * 2 // 3, 1) for step in steps)


@pytest.mark.parametrize("window", [(8, 8), (16, 9), (32, 64), None])
def test_windows_of_a_pixelwise_network_change_nothing(window):
    net = Pixelwise("segmentation", 3)
    image = torch.rand(3, 21, 34)
    found = predict(net, [Segmentation(CLASSES)], image, (21, 34), Views(window=window))
    assert torch.equal(found["segmentation"], net(image[None])["segmentation"].argmax(1)[0])
    if window is not None:
        assert set(net.sizes[:-1]) == {window}


def test_flipping_a_pixelwise_network_changes_nothing():
    net = Pixelwise("saliency", 1)
    image = torch.rand(3, 6, 10)
    plain = predict(net, [Saliency()], image, (12, 20), Views())["saliency"]
    assert plain.shape == (12, 20)
    both = predict(net, [Saliency()], image, (12, 20), Views(flip=True))["saliency"]
    torch.testing.assert_close(both, plain)
    assert len(net.sizes) == 3


class SeesLeft(nn.Module):
    """Logit 2 in the left half of what it is shown, -2 in the right."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out = torch.full((1, 1, *x.shape[-2:]), 2.0)
        out[..., x.shape[-1] // 2 :] = -2
        return {"saliency": out}


def test_the_mirrored_view_is_mirrored_back():
    found = predict(SeesLeft(), [Saliency()], torch.rand(3, 4, 8), (4, 8), Views(flip=True))
    torch.testing.assert_close(found["saliency"], torch.full((4, 8), 0.5))


def test_a_magnified_view_is_nearer():
    class Same(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"depth": torch.zeros(1, 1, *x.shape[-2:])}

    task = Depth(0.1, 10.0)  # logit 0: 1 m
    image = torch.rand(3, 8, 8)
    for scales, metres in (((2.0,), 2.0), ((0.5,), 0.5), ((0.5, 2.0), 1.0), ((1.0, 4.0), 2.0)):
        found = predict(Same(), [task], image, (8, 8), Views(scales=scales))["depth"]
        torch.testing.assert_close(found, torch.full((8, 8), metres))


def test_scales_are_what_the_network_sees():
    net = Pixelwise("segmentation", 3)
    views = Views(scales=(0.5, 1.0, 1.25))
    predict(net, [Segmentation(CLASSES)], torch.rand(3, 20, 30), (20, 30), views)
    assert net.sizes == [(10, 15), (20, 30), (25, 38)]


def test_names_tell_what_was_used():
    assert Views().name == ""
    views = Views(True, (0.75, 1.0), (64, 96))
    assert views.name == "+flip+scales0.75,1+window64x96"


class WithSides(Pixelwise):
    """Its logits, and two side outputs that are multiples of them."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        (logits,) = super().forward(x).values()
        names = (self.task, f"{self.task}/side1", f"{self.task}/side2")
        return {name: factor * logits for name, factor in zip(names, (1, 2, -3), strict=True)}


@pytest.mark.parametrize("window", [None, (4, 8)])
def test_merged_sides_are_averaged_as_probabilities(window):
    net = WithSides("saliency", 1)
    image = torch.rand(3, 6, 10)
    views = Views(window=window, sides=True)
    assert views.name.endswith("+sides")
    found = predict(net, [Saliency()], image, (6, 10), views)["saliency"]
    logits = net.conv(image[None])[0, 0]
    mean = sum(torch.sigmoid(factor * logits) for factor in (1, 2, -3)) / 3
    torch.testing.assert_close(found, mean)
    both = Views(flip=True, window=window, sides=True)
    torch.testing.assert_close(predict(net, [Saliency()], image, (6, 10), both)["saliency"], mean)


@pytest.mark.parametrize("decoder", ["hed", "fcn"])
def test_a_network_gives_its_sides_if_it_has_any(decoder):
    model = create_model(decoder, "test_resnet", task="edges").eval()
    views, images = Views(sides=True), torch.rand(1, 3, 64, 96)
    if decoder == "fcn":
        with pytest.raises(UsageError, match=r"--merge-sides: decoder FCN has no side outputs to"):
            prepare_views(model, None, views)
        return
    assert list(model.outputs(images)) == ["edges"]
    prepare_views(model, None, Views())
    assert list(model.outputs(images)) == ["edges"]
    prepare_views(model, None, views)
    assert list(model.outputs(images)) == ["edges", *(f"edges/side{i}" for i in range(1, 6))]
