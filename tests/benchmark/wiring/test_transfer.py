"""The authors' wiring on many families of backbones, and the command that tells of it."""

import json

import pytest
import torch

from models.backbones import create_backbone, create_without_weights
from models.connected_decoder import ConnectedDecoder
from models.connectivity import Connectivity, preset
from models.create import create_decoder
from models.predictor import DensePredictor
from tests.oracles.literal_decoder import LiteralDecoder
from tests.support import line

# strides → the authors' wiring on them, written by hand from the rule in docs/design.md
EXPECTED = {
    (2, 2, 4, 8, 16, 16, 32, 32, 32): {
        8: "E9 G", 7: "E7 G", 6: "E6 G", 1: "E9 G E8 E7 D8 E6 D7 D6 E1",
    },
    (2, 4, 8, 16, 16, 32, 32): {6: "E7 G E6", 5: "E5 G", 1: "E7 G E6 D6 E5 D5 E1"},
    (2, 2, 4, 8, 16, 32, 32): {6: "E7 G E6", 5: "E5 G", 1: "E7 G E6 D6 E5 D5 E1"},
    (2, 2, 4, 8, 16, 16, 32, 32): {7: "E8 G E7", 6: "E6 G", 1: "E8 G E7 D7 E6 D6 E1"},
    (2, 2, 4, 8, 16, 16, 32): {7: "E7 G", 6: "E6 G", 1: "E7 G D7 E6 D6 E1"},
    (2, 4, 8, 16, 32, 32): {5: "E6 G E5", 4: "E4 G", 1: "E6 G E5 D5 E4 D4 E1"},
    (2, 4, 8, 16, 32): {5: "E5 G", 4: "E4 G", 1: "E5 G D5 E4 D4 E1"},
    (4, 8, 16, 32): {4: "E4 G", 3: "E3 G", 1: "E4 G D4 E3 D3"},
}  # fmt: skip
NINE, FIVE, FOUR = (2, 2, 4, 8, 16, 16, 32, 32, 32), (2, 4, 8, 16, 32), (4, 8, 16, 32)
FAMILIES = {
    "mobilenetv2_035": NINE,
    "mobilenetv3_small_050": (2, 4, 8, 16, 16, 32, 32),
    "mobilenetv4_conv_small_050": (2, 4, 8, 16, 32, 32),
    "test_efficientnet": (2, 2, 4, 8, 16, 32, 32),
    "lcnet_035": (2, 2, 4, 8, 16, 16, 32),
    "test_resnet": FIVE,
    "vgg11": FIVE,
    "test_convnext": FOUR,
    "test_mambaout": FOUR,
}
MORE_FAMILIES = {
    "tf_efficientnetv2_b0": (2, 2, 4, 8, 16, 16, 32, 32),
    "hardcorenas_a": (2, 2, 4, 8, 16, 16, 32, 32),
    "regnetx_002": FIVE,
    "densenet121": FIVE,
    "ghostnet_100": FIVE,
    "dla46_c": FIVE,
    "hrnet_w18_small": FIVE,
    "res2net50_14w_8s": FIVE,
    "repvgg_a0": FIVE,
    "inception_v3": FIVE,
    "xception41": FIVE,
    "nf_regnet_b0": FIVE,
    "swin_tiny_patch4_window7_224": FOUR,
    "pvt_v2_b0": FOUR,
    "edgenext_xx_small": FOUR,
    "efficientformerv2_s0": FOUR,  # of one size
    "fastvit_t8": FOUR,
    "poolformer_s12": FOUR,
    "focalnet_tiny_srf": FOUR,
}


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        *FAMILIES.items(),
        *(pytest.param(*item, marks=pytest.mark.slow) for item in MORE_FAMILIES.items()),
    ],
)
def test_the_authors_wiring_on_a_family(name: str, strides: tuple[int, ...]) -> None:
    backbone = create_without_weights(name)
    assert tuple(f.stride for f in backbone.features) == strides
    wiring = preset("sparsemask", strides)
    assert {stage: set(inputs) for stage, inputs in wiring.stages.items()} == {
        stage: set(inputs.split()) for stage, inputs in EXPECTED[strides].items()
    }
    decoder = ConnectedDecoder(backbone.features, wiring)
    model = DensePredictor(backbone, decoder, {"task": 3}).to("meta").eval()
    size = backbone.fixed_size or (97, 131)
    with torch.no_grad():
        logits = model(torch.empty(1, 3, *size, device="meta"))["task"]
    assert logits.shape == (1, 3, *size)


