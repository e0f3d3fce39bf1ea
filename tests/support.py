"""Paths, options and helpers that several test modules use."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from click.testing import Result
from hypothesis import strategies as st

from benchmark.experiment.config import ResolvedRun, RunConfig
from benchmark.experiment.plan import PlannedRun, planned
from benchmark.results.result import Result as Run
from benchmark.run.runner import Runner
from benchmark.sweep.execute import Work, execute
from benchmark.sweep.prepare import stored, to_do
from benchmark.sweep.watch import Failures
from common.progress import Listener, Silent
from models.connectivity import Connectivity, candidates

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
WEIGHTS = SHARED / "weights" / "mobilenetv2_100_same_imagenet.safetensors"
TINY = ("--backbone", "test_efficientnet")  # a timm model made for tests: 0.4 M parameters


def line(result: Result) -> str:
    """The one line that a user's mistake ends in."""
    text = result.stderr.strip()
    assert "Traceback" not in text
    assert text.startswith("error: "), text
    assert "\n" not in text, text
    return text


def run_plan(
    configs: Sequence[ResolvedRun],
    results: Path,
    listener: Listener | None = None,
    overwrite: bool = False,
    **options: Any,
) -> list[Run]:
    """The results of ``configs``, executed as `run` does. options: of the Runner."""
    runs = planned(configs, results)
    kept = {} if overwrite else dict(stored(runs))
    pending = to_do(runs, {key: result.status for key, result in kept.items()}, "only-missing")
    watch = Failures(listener or Silent())
    runner = Runner(results, watch, **{"min_time": 0.01, **options})
    return execute(Work(runs, pending, kept, {}, runner, watch, on_data_error="stop"))


def folder_of(config: ResolvedRun, results: Path) -> Path:
    """The folder of a run's result."""
    return PlannedRun.of(config, results).folder


class FakeTime:
    """Stands for the module ``time``: its clock shows ``now``, which a test moves."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@st.composite
def wirings(draw: st.DrawFn, strides: tuple[int, ...]) -> Connectivity:
    """Any wiring of features of ``strides``, dead stages included."""
    count = len(strides)
    stages: dict[int, tuple[str, ...]] = {}
    for stage in range(count, 0, -1):
        if stage == 1 or draw(st.integers(0, 2)):
            possible = [c for c in candidates(stage, count) if c[0] != "D" or int(c[1:]) in stages]
            chosen = draw(st.lists(st.sampled_from(possible), min_size=1, unique=True))
            stages[stage] = tuple(chosen)
    return Connectivity("drawn", strides, stages)


def result(
    decoder: str = "fcn",
    seed: int = 0,
    value: float = 0.5,
    device: str = "cpu A",
    protocol: str = "p",
    higher: bool = True,
    options: Mapping[str, Any] | None = None,
    **values: Any,
) -> Run:
    """A finished run without a network: ``value`` is its ranking metric, ± 0.1 its interval.

    options: fields of its configuration. values: fields of the result that are other.
    """
    config = {"task": "segmentation", "dataset": "camvid", "decoder": decoder, "seed": seed,
              "backbone": "b", **(options or {})}  # fmt: skip
    base = {
        "key": f"{decoder}{seed}",
        "status": "finished",
        "config": RunConfig(**config),
        "protocol": protocol,
        "columns": ["m", "other"],
        "higher_is_better": {"m": higher, "other": True},
        "metrics": {"m": value, "other": 0.25, "iou/Sky": 0.1},
        "intervals": {"m": (value - 0.1, value + 0.1)},
        "counts": {"images": 7},
        "constant": {"value": 1.0, "metrics": {"m": 0.125, "other": 0.2}},
        "params": {"backbone": 2_000_000, "decoder": 500_000, "head": 1_000},
        "macs": {"backbone": 10**9, "decoder": 5 * 10**8, "head": 0},
        "speed": {"median_ms": 10.0 + seed, "fps": 100.0, "session": "s"},
        "seconds": {"total": 60.0},
        "environment": {"device": device, "threads": 2},
        "command": "python cli.py run",
    }  # fmt: skip
    return Run(**{**base, **values})
