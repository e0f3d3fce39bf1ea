"""Files of weights as timm, torch and other trainers write them: what is taken, and what is not."""

import argparse
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from common.errors import DataError
from models.backbone_facts import TABLE
from models.backbones import create_backbone
from models.weights import averaged_entry
from tests.studies import weights_of_families

NAME = "test_resnet"
State = dict[str, Tensor]


@cache
def whole_state(name: str = NAME) -> State:
    return weights_of_families.whole_model(name).state_dict()


def shifted(state: Mapping[str, Tensor]) -> State:
    """Other numbers for the same model."""
    return {k: v + 0.5 if v.is_floating_point() else v for k, v in state.items()}


def prefixed(prefix: str, state: Mapping[str, Tensor] | None = None) -> State:
    return {prefix + key: tensor for key, tensor in (state or whole_state()).items()}


def saved(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "model.pth")
    return folder / "model.pth"


def maps(path: Path, name: str = NAME, key: str | None = None) -> list[Tensor]:
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = create_backbone(name, weights=path, weights_key=key).eval()(images)
    return [m / m.abs().max() for m in found]


@cache
def expected(name: str = NAME, other: bool = False) -> list[Tensor]:
    """The maps of timm's own network with these tensors."""
    model = timm.create_model(name, features_only=False)
    model.load_state_dict(shifted(whole_state(name)) if other else whole_state(name))
    features = timm.create_model(name, features_only=True).eval()
    own = {key.replace(".", "_"): value for key, value in model.state_dict().items()}
    features.load_state_dict({k: own[k.replace(".", "_")] for k in features.state_dict()})
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return [m / m.abs().max() for m in features(images)]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def refusal(path: Path, name: str = NAME, key: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        create_backbone(name, weights=path, weights_key=key)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


# --- what is taken -------------------------------------------------------------------------------

ARGS = argparse.Namespace(model=NAME, lr=0.1, mean=None, nested={"a": [1, 2.5]})
WRAPPED: dict[str, Callable[[], Any]] = {
    "as it is": whole_state,
    "old torch": lambda: {k: v for k, v in whole_state().items() if "num_batches" not in k},
    "without classifier": lambda: {k: v for k, v in whole_state().items() if k[:3] != "fc."},
    "DataParallel": lambda: prefixed("module."),
    "compiled": lambda: prefixed("_orig_mod.module."),
    "a user's module": lambda: {"state_dict": prefixed("model.backbone.encoder.")},
    "a larger network": lambda: {
        **prefixed("backbone."),
        "decode_head.conv.weight": torch.zeros(3, 3),
        "mean": torch.zeros(3),
    },
    "Lightning": lambda: {"state_dict": prefixed("net."), "epoch": 3, "loops": {"a": None}},
    "timm": lambda: {
        "epoch": 3,
        "arch": NAME,
        "state_dict": whole_state(),
        "optimizer": {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": 0.1}]},
        "version": 2,
        "args": ARGS,
        "amp_scaler": {"scale": 2.0},
        "metric": 71.5,
    },
    "within another": lambda: {"model": {"state_dict": prefixed("module.")}},
    "averaged by torch": lambda: {**prefixed("module."), "n_averaged": torch.tensor(7)},
    "half precision": lambda: {
        k: v.half().float().half() if v.is_floating_point() else v for k, v in whole_state().items()
    },
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrappers_are_unpacked(tmp_path: Path, kind: str) -> None:
    seen = maps(saved(tmp_path, WRAPPED[kind]()))
    if kind == "half precision":
        torch.testing.assert_close(seen, expected(), atol=2e-2, rtol=0)
    else:
        assert same(seen, expected())


@pytest.mark.parametrize("name", ["test_convnext", "test_mambaout"])
def test_a_features_only_model_is_taken(tmp_path: Path, name: str) -> None:
    """Its names lack some levels: ``stages_0.blocks`` for ``stages.0.blocks``."""
    features = timm.create_model(name, features_only=True).eval()
    path = saved(tmp_path, {"state_dict": prefixed("encoder.model.", features.state_dict())})
    loaded = weights_of_families.tensors_of(create_backbone(name, weights=path))
    for key, tensor in features.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(tensor, loaded[key.replace(".", "_")])


def test_names_of_the_first_publication_are_renamed(tmp_path: Path) -> None:
    """ConvNeXt as Facebook publishes it: timm's own function knows the names."""
    renames = {"stem.": "downsample_layers.0.", ".blocks.": ".", ".conv_dw.": ".dwconv.",
               ".mlp.fc1.": ".pwconv1.", ".mlp.fc2.": ".pwconv2."}  # fmt: skip
    state = {}
    for key, tensor in whole_state("convnext_atto").items():
        for ours, theirs in renames.items():
            key = key.replace(ours, theirs)
        if ".downsample." in key:
            _, stage, _, rest = key.split(".", 3)
            key = f"downsample_layers.{stage}.{rest}"
        key = key.removeprefix("head.") if key.startswith("head.norm") else key
        state[key.replace("head.fc", "head")] = tensor
    backbone = create_backbone("convnext_atto", weights=saved(tmp_path, {"model": state}))
    own = {key.replace(".", "_"): t for key, t in whole_state("convnext_atto").items()}
    for key, tensor in weights_of_families.tensors_of(backbone).items():
        assert torch.equal(tensor, own[key])
    assert "renamed by timm" in backbone.note


def test_buffers_of_older_versions_of_timm_are_left_out(tmp_path: Path) -> None:
    """They were stored then, and follow from the architecture."""
    model = timm.create_model("efficientformerv2_s0")
    state = model.state_dict()
    more = {key: buffer for key, buffer in model.named_buffers() if key not in state}
    assert more
    path = saved(tmp_path, {**state, **{k: torch.zeros(b.shape) for k, b in more.items()}})
    backbone = create_backbone("efficientformerv2_s0", weights=path)
    buffers = {key.replace(".", "_"): buffer for key, buffer in backbone.net.named_buffers()}
    for key, buffer in more.items():
        assert torch.equal(buffers[key.replace(".", "_")], buffer)


def test_averaged_weights_are_taken_unless_others_are_named(tmp_path: Path) -> None:
    content = {"state_dict": whole_state(), "state_dict_ema": shifted(whole_state()), "args": ARGS}
    path = saved(tmp_path, content)
    assert averaged_entry(path) == "state_dict_ema"
    assert same(maps(path), expected(other=True))
    assert same(maps(path, key="state_dict_ema"), expected(other=True))
    assert same(maps(path, key="state_dict"), expected())
    assert not same(expected(), expected(other=True))
    for name in ("model_ema", "ema", "ema_state_dict"):
        path = saved(
            tmp_path, {"model": whole_state(), name: prefixed("module.", shifted(whole_state()))}
        )
        assert averaged_entry(path) == name
        assert same(maps(path), expected(other=True))
    assert averaged_entry(saved(tmp_path, {"model": whole_state()})) is None
    assert averaged_entry(saved(tmp_path, {"model_ema": whole_state()})) is None


def test_a_line_says_what_was_taken(tmp_path: Path) -> None:
    def note(content: Any) -> str:
        backbone = create_backbone(NAME, weights=saved(tmp_path, content))
        return backbone.note.removeprefix(f"weights: {tmp_path / 'model.pth'}: ")

    count = len(whole_state()) - 2  # without its classifier
    assert note(whole_state()) == f"{count} tensors"
    assert note({"state_dict": whole_state(), "state_dict_ema": whole_state()}) == (
        f"{count} tensors of state_dict_ema (averaged; --weights-key state_dict takes the others)"
    )
    assert note({**prefixed("backbone."), "neck.a": torch.ones(1)}) == (
        f"{count} tensors of backbone; left out: neck"
    )
    assert create_backbone(NAME).note == ""


def test_one_of_several_networks_in_a_file_is_named(tmp_path: Path) -> None:
    other = shifted(whole_state())
    for content in (
        {"student": whole_state(), "teacher": prefixed("backbone.", other)},
        {**prefixed("student."), **prefixed("teacher.backbone.", other)},
        {"model": {**prefixed("student."), **prefixed("teacher.", other)}},
    ):
        path = saved(tmp_path, content)
        text = refusal(path)
        assert "holds weights of test_resnet more than once: name one by --weights-key: " in text
        labels = text.rpartition("--weights-key: ")[2].split(", ")
        assert len(labels) == 2
        for label, wanted in zip(labels, (False, True), strict=True):
            assert same(maps(path, key=label), expected(other=wanted))
    both = {**prefixed("model."), **prefixed("model_ema.", other)}
    save_file({key: tensor.clone() for key, tensor in both.items()}, tmp_path / "a.safetensors")
    assert same(maps(tmp_path / "a.safetensors"), expected(other=True))
    assert same(maps(tmp_path / "a.safetensors", key="model"), expected())


# --- what is refused -----------------------------------------------------------------------------


def test_a_mismatch_names_a_missing_and_a_foreign_tensor(tmp_path: Path) -> None:
    state = dict(whole_state())
    state["layer1.0.odd.weight"] = state.pop("layer1.0.conv1.weight")
    text = refusal(saved(tmp_path, {"state_dict": prefixed("module.", state), "ema": ARGS}))
    assert "1 tensors missing, 0 of another shape, 1 unknown under state_dict.module" in text
    assert "(lacks layer1.0.conv1.weight, has layer1.0.odd.weight besides): check" in text


def test_a_smaller_network_takes_nothing_of_a_larger_one(tmp_path: Path) -> None:
    """As of ResNet-34 and 18: the larger one has all tensors of the smaller, and more."""
    deeper = {"layer1.1.conv1.weight": torch.zeros(8, 8, 3, 3)}
    text = refusal(saved(tmp_path, {**whole_state(), **deeper}))
    assert "0 tensors missing, 0 of another shape, 1 unknown (has layer1.1" in text


def test_a_key_that_is_not_in_the_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"state_dict": whole_state(), "state_dict_ema": whole_state()})
    text = refusal(path, key="state_dictema")
    assert "--weights-key state_dictema: not in it: it has state_dict, state_dict_ema" in text


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(tmp_path: Path, number: float) -> None:
    state = dict(whole_state())
    state["conv1.0.weight"] = torch.full_like(state["conv1.0.weight"], number)
    assert "conv1.0.weight holds NaN or infinite numbers" in refusal(saved(tmp_path, state))


def test_quantised_tensors_are_refused(tmp_path: Path) -> None:
    state = {k: (v * 100).to(torch.int8) for k, v in whole_state().items()}
    assert "is torch.int8, not floating" in refusal(saved(tmp_path, state))


# --- families ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_byobnet", "edgenext_xx_small"])
def test_a_models_whole_state_is_taken(tmp_path: Path, name: str) -> None:
    assert weights_of_families.check(name, tmp_path) > 50


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet"])
def test_a_network_on_each_kind_of_backbone_is_of_use(name: str) -> None:
    """Odd sizes, gradients, the fused and the exported network."""
    weights_of_families.use(create_backbone(name))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_family_is_trained_saved_fused_and_exported(tmp_path: Path, part: int) -> None:
    """The smallest backbone of nine families in ten: odd sizes, gradients, forms.

    ``python -m tests.studies.weights_of_families`` takes the large ones too.
    """
    known = json.loads(TABLE.read_bytes())["models"]
    families = [
        (family, members)
        for family, members in list(weights_of_families.families().items())[part::4]
        if known.get(members[0], {}).get("params", 0) < 3e7
    ]
    outcomes = {
        family: weights_of_families.tried(members, tmp_path, used=True)
        for family, members in families
    }
    assert {f: line for f, (outcome, line) in outcomes.items() if outcome == "failed"} == {}
    assert sum(outcome == "passed" for outcome, _ in outcomes.values()) >= 15


@pytest.mark.parametrize("prefix", ["features.", "", "features_"])
def test_convolutions_alone_are_taken(tmp_path: Path, prefix: str) -> None:
    """VGG without its classifier, as torchvision's ``vgg.features`` and as timm's features too."""
    torch.manual_seed(0)
    state = timm.create_model("vgg11").features.state_dict()
    names = {key: key.replace(".", "_", prefix.count("_") - 1) for key in state}
    path = saved(tmp_path, {f"{prefix}{names[key]}": tensor for key, tensor in state.items()})
    loaded = create_backbone("vgg11", weights=path).net.state_dict()
    assert len(loaded) == len(state) == 16
    for key, tensor in state.items():
        assert torch.equal(loaded[f"features_{key}"], tensor)


def test_of_another_network_with_those_convolutions_the_first_misfit_is_named(
    tmp_path: Path,
) -> None:
    state = dict(timm.create_model("vgg11").features.state_dict())
    path = saved(tmp_path, {f"features.{key}": tensor for key, tensor in state.items()})
    with pytest.raises(DataError, match=r"lacks features\.2\.weight"):
        create_backbone("vgg13", weights=path)
    side = {"side1.weight": torch.zeros(1, 64, 1, 1), **state}
    with pytest.raises(DataError, match=r"has side1\.weight besides"):
        create_backbone("vgg11", weights=saved(tmp_path, side))
