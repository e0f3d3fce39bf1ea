"""A rung of a search for a front: its runs, several at a time."""

from collections.abc import Sequence

import torch

from benchmark.experiment.plan import PlannedRun
from benchmark.results.result import Result
from benchmark.run.runner import Runner
from benchmark.sweep.execute import Work, execute
from benchmark.sweep.executors.choice import make_executor
from benchmark.sweep.prepare import stored, to_do
from benchmark.sweep.report import following
from benchmark.wiring.front.race import Trainer
from common.progress import Listener

MOST_JOBS = 8
"""At once unless more are asked for: each holds the data and a network."""


def trainer(
    jobs: int | None, device: str, threads: int, every: float, listener: Listener
) -> Trainer:
    """Executes runs that share a folder, of ``threads`` threads each.

    jobs: how many at once; default: one a GPU, or as many as the cores have room for.
    """
    cores = torch.get_num_threads()
    lanes = jobs
    if lanes is None:
        cpu = min(MOST_JOBS, max(1, cores // threads))
        lanes = max(1, torch.cuda.device_count()) if device.startswith("cuda") else cpu

    def train(runs: Sequence[PlannedRun]) -> list[Result]:
        earlier = dict(stored(runs))
        states = {key: result.status for key, result in earlier.items()}
        pending = to_do(runs, states, "only-missing")
        watch = following(pending, listener)
        results = runs[0].folder.parent
        runner = Runner(results, watch, timed=False, every=every)
        torch.set_num_threads(cores)  # divided among the jobs
        executor = make_executor("local", pending, results, lanes) if len(pending) > 1 else None
        return execute(Work(runs, pending, earlier, {}, runner, watch), executor)

    return Trainer(train, lanes)
