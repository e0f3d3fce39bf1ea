"""Data of a row for the page's script beyond its table: settings, seeds, curves."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmark.experiment.config import RunConfig
from benchmark.leaderboard.rows import COSTS, Board, Row
from benchmark.report.page.rows import Shown, rounded, words
from benchmark.results.result import Result

POINTS = 24  # at most, of a learning curve
# fields that are columns, are the same for all rows of a board, or do not matter
SAME = {"task", "dataset", "backbone", "decoder", "seed", "weights", "data", "workers", "wiring"}


def differing(rows: Sequence[Row]) -> list[str]:
    """The configuration fields in which the rows of a board differ, but ``SAME``."""
    configs = [row.runs[0].config for row in rows if row.runs]
    return [
        name
        for name in RunConfig.model_fields
        if name not in SAME and len({str(getattr(config, name)) for config in configs}) > 1
    ]


def row_data(
    shown: Shown, board: Board, fields: Sequence[str], first_command: str
) -> dict[str, Any]:
    """Data of a row for its details and the plots. fields: of ``differing``."""
    row = shown.row
    data: dict[str, Any] = {"key": shown.key, "kind": shown.kind, "values": shown.values}
    if row.interval:
        data["interval"] = [rounded(end) for end in row.interval]
    if row.disturbed:
        data["disturbed"] = rounded(row.disturbed, 2)
    if row.pareto:
        data["pareto"] = [cost for cost in COSTS if cost in row.pareto]
    if shown.wiring is not None:
        data["wiring"] = shown.wiring
    if row.runs:
        config = row.runs[0].config
        data["config"] = [words(getattr(config, name)) for name in fields]
        data["environments"] = list(dict.fromkeys(shown.environments))
        data["params"] = dict(row.params)
        if "params" in row.deployed:
            data["params"]["all as deployed"] = row.deployed["params"]
        data["seconds"] = _phases(row.runs)
        data["seeds"] = [_seed(run, board) for run in row.runs]
        data["commands"] = [difference(first_command, run.command) for run in row.runs]
        # a training has one curve, whatever its network ships in
        if not row.shipped and (curves := _curves(row.runs, board)):
            data["curves"] = curves
        if speed := next((run.speed for run in row.runs if run.speed), None):
            data["speed"] = [
                [name.replace("_", " "), words(value)] for name, value in speed.items()
            ]
    return data


def _seed(run: Result, board: Board) -> list[Any]:
    values = [rounded(run.metrics.get(name)) for name in board.columns]
    speed = rounded(run.speed.get("median_ms")) if run.speed else None
    return [run.config.seed, run.key, run.best_epoch, speed, *values]


def _phases(runs: Sequence[Result]) -> dict[str, float | None]:
    names = dict.fromkeys(name for run in runs for name in run.seconds)
    return {
        name: rounded(statistics.fmean(r.seconds[name] for r in runs if name in r.seconds), 4)
        for name in names
    }


def difference(first: str, second: str) -> list[Any]:
    """``second`` as [length of the prefix, of the suffix shared with ``first``, text between]."""
    start = 0
    while start < min(len(first), len(second)) and first[start] == second[start]:
        start += 1
    end, most = 0, min(len(first), len(second)) - start
    while end < most and first[-1 - end] == second[-1 - end]:
        end += 1
    return [start, end, second[start : len(second) - end]]


def _curves(runs: Sequence[Result], board: Board) -> dict[str, Any]:
    """Curves "loss" and "val" (ranking metric): epochs, mean over seeds, then min and max."""
    curves = {}
    for name, values in (
        ("loss", [_series(run.history, lambda key: key == "loss") for run in runs]),
        ("val", [_series(run.history, lambda key: _validates(key, board)) for run in runs]),
    ):
        shared = sorted(set.intersection(*(set(series) for series in values)))
        if not shared:
            continue
        step = -(-len(shared) // POINTS)
        epochs = [*shared[:-1:step], shared[-1]]
        at = [[series[epoch] for series in values] for epoch in epochs]
        curve = [[rounded(statistics.fmean(seeds), 4) for seeds in at]]
        if len(runs) > 1:
            curve += [[rounded(end(seeds), 4) for seeds in at] for end in (min, max)]
        curves[name] = [[int(epoch) for epoch in epochs], *curve]
    return curves


def _series(
    history: Sequence[Mapping[str, float]], accepts: Callable[[str], bool]
) -> dict[float, float]:
    return {
        epoch["epoch"]: value
        for epoch in history
        for key, value in epoch.items()
        if accepts(key) and math.isfinite(epoch.get("epoch", math.nan)) and math.isfinite(value)
    }


def _validates(key: str, board: Board) -> bool:
    """Whether a key of the history is the board's ranking metric on the validation split.

    With several tasks keys are ``val/TASK/NAME``. The part after an @ may differ from the test's.
    """
    if not board.columns or not key.startswith("val/"):
        return False
    *task, name = key.removeprefix("val/").split("/")
    same = name.partition("@")[0] == board.columns[0].partition("@")[0]
    return same and task in ([], [board.task])
