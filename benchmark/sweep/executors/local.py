"""Runs in processes of this machine; each keeps its data for its next run."""

import multiprocessing
import os
import signal
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.context import SpawnProcess

from benchmark.sweep.executors.base import PATIENCE, Ended, Executor, Job, Started
from common import stopping


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    variables: Mapping[str, str]
    job: Job | None = None


class LocalPool(Executor):
    """A pool of ``jobs`` processes; a dead one is replaced when there is a job for it.

    gpus: ids for CUDA_VISIBLE_DEVICES, one for each process; if empty, all processes see the GPUs
    of this one.
    """

    same_files = True
    elsewhere = False

    def __init__(self, jobs: int, threads: int, gpus: Sequence[str] = ()) -> None:
        self.room = jobs
        self.lanes: int | None = jobs
        self.threads: int | None = threads
        self.free = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus] or [{} for _ in range(jobs)]
        self.workers: list[_Worker] = []
        self.queue: deque[Job] = deque()

    def close(self) -> None:
        for worker in self.workers:
            if worker.job is not None:
                worker.process.terminate()
            worker.pipe.close()  # an idle worker ends when its pipe closes
        for worker in self.workers:
            worker.process.join(PATIENCE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self.workers.clear()

    def submit(self, jobs: Sequence[Job]) -> None:
        self.queue.extend(jobs)

    def wait(self) -> list[Started | Ended]:
        while self.queue and (worker := self._idle()) is not None:
            job = self.queue.popleft()
            worker.job = job
            with suppress(OSError):  # it has died: reported below
                worker.pipe.send(job)
        happened: list[Started | Ended] = []
        ready = set(wait_for([w.pipe for w in self.workers if w.job is not None], timeout=1.0))
        for worker in [w for w in self.workers if w.pipe in ready]:
            assert worker.job is not None
            try:
                event = worker.pipe.recv()
            except (EOFError, OSError):
                event = self._lost(worker)
            if isinstance(event, Ended):
                worker.job = None
            happened.append(event)
        return happened

    def _idle(self) -> _Worker | None:
        """An idle worker, or a new one if there is room; None if all are busy."""
        for worker in [w for w in self.workers if w.job is None]:
            if worker.process.is_alive():
                return worker
            self._drop(worker)
        if not self.free:
            return None
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        variables = self.free.pop()
        process = context.Process(target=_serve, args=(theirs, variables), name="sweep worker")
        process.start()
        theirs.close()
        self.workers.append(_Worker(process, ours, variables))
        return self.workers[-1]

    def _lost(self, worker: _Worker) -> Ended:
        """The Ended event of a job whose worker has died."""
        worker.process.join(PATIENCE)
        code = worker.process.exitcode
        why = f"its process ended with {code}"
        if code is not None and code < 0:
            why = f"its process was ended by {signal.Signals(-code).name}"
            if code == -signal.SIGKILL:
                why += ": memory may have run out"
        self._drop(worker)
        assert worker.job is not None
        return Ended(worker.job, None, why)

    def _drop(self, worker: _Worker) -> None:
        worker.pipe.close()
        self.workers.remove(worker)
        self.free.append(dict(worker.variables))


def _serve(pipe: Connection, variables: Mapping[str, str]) -> None:
    """Perform jobs from ``pipe`` until it closes or the driver ends."""
    os.environ.update(variables)
    stopping.end_with_parent()
    from benchmark.sweep.executors.work import perform

    with suppress(EOFError, OSError, stopping.Stopped), stopping.signals():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles it and sends SIGTERM
        while True:
            job = pipe.recv()
            pipe.send(Started(job, socket.gethostname(), os.getpid()))
            pipe.send(Ended(job, perform(job)))
