"""Runs as Slurm jobs, with submitit. Driver and workers share the results folder."""

import json
import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark.sweep.executors.base import Answer, Ended, Executor, Job, Started
from common import stopping
from common.errors import UsageError, UserError, first_line
from common.paths import ROOT

LOGS = ".slurm"
AT_ONCE = 100
GRACE = 15.0  # seconds until the answer of an ended job appears in a shared folder
SHARED = {"mem_gb": float, "timeout_min": int, "cpus_per_task": int, "gpus_per_node": int}


class SlurmExecutor(Executor):
    """Each run is one job; jobs that are submitted together form an array.

    options: long names of sbatch's options, and ``SHARED``. ``cluster=local`` runs the jobs here,
    without Slurm. folder: the results folder; logs of jobs are in its ``.slurm``.
    """

    same_files = True
    elsewhere = True

    def __init__(
        self,
        folder: Path,
        options: Mapping[str, str],
        cpus: int,
        gpus: float,
        jobs: int | None,
    ) -> None:
        try:
            import submitit
        except ImportError:
            raise UsageError("--executor slurm: needs a package: pip install -e .[slurm]") from None
        self.cluster = options.get("cluster", "slurm")
        if self.cluster not in ("slurm", "local"):
            raise UsageError(f"--slurm-option cluster={self.cluster}: is slurm or local")
        if self.cluster == "slurm" and shutil.which("sbatch") is None:
            raise UsageError(
                "--executor slurm: no sbatch here: start the sweep where jobs are submitted, or "
                "try it without Slurm by --slurm-option cluster=local"
            )
        self.submitit: Any = submitit
        self.room = jobs or AT_ONCE
        self.lanes: int | None = jobs
        self.threads: int | None = cpus
        self.folder = folder.absolute() / LOGS
        self.parameters = _parameters(options, cpus, gpus)
        self.jobs: dict[Any, Job] = {}
        self.waiting: set[Any] = set()
        self.gone: dict[Any, float] = {}

    def open(self) -> None:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # jobs inherit it
        self.executor = self._executor(self.parameters)

    def _executor(self, parameters: Mapping[str, Any]) -> Any:
        executor = self.submitit.AutoExecutor(folder=self.folder, cluster=self.cluster)
        executor.update_parameters(**parameters)
        return executor

    def close(self) -> None:
        for submitted in self.jobs:
            with suppress(Exception):  # it may have ended meanwhile
                submitted.cancel(check=False)
        self.jobs.clear()

    def submit(self, jobs: Sequence[Job]) -> None:
        together = [job for job in jobs if job.kind == "run"]
        try:
            if together:
                with self.executor.batch():
                    batch = [self.executor.submit(_perform, j, str(self.folder)) for j in together]
                self._track(batch, together)
            for job in jobs:
                if job.kind == "time":  # exclusively, on the machine of one of its runs
                    alone = {"slurm_nodelist": job.near, "slurm_exclusive": True}
                    executor = self._executor({**self.parameters, **alone})
                    self._track([executor.submit(_perform, job, str(self.folder))], [job])
        except self.submitit.core.utils.FailedJobError as error:
            raise UserError(f"sbatch: {first_line(error)}") from error

    def _track(self, submitted: Sequence[Any], jobs: Sequence[Job]) -> None:
        self.jobs.update(zip(submitted, jobs, strict=True))
        self.waiting.update(submitted)

    def wait(self) -> list[Started | Ended]:
        happened: list[Started | Ended] = []
        for submitted in list(self.waiting):
            note = self.folder / f"{self.jobs[submitted].name}.started"
            if note.is_file():
                self.waiting.discard(submitted)
                where, pid = json.loads(note.read_text())
                note.unlink()
                happened.append(Started(self.jobs[submitted], where, pid))
        for submitted, job in list(self.jobs.items()):
            ended = self._ended(submitted, job)
            if ended is not None:
                del self.jobs[submitted]
                self.waiting.discard(submitted)
                happened.append(ended)
        if not happened:
            time.sleep(1.0)
        return happened

    def _ended(self, submitted: Any, job: Job) -> Ended | None:
        if not submitted.done():
            return None
        if not submitted.paths.result_pickle.is_file():
            since = self.gone.setdefault(submitted, time.monotonic())
            if time.monotonic() - since < (GRACE if self.cluster == "slurm" else 0):
                return None
            why = f"job {submitted.job_id} has ended without an answer ({submitted.state}), "
            return Ended(job, None, why + f"see {submitted.paths.stderr}")
        try:
            answer: Answer = submitted.result()
        except Exception as error:  # of submitit or the job: report it with its log
            lines = str(error).strip().splitlines()
            return Ended(job, None, f"{lines[0] if lines else error}, see {submitted.paths.stderr}")
        return Ended(job, answer)


def _parameters(options: Mapping[str, str], cpus: int, gpus: float) -> dict[str, Any]:
    """submitit's parameters from ``--slurm-option`` and ``--resources``; others go to sbatch."""
    # a day: submitit's default is five minutes
    parameters: dict[str, Any] = {"name": "sweep", "cpus_per_task": cpus, "timeout_min": 24 * 60}
    if gpus:
        parameters["gpus_per_node"] = int(gpus)
    others: dict[str, Any] = {}
    for key, text in options.items():
        name = key.replace("-", "_")
        if name in SHARED:
            try:
                parameters[name] = SHARED[name](text)
            except ValueError:
                raise UsageError(f"--slurm-option {key}={text}: is not a number") from None
        elif name != "cluster":
            others[key.replace("_", "-")] = True if text == "true" else text
    if others:
        parameters["slurm_additional_parameters"] = others
    return parameters


def _perform(job: Job, folder: str) -> Answer:
    from benchmark.sweep.executors.work import perform

    note = Path(folder) / f"{job.name}.started"
    whole = note.with_suffix(".writing")
    whole.write_text(json.dumps([socket.gethostname(), os.getpid()]))
    whole.replace(note)
    with stopping.signals():  # on Slurm's SIGTERM save the training, which a retry resumes
        return perform(job)
