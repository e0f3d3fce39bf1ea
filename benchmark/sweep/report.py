"""Terminal output of a sweep: plan, progress and summary."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmark.experiment.config import RunConfig
from benchmark.experiment.plan import PlannedRun
from benchmark.leaderboard.boards import dataset_title, title_of
from benchmark.results.result import Result
from benchmark.sweep.estimate import UNKNOWN, Estimate
from benchmark.sweep.watch import Failures, Watch
from common import progress
from common.progress import Listener

SHOWN = 12
"""Most lines for runs in progress."""


def duration(seconds: float) -> str:
    """``seconds`` as text: 1 s, 2 min 9 s, 3 h 20 min, 4 d 3 h."""
    whole = max(round(seconds), 1)
    for size, unit, part, smaller in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    return f"{whole} s"


def label(config: RunConfig) -> str:
    """A run in one line: task, data set, decoder, backbone, seed."""
    return (
        f"{title_of(config.task, config)}: {config.decoder}, {config.backbone}, seed {config.seed}"
    )


def plan_table(
    runs: Sequence[PlannedRun],
    pending: Sequence[PlannedRun],
    states: Mapping[str, str],
    estimates: Mapping[str, Estimate],
    most: int | None = None,
) -> Table:
    """A table of the first ``most`` runs (None: all) with state, key and estimated time.

    states: of stored results, by key.
    """
    left_out = 0 if most is None else len(runs) - most
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption=f"{left_out} more runs: --verbose shows all." if left_out > 0 else None,
    )
    for title in ("state", "task", "dataset", "backbone", "decoder", "seed", "size", "epochs"):
        table.add_column(title, overflow="fold")
    table.add_column("about", justify="right")
    for title in ("how", "key"):
        table.add_column(title)
    waiting = {run.key for run in pending}
    for run in runs[:most]:
        config, key = run.config, run.key
        before = states.get(key)
        if before is None:
            state = "to do" if key in waiting else "no result"
        elif before == "failed":
            state = "failed before"
        else:
            state = "again" if key in waiting else "done"
        estimate = estimates.get(key)
        about, source = "", ""
        if estimate is not None:
            about = "?" if estimate.seconds is None else duration(estimate.seconds)
            source = estimate.source
        cells = (
            *(state, config.task, dataset_title(config), config.backbone, config.decoder),
            *(config.seed, "x".join(map(str, config.image_size or ())), config.length),
            *(about, source, key),
        )
        table.add_row(*(escape(str(cell)) for cell in cells))
    return table


def total(estimates: Mapping[str, Estimate], lanes: int = 1) -> float | None:
    """Seconds of all runs with a known estimate, ``lanes`` at once; None if there are none."""
    known = [e.seconds for e in estimates.values() if e.seconds is not None]
    return sum(known) / lanes if known else None


def plan_line(
    runs: Sequence[PlannedRun],
    pending: Sequence[PlannedRun],
    estimates: Mapping[str, Estimate],
    lanes: int = 1,
) -> str:
    """Number of runs, of pending ones, and their estimated time."""
    text = f"{len(runs)} runs, {len(pending)} of them to do"
    if not pending or not estimates:
        return text
    sources = [e.source for e in estimates.values()]
    counts = ", ".join(f"{sources.count(s)} {s}" for s in dict.fromkeys(sources))
    seconds = total(estimates, lanes)
    about = "time unknown" if seconds is None else f"about {duration(seconds)}"
    if seconds is not None and UNKNOWN.source in sources:
        about += " without the unknown ones"
    together = f", {lanes} at once" if lanes > 1 else ""
    return f"{text}{together}: {about} ({counts})"


def summary(
    runs: Sequence[PlannedRun], pending: Sequence[PlannedRun], done: Sequence[Result]
) -> list[str]:
    """Counts of finished, failed and missing runs, and the reason of each failure."""
    waiting = {run.key for run in pending}
    failed = [result for result in done if result.status == "failed"]
    finished = [result.key in waiting for result in done if result.status == "finished"]
    fresh, kept = finished.count(True), finished.count(False)
    counts = [f"{fresh} finished", f"{len(failed)} failed", f"{kept} were finished before"]
    if missing := len(runs) - len(done):
        counts.append(f"{missing} have no result")
    reasons: dict[str | None, list[Result]] = {}
    for result in failed:
        reasons.setdefault(result.error, []).append(result)
    lines = [f"{len(runs)} runs: {', '.join(counts)}"]
    for reason, results in reasons.items():
        more = f" and {len(results) - 1} more" if len(results) > 1 else ""
        lines.append(f"failed: {label(results[0].config)}{more}: {reason}")
    return lines


def comparison(estimates: Mapping[str, Estimate], took: float, lanes: int = 1) -> str:
    """Estimated and actual time as text."""
    seconds = total(estimates, lanes)
    text = f"took {duration(took)}"
    return text if seconds is None else f"estimated {duration(seconds)}, {text}"


@dataclass
class _Running:
    config: RunConfig
    begun: float
    where: str


class _Course:
    """Progress of a sweep: counts by task and data set, runs in progress, remaining time.

    lanes: number of runs at once.
    """

    def __init__(
        self, pending: Sequence[PlannedRun], estimates: Mapping[str, Estimate], lanes: int
    ) -> None:
        self.estimates, self.lanes = estimates, lanes
        self.start = time.monotonic()
        self.groups: dict[tuple[str, str], dict[str, int]] = {}
        self.left = {run.key for run in pending}
        self.count = len(pending)
        for run in pending:
            group = self.groups.setdefault((run.config.task, dataset_title(run.config)), {})
            group["left"] = group.get("left", 0) + 1
        self.expected = self.taken = 0.0
        self.running: dict[str, _Running] = {}

    def started(self, run: PlannedRun, where: str) -> None:
        if run.key not in self.running:  # else it has restarted
            self._move(run.config, "left", "running")
        self.running[run.key] = _Running(run.config, time.monotonic(), where)

    def ended(self, result: Result) -> tuple[float, str]:
        """Seconds that the run took, and its machine."""
        run = self.running.pop(result.key)
        spent = time.monotonic() - run.begun
        self.left.discard(result.key)
        estimated = self.estimates.get(result.key, UNKNOWN).seconds
        if estimated is not None and result.status == "finished":
            self.expected += estimated
            self.taken += spent
        self._move(result.config, "running", "done" if result.status == "finished" else "failed")
        return spent, run.where

    def _move(self, config: RunConfig, old: str, new: str) -> None:
        group = self.groups[(config.task, dataset_title(config))]
        group[old] -= 1
        group[new] = group.get(new, 0) + 1

    def remaining(self) -> float | None:
        """Seconds left: the estimates, scaled by actual over estimated time so far."""
        known = [
            e.seconds
            for key in self.left
            if (e := self.estimates.get(key, UNKNOWN)).seconds is not None
        ]
        if not known:
            return None
        pace = self.taken / self.expected if self.expected else 1.0
        now = time.monotonic()
        spent = sum(now - run.begun for run in self.running.values())
        return max(sum(known) * pace - spent, 0.0) / self.lanes


class Lines(progress.Lines):
    """Output without a terminal: a line for each run that has ended, and for what takes long."""

    def __init__(self, course: _Course, say: Callable[[str], None], verbose: bool) -> None:
        super().__init__(say, verbose)
        self.course = course

    def started(self, run: PlannedRun, where: str = "") -> None:
        self.course.started(run, where)
        self.prefix = f"{label(run.config)}: "
        if where and self.verbose:
            self.say(f"{label(run.config)}: started on {where}")

    def ended(self, result: Result) -> None:
        ending = _ending(result, *self.course.ended(result))
        number = self.course.count - len(self.course.left)
        self.prefix = ""
        self.say(f"[{number}/{self.course.count}] {ending}")


def _ending(result: Result, spent: float, where: str) -> str:
    place = f" on {where}" if where else ""
    if result.status == "failed":
        return f"{label(result.config)}: failed{place}: {result.error}"
    scores = ", ".join(
        f"{view.columns[0].partition('@')[0]} {view.metrics[view.columns[0]]:.3f}"
        for view in result.by_task().values()
    )
    return f"{label(result.config)}: finished{place} in {duration(spent)}, {scores}"


class Screen(Lines):
    """Output on a terminal: a live table of the groups, and the runs in progress below."""

    def __init__(self, course: _Course, console: Console, verbose: bool) -> None:
        super().__init__(course, self._print, verbose)
        self.console = console
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=1, note="", visible=False)

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def begin(self, title: str, steps: int) -> None:
        self.bar.reset(self.task, total=steps, description=escape(title), visible=True, note="")

    def step(self, note: str = "") -> None:
        self.bar.update(self.task, advance=1, note=escape(note))

    def ended(self, result: Result) -> None:
        ending = _ending(result, *self.course.ended(result))
        self.bar.update(self.task, visible=False)
        if result.status == "failed" or self.verbose:
            self.say(ending)

    def __rich__(self) -> Group:
        course = self.course
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("task")
        table.add_column("dataset")
        for title in ("done", "running", "failed", "left"):
            table.add_column(title, justify="right")
        for (task, dataset), counts in course.groups.items():
            numbers = (str(counts.get(n) or "") for n in ("done", "running", "failed", "left"))
            table.add_row(task, dataset, *numbers)
        left = course.remaining()
        rest = "" if left is None or not course.left else f", about {duration(left)} left"
        now = f"{duration(time.monotonic() - course.start)} so far{rest}"
        running = list(course.running.values())
        if len(running) == 1 and not running[0].where:
            now += f" · {label(running[0].config)}"
            running = []
        lines = [
            f"{duration(time.monotonic() - run.begun)} on {run.where or '?'}: {label(run.config)}"
            for run in running[:SHOWN]
        ]
        if len(running) > SHOWN:
            lines.append(f"and {len(running) - SHOWN} more")
        return Group(table, *map(escape, (now, *lines)), self.bar)


@contextmanager
def watching(
    pending: Sequence[PlannedRun],
    estimates: Mapping[str, Estimate],
    say: Callable[[str], None],
    verbose: bool = False,
    console: Console | None = None,
    lanes: int = 1,
) -> Iterator[Watch]:
    """A live table on a terminal, else a line for each run, which ``say`` prints."""
    console = console or Console(stderr=True)
    course = _Course(pending, estimates, lanes)
    if not console.is_terminal:
        yield Lines(course, say, verbose)
        return
    screen = Screen(course, console, verbose)
    with Live(console=console, get_renderable=screen.__rich__, refresh_per_second=4):
        yield screen


def following(pending: Sequence[PlannedRun], listener: Listener) -> Watch:
    """Follow the runs of `run` by ``listener``: where it prints lines, with one for each run."""
    if isinstance(listener, progress.Lines):
        return Lines(_Course(pending, {}, lanes=1), listener.say, listener.verbose)
    return Failures(listener)
