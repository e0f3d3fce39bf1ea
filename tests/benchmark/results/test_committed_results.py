"""The results that the project commits: readable, named by their configuration, and repeatable."""

import json
from pathlib import Path

import pytest

from benchmark.experiment.plan import PlannedRun, as_resolved, run_key
from benchmark.leaderboard.boards import boards
from benchmark.leaderboard.overall import overall
from benchmark.leaderboard.reported import add_reported
from benchmark.report.files import markdown
from benchmark.results.layout import FILE
from benchmark.results.replicates import load_replicates
from benchmark.results.result import Result
from benchmark.results.store import collect
from benchmark.sweep.file import read_sweep
from datasets.base import DATASETS
from tests.support import run_plan

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "results"
FOLDER = ROOT.parent / "shared/data/weights"
WEIGHTS = FOLDER / "mobilenetv2_100_same_imagenet.safetensors"
FILES = sorted(RESULTS.glob(f"*/{FILE}"))


def read(path: Path) -> Result:
    return Result.model_validate_json(path.read_bytes())


def generic(result: Result) -> bool:
    return DATASETS.get(result.config.dataset).info.generic


def test_there_are_some():
    tasks = {read(path).config.task for path in FILES}
    assert tasks == {"segmentation", "depth", "saliency", "edges"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_each_is_a_finished_run_named_by_its_configuration(path):
    result = read(path)
    assert result.status == "finished"
    planned = PlannedRun.of(as_resolved(result.config), RESULTS)
    if not generic(result):  # whose key depends on where the folder lies
        assert planned.key == result.key
    assert planned.folder.name.replace(planned.key, result.key) == path.parent.name
    assert not result.environment["uncommitted_changes"]
    assert set(load_replicates(path.parent, result.config.task)) == set(result.columns)
    rows = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    main = result.columns[0]
    assert rows[-1][f"test/{main}"] == result.metrics[main]


def test_the_page_of_the_docs_shows_them():
    found, problems = collect(RESULTS)
    assert problems == []
    tables = boards(found)
    add_reported(tables)
    text = (ROOT / "docs" / "leaderboard.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- leaderboard:begin -->")[2].partition("<!-- leaderboard:end")[0]
    assert shown.strip() == markdown(tables, overall(tables), level=3).strip()


@pytest.mark.slow
def test_the_sweep_of_that_name_repeats_them():
    if not WEIGHTS.is_file():
        pytest.skip(f"{WEIGHTS} is not here")
    weights = {
        "mobilenetv2_100": str(WEIGHTS),
        "tf_efficientnet_lite0": str(FOLDER / "tf_efficientnet_lite0_imagenet.safetensors"),
    }
    plan = read_sweep("leaderboard").plan(weights=weights)
    planned = {run_key(config) for config in plan.runs}
    assert {r.key for r in map(read, FILES) if not generic(r)} <= planned


@pytest.mark.slow
def test_a_fresh_run_comes_out_within_the_interval(tmp_path):
    """A small row: depth on scenes, U-Net's connections, on whatever processor this is.

    Another processor rounds otherwise, which is worth another seed: the interval is that of all
    seeds of the row, and the row is the one whose seeds differ least. Where they differ more, as
    for the authors' wiring, an interval over images says too little of another training.
    """
    if not WEIGHTS.is_file():
        pytest.skip(f"{WEIGHTS} is not here")
    stored = [
        result
        for result in map(read, FILES)
        if (result.config.dataset, result.config.task) == ("scenes", "depth")
        and result.config.decoder == "unet-connectivity"
    ]
    config = stored[0].config.model_copy(update={"weights": WEIGHTS})
    (fresh,) = run_plan([as_resolved(config)], tmp_path)
    assert fresh.key == stored[0].key
    main = fresh.columns[0]
    lows, highs = zip(*(result.intervals[main] for result in stored), strict=True)
    assert min(lows) <= fresh.metrics[main] <= max(highs)
