"""HED against its formula, as published on VGG-16, and its first revision.

side_s = up(conv1x1(map_s)), fused = Σ_s h_s · side_s + b.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmark.experiment.config import RunConfig, make_config
from benchmark.experiment.network import NetworkSpec, build_model
from benchmark.experiment.plan import as_resolved, make_tasks, resolve, run_key
from benchmark.leaderboard.boards import boards
from benchmark.results.checkpoint import open_checkpoint, save_checkpoint
from benchmark.results.store import save
from common.errors import DataError, UsageError
from models.backbones import FeatureSpec, create_without_weights
from models.create import create_decoder, decoder_class
from models.decoders.hed import HED, HalfResolutionHED
from tests.studies import hed_reference
from tests.support import result

SPECS = [FeatureSpec(c, s) for c, s in ((4, 2), (5, 2), (6, 4), (7, 8), (8, 8))]
LAST = (1, 2, 4)


def maps_of(height: int = 24, width: int = 16) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, s.channels, height // s.stride, width // s.stride) for s in SPECS]


def interpolation(coarse: int, factor: int) -> Tensor:
    """[coarse · factor, coarse]: linear between the centres of the blocks that pixels cover."""
    centres = (torch.arange(coarse * factor) + 0.5) / factor - 0.5
    place = centres.clamp(0, coarse - 1)  # the border's values continue outwards
    return (1 - (place[:, None] - torch.arange(coarse)).abs()).clamp(min=0)


def enlarged(x: Tensor, factor: int) -> Tensor:
    rows, columns = (interpolation(n, factor) for n in x.shape[-2:])
    return rows @ x @ columns.T


def scored(convolutions: Sequence[Any], maps: list[Tensor]) -> list[Tensor]:
    return [
        torch.einsum("oc,bchw->bohw", conv.weight[:, :, 0, 0], maps[index])
        + conv.bias[:, None, None]
        for conv, index in zip(convolutions, LAST, strict=True)
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_formula(channels: int) -> None:
    torch.manual_seed(1)
    decoder: Any = create_decoder("hed", SPECS)
    maps, head = maps_of(), decoder.head(channels)
    weights, bias = torch.randn(channels, len(LAST)), torch.randn(channels)
    with torch.no_grad():
        head.fuse.conv.weight.copy_(weights.reshape(head.fuse.conv.weight.shape))
        head.fuse.conv.bias.copy_(bias)
        sides = [
            enlarged(side, SPECS[index].stride)
            for side, index in zip(scored(head.sides, maps), LAST, strict=True)
        ]
        assert {side.shape for side in sides} == {(2, channels, 24, 16)}
        fused = torch.einsum("cs,sbchw->bchw", weights, torch.stack(sides)) + bias[:, None, None]
        seen = head(decoder(maps))
        torch.testing.assert_close(head.eval()(decoder(maps)), fused)
    for expected, out in zip([fused, *sides], seen, strict=True):
        torch.testing.assert_close(out, expected)


def test_the_fusion_starts_as_the_mean() -> None:
    head: Any = create_decoder("hed", SPECS).head(1)
    with torch.no_grad():
        for value, conv in zip((1.0, 2.0, 6.0), head.sides, strict=True):
            conv.weight.zero_()
            conv.bias.fill_(value)
        fused = head([maps_of()[i] for i in LAST])[0]
    torch.testing.assert_close(fused, torch.full((2, 1, 24, 16), 3.0))


# --- the published network on VGG-16 --------------------------------------------------------------


def weight_file(path: Path, seed: int = 0) -> Path:
    """A file like the published one's, with random numbers whose maps vary."""
    generator = torch.Generator().manual_seed(seed)
    with h5py.File(path, "w") as file:
        for layer, shape in hed_reference.layers().items():
            fan_in = shape[0] * shape[1] * shape[2]
            scale = 0.001 if layer.startswith("dsn") else (2 / fan_in) ** 0.5
            kernel = torch.randn(shape, generator=generator) * scale
            file[f"{layer}/vars/0"] = kernel.numpy()
            file[f"{layer}/vars/1"] = torch.randn(shape[-1:], generator=generator).numpy() * 0.1
    return path


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A file of weights, and the folder of the run that the study makes of it."""
    folder = tmp_path_factory.mktemp("hed")
    weights = weight_file(folder / "hed.weights.h5")
    arguments = Namespace(weights=weights, data=folder, output=folder / "runs", threads=1)
    return weights, hed_reference.write_run(arguments, hed_reference.read_layers(weights))


@pytest.mark.parametrize("size", [(45, 70), (64, 32)])
def test_an_imported_network_equals_a_plain_one(
    imported: tuple[Path, Path], tmp_path: Path, size: tuple[int, int]
) -> None:
    """``plain_maps`` is torch alone, with deconvolutions; sides and fusion, at an odd size too."""
    weights, folder = imported
    found = hed_reference.read_layers(weights)
    pixels = torch.randint(0, 256, (*size, 3), generator=torch.Generator().manual_seed(1))
    path = tmp_path / "image.png"
    Image.fromarray(pixels.to(torch.uint8).numpy()).save(path)
    plain = hed_reference.plain_maps(pixels.permute(2, 0, 1).float(), found)
    assert plain.shape == (6, *size)
    assert all(float(each.std()) > 0.03 for each in plain)
    assert hed_reference.largest_difference(folder, found, [path]) < 1e-5
    kernel, bias = found["block1/layers/conv2d"]
    swapped = {**found, "block1/layers/conv2d": (kernel.flip(1), bias)}  # RGB for BGR
    assert hed_reference.largest_difference(folder, swapped, [path]) > 1e-2


def test_every_weight_of_vgg16_learns(imported: tuple[Path, Path]) -> None:
    model = open_checkpoint(imported[1]).model.train()
    outputs = model(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert list(outputs) == ["edges", *(f"edges/side{i}" for i in range(1, 6))]
    sum(y.square().mean() for y in outputs.values()).backward()  # type: ignore[union-attr]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_fused_it_gives_the_same_map(imported: tuple[Path, Path]) -> None:
    model = open_checkpoint(imported[1]).model
    images = torch.rand(1, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.fuse()(images)["edges"], model(images)["edges"])


def test_the_first_tensor_of_another_file_is_named(tmp_path: Path) -> None:
    path = weight_file(tmp_path / "hed.h5")
    with h5py.File(path, "r+") as file:
        del file["dsn3/vars/0"]
        file["dsn3/vars/0"] = torch.zeros(1, 1, 256, 2).numpy()
        del file["fuse/vars/1"]
    message = r"hed\.h5: dsn3/vars/0 is \(1, 1, 256, 2\), not \(1, 1, 256, 1\): give the file of"
    with pytest.raises(DataError, match=message):
        hed_reference.read_layers(path)
    with h5py.File(path, "r+") as file:
        del file["block2"]
    with pytest.raises(DataError, match="block2/layers/conv2d/vars/0 is missing"):
        hed_reference.read_layers(path)
    path.write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=r"hed\.h5: not a readable HDF5 file"):
        hed_reference.read_layers(path)


# --- the first revision, for runs of before -------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_the_first_revision_fuses_at_the_finest_maps_size(channels: int) -> None:
    torch.manual_seed(1)
    decoder: Any = create_decoder("hed", SPECS, revision=1)
    maps, head = maps_of(), decoder.head(channels)
    weights = torch.randn(channels, len(LAST))
    with torch.no_grad():
        head.fuse.conv.weight.copy_(weights.reshape(head.fuse.conv.weight.shape))
        sides = scored(head.sides, maps)
        fused = torch.zeros(2, channels, 12, 8)
        for c in range(channels):
            for s, side in enumerate(sides):
                up = F.interpolate(side, (12, 8), mode="bilinear", align_corners=True)
                fused[:, c] += weights[c, s] * up[:, c]
        seen = head(decoder(maps))
        torch.testing.assert_close(head.eval()(decoder(maps)), fused)
    for expected, out in zip([fused, *sides], seen, strict=True):
        torch.testing.assert_close(out, expected)


def test_a_name_gives_the_newest_network_and_a_revision_its_own() -> None:
    assert decoder_class("hed") is decoder_class("hed", 2) is HED
    assert decoder_class("hed", 1) is HalfResolutionHED
    assert decoder_class("connectivity:any.json").info.revision == 1
    with pytest.raises(UsageError, match=r"decoder hed: no revision 3, this version has 1, 2: use"):
        decoder_class("hed", 3)
    with pytest.raises(UsageError, match="no revision 2, this version has 1"):
        decoder_class("fcn", 2)


OLD: dict[str, Any] = {
    "task": "edges", "dataset": "scenes", "backbone": "test_resnet", "decoder": "hed",
}  # fmt: skip


def old_config() -> RunConfig:
    """As a record of before the second revision is read: without that field."""
    new = resolve(make_config(OLD))
    assert new.decoder_revision == 2
    values = new.model_dump()
    del values["decoder_revision"]
    return RunConfig.model_validate(values)


def test_a_run_of_before_has_its_own_key_row_and_network(tmp_path: Path) -> None:
    old, new = old_config(), resolve(make_config(OLD))
    assert run_key(old) != run_key(new)
    assert "decoder_revision" not in old.settings()
    with torch.device("meta"):
        earlier = build_model(as_resolved(old), make_tasks(old))
    assert isinstance(earlier.decoder, HalfResolutionHED)
    (board,) = boards([result(config=config) for config in (old, new)])
    assert {row.settings for row in board.rows} == {"decoder_revision=1", "decoder_revision=2"}

    model = build_model(as_resolved(old), make_tasks(old)).eval()
    save_checkpoint(tmp_path, "last", model, {})
    save(tmp_path, result(config=old))
    opened = open_checkpoint(tmp_path).model
    images = torch.rand(1, 3, 40, 50)
    with torch.no_grad():
        assert torch.equal(opened(images)["edges"], model(images)["edges"])


def test_keys_of_other_decoders_stay() -> None:
    config = resolve(make_config({**OLD, "decoder": "fcn"}))
    assert config.decoder_revision == 1
    assert run_key(config) == "80c5610b26"


VGG16 = [(128, 2), (256, 4), (512, 8), (512, 16), (512, 32)]
BEFORE = {
    "deeplabv3-light": 263_425,
    "dss": 49_370_392,
    "dss-light": 1_739_752,
    "encnet": 2_903_650,
    "encoder-sum": 123_073,
    "fcn": 513,
    "fully-dense": 639_681,
    "smp-deeplabv3": 4_722_433,
    "smp-deeplabv3plus": 1_162_001,
    "smp-fpn": 2_083_713,
    "smp-linknet": 1_263_809,
    "smp-pspnet": 788_865,
    "smp-segformer": 821_249,
    "smp-unet": 4_312_785,
    "smp-upernet": 8_529_665,
    "sparse-acn": 279_233,
    "sparsemask": 246_209,
    "unet-connectivity": 139_969,
}
"""Parameters of decoder and head of one channel, without the map of stride 1."""


def test_vgg16_gives_other_decoders_what_it_gave() -> None:
    backbone = create_without_weights("vgg16")
    assert [(f.channels, f.stride) for f in backbone.features] == VGG16
    counts = {}
    for name in BEFORE:
        decoder = create_decoder(name, backbone.features)
        parts = (*decoder.parameters(), *decoder.head(1).parameters())
        counts[name] = sum(parameter.numel() for parameter in parts)
    assert counts == BEFORE
    spec = NetworkSpec("vgg16", "hed", {"edges": 1}, decoder_revision=1)
    with torch.device("meta"):
        earlier = spec.build()
    assert sum(p.numel() for p in earlier.heads.parameters()) == 1930
