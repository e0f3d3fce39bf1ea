"""The rungs of a search for a front: runs, several at a time, on the executors of a sweep."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch

from benchmark.experiment.plan import PlannedRun
from benchmark.results.result import Result
from benchmark.run.runner import Runner
from benchmark.sweep.estimate import estimate
from benchmark.sweep.execute import Work, execute
from benchmark.sweep.executors.base import Ended, Executor, Job, Started
from benchmark.sweep.prepare import open_data, stored, to_do
from benchmark.sweep.report import following
from benchmark.wiring.front.race import Trainer
from common.progress import Listener

MOST_JOBS = 8
"""At once on a CPU unless more are asked for: each holds the data and a network."""
MakeExecutor = Callable[[Sequence[PlannedRun], int | None], Executor | None]


class _Open(Executor):
    """An executor whose workers stay, with their data, when a rung ends."""

    def __init__(self, inner: Executor) -> None:
        self.inner = inner
        self.room, self.lanes, self.threads = inner.room, inner.lanes, inner.threads
        self.same_files, self.elsewhere = inner.same_files, inner.elsewhere

    def submit(self, jobs: Sequence[Job]) -> None:
        self.inner.submit(jobs)

    def wait(self) -> list[Started | Ended]:
        return self.inner.wait()

    def close(self) -> None:
        pass


@contextmanager
def trainer(
    make: MakeExecutor, jobs: int | None, device: str, threads: int, every: float,
    listener: Listener, retries: int = 1,
) -> Iterator[Trainer]:  # fmt: skip
    """Executes runs that share a folder, of ``threads`` threads each.

    make: the executor for runs, and so many at once; None for this process. jobs: how many at once;
    default: one a GPU, or as many as the cores have room for.
    """
    cores = torch.get_num_threads()
    lanes = jobs
    if lanes is None:
        cpu = min(MOST_JOBS, max(1, cores // threads))
        gpus = 1 if ":" in device else max(1, torch.cuda.device_count())
        lanes = gpus if device.startswith("cuda") else cpu
    with ExitStack() as stack:
        opened: list[Executor | None] = []

        def executor(pending: Sequence[PlannedRun]) -> Executor | None:
            if not opened and pending:
                torch.set_num_threads(cores)  # divided among the jobs
                inner = make(pending, jobs or lanes)
                opened.append(None if inner is None else _Open(stack.enter_context(inner)))
            return opened[0] if opened else None

        def train(runs: Sequence[PlannedRun]) -> list[Result]:
            earlier = dict(stored(runs))
            states = {key: result.status for key, result in earlier.items()}
            pending = to_do(runs, states, "only-missing")
            watch = following(pending, listener)
            runner = Runner(runs[0].folder.parent, watch, timed=False, every=every)
            work = Work(runs, pending, earlier, {}, runner, watch)
            return execute(work, executor(pending), retries)

        def seconds(runs: Sequence[PlannedRun]) -> list[float]:
            torch.set_num_threads(threads)
            found = estimate(runs, (), open_data(runs)[0])
            return [found[run.key].seconds or 0.0 for run in runs]

        yield Trainer(train, seconds, lanes)
