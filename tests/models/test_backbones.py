"""timm backbones: what they declare, what they are refused for, and the weights they are given."""

import pickle
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from common.errors import DataError, UsageError, UserError
from models import backbones
from models.backbones import (
    FeatureSpec,
    backbone_names,
    create_backbone,
    create_without_weights,
    input_statistics,
)
from models.feature_maps import _Shapes

# strides that the publications give, and what is particular
FAMILIES = {
    "mobilenetv2_100": (2, 2, 4, 8, 16, 16, 32, 32, 32),
    "mobilenetv3_small_050": (2, 4, 8, 16, 16, 32, 32),  # its head convolution is the classifier's
    "mobilenetv4_conv_small_050": (2, 4, 8, 16, 32, 32),
    "test_efficientnet": (2, 2, 4, 8, 16, 32, 32),
    "lcnet_035": (2, 2, 4, 8, 16, 16, 32),
    "test_resnet": (2, 4, 8, 16, 32),
    "test_byobnet": (2, 4, 8, 16, 32),
    "test_nfnet": (2, 4, 8, 16, 32),
    "regnetx_002": (2, 4, 8, 16, 32),
    "ghostnet_100": (2, 4, 8, 16, 32),
    "dla46_c": (2, 4, 8, 16, 32),  # takes multiples of 32 only
    "darknet17": (2, 4, 8, 16, 32),  # has a map of stride 1, which is left out
    "test_convnext": (4, 8, 16, 32),
    "edgenext_xx_small": (4, 8, 16, 32),
    "test_mambaout": (4, 8, 16, 32),  # NHWC
    "swin_tiny_patch4_window7_224": (4, 8, 16, 32),  # NHWC, of one size unless told
    "coatnet_pico_rw_224": (2, 4, 8, 16, 32),  # of one size
}


