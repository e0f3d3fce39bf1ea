"""What `list backbones` says of timm's models, and whether it is still so."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import timm
from click.testing import Result

from models import backbone_facts
from models.backbone_facts import TABLE, for_size, measured_facts, weights_facts

MEASURED: dict[str, Any] = json.loads(TABLE.read_bytes())


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "convnext_atto", "efficientvit_m0"])
def test_the_table_says_what_is_measured_now(name: str) -> None:
    if timm.__version__ != MEASURED["timm"]:
        pytest.skip(f"the table was made with timm {MEASURED['timm']}")
    assert measured_facts(name) == MEASURED["models"][name]


def test_every_model_of_the_table_is_used_or_has_a_reason() -> None:
    for name, facts in MEASURED["models"].items():
        if facts["usable"]:
            deepest = set() if name == "sedarknet21" else {32}  # ends at stride 16
            assert set(facts["strides"]) >= {8, 16} | deepest, name
            assert (facts["how"] == "single-scale") == bool(facts["blocks"]), name
        else:
            assert facts["reason"], name


@pytest.mark.parametrize(
    ("name", "size", "added"),
    [
        ("coatnet_pico_rw_224", (96, 128), {"img_size": [96, 128]}),
        ("coatnet_pico_rw_224", (224, 224), {}),
        ("resnet18", (96, 128), {}),
        ("test_vit", (96, 128), {}),
        ("efficientformer_l1", (96, 128), {}),  # has no img_size
        ("coatnet_pico_rw_224", (100, 128), {}),  # no multiple of its windows
    ],
)
@pytest.mark.parametrize("known", [True, False], ids=["in the table", "measured"])
def test_a_backbone_of_one_size_is_built_for_the_images(
    name: str, size: tuple[int, int], added: dict[str, Any], known: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if not known:
        monkeypatch.setattr(backbone_facts, "_table", dict)
    assert for_size(name, {}, size) == added
    given = {"img_size": 96}
    assert for_size(name, given, size) == given


def test_backbones_are_listed_with_their_facts(cli: Callable[..., Result]) -> None:
    rows = json.loads(cli("list", "backbones", "test_*vit*", "--json").stdout)
    by_name = {row["name"]: row for row in rows}
    assert by_name["test_vit"] == {
        "name": "test_vit",
        **measured_facts("test_vit"),
        **weights_facts("test_vit"),
    }
    assert by_name["test_vit"]["how"] == "single-scale"
    assert by_name["test_vit"]["strides"] == [4, 8, 16, 32]
    assert by_name["test_vit"]["blocks"] == [1, 3, 4, 6]
    assert by_name["test_vit"]["licence"] == "apache-2.0"
    assert "test_vit" in cli("list", "backbones", "test_vit").stdout


def test_licences_that_bind_are_named() -> None:
    if not timm.is_model("vit_small_patch16_dinov3"):
        pytest.skip(f"timm {timm.__version__} has no DINOv3")
    facts = weights_facts("vit_small_patch16_dinov3")
    assert facts["licence"] == "dinov3-license"
    assert facts["weights"].startswith("hf-hub:timm/vit_small_patch16_dinov3")
    assert weights_facts("mobilenetv2_035") == {"licence": None, "weights": None}


def test_what_the_table_does_not_hold_is_measured_if_it_is_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backbone_facts, "_table", dict)
    row = backbone_facts.backbone_facts("test_convnext")[0]
    assert row["name"] == "test_convnext"
    assert row["how"] == "strides"
    assert row["strides"] == [4, 8, 16, 32]
    every = backbone_facts.backbone_facts("resnet")
    assert len(every) > backbone_facts.FEW
    assert {facts["usable"] for facts in every} == {None}


def test_why_a_model_is_no_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise backbone_facts.UsageError(f"backbone {name} runs nowhere")

    monkeypatch.setattr(backbone_facts, "create_without_weights", refuse)
    facts = measured_facts("test_vit")
    assert (facts["usable"], facts["reason"]) == (False, "backbone test_vit runs nowhere")
