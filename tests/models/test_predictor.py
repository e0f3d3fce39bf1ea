"""DensePredictor: normalisation, padding, heads and the size of what comes out."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UsageError
from models.backbones import FeatureSpec, create_backbone
from models.create import create_decoder
from models.decoders.base import Decoder, DecoderInfo
from models.predictor import DensePredictor, TaskPredictor, plain

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)


class Echo(nn.Module):
    """A backbone that hands on its input, pooled by ``stride``, and remembers the size."""

    def __init__(self, stride: int = 1, size_divisor: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.size_divisor = size_divisor
        self.fixed_size: tuple[int, int] | None = None
        self.in_channels = 3
        self.features = (FeatureSpec(3, stride),)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> list[Tensor]:
        self.seen.append(x)
        return [F.avg_pool2d(x, self.stride)]


class Pass(Decoder):
    """A decoder that hands on the last map."""

    info = DecoderInfo("pass", "test")
    out_channels = 3

    def forward(self, features: list[Tensor]) -> Tensor:
        return features[-1]


class PassQuarters(Pass):
    info = DecoderInfo("pass quarters", "test", size_divisor=4)


def echoing(decoder: type[Pass] = Pass, **backbone: Any) -> DensePredictor:
    """A predictor whose logits are its normalised images."""
    body: Any = Echo(**backbone)
    predictor = DensePredictor(body, decoder(body.features), {"task": 3}, MEAN, STD)
    with torch.no_grad():
        predictor.heads["task"].weight.copy_(torch.eye(3)[:, :, None, None])
        predictor.heads["task"].bias.zero_()
    return predictor.eval()


def normalised(images: Tensor) -> Tensor:
    channels = [(images[:, c] - MEAN[c]) / STD[c] for c in range(3)]
    return torch.stack(channels, dim=1)


def test_images_are_normalised_channel_by_channel() -> None:
    images = torch.rand(2, 3, 5, 7)
    torch.testing.assert_close(echoing()(images)["task"], normalised(images))


def test_mean_and_std_travel_with_the_weights() -> None:
    body: Any = Echo()
    other = DensePredictor(body, Pass(body.features), {"task": 3})
    images = torch.rand(1, 3, 4, 4)
    assert not torch.allclose(other(images)["task"], echoing()(images)["task"])
    other.load_state_dict(echoing().state_dict())
    torch.testing.assert_close(other(images)["task"], normalised(images))


def test_one_task_alone_is_the_same_network_of_the_same_weights() -> None:
    predictor = echoing()
    alone = plain(predictor)
    assert isinstance(alone, TaskPredictor)
    assert not alone.training
    images = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(alone(images), normalised(images))
    assert {k: t.data_ptr() for k, t in alone.state_dict().items()} == {
        k: t.data_ptr() for k, t in predictor.state_dict().items()
    }
    torch.testing.assert_close(DensePredictor.of(alone)(images), predictor(images))
    assert plain(predictor.train()).training


@pytest.mark.parametrize("size", [(33, 50), (1, 1), (64, 32), (32, 33)])
def test_sizes_are_padded_to_a_multiple_with_the_mean_colour_and_cut_back(
    size: tuple[int, int],
) -> None:
    predictor = echoing(size_divisor=32)
    images = torch.rand(2, 3, *size)
    logits = predictor(images)["task"]
    (seen,) = predictor.backbone.seen
    assert seen.shape[2] % 32 == seen.shape[3] % 32 == 0
    assert 0 <= seen.shape[2] - size[0] < 32
    assert 0 <= seen.shape[3] - size[1] < 32
    assert not seen[..., size[0] :, :].any()  # 0 is the mean colour
    assert not seen[..., :, size[1] :].any()
    torch.testing.assert_close(logits, normalised(images))


def test_the_multiple_serves_backbone_and_decoder() -> None:
    predictor = echoing(PassQuarters, size_divisor=6)
    assert predictor.size_divisor == 12
    assert predictor(torch.rand(1, 3, 13, 11))["task"].shape == (1, 3, 13, 11)
    assert predictor.backbone.seen[0].shape[-2:] == (24, 12)


def test_coarse_logits_are_upsampled_corner_to_corner() -> None:
    images = torch.rand(1, 3, 8, 12)
    logits = echoing(stride=4)(images)["task"]
    coarse = F.avg_pool2d(normalised(images), 4)
    assert logits.shape == (1, 3, 8, 12)
    for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        torch.testing.assert_close(logits[..., y, x], coarse[..., y, x])
    # seven steps lie between the two rows; this is the third
    torch.testing.assert_close(
        logits[..., 3, 0], coarse[..., 0, 0] * 4 / 7 + coarse[..., 1, 0] * 3 / 7
    )


def test_every_task_has_a_head_of_its_own() -> None:
    body: Any = Echo(stride=2)
    predictor = DensePredictor(body, Pass(body.features), {"depth": 1, "segmentation": 7})
    logits = predictor(torch.rand(2, 3, 9, 10))
    assert {task: tuple(y.shape) for task, y in logits.items()} == {
        "depth": (2, 1, 9, 10),
        "segmentation": (2, 7, 9, 10),
    }
    assert len(body.seen) == 1  # one pass for all tasks


class Sided(nn.Module):
    """A head with two sides: half the final logits at half the size, and each channel's mean."""

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        return [x, F.avg_pool2d(x, 2) / 2, x.mean((2, 3))] if self.training else x