@cache
def random_images(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


# --- what is declared ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_declared_channels_and_strides_are_those_of_the_maps(name: str) -> None:
    backbone = create_backbone(name).to("meta").eval()
    assert tuple(f.stride for f in backbone.features) == FAMILIES[name]
    for height, width in [backbone.fixed_size] if backbone.fixed_size else [(192, 320), (64, 96)]:
        with torch.no_grad():
            maps = backbone(torch.empty(2, 3, height, width, device="meta"))
        assert [tuple(m.shape) for m in maps] == [
            (2, f.channels, height // f.stride, width // f.stride) for f in backbone.features
        ]


@pytest.mark.parametrize("name", ["mobilenetv2_035", "test_resnet", "test_mambaout", "dla46_c"])
def test_sizes_that_the_divisor_allows_run(name: str) -> None:
    backbone = create_backbone(name).to("meta").eval()
    divisor = backbone.size_divisor
    for height, width in ((97, 131), (33, 64), (161, 75)):
        padded = -(-height // divisor) * divisor, -(-width // divisor) * divisor
        with torch.no_grad():
            maps = backbone(torch.empty(1, 3, *padded, device="meta"))
        areas = [m.shape[2] * m.shape[3] for m in maps]
        assert areas == sorted(areas, reverse=True)  # highest resolution first
        assert [m.shape[1] for m in maps] == [f.channels for f in backbone.features]


def test_mobilenetv2_has_nine_maps_and_the_parameters_of_torchvisions() -> None:
    backbone = create_backbone("mobilenetv2_100")
    assert backbone.features == tuple(
        FeatureSpec(channels, stride)
        for channels, stride in (
            *((32, 2), (16, 2), (24, 4), (32, 8), (64, 16)),
            *((96, 16), (160, 32), (320, 32), (1280, 32)),
        )
    )
    with torch.device("meta"):
        other = torchvision.models.mobilenet_v2().features
    count = sum(p.numel() for p in backbone.parameters())
    assert count == sum(p.numel() for p in other.parameters()) == 2_223_872  # "2.22 M"


@pytest.mark.parametrize("name", ["mobilenetv2_035", "mobilenetv3_small_050", "lcnet_035"])
def test_staged_maps_are_stem_blocks_and_head_in_order(name: str) -> None:
    """Recomputed layer by layer from the network's parts."""
    backbone = create_backbone(name).eval()
    net: Any = backbone.net
    with torch.no_grad():
        x = net.bn1(net.conv_stem(random_images(64, 96)))
        expected = [x]
        for block in net.blocks:
            x = block(x)
            expected.append(x)
        if name.startswith("mobilenetv2"):
            expected.append(net.bn2(net.conv_head(x)))
        maps = backbone(random_images(64, 96))
    assert len(maps) == len(expected) == len(backbone.features)
    for seen, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(seen, wanted)
    assert all(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "test_efficientnet", "test_convnext"])
def test_training_reaches_every_parameter(name: str) -> None:
    backbone = create_backbone(name).train()
    sum(m.square().mean() for m in backbone(random_images(64, 96))).backward()
    idle = [name for name, p in backbone.named_parameters() if p.grad is None]
    assert idle == []


def test_arguments_reach_the_model() -> None:
    features = create_backbone("test_resnet", {"output_stride": 16}).features
    assert [f.stride for f in features] == [2, 4, 8, 16, 16]
    features = create_backbone("test_resnet", {"output_stride": 8}).features
    assert [f.stride for f in features] == [2, 4, 8, 8, 8]
    fixed = create_backbone("coatnet_pico_rw_224", {"img_size": 96})
    assert fixed.fixed_size == (96, 96)


@pytest.mark.parametrize(
    ("name", "arguments", "strides", "undilated"),
    [
        ("test_resnet", {"output_stride": 8}, (2, 4, 8, 8, 8), (2, 4, 8, 16, 32)),
        ("test_resnet", {"output_stride": 16}, (2, 4, 8, 16, 16), (2, 4, 8, 16, 32)),
        ("test_resnet", {"output_stride": 32}, (2, 4, 8, 16, 32), (2, 4, 8, 16, 32)),
        ("test_efficientnet", {"output_stride": 8}, (2, 2, 4, 8, 8, 8, 8),
         (2, 2, 4, 8, 16, 32, 32)),
        ("test_resnet", {"output_stride": 8, "out_indices": [1, 2, 3, 4]}, (4, 8, 8, 8),
         (4, 8, 16, 32)),
        # undilated these two would be blocks, resized to four strides
        ("test_resnet", {"output_stride": 8, "out_indices": [1, 4]}, (4, 8), (4, 8)),
        ("test_resnet", {}, (2, 4, 8, 16, 32), (2, 4, 8, 16, 32)),
    ],
)  # fmt: skip
def test_a_dilated_backbone_knows_its_undilated_strides(
    name: str, arguments: dict[str, Any], strides: tuple[int, ...], undilated: tuple[int, ...]
) -> None:
    features = create_backbone(name, arguments).features
    assert tuple(f.stride for f in features) == strides
    assert tuple(f.undilated for f in features) == undilated


def test_a_dilated_backbone_draws_the_same_numbers_the_first_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backbones, "_geometries", {})
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        weights.append(create_backbone("test_resnet", {"output_stride": 8}).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_backbone_names_take_substrings_and_wildcards() -> None:
    assert {"test_resnet", "test_vit"} <= set(backbone_names())
    assert set(backbone_names("mobilenetv2")) == {
        n for n in timm.list_models() if "mobilenetv2" in n
    }
    assert all(n.startswith("test_") for n in backbone_names("test_*"))
    assert backbone_names("test_res?et") == ["test_resnet"]
    assert backbone_names("no such network") == []


# --- what is refused -----------------------------------------------------------------------------


def test_unknown_names_list_near_matches() -> None:
    with pytest.raises(UsageError, match=r"unknown backbone 'mobilnetv2_100'.*mobilenetv2_100"):
        create_backbone("mobilnetv2_100")
    with pytest.raises(UsageError, match=r"see python cli\.py list backbones"):
        create_backbone("@@@@")


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_a_wrong_argument_is_named(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        create_backbone(name, {"nonsense": 5})
    assert f"backbone {name} does not take --backbone-arg nonsense=5" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("test_resnet", {"output_stride": 7}),
        ("coatnet_pico_rw_224", {"img_size": "large"}),
        ("swin_tiny_patch4_window7_224", {"img_size": -4}),
    ],
)
def test_a_wrong_value_of_an_argument_is_named(name: str, argument: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        create_backbone(name, argument)
    (key, value), *_ = argument.items()
    assert f"backbone {name} does not take --backbone-arg {key}={value}: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_architecture_is_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_geometries", {})
    probed = []
    measure = backbones.measure

    def counting(*arguments: Any) -> Any:
        probed.append(arguments[1:])
        return measure(*arguments)

    monkeypatch.setattr(backbones, "measure", counting)
    first, again = (create_backbone("test_resnet") for _ in range(2))
    other = create_backbone("test_resnet", {"output_stride": 16})
    assert len(probed) == 2
    assert again.features == first.features != other.features
    assert (again.size_divisor, again.fixed_size) == (first.size_divisor, first.fixed_size)


@pytest.mark.parametrize("name", ["test_resnet", "swin_tiny_patch4_window7_224"])
def test_weights_that_cannot_be_fetched_point_to_files(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real = timm.create_model

    def fail(*args: Any, pretrained: bool, **kwargs: Any) -> None:
        with torch.device("meta"):
            real(*args, pretrained=False, **kwargs)  # as timm does: arguments first, then weights
        assert pretrained
        raise FileNotFoundError("no route to host\nand a long story")

    monkeypatch.setattr("models.backbones.timm.create_model", fail)
    with pytest.raises(UserError) as caught:
        create_backbone(name, pretrained=True)
    assert "(no route to host)" in str(caught.value)
    assert "--weights" in str(caught.value)


# --- the map of the image's own resolution -------------------------------------------------------


@pytest.mark.parametrize("name", ["darknet17", "vgg11", "vgg11_bn"])
def test_the_map_of_stride_1_comes_in_place_of_the_deepest(name: str) -> None:
    """Those of timm's model, of which the layers behind the last map are left out."""
    with torch.device("meta"):  # VGG has a classifier of 120 M weights
        plain, full = (create_backbone(name, full_resolution=f) for f in (False, True))
    torch.manual_seed(0)
    whole = timm.create_model(name, features_only=True).eval()
    specs = [
        FeatureSpec(*pair)
        for pair in zip(whole.feature_info.channels(), whole.feature_info.reduction(), strict=True)
    ]
    assert specs[0].stride == 1
    assert plain.features == tuple(specs[1:])
    assert full.features == tuple(specs[:-1])
    deeper = {key for key in plain.net if key not in full.net}
    assert deeper
    assert all(key.startswith(("stages_4", "features_")) for key in deeper)
    kept = {key: t.shape for key, t in full.state_dict().items()}
    assert kept.items() <= {key: t.shape for key, t in plain.state_dict().items()}.items()
    for backbone in (plain, full):
        backbone.to_empty(device="cpu").eval().net.load_state_dict(whole.state_dict(), strict=False)
    images = random_images(64, 96)
    with torch.no_grad():
        maps, found, shallow = whole(images), full(images), plain(images)
    assert all(torch.equal(a, b) for a, b in zip(found, maps[:-1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(shallow, maps[1:], strict=True))


def test_backbones_without_such_a_map_stay_as_they_are() -> None:
    for name in ("test_resnet", "mobilenetv2_035", "test_convnext"):
        plain, full = (create_without_weights(name, full_resolution=f) for f in (False, True))
        assert full.features == plain.features
        assert full.state_dict().keys() == plain.state_dict().keys()


def test_maps_that_are_chosen_are_all_given() -> None:
    chosen = {"out_indices": [0, 1, 2, 3]}
    backbone = create_without_weights("darknet17", chosen, full_resolution=True)
    assert [f.stride for f in backbone.features] == [1, 2, 4, 8]


# --- weights -------------------------------------------------------------------------------------


def whole_model(name: str, **arguments: Any) -> torch.nn.Module:
    """A model with its classifier, and statistics that are not those of a new one."""
    torch.manual_seed(7)
    model = timm.create_model(name, **arguments).eval()
    for key, buffer in model.named_buffers():
        if key.endswith("running_mean"):
            buffer.uniform_(-1, 0)  # positive ones let a ReLU leave nothing
        if key.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return model


def weight_file(folder: Path, model: torch.nn.Module, kind: str) -> Path:
    path = folder / f"model.{kind.split('-')[0]}"
    state = model.state_dict()
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "pth-nested":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("test_resnet", "safetensors"),
        ("test_convnext", "pth"),
        ("test_mambaout", "pth-nested"),
        ("mobilenetv2_035", "safetensors"),
        ("mobilenetv3_small_050", "pth"),
        ("test_efficientnet", "pth"),
        ("regnetx_002", "pth"),
        ("darknet17", "safetensors"),
    ],
)
def test_a_backbone_carries_the_files_weights(tmp_path: Path, name: str, kind: str) -> None:
    """A whole model's file, classifier included; outputs equal that model's own maps."""
    model = whole_model(name, num_classes=10)
    backbone = create_backbone(name, weights=weight_file(tmp_path, model, kind)).eval()
    images = random_images(96, 64)
    with torch.no_grad():
        maps = backbone(images)
        own = [model.forward_features(images)]
        if hasattr(model, "forward_intermediates"):
            own = model.forward_intermediates(images, intermediates_only=True, output_fmt="NCHW")
    for wanted in own[own[0].shape[-1] == images.shape[-1] :]:  # a map of stride 1 is left out
        closeness = [float((m - wanted).abs().max()) for m in maps if m.shape == wanted.shape]
        assert float(wanted.std()) > 1e-3
        assert min(closeness) < 1e-4 * float(wanted.abs().max())
    fresh = create_backbone(name).eval()
    with torch.no_grad():
        assert not torch.allclose(fresh(images)[-1], maps[-1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_weights_of_another_architecture_are_refused(tmp_path: Path, kind: str) -> None:
    path = weight_file(tmp_path, whole_model("test_byobnet"), kind)
    with pytest.raises(DataError) as caught:
        create_backbone("test_resnet", weights=path)
    message = str(caught.value)
    assert message.startswith(f"{path}: not weights of test_resnet: ")
    assert "check --backbone and --backbone-arg" in message


def test_each_kind_of_misfit_is_counted_and_one_is_named(tmp_path: Path) -> None:
    state = whole_model("test_resnet").state_dict()
    first = next(iter(state))
    path = tmp_path / "model.pth"

    def message(change: dict[str, Tensor]) -> str:
        torch.save({k: v for k, v in (state | change).items() if v is not None}, path)
        with pytest.raises(DataError) as caught:
            create_backbone("test_resnet", weights=path)
        return str(caught.value)

    lacking: Any = {first: None}
    assert f"1 tensors missing, 0 of another shape, 0 unknown (lacks {first})" in message(lacking)
    assert f"1 of another shape, 0 unknown ({first} is (1, 2), not" in message(
        {first: torch.zeros(1, 2)}
    )
    assert "0 of another shape, 1 unknown (has extra.bias besides)" in message(
        {"extra.bias": torch.zeros(1)}
    )


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
@pytest.mark.parametrize("left", [0, 5, 1000])
def test_a_truncated_file_is_named(tmp_path: Path, kind: str, left: int) -> None:
    path = weight_file(tmp_path, whole_model("test_resnet"), kind)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DataError) as caught:
        create_backbone("test_resnet", weights=path)
    assert str(caught.value).startswith(f"{path}: not a readable weights file (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no.safetensors", "no.pth"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(DataError) as caught:
            create_backbone("test_resnet", weights=path)
        assert str(caught.value) == f"{path}: no such weights file: check --weights"


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.mark)!r}, 'w').close()",)


@pytest.mark.parametrize("save", [torch.save, lambda x, p: p.write_bytes(pickle.dumps(x, 2))])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, save: Any) -> None:
    mark, path = tmp_path / "ran", tmp_path / "model.pth"
    state = whole_model("test_resnet").state_dict()
    save({**state, "evil": Evil(mark)}, path)
    with pytest.raises(DataError, match=r"asks to run [\w.]+, and was not loaded: get the"):
        create_backbone("test_resnet", weights=path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Evil(mark)))  # it would have shown
    assert mark.exists()


