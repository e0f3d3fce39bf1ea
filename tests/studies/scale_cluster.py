"""10,000 runs on 1,000 workers, event by event: who waits for whom.

    python -m tests.studies.scale_cluster --runs 10000 --workers 1000

What the driver does for a run, and how fast the results folder takes files, is measured here; how
long runs take, how many workers die and how many are slow is assumed. The driver and the folder
each serve one thing at a time. The last table says how many workers each would keep busy.
"""

import heapq
import random
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmark.experiment.config import ResolvedRun
from benchmark.experiment.plan import PlannedRun, as_resolved, planned, run_key
from benchmark.results.layout import FILE
from benchmark.results.result import Result
from benchmark.results.store import save
from benchmark.run.runner import Runner
from benchmark.sweep.estimate import TIMING, Estimate
from benchmark.sweep.executors.base import Answer, Ended, Job, Settings, Started
from benchmark.sweep.report import Screen
from benchmark.sweep.report import _Course as Counts
from benchmark.sweep.workers import _Course

ROOT = Path(__file__).parents[2]
FILES = 12  # that a run writes: its result, metrics, replicates, strips, weights, a state or two


def seconds_of(call: Callable[[Any], Any], items: list[Any]) -> float:
    """Seconds for each of ``items``."""
    start = time.perf_counter()
    for item in items:
        call(item)
    return (time.perf_counter() - start) / len(items)


def measured(folder: Path, runs: int) -> dict[str, float]:
    """Seconds: of the driver to submit a run, and to take its answer; of a file with fsync."""
    text = next(iter(sorted(ROOT.glob(f"results/depth_*/{FILE}")))).read_text()
    result = Result.model_validate_json(text)
    config = as_resolved(result.config)
    plan = planned((config.model_copy(update={"seed": seed}) for seed in range(runs)), folder)

    class Quiet:
        def message(self, text: str) -> None: ...
        def started(self, run: PlannedRun, where: str = "") -> None:
            counts.started(run, where)

        def ended(self, result: Result) -> None:
            counts.ended(result)

    counts = Counts(plan, {run.key: Estimate(60, "measured") for run in plan}, 1000)

    class Instant:
        """Every job starts and ends at once."""

        room, lanes, threads, same_files, elsewhere = 1000, 1000, 1, True, True

        def __init__(self) -> None:
            self.jobs: deque[Job] = deque()

        def submit(self, jobs: list[Job]) -> None:
            self.jobs += jobs

        def wait(self) -> list[Any]:
            job = self.jobs.popleft()
            seed = ResolvedRun.model_validate_json(job.configs[0])
            answer = result.model_copy(update={"config": seed, "key": run_key(seed)})
            return [Started(job, "host", 1), Ended(job, Answer((answer.model_dump_json(),)))]

    settings = Settings(str(folder), "token", str(folder), 1)
    course = _Course(Instant(), settings, Runner(folder), Quiet(), {}, 1)  # type: ignore[arg-type]
    start = time.perf_counter()
    course.run(plan)
    per_run = (time.perf_counter() - start) / runs
    files = seconds_of(lambda run: save(run.folder, result), plan[: min(runs, 300)])
    counts = Counts(plan, {run.key: Estimate(60, "measured") for run in plan}, 1000)
    from rich.console import Console

    screen = Screen(counts, Console(file=(folder / "screen").open("w")), False)
    return {
        "driver": per_run,
        "file": files,
        "draw": seconds_of(lambda _: screen.__rich__(), [None] * 20),
    }


