"""Searches, on tiny networks: what they write, what they refuse, what their options do."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from benchmark.experiment.config import PAPER_SEARCH, ResolvedSearch, SearchConfig, make_config
from benchmark.experiment.plan import command_of, make_tasks, resolve
from benchmark.wiring.costs import connection_costs
from benchmark.wiring.prune import prune
from benchmark.wiring.record import Search
from benchmark.wiring.relaxed_training import ramp
from benchmark.wiring.search import build_relaxed
from common.errors import UsageError
from models.backbones import create_backbone
from models.connectivity import Connectivity, from_weights
from models.create import create_decoder
from models.relaxed_decoder import RelaxedDecoder

Cli = Callable[..., Result]
TINY = ("--backbone", "test_efficientnet", "--image-size", "64", "--iterations", "4")
SCENES = (*TINY, "--limit", "8", "--batch-size", "4")


@pytest.fixture(autouse=True)
def quiet() -> None:
    warnings.filterwarnings("ignore", message=".*samples in.*")


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "search.json").read_text())


def test_a_search_writes_the_wiring_and_all_that_led_to_it(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "a"
    result = cli("search", "--task", "segmentation", *SCENES, "--output", out)
    assert result.exit_code == 0, result.output
    record = record_of(out)
    found = Connectivity.load(out / "found.json")
    count = len(record["strides"])
    assert record["backbone"] == found.backbone == "test_efficientnet"
    assert len(record["connections"]) == count * (count + 1)
    assert record["iterations"] == [0, 1, 2, 3, 4]
    assert all(len(row) == len(record["connections"]) for row in record["weights"])
    assert set(record["weights"][0]) == {0.5}
    assert record["weights"][-1] != record["weights"][0]
    assert record["final"] == pytest.approx(record["weights"][-1], rel=1e-3)
    assert {name: len(x) for name, x in record["losses"].items()} == {
        "segmentation": 4, "sparse": 4,
    }  # fmt: skip
    assert record["environment"]["versions"]["torch"]
    assert found.origin["task"] == "segmentation"
    assert found.origin["threshold"] == 0.001
    facts = record["found"]
    assert facts["candidates"] >= facts["kept"] >= facts["alive"] >= facts["connections"]
    assert facts["connections"] == found.connections
    assert f"{facts['kept']} of {facts['candidates']} connections kept" in result.output
    logged = [json.loads(text) for text in (out / "metrics.jsonl").read_text().splitlines()]
    assert logged[-1]["step"] == 4
    assert logged[-1]["loss/sparse"] == pytest.approx(sum(record["losses"]["sparse"]) / 4)
    # the file is a decoder
    backbone = create_backbone("test_efficientnet")
    decoder = create_decoder(f"connectivity:{out / 'found.json'}", backbone.features)
    assert decoder.connectivity.stages == found.stages


def test_a_search_on_a_dilated_backbone_is_for_the_undilated_one_too(
    cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    dilated = ("--backbone", "test_resnet", "--backbone-arg", "output_stride=8", "--width", "8")
    result = cli("search", "--task", "depth", *SCENES, *dilated, "--output", out)
    assert result.exit_code == 0, result.output
    record, found = record_of(out), Connectivity.load(out / "found.json")
    assert record["strides"] == list(found.strides) == [2, 4, 8, 16, 32]
    assert record["config"]["width"] == 8
    for arguments in ({}, {"output_stride": 8}):
        features = create_backbone("test_resnet", arguments).features
        decoder = create_decoder(f"connectivity:{out / 'found.json'}", features)
        assert decoder.connectivity.stages == found.stages
    assert cli("draw", out, "-o", tmp_path / "a.svg").exit_code == 0


def test_the_same_search_twice_ends_alike_and_another_seed_does_not(
    cli: Cli, tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        cli("search", "--task", "depth", *SCENES, "--seed", seed, "--output", tmp_path / name)
    a, b, c = (record_of(tmp_path / name) for name in "abc")
    assert a["weights"] == b["weights"]
    assert a["losses"] == b["losses"]
    assert a["weights"] != c["weights"]


def test_the_recorded_command_is_the_same_search(tmp_path: Path) -> None:
    values = {
        "task": "segmentation+depth", "dataset": "scenes", "lambda_": 0.1, "connection_lr": "none",
        "ramp": "0,0.5", "connection_bn": False, "cost": "macs", "cost_weight": 0.5,
        "image_size": "64x96",
    }  # fmt: skip
    config = resolve(make_config(values, SearchConfig))
    words = command_of(config, "search").split()
    assert words[:3] == ["python", "cli.py", "search"]
    from cli import main

    context = main.commands["search"].make_context("search", [*words[3:], "--output", "x"])
    given = {k: v for k, v in context.params.items() if v not in (None, ())}
    given["task"] = "+".join(given["task"])
    kept = {k: v for k, v in given.items() if k in SearchConfig.model_fields}
    assert resolve(make_config(kept, SearchConfig)) == config


def test_two_tasks_share_one_wiring(cli: Cli, tmp_path: Path) -> None:
    result = cli("search", "--task", "segmentation", "--task", "depth", *SCENES,
                 "--output", tmp_path / "a")  # fmt: skip
    assert result.exit_code == 0, result.output
    record = record_of(tmp_path / "a")
    assert record["losses"].keys() == {"segmentation", "depth", "sparse"}
    config = make_config(record["config"] | {"ramp": (0, 1)}, ResolvedSearch)
    model = build_relaxed(config, make_tasks(config))
    assert {name: head.out_channels for name, head in model.heads.items()} == {
        "segmentation": 11, "depth": 1,
    }  # fmt: skip


@pytest.mark.parametrize("task", ["segmentation", "depth", "saliency", "edges"])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_mambaout"])
def test_every_task_and_kind_of_backbone(
    cli: Cli, tmp_path: Path, task: str, backbone: str
) -> None:
    options = ("--backbone", backbone, "--image-size", "64", "--iterations", "2", "--limit", "4",
               "--batch-size", "2")  # fmt: skip
    result = cli("search", "--task", task, *options, "--output", tmp_path / "a")
    assert result.exit_code == 0, result.output
    found = Connectivity.load(tmp_path / "a" / "found.json")
    assert found.strides == tuple(f.stride for f in create_backbone(backbone).features)


def test_real_images_and_crops(cli: Cli, tmp_path: Path, camvid: Path) -> None:
    result = cli("search", "--task", "segmentation", "--dataset", "camvid", "--data", camvid,
                 "--backbone", "test_efficientnet", "--image-size", "48x64", "--crop-size", "32",
                 "--iterations", "3", "--batch-size", "4", "--output", tmp_path / "a")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert record_of(tmp_path / "a")["data"]["images"] == 6


def test_the_sparse_loss_presses_weights_down(cli: Cli, tmp_path: Path) -> None:
    """Towards two inputs a stage: 14 of 56 here, of which a few steps may leave something."""
    options = ("--ramp", "0,0", "--connection-lr", "0.1", "--iterations", "40")
    means = {}
    for factor in ("100", "0"):
        folder = tmp_path / factor
        cli("search", "--task", "depth", *SCENES, *options, "--lambda", factor, "--output", folder)
        means[factor] = float(torch.tensor(record_of(folder)["final"]).mean())
    assert 0 < means["100"] < 0.35
    assert means["0"] > 0.45


@pytest.mark.parametrize("inputs", [2, 3])
def test_maskconnect_keeps_as_many_inputs_as_asked(cli: Cli, tmp_path: Path, inputs: int) -> None:
    cli("search", "--task", "depth", *SCENES, "--method", "maskconnect", "--inputs", inputs,
        "--no-merge", "--no-absorb", "--output", tmp_path / "a")  # fmt: skip
    record = record_of(tmp_path / "a")
    assert record["losses"].keys() == {"depth"}
    stages = len(record["strides"])
    assert record["found"]["kept"] == sum(min(inputs, 2 * n) for n in range(1, stages + 1))
    found = Connectivity.load(tmp_path / "a" / "found.json")
    assert {len(i) for s, i in found.stages.items() if s < stages} == {inputs}


def test_l1_and_cost_are_recorded_and_act(cli: Cli, tmp_path: Path) -> None:
    plain = ("--loss", "l1", "--lambda", "0", "--noise", "0")
    cli("search", "--task", "depth", *SCENES, *plain, "--output", tmp_path / "a")
    cli("search", "--task", "depth", *SCENES, *plain, "--cost", "params", "--cost-weight", "50",
        "--output", tmp_path / "b")  # fmt: skip
    a, b = record_of(tmp_path / "a"), record_of(tmp_path / "b")
    assert a["losses"].keys() == {"depth", "l1"}
    assert b["losses"].keys() == {"depth", "l1", "params"}
    assert b["losses"]["params"][0] == pytest.approx(0.5)  # every weight is 1/2, all cost 1
    assert sum(b["final"]) < sum(a["final"]) - 1


def test_costs_are_shares_of_the_whole() -> None:
    config = resolve(make_config({"backbone": "test_efficientnet"}, SearchConfig))
    decoder = build_relaxed(config, make_tasks(config)).decoder
    assert isinstance(decoder, RelaxedDecoder)
    by_kind = {
        kind: dict(zip(decoder.connections,
                       connection_costs(kind, decoder, (64, 96), torch.device("cpu")).tolist(),
                       strict=True))
        for kind in ("params", "macs", "latency")
    }  # fmt: skip
    for costs in by_kind.values():
        assert sum(costs.values()) == pytest.approx(1, abs=1e-5)
        assert min(costs.values()) > 0
    channels = [f.channels for f in create_backbone("test_efficientnet").features]
    last, strides = len(channels), decoder.strides
    params, macs = by_kind["params"], by_kind["macs"]
    assert params[1, "E1"] / params[1, "D2"] == pytest.approx(channels[0] / 64)
    assert params[1, f"E{last}"] == pytest.approx(params[1, "G"])
    pixels = (64 // strides[-1]) * (96 // strides[-1])
    assert macs[1, f"E{last}"] / macs[1, "G"] == pytest.approx(pixels)
    # the same work costs the same, wherever it goes
    assert macs[1, "E3"] == macs[2, "E3"]


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (20, 0.0), (40, 0.5), (60, 1.0), (99, 1.0)])
def test_the_ramp(step: int, share: float) -> None:
    config = make_config({"iterations": 100, "ramp": "0.2,0.6"}, SearchConfig)
    assert ramp(config, step) == pytest.approx(share)
    at_once = make_config({"iterations": 100, "ramp": (0, 0)}, SearchConfig)
    assert ramp(at_once, 0) == 1.0


def test_without_options_a_search_has_all_it_needs() -> None:
    config = resolve(make_config({}, SearchConfig))
    assert (config.task, config.dataset, config.iterations) == ("segmentation", "scenes", 300)
    assert config.batch_size is not None
    assert config.image_size is not None


def test_the_papers_preset_is_the_papers() -> None:
    config = make_config(PAPER_SEARCH, SearchConfig)
    assert (config.lambda_, config.noise, config.threshold) == (0.01, 0.1, 0.001)
    assert (config.lr, config.decoder_lr_factor, config.weight_decay) == (0.005, 10, 4e-5)
    assert (config.iterations, config.batch_size, config.zoom) == (33_000, 16, (0.5, 2.0))
    assert config.connection_lr is None
    assert ramp(config, 0) == 1.0


# --- pruning -------------------------------------------------------------------------------------

WEIGHTS = {
    3: {"E3": 0.9, "G": 0.0},
    2: {"E3": 0.2, "E2": 0.0, "G": 0.01, "D3": 0.0},
    1: {"E3": 0.0, "E2": 0.7, "E1": 0.3, "G": 0.02, "D3": 0.0, "D2": 0.05},
}


def search_with(**values: Any) -> Search:
    return Search.model_validate(record_with(**values))


def record_with(**values: Any) -> dict[str, Any]:
    pairs = [(s, n, w) for s, row in WEIGHTS.items() for n, w in row.items()]
    record = {
        "format": 1, "iterations": [0], "weights": [[0.5] * 12],
        "method": "sparsemask", "task": "depth", "dataset": "scenes", "backbone": "b",
        "strides": [2, 4, 8], "threshold": 0.015, "merge": True, "absorb": True, "inputs": None,
        "connections": [{"stage": s, "source": n} for s, n, _ in pairs],
        "final": [w for _, _, w in pairs],
        "config": {"seed": 0, "iterations": 1, "loss": "sparse", "lambda_": 0.3},
    }  # fmt: skip
    return {**record, **values}


def test_pruning_counts_what_is_kept_and_what_is_alive() -> None:
    found, facts = prune(search_with())
    # D3 is kept with an input, but nobody uses it
    assert dict(found.stages) == {2: ("E3",), 1: ("E2", "E1", "G", "D2")}
    assert (facts["candidates"], facts["kept"], facts["alive"]) == (12, 6, 5)
    assert (facts["smallest_kept"], facts["largest_dropped"]) == (0.02, 0.01)
    assert facts["gap"] == pytest.approx(2)


def test_a_wiring_of_own_data_says_which() -> None:
    config = {"seed": 3, "description": {"name": "pipes"}}
    wiring = prune(search_with(dataset="own", config=config))[0]
    assert (wiring.name, wiring.origin["dataset"]) == ("depth-own-pipes-seed3", "own (pipes)")


def test_a_weight_at_the_threshold_is_dropped() -> None:
    assert "G" not in prune(search_with(threshold=0.02))[0].stages[1]
    assert "G" in prune(search_with(threshold=0.0199))[0].stages[1]


def test_a_threshold_that_leaves_nothing_names_the_largest_weight() -> None:
    with pytest.raises(UsageError, match=r"--threshold 0\.95 .* largest weight is 0\.9, .* 0\.7"):
        prune(search_with(threshold=0.95))
    with pytest.raises(UsageError, match="leaves no connection that reaches the output"):
        prune(search_with(threshold=0.8))  # D3 ← E3 alone


def test_the_largest_inputs_of_each_stage() -> None:
    kept = from_weights("x", (2, 4, 8), WEIGHTS, 0.5, inputs=2)
    assert dict(kept.stages) == {3: ("E3", "G"), 2: ("E3", "G"), 1: ("E2", "E1")}


def test_pruning_again(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    record = record_with()
    (folder / "search.json").write_text(json.dumps(record))
    result = cli("prune", folder, "--threshold", "0.25")
    assert result.exit_code == 0, result.output
    found = Connectivity.load(folder / "found.json")
    assert dict(found.stages) == {1: ("E2", "E1")}
    assert found.origin["threshold"] == 0.25
    assert "D1 ← E2, E1" in result.output
    assert "3 of 12 connections kept, 2 alive" in result.output
    before = (folder / "found.json").read_bytes()
    refused = cli("prune", folder, "--threshold", "0.95")
    assert refused.exit_code == 2
    assert "largest weight is 0.9" in refused.output
    assert (folder / "found.json").read_bytes() == before
    other = cli("prune", folder, "--threshold", "0.001", "-o", tmp_path / "other.json")
    assert other.exit_code == 0
    assert (folder / "found.json").read_bytes() == before
    assert Connectivity.load(tmp_path / "other.json").connections == 6


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lambda", "-1"), "--lambda: expected at least 0 (got '-1')"),
        (("--threshold", "1.5"), "--threshold: expected a number below 1"),
        (("--noise", "-0.1"), "--noise: expected at least 0"),
        (("--cost-weight", "-1"), "--cost-weight: expected at least 0"),
        (("--cost", "macs"), "--cost and --cost-weight: give both or neither"),
        (("--cost-weight", "1"), "--cost and --cost-weight: give both or neither"),
        (("--ramp", "0.6,0.2"), "--ramp: 0.6,0.2 is not 0 ≤ FROM ≤ TO ≤ 1"),
        (("--loss", "l2"), "--loss: expected sparse or l1 (got 'l2')"),
        (("--task", "dpeth"), "unknown task 'dpeth': did you mean depth"),
        (("--task", "depth", "--dataset", "camvid"), "camvid has no depth"),
        (("--backbone", "resnet1"), "unknown backbone 'resnet1'"),
        (("--backbone", "test_vit", "--backbone-arg", "depths=7"), "test_vit has 6 blocks"),
        (("--device", "cuda:99"), "--device cuda:99"),
        (("--crop-size", "128", "--image-size", "64"), "--crop-size: 128x128 is larger"),
        (("--image-size", "32", "--batch-size", "1"), "BatchNorm one value per channel"),
        (("--backbone-arg", "in_chans=1"), "the channels are those of the data set's images"),
        (("--noise", "inf"), "--noise: expected a finite number (got 'inf')"),
    ],
)
def test_wrong_options_are_one_line_and_leave_nothing(
    cli: Cli, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    result = cli("search", *SCENES, *options, "--output", tmp_path / "a")
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "a" / "found.json").exists()


def test_a_folder_of_another_search_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    cli("search", "--task", "depth", *SCENES, "--output", folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    result = cli("search", "--task", "depth", *SCENES, "--backbone", "test_resnet",
                 "--output", folder)  # fmt: skip
    assert result.exit_code == 2
    assert "a search of depth on scenes with test_efficientnet is there" in result.output
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    again = cli("search", "--task", "depth", *SCENES, "--overwrite", "--output", folder)
    assert again.exit_code == 0


def test_a_threshold_above_all_weights_keeps_the_search(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    result = cli("search", "--task", "depth", *SCENES, "--threshold", "0.99", "--output", folder)
    assert result.exit_code == 2
    assert "--threshold 0.99 leaves no connection" in result.output
    assert not (folder / "found.json").exists()
    assert cli("prune", folder, "--threshold", "0.001").exit_code == 0
    assert (folder / "found.json").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not there: name the folder that a search wrote"),
        ('{"format": 1, ', "not the record of a search (Invalid JSON"),
        ("[]", "not the record of a search"),
        ('{"format": 1}', "not the record of a search (method: is missing)"),
        (json.dumps(record_with(format=2)), "(format: expected 1)"),
        (json.dumps(record_with(final=[0.5])), "(1 weights for 12 connections)"),
    ],
)  # fmt: skip
def test_a_damaged_search_is_named(
    cli: Cli, tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "search.json").write_text(content)
    result = cli("prune", tmp_path, "--threshold", "0.1")
    assert result.exit_code == 2
    assert "search.json" in result.output
    assert message in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "found.json").exists()