CONTENTS = [
    *([1, 2], {"state_dict": {"a": 1}}, torch.zeros(3)),
    *({1: "x"}, {1: torch.zeros(3)}, {"state_dict": None, "model": 1}),
]


@pytest.mark.parametrize("content", CONTENTS)
def test_a_file_without_a_dictionary_of_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "model.pth"
    torch.save(content, path)
    with pytest.raises(DataError, match="no dictionary of tensors in it"):
        create_backbone("test_resnet", weights=path)


# --- statistics of the input ---------------------------------------------------------------------

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_statistics_are_the_models_unless_the_file_has_its_own(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    assert input_statistics("mobilenetv2_100", None) == IMAGENET
    assert input_statistics("inception_v3.tf_in1k", None) == HALF  # of that tag
    for metadata, expected in (
        ({"mean": "[0.1, 0.2, 0.3]", "std": "(0.4,0.5,0.6)"}, ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))),
        ({"mean": "0.5"}, ((0.5, 0.5, 0.5), IMAGENET[1])),
        ({"format": "pt"}, IMAGENET),
        (None, IMAGENET),
    ):
        save_file({"a": torch.zeros(1)}, path, metadata)
        assert input_statistics("mobilenetv2_100", path) == expected


def test_statistics_of_a_pth_file_are_the_models(tmp_path: Path) -> None:
    path = weight_file(tmp_path, whole_model("test_resnet"), "pth")
    assert input_statistics("test_resnet", path) == HALF


