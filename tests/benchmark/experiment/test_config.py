import json
import math
import shlex
from pathlib import Path

import pytest

from benchmark.commands.options import option_values
from benchmark.experiment.config import (
    FILLED_IN,
    RunConfig,
    SearchConfig,
    make_config,
    option_name,
    read_config_file,
)
from benchmark.experiment.plan import command_of, resolve
from common.errors import DataError, UsageError


def test_texts_become_values():
    config = make_config(
        {"image_size": "240x320", "crop_size": "96", "zoom": "1,1.5", "mean": "0.5", "lr": "1e-3"}
    )
    assert config.image_size == (240, 320)
    assert config.crop_size == (96, 96)
    assert config.zoom == (1.0, 1.5)
    assert config.mean == (0.5,)  # for each channel, however many the data set has
    assert config.lr == 0.001


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"epoch": 3}, "did you mean epochs"),
        ({"epochs": 0}, "--epochs"),
        ({"epochs": "many"}, "many"),
        ({"image_size": "12x500"}, "12x500"),
        ({"zoom": "2,1"}, "LOW"),
        ({"std": "0"}, "std"),
        ({"optimizer": "adam"}, "adamw"),
        ({"weights": "a.pth", "pretrained": True}, "not both"),
        ({"ema": 1.5}, "--ema"),
        ({"width": 0}, "--width: expected at least 1"),
        ({"width": "wide"}, "--width"),
        ({"seed": "99999999999999999999"}, "--seed: expected at most 4611686018427387904"),
    ],
)
def test_wrong_values_are_named(values, part):
    with pytest.raises(UsageError, match=part):
        make_config(values)


@pytest.mark.parametrize("kind", [RunConfig, SearchConfig])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_no_field_takes_a_number_that_is_not_finite(kind, number):
    for name, field in kind.model_fields.items():
        if name in FILLED_IN:
            continue
        value = {
            "backbone_args": {"a": [{"b": number}]},
            "task_weights": {"depth": number, "edges": 1.0},
            "zoom": (1.0, number),
            "ramp": (0.1, number),
            "mean": (0.5, number, 0.5),
            "std": (0.5, number, 0.5),
        }.get(name, number)
        with pytest.raises(UsageError, match=option_name(name)):
            make_config({"task": "depth+edges", name: value}, kind)
        assert field.description


def test_values_of_pairs_are_those_of_json():
    texts = {
        "1e-1": 0.1, "1e-05": 1e-5, "-2E3": -2000.0, "1.5": 1.5, "7": 7, "true": True,
        "null": None, "same": "same", "[1, 2e0]": [1, 2.0], "{a: 1}": {"a": 1},
        "2024-10-05": "2024-10-05", "2024-13-45": "2024-13-45", "1e": "1e", "e5": "e5",
    }  # fmt: skip
    pairs = [f"key{index}={text}" for index, text in enumerate(texts)]
    values = option_values({"backbone_args": pairs})["backbone_args"]
    assert list(values.values()) == list(texts.values())
    assert [type(value) for value in values.values()] == [type(x) for x in texts.values()]


def test_the_command_of_a_run_gives_its_arguments_again():
    config = resolve(make_config({"backbone_args": {"drop_rate": 1e-5, "pad_type": "same"}}))
    words = shlex.split(command_of(config))
    pairs = [words[i + 1] for i, word in enumerate(words) if word == "--backbone-arg"]
    assert option_values({"backbone_args": pairs})["backbone_args"] == config.backbone_args


def test_round_trip_through_json():
    config = make_config({"image_size": "64x96", "backbone_args": {"pad_type": "same"}})
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_key_depends_on_what_determines_the_result():
    base = RunConfig()
    keys = {
        base.key(False),
        base.model_copy(update={"seed": 1}).key(False),
        base.model_copy(update={"lr": 0.02}).key(False),
        base.model_copy(update={"weights_sha256": "ab"}).key(False),
        base.model_copy(update={"backbone_args": {"pad_type": "same"}}).key(False),
    }
    assert len(keys) == 5


def test_the_key_of_a_run_without_a_width_is_the_one_from_before():
    """Both are keys of a version without the option."""
    dilated = RunConfig(backbone="resnet18", backbone_args={"output_stride": 8})
    assert RunConfig().key(False) == "0bbf3ecaf6"
    assert dilated.key(False) == "6c03e5b49a"
    wide = RunConfig(width=512)
    assert wide.key(False) not in (RunConfig().key(False), RunConfig(width=64).key(False))
    for kind in (RunConfig, SearchConfig):
        assert "width" not in kind().settings()
        assert kind(width=512).settings()["width"] == 512
        assert "--width 512" in command_of(resolve(kind(width=512)))


def test_key_does_not_depend_on_where_files_lie():
    base = RunConfig()
    moved = base.model_copy(
        update={"data": Path("elsewhere"), "weights": Path("w.pth"), "workers": 3}
    )
    assert base.key(False) == moved.key(False)
    # the user's own folder is the data set
    assert base.key(True) != moved.key(True)
    assert moved.key(True) == moved.model_copy(update={"data": Path("./elsewhere")}).key(True)


def test_config_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("image-size: 64x96\nlr: 1e-3\ndecoder: [fcn, sparsemask]\n")
    values = read_config_file(path)
    assert values == {"image_size": "64x96", "lr": 1e-3, "decoder": ["fcn", "sparsemask"]}
    for text in ("lr: .nan", "backbone-arg: {a: {b: .inf}}", "std: [.5, .inf, .5]"):
        path.write_text(text)
        option = f"--{text.partition(':')[0]}"
        with pytest.raises(UsageError, match=f"{option}: .*finite number"):
            make_config(read_config_file(path))
    path.write_text("a: [1\n")
    with pytest.raises(DataError, match=r"run\.yaml"):
        read_config_file(path)
    path.write_text("just a text")
    with pytest.raises(UsageError, match="option: value"):
        read_config_file(path)
    with pytest.raises(UsageError, match="no such"):
        read_config_file(tmp_path / "none.yaml")


def test_fields_are_described():
    for name, field in RunConfig.model_fields.items():
        assert field.description, name
    json.dumps(RunConfig.model_json_schema())


def test_config_file_takes_backbone_arguments_as_pairs_or_mapping(tmp_path):
    path = tmp_path / "run.yaml"
    for text in ("backbone-arg: pad_type=same", "backbone-arg: [pad_type=same]",
                 "backbone-arg: {pad_type: same}"):  # fmt: skip
        path.write_text(text)
        assert option_values(read_config_file(path)) == {"backbone_args": {"pad_type": "same"}}
