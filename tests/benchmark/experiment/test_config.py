import json
from pathlib import Path

import pytest

from benchmark.experiment.config import RunConfig, make_config, read_config_file
from common.errors import DataError, UsageError


def test_texts_become_values():
    config = make_config(
        {"image_size": "240x320", "crop_size": "96", "zoom": "1,1.5", "mean": "0.5", "lr": "1e-3"}
    )
    assert config.image_size == (240, 320)
    assert config.crop_size == (96, 96)
    assert config.zoom == (1.0, 1.5)
    assert config.mean == (0.5, 0.5, 0.5)
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
    ],
)
def test_wrong_values_are_named(values, part):
    with pytest.raises(UsageError, match=part):
        make_config(values)


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
    assert values == {"image_size": "64x96", "lr": "1e-3", "decoder": ["fcn", "sparsemask"]}
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
        from benchmark.commands.options import option_values

        assert option_values(read_config_file(path)) == {"backbone_args": {"pad_type": "same"}}