def test_statistics_of_a_damaged_file_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(DataError, match="no such weights file"):
        input_statistics("test_resnet", path)
    path.write_bytes(b"not safe")
    with pytest.raises(DataError, match="not a readable weights file"):
        input_statistics("test_resnet", path)


@pytest.mark.parametrize("text", ["", "a, b, c", "0.1, 0.2", "[0.1, 0.2, 0.3, 0.4]"])
def test_statistics_that_are_no_three_numbers_are_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"mean": text})
    with pytest.raises(DataError) as caught:
        input_statistics("test_resnet", path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "mean" in str(caught.value)


# --- images that are not RGB ---------------------------------------------------------------------

KINDS = ("test_resnet", "test_efficientnet", "test_convnext", "edgenext_xx_small", "repvgg_a0")
"""RepVGG has two first convolutions."""


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_images_may_have_any_number_of_channels(name: str, channels: int) -> None:
    backbone = create_backbone(name, in_channels=channels).eval()
    assert backbone.in_channels == channels
    assert backbone.features == create_backbone(name).features
    with torch.no_grad():
        maps = backbone(torch.rand(1, channels, 64, 64))
    assert [m.shape[1] for m in maps] == [f.channels for f in backbone.features]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_weights_of_rgb_images_are_adapted_as_timm_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, channels: int
) -> None:
    """The reference is timm's own loading of the same file as a pretrained model."""
    path = weight_file(tmp_path, whole_model(name), "pth")
    timms = timm.create_model(
        name, pretrained=True, in_chans=channels, pretrained_cfg_overlay={"file": str(path)}
    )
    backbone = create_backbone(name, weights=path, in_channels=channels)
    own = {key.replace(".", "_"): tensor for key, tensor in timms.state_dict().items()}
    for key, tensor in backbone.net.state_dict().items():
        flat = key.replace(".", "_")
        assert torch.equal(tensor, own.get(flat, own.get(flat.removeprefix("model_")))), key


