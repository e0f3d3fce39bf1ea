"""Executors from options of the command line."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmark.experiment.plan import PlannedRun
from benchmark.sweep.executors.base import Executor
from common.errors import UsageError


def make_executor(
    name: str,
    runs: Sequence[PlannedRun],
    results: Path,
    jobs: int | None = None,
    address: str | None = None,
    resources: str | None = None,
    slurm: Mapping[str, str] | None = None,
) -> Executor | None:
    """The executor for ``runs``; None if this process suffices.

    jobs: number of runs at once. resources: of a run, as ``cpus=2,gpus=1``. slurm: options of
    sbatch. Raises UsageError for options that are wrong or do not fit the executor.
    """
    for option, setting, owners in (
        ("--address", address, ("ray",)),
        ("--slurm-option", slurm, ("slurm",)),
        ("--resources", resources, ("ray", "slurm")),
    ):
        if setting and name not in owners:
            hint = f"is for --executor {' or '.join(owners)}"
            if option == "--resources":
                hint += "; here --jobs divides the threads, and each run has one GPU"
            raise UsageError(f"{option}: {hint}")
    if name == "local":
        return _local(runs, jobs)
    cpus, gpus = _resources(resources or "")
    if gpus is None:
        gpus = float(any(map(_on_gpu, runs)))
    if name == "ray":
        from benchmark.sweep.executors.ray_cluster import RayExecutor

        return RayExecutor(address, cpus, gpus, jobs)
    from benchmark.sweep.executors.slurm import SlurmExecutor

    return SlurmExecutor(results, slurm or {}, cpus, gpus, jobs)


def _on_gpu(run: PlannedRun) -> bool:
    return run.config.device.startswith("cuda")


def _local(runs: Sequence[PlannedRun], jobs: int | None) -> Executor | None:
    from benchmark.sweep.executors.local import LocalPool

    gpus: list[str] = []
    if any(map(_on_gpu, runs)):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        count = torch.cuda.device_count()
        gpus = visible.split(",")[:count] if visible else [str(index) for index in range(count)]
        jobs = jobs or max(1, len(gpus))
        if jobs > max(1, len(gpus)):
            raise UsageError(f"--jobs {jobs}: each run has a GPU of its own, here are {len(gpus)}")
        fixed = next((d for run in runs if (d := run.config.device).startswith("cuda:")), None)
        if jobs > 1 and fixed is not None:
            raise UsageError(f"--jobs {jobs}: device {fixed} is one GPU: give device=cuda")
    if jobs is None or jobs == 1:
        return None
    return LocalPool(jobs, max(1, torch.get_num_threads() // jobs), gpus[:jobs])


def _resources(text: str) -> tuple[int, float | None]:
    """CPUs and GPUs of a run; by default one CPU, and None for GPUs."""
    amounts: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        key, separator, value = part.partition("=")
        try:
            amounts[key] = float(value) if key == "gpus" else int(value)
        except ValueError:
            amounts[key] = -1
        least = {"cpus": 1, "gpus": 0}.get(key)
        if not separator or least is None or not least <= amounts[key] < math.inf:
            raise UsageError(f"--resources {text}: expected cpus=N,gpus=N, each or both")
    return int(amounts.get("cpus", 1)), amounts.get("gpus")