def simulate(
    runs: int, workers: int, driver: float, file: float, draws: float, minutes: float,
    deaths: float, stragglers: float, retries: int, seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Hours until all is done, and what share of it driver and folder were busy.

    driver: seconds a run; draws: share of the driver's time that drawing takes.
    """
    chance = random.Random(seed)
    driver /= 1 - draws
    queue = deque((run, 0) for run in range(runs))
    events: list[tuple[float, int, str, tuple[int, int]]] = []
    free, number, now = workers, 0, 0.0
    driver_until = store_until = driver_busy = store_busy = 0.0
    waits: list[float] = []
    idle = 0.0
    done = failed = died = 0

    def push(when: float, kind: str, run: tuple[int, int]) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (when, number, kind, run))

    def start() -> None:
        nonlocal free, driver_until, driver_busy
        while free and queue:
            run = queue.popleft()
            free -= 1
            begin = max(now, driver_until)
            driver_until = begin + driver / 2
            driver_busy += driver / 2
            waits.append(driver_until - now)
            length = chance.lognormvariate(0, 0.5) * minutes * 60
            if chance.random() < stragglers:
                length *= 5
            dies = chance.random() < deaths
            share = chance.random() if dies else 1.0
            push(driver_until + length * share, "died" if dies else "trained", run)

    start()
    while events:
        now, _, kind, run = heapq.heappop(events)
        if kind == "trained":  # writes its files
            begin = max(now, store_until)
            store_until = begin + FILES * file
            store_busy += FILES * file
            push(store_until, "written", run)
        elif kind in ("written", "died"):  # the driver takes note
            begin = max(now, driver_until)
            driver_until = begin + driver / 2
            driver_busy += driver / 2
            push(driver_until, "noted" if kind == "written" else "lost", run)
        else:
            free += 1
            if kind == "noted":
                done += 1
            else:
                died += 1
                if run[1] < retries:
                    queue.append((run[0], run[1] + 1))
                else:
                    failed += 1
            if not queue:
                idle += 1
            start()
    assert done + failed == runs
    return {
        "hours": now / 3600,
        "driver busy": driver_busy / now,
        "folder busy": store_busy / now,
        "median wait for the driver s": statistics.median(waits[workers:] or waits),
        "first start of the last worker s": max(waits[:workers]),
        "deaths": died,
        "failed": failed,
    }


@click.command()
@click.option("--runs", default=10_000, show_default=True)
@click.option("--workers", default=1000, show_default=True)
@click.option("--minutes", default=20.0, show_default=True, help="Median of a run.")
@click.option("--deaths", default=0.01, show_default=True, help="Share of runs that die.")
@click.option("--stragglers", default=0.01, show_default=True, help="Share five times as long.")
@click.option("--retries", default=1, show_default=True)
@click.option("--networks", default=100, show_default=True, help="Distinct ones, timed in turns.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where files are tried.")
def main(
    runs: int, workers: int, minutes: float, deaths: float, stragglers: float, retries: int,
    networks: int, folder: Path | None,
) -> None:  # fmt: skip
    """Measure the driver and the folder here, then simulate."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        told = measured(Path(place), runs)
    draws = min(0.9, 4 * told["draw"])  # four times a second
    click.echo(
        f"driver {1e3 * told['driver']:.2f} ms a run, a file {1e3 * told['file']:.2f} ms, "
        f"a drawing of the table {1e3 * told['draw']:.1f} ms"
    )
    common = (told["driver"], told["file"], draws)
    what = (minutes, deaths, stragglers, retries)
    for count in (workers // 10, workers, workers * 10):
        for length in (minutes, 0.5):
            found = simulate(runs, count, *common, length, *what[1:])
            numbers = ", ".join(f"{name} {value:.3g}" for name, value in found.items())
            click.echo(f"{count} workers, {length:g} min: {numbers}")
    mean = minutes * 60 * 1.133 * (1 + 4 * stragglers)
    click.echo(f"the driver keeps {mean * (1 - draws) / told['driver']:.0f} workers busy")
    alone, each = networks * TIMING / 3600, runs * TIMING / 3600
    click.echo(f"timing {networks} networks, alone, takes {alone:.3g} h; each run: {each:.3g} h")
    click.echo(f"the folder keeps {mean / (FILES * told['file']):.0f} workers busy")


if __name__ == "__main__":
    main()