def test_what_was_matched_folded_and_kept_is_told(cli, tmp_path):
    path = tmp_path / "resnet.json"
    done = cli("transfer", "sparsemask", "--backbone", "test_resnet", "-o", path)
    assert done.exit_code == 0, done.stderr
    rows = [text.split() for text in done.stdout.splitlines()]
    assert ["E3", "4", "E2"] in rows
    assert ["E8", "32", "E5", "folded", "with", "E7,", "E9"] in rows
    assert ["D8", "→", "D5"] in rows
    assert "folded into D1 ← D5: D1 ← D8, D1 ← D7" in done.stdout
    assert done.stdout.splitlines()[-4:] == [
        "D5 ← E5, G",
        "D4 ← E4, G",
        "D1 ← E5, G, D5, E4, D4, E1",
        "connections: 15 before, 10 after",
    ]
    written = Connectivity.load(path)
    assert written.stages == preset("sparsemask", FIVE).stages
    assert written.backbone == "test_resnet"
    assert written.origin["from"] == {
        "name": "sparsemask", "backbone": "mobilenetv2_100", "strides": list(NINE),
    }  # fmt: skip
    assert written.origin["origin"]["dataset"] == "voc2012"


def test_what_was_dropped_is_told_with_the_reason(cli, tmp_path):
    path = tmp_path / "unet.json"
    path.write_text(json.dumps(preset("unet-connectivity", (2, 4, 8, 32, 64)).to_json()))
    done = cli("transfer", path, "--backbone", "test_efficientnet")
    texts = done.stdout.splitlines()
    assert "D5 dropped: no feature of stride 64" in texts
    assert "dropped, no feature of stride 64: D5 ← E5, D4 ← D5" in texts
    assert "D4 → D7" in texts  # the deeper one of stride 32
    assert texts[-5:-1] == ["D7 ← E7", "D4 ← E4, D7", "D3 ← E3, D4", "D1 ← E2, D3"]
    assert texts[-1] == "connections: 9 before, 7 after"


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", ["test_resnet", "resnet18", "mobilenetv2_035"])
def test_a_dilated_backbone_has_the_wiring_of_the_undilated_one(name: str, stride: int) -> None:
    backbone = create_without_weights(name, {"output_stride": stride})
    assert max(f.stride for f in backbone.features) == stride
    decoder = create_decoder("sparsemask", backbone.features)
    undilated = NINE if name == "mobilenetv2_035" else FIVE
    assert {number: set(inputs) for number, inputs in decoder.connectivity.stages.items()} == {
        number: set(inputs.split()) for number, inputs in EXPECTED[undilated].items()
    }
    model = DensePredictor(backbone, decoder, {"task": 3}).to("meta").eval()
    images = torch.empty(1, 3, 97, 131, device="meta")
    with torch.no_grad():
        maps = model.backbone(images)
        assert maps[-1].shape[-2:] == (-(-97 // stride), -(-131 // stride))
        assert decoder(maps).shape[-2:] == (49, 66)  # of stride 2
        assert model(images)["task"].shape == (1, 3, 97, 131)


def test_a_dilated_decoder_computes_the_formula() -> None:
    torch.manual_seed(0)
    backbone = create_backbone("test_resnet", {"output_stride": 8}).eval()
    decoder = create_decoder("sparsemask", backbone.features, width=4).eval()
    with torch.no_grad():
        maps = backbone(torch.rand(1, 3, 97, 131))
        torch.testing.assert_close(decoder(maps), LiteralDecoder(decoder)(maps))


def test_a_file_for_a_dilated_backbone_holds_the_undilated_strides(cli, tmp_path):
    path = tmp_path / "dilated.json"
    arguments = ("--backbone", "test_resnet", "--backbone-arg", "output_stride=8")
    done = cli("transfer", "sparsemask", *arguments, "-o", path)
    assert done.stdout.splitlines()[-1] == "connections: 15 before, 10 after"
    written = Connectivity.load(path)
    assert (written.strides, written.stages) == (FIVE, preset("sparsemask", FIVE).stages)
    again = cli("transfer", path, *arguments)
    assert again.stdout.splitlines()[-1] == "connections: 10 before, 10 after"
    assert cli("draw", path, "-o", tmp_path / "dilated.svg").exit_code == 0
    assert "stride 32" in (tmp_path / "dilated.svg").read_text()


def test_a_file_of_dilated_strides_is_for_that_backbone_as_it_stands():
    dilated = create_without_weights("test_resnet", {"output_stride": 8}).features
    stages = {5: ("E5", "G"), 4: ("E4", "E5"), 1: ("E1", "D5", "D4")}
    found = Connectivity("found", (2, 4, 8, 8, 8), stages, "test_resnet")
    assert found.onto(dilated).wiring.stages == stages
    (merged,) = {found.onto(create_without_weights("test_resnet").features).wiring.connections}
    assert merged < found.connections  # three maps of stride 8 share the only one there


def test_features_of_a_plain_transformer_are_named_by_block(cli, tmp_path):
    path = tmp_path / "vit.json"
    done = cli("transfer", "sparsemask", "--backbone", "test_vit", "--backbone-arg", "depths=6",
               "-o", path)  # fmt: skip
    assert done.exit_code == 0, done.stderr
    rows = [" ".join(text.split()) for text in done.stdout.splitlines()]
    assert "E3 4 E2 (block 2)" in rows  # two maps have stride 4: the deeper one
    assert "E6 16 E5 (block 5)" in rows
    assert Connectivity.load(path).origin["blocks"] == [1, 2, 3, 4, 5, 6]
    picture = tmp_path / "vit.svg"
    assert cli("draw", path, "-o", picture).exit_code == 0
    assert "block 5, 64 channels" in picture.read_text()


def test_features_of_a_neck_come_from_the_last_block(cli, tmp_path):
    path = tmp_path / "vit.json"
    done = cli("transfer", "sparsemask", "--backbone", "test_vit", "--backbone-arg", "neck=vitdet",
               "-o", path)  # fmt: skip
    assert done.exit_code == 0, done.stderr
    origin = Connectivity.load(path).origin
    assert (origin["backbone_args"], origin["blocks"]) == ({"neck": "vitdet"}, [6] * 4)
    picture = tmp_path / "vit.svg"
    assert cli("draw", path, "-o", picture).exit_code == 0
    assert "block 6, 256 channels" in picture.read_text()


def test_nothing_left_is_told(cli, tmp_path):
    path = tmp_path / "one.json"
    path.write_text(json.dumps(Connectivity("one", (2, 64), {1: ("E2",)}).to_json()))
    done = cli("transfer", path, "--backbone", "test_resnet")
    assert "nothing is left: D1 takes the deepest feature, E5" in done.stdout
    assert "dropped, no feature of stride 64: D1 ← E2" in done.stdout
    assert done.stdout.splitlines()[-2] == "D1 ← E5"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("sparsmask", "--backbone", "test_resnet"), "did you mean sparsemask"),
        (("none.json", "--backbone", "test_resnet"), "none.json: no such connectivity file"),
        (("sparsemask", "--backbone", "resnet1"), "unknown backbone 'resnet1': did you mean"),
        (("sparsemask", "--backbone", "test_vit", "--backbone-arg", "depths=7"), "has 6 blocks"),
        (("sparsemask", "--backbone", "test_resnet", "--backbone-arg", "a=1"), "not take"),
        (("sparsemask", "--backbone", "test_resnet", "-o", "/proc/x.json"), "place with -o"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_is_one_line(cli, arguments, part):
    done = cli("transfer", *arguments)
    assert part in line(done)
    assert done.exit_code == 2


def test_a_damaged_file_overwrites_nothing(cli, tmp_path):
    path, out = tmp_path / "cut.json", tmp_path / "out.json"
    path.write_text(json.dumps(preset("sparsemask", NINE).to_json())[:-20])
    out.write_text("kept")
    for content in (path.read_text(), '{"format": 1, "nmae": "x"}'):
        path.write_text(content)
        done = cli("transfer", path, "--backbone", "test_resnet", "-o", out)
        assert str(path) in line(done)
        assert done.exit_code == 2
    assert "unknown key nmae" in line(done)
    assert out.read_text() == "kept"