def test_a_grey_image_has_the_maps_of_its_rgb_copy(tmp_path: Path) -> None:
    path = weight_file(tmp_path, whole_model("test_resnet"), "safetensors")
    grey = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        one = create_backbone("test_resnet", weights=path, in_channels=1).eval()(grey)
        three = create_backbone("test_resnet", weights=path).eval()(grey.expand(-1, 3, -1, -1))
    for mine, wanted in zip(one, three, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=1e-4)


def test_weights_of_as_many_channels_are_taken_as_they_are(tmp_path: Path) -> None:
    model = whole_model("test_resnet", in_chans=5)
    path = weight_file(tmp_path, model, "pth")
    backbone = create_backbone("test_resnet", weights=path, in_channels=5)
    first = next(iter(backbone.net.state_dict().values()))
    assert torch.equal(first, next(iter(model.state_dict().values())))
    for other in (3, 4):
        with pytest.raises(DataError, match="1 of another shape"):
            create_backbone("test_resnet", weights=path, in_channels=other)


@pytest.mark.filterwarnings("ignore:CSATv2 is designed for 3-channel RGB input")
def test_channels_that_a_backbone_cannot_take_are_named(tmp_path: Path) -> None:
    if "csatv2" in backbone_names("csatv2"):  # the oldest supported timm has it not
        with pytest.raises(UsageError, match=r"csatv2 runs neither at .* on 5 channels"):
            create_backbone("csatv2", in_channels=5)
    path = weight_file(tmp_path, whole_model("tresnet_m"), "pth")
    with pytest.raises(DataError, match=r"timm cannot adapt body.conv1.conv of tresnet_m.* to 5"):
        create_backbone("tresnet_m", weights=path, in_channels=5)
    create_backbone("tresnet_m", weights=path, in_channels=1)


def test_statistics_of_other_channels(tmp_path: Path) -> None:
    mean, std = (sum(numbers) / 3 for numbers in IMAGENET)
    assert input_statistics("mobilenetv2_100", None, 5) == ((mean,) * 5, (std,) * 5)
    path = tmp_path / "model.safetensors"
    four, three = "0.1,0.2,0.3,0.4", "0.1,0.2,0.3"
    save_file({"a": torch.zeros(1)}, path, {"mean": four, "std": three})
    mean_4, std_4 = input_statistics("mobilenetv2_100", path, 4)
    assert mean_4 == (0.1, 0.2, 0.3, 0.4)
    assert std_4 == pytest.approx((0.2,) * 4)
    with pytest.raises(DataError, match="neither one number nor three, nor 5"):
        input_statistics("mobilenetv2_100", path, 5)


def test_why_a_size_fails_is_told_again() -> None:
    def forward(images: torch.Tensor) -> list[torch.Tensor]:
        raise RuntimeError(f"no {images.shape[2]} rows")

    shapes = _Shapes(create_backbone("test_resnet"), forward)
    for rows in (64, 96, 64):
        assert shapes(rows, 64) is None
        assert shapes.failure == f"no {rows} rows"