class PassWithSides(Pass):
    info = DecoderInfo("pass with sides", "test", size_divisor=4)

    def head(self, channels: int) -> nn.Module:
        return Sided()


def test_sides_are_resized_and_cut_as_the_logits_are_in_training_alone() -> None:
    body: Any = Echo(stride=2)
    predictor = DensePredictor(body, PassWithSides(body.features), {"a": 3, "b": 3}, MEAN, STD)
    images = torch.rand(2, 3, 10, 15)
    outputs = predictor.train()(images)
    assert list(outputs) == ["a", "a/side1", "a/side2", "b", "b/side1", "b/side2"]
    pooled = F.avg_pool2d(F.pad(normalised(images), (0, 1, 0, 2)), 2)
    for task in ("a", "b"):
        for name, small in ((task, pooled), (f"{task}/side1", F.avg_pool2d(pooled, 2) / 2)):
            full = F.interpolate(small, (12, 16), mode="bilinear", align_corners=True)
            torch.testing.assert_close(outputs[name], full[..., :10, :15])
        torch.testing.assert_close(outputs[f"{task}/side2"], pooled.mean((2, 3)))
    assert list(predictor.eval()(images)) == ["a", "b"]


def test_a_backbone_of_one_size_says_which() -> None:
    predictor = echoing()
    predictor.check_size(123, 45)  # any size goes
    predictor.backbone.fixed_size = (224, 192)
    predictor.check_size(224, 192)
    with pytest.raises(UsageError) as caught:
        predictor.check_size(192, 224)
    assert "224×192 only, not 192×224" in str(caught.value)
    assert "--image-size 224x192" in str(caught.value)
    with pytest.raises(UsageError, match="use --crop-size 224x192"):
        predictor.check_size(192, 224, option="--crop-size")


def test_a_real_network_whole() -> None:
    """Deepcopy, float64 and export of backbone, decoder and head together."""
    torch.manual_seed(0)
    backbone = create_backbone("test_resnet")
    predictor = DensePredictor(
        backbone, create_decoder("sparsemask", backbone.features), {"a": 2}
    ).eval()
    images = torch.rand(1, 3, 61, 75)
    with torch.no_grad():
        expected = predictor(images)["a"]
        assert expected.shape == (1, 2, 61, 75)
        assert torch.equal(copy.deepcopy(predictor)(images)["a"], expected)
        double = copy.deepcopy(predictor).double()(images.double())["a"]
        torch.testing.assert_close(double.float(), expected, rtol=1e-3, atol=1e-4)
        exported = torch.export.export(predictor, (images,)).module()
        torch.testing.assert_close(exported(images)["a"], expected)


def test_an_unknown_decoder_lists_near_matches() -> None:
    with pytest.raises(UsageError, match="unknown decoder 'sparsemsk': did you mean sparsemask"):
        create_decoder("sparsemsk", Echo().features)
