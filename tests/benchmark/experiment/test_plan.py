import json
import shlex

import pytest

from benchmark.experiment.config import make_config
from benchmark.experiment.plan import DEFAULT_DECODERS, command_of, plan, resolve, run_key
from cli import main
from common.errors import DataError, UsageError
from datasets.base import DATASETS


def test_product_without_repeats():
    runs = plan({"dataset": "scenes"}, {"decoder": ["fcn", "fcn", "sparsemask"], "seed": [0, 1]})
    assert [(r.decoder, r.seed) for r in runs] == [
        ("fcn", 0), ("fcn", 1), ("sparsemask", 0), ("sparsemask", 1),
    ]  # fmt: skip
    assert len({run_key(run) for run in runs}) == 4


def test_defaults_of_the_data_set_fill_what_is_open():
    config = resolve(make_config({"task": "segmentation", "dataset": "camvid"}))
    assert config.image_size == DATASETS.get("camvid").info.defaults["image_size"]
    assert config.mean == (0.485, 0.456, 0.406)
    assert config.epochs is not None
    explicit = resolve(
        make_config({"task": "segmentation", "dataset": "camvid", "image_size": "64", "mean": 0.5})
    )
    assert explicit.image_size == (64, 64)
    assert explicit.crop_size is None  # the default crop goes with the default size
    assert explicit.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"task": "segmentaton"}, "segmentation"),
        ({"dataset": "scene"}, "scenes"),
        ({"decoder": "sparsmask"}, "sparsemask"),
        ({"task": "depth", "dataset": "camvid"}, "it has segmentation"),
        ({"loss": "silogg"}, "silog"),
    ],
)
def test_unknown_names_get_the_nearest(values, part):
    with pytest.raises(UsageError, match=part):
        resolve(make_config(values))


def test_a_width_is_of_decoders_that_have_one():
    runs = plan({"width": 96}, {"decoder": ["sparsemask", "dss"]})
    assert [run.width for run in runs] == [96, 96]
    with pytest.raises(UsageError, match="--width 96: decoder smp-fpn has no width to choose"):
        plan({"width": 96}, {"decoder": ["sparsemask", "smp-fpn"]})


DILATED = {"backbone": "test_resnet", "backbone_args": {"output_stride": 8}}


def test_what_a_dilated_backbone_changes_is_in_the_configuration(tmp_path):
    """Only where the connections are others: keys of the runs of before stay."""
    decoders = ["sparsemask", "unet-connectivity", "fully-dense", "fcn", "dss"]
    runs = plan(DILATED, {"decoder": decoders})
    assert [run.match_undilated for run in runs] == [True, False, False, False, False]
    before = runs[0].model_copy(update={"match_undilated": False})
    assert run_key(before) != run_key(runs[0])
    assert "match_undilated" not in runs[1].settings()
    (plain,) = plan({"backbone": "test_resnet"}, {"decoder": ["sparsemask"]})
    assert not plain.match_undilated
    assert "match" not in command_of(runs[0])
    content = {"format": 1, "name": "x", "stages": {"5": ["E5", "G"], "1": ["D5", "E1"]}}
    for strides, differs in (([2, 4, 8, 16, 32], True), ([2, 4, 8, 8, 8], False)):
        path = tmp_path / "found.json"
        path.write_text(json.dumps(content | {"encoder": {"strides": strides}}))
        (run,) = plan(DILATED, {"decoder": [f"connectivity:{path}"]})
        assert run.match_undilated == differs


def test_missing_weights(tmp_path):
    with pytest.raises(DataError, match=r"none\.safetensors"):
        resolve(make_config({"weights": tmp_path / "none.safetensors"}))


def test_default_decoders_exist():
    for name in DEFAULT_DECODERS:
        resolve(make_config({"decoder": name}))


def test_command_repeats_the_run():
    """The printed command, parsed by the command line itself, plans the very same run."""
    values = {
        "task": "segmentation", "dataset": "camvid", "image_size": "64x96", "lr": 0.02,
        "zoom": "0.5,2", "flip": False, "amp": True, "seed": 3, "ema": 0.9,
        "backbone_args": {"pad_type": "same"}, "decoder": "fcn",
    }  # fmt: skip
    config = resolve(make_config(values))
    words = shlex.split(command_of(config))
    assert words[:3] == ["python", "cli.py", "run"]
    run = main.commands["run"]
    options = run.make_context("run", words[3:]).params
    from benchmark.commands.options import option_values

    values = option_values({k: v for k, v in options.items() if k in type(config).model_fields})
    values = {k: v[0] if isinstance(v, tuple) else v for k, v in values.items()}
    assert run_key(resolve(make_config(values))) == run_key(config)
