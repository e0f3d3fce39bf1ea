"""Runs as tasks of Ray, on an existing cluster or on this machine."""

import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from benchmark.sweep.executors.base import PACKAGES, PATIENCE, Answer, Ended, Executor, Job, Started
from common import stopping
from common.errors import UsageError, UserError
from common.paths import ROOT

EVERYTHING = 1_000_000


class RayExecutor(Executor):
    """Each run is one task that reserves ``cpus`` and ``gpus``.

    address: of a running cluster, as for ``ray.init``; None: RAY_ADDRESS, or a new Ray on this
    machine. jobs: maximum of runs at once; None: as many as the resources allow. Ray copies the
    modules of this checkout to the workers, whose Python needs the dependencies.
    """

    same_files = False
    elsewhere = True

    def __init__(self, address: str | None, cpus: int, gpus: float, jobs: int | None) -> None:
        try:
            import ray
        except ImportError:
            raise UsageError("--executor ray: needs a package: pip install -e .[ray]") from None
        self.ray: Any = ray
        self.address = address
        self.resources = {"num_cpus": cpus, "num_gpus": gpus}
        self.room = jobs or EVERYTHING
        self.lanes: int | None = jobs
        self.threads: int | None = cpus
        self.jobs: dict[Any, Job] = {}
        self.nodes: dict[str, str] = {}
        self.places: dict[str, tuple[int, str]] = {}  # process and node of a job, by its name

    def open(self) -> None:
        ray = self.ray
        modules = [str(ROOT / package) for package in PACKAGES]
        # keep the user's CUDA_VISIBLE_DEVICES where runs reserve no GPU
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            ray.init(
                address=self.address,
                runtime_env={"py_modules": modules},
                log_to_driver=False,
                logging_level="ERROR",
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            where = f"--address {self.address}" if self.address else "--executor ray"
            first = str(error).strip().splitlines()[0]
            raise UserError(f"{where}: no Ray there ({first}): start one with ray start") from error
        total = ray.cluster_resources()
        for name, kind in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
            if self.resources[name] > total.get(kind, 0):
                self.close()
                raise UserError(
                    f"--resources: a run wants {self.resources[name]:g} {kind}, the cluster has "
                    f"{total.get(kind, 0):g}"
                )
        if self.lanes is None:
            shares = [total.get(k, 0) / n for k, n in
                      (("CPU", self.resources["num_cpus"]), ("GPU", self.resources["num_gpus"]))
                      if n]  # fmt: skip
            self.lanes = max(1, int(min(shares)))
        self.starts = ray.remote(num_cpus=0)(_Starts).remote()
        self.perform = ray.remote(max_retries=0)(_perform)

    def close(self) -> None:
        with suppress(self.ray.exceptions.RayError):
            self._terminate()
        self.jobs.clear()
        self.ray.shutdown()  # the cluster kills what still runs

    def _terminate(self) -> None:
        """Let the workers save their training and end.

        Only jobs that have not started are cancelled: Ray 2.60 aborts the driver if it cancels a
        task at the moment when this ends.
        """
        if not self.jobs:
            return
        self._started()
        end = self.ray.remote(num_cpus=0)(_end)
        running = []
        for reference, job in self.jobs.items():
            if job.name not in self.places:
                self.ray.cancel(reference)
                continue
            pid, node = self.places[job.name]
            end.options(scheduling_strategy=self._on(node, soft=False)).remote(pid)
            running.append(reference)
        if running:
            self.ray.wait(running, num_returns=len(running), timeout=PATIENCE)

    @staticmethod
    def _on(node: str, soft: bool) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node, soft=soft)

    def _started(self) -> list[Started]:
        """Jobs that have started since the last call."""
        begun = []
        for started, node in self.ray.get(self.starts.take.remote()):
            self.nodes[started.where] = node
            self.places[started.job.name] = started.pid, node
            begun.append(started)
        return begun

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            options: dict[str, Any] = dict(self.resources)
            node = self.nodes.get(job.near or "")
            if node is not None:
                options["scheduling_strategy"] = self._on(node, soft=True)
            self.jobs[self.perform.options(**options).remote(job, self.starts)] = job

    def wait(self) -> list[Started | Ended]:
        ready: list[Any] = []
        if self.jobs:
            references = list(self.jobs)
            ready, _ = self.ray.wait(references, num_returns=1, timeout=1.0)
            if ready:  # collect all that are ready
                ready, _ = self.ray.wait(references, num_returns=len(references), timeout=0)
        else:
            time.sleep(0.1)
        happened: list[Started | Ended] = [*self._started()]
        for reference in ready:
            job = self.jobs.pop(reference)
            happened.append(self._ended(job, reference))
        return happened

    def _ended(self, job: Job, reference: Any) -> Ended:
        try:
            answer: Answer = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            lines = [text.strip() for text in str(error).strip().splitlines()]
            return Ended(job, None, f"{type(error).__name__}: {lines[0] if lines else ''}")
        return Ended(job, answer)


class _Starts:
    """An actor to which workers report that they have started a job."""

    def __init__(self) -> None:
        self.events: list[tuple[Started, str]] = []

    def put(self, started: Started, node: str) -> None:
        self.events.append((started, node))

    def take(self) -> list[tuple[Started, str]]:
        events, self.events = self.events, []
        return events


def _perform(job: Job, starts: Any) -> Answer:
    import ray

    from benchmark.sweep.executors.work import perform

    node = ray.get_runtime_context().get_node_id()
    starts.put.remote(Started(job, socket.gethostname(), os.getpid()), node)
    try:
        with stopping.signals():
            return perform(job)
    except stopping.Stopped as stop:
        raise RuntimeError(f"ended by {stop}") from None


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
