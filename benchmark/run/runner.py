"""Runs: each is trained, scored and written; then all of a comparison are timed in turns."""

import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmark.experiment import distributed
from benchmark.experiment.config import RunConfig
from benchmark.experiment.environment import environment
from benchmark.experiment.network import build_model, check_device, check_sync
from benchmark.experiment.plan import command_of, make_tasks, run_key
from benchmark.results.checkpoint import load_checkpoint, save_checkpoint
from benchmark.results.layout import FILE, clear, clear_finished, folder_of, hand_over, tidy
from benchmark.results.layout import FOLDER as TRAINING
from benchmark.results.replicates import save_replicates
from benchmark.results.result import Result
from benchmark.results.samples import save_strips
from benchmark.results.store import load, save
from benchmark.run.data import Data, comparable, shared_data
from benchmark.run.timing import time_in_turns
from benchmark.scoring.evaluate import evaluate, metrics_of, protocol_id, replicates_of, scores_of
from benchmark.speed.count import NOT_COUNTED, count_macs, count_parameters
from benchmark.training.keeper import EVERY, Keeper
from benchmark.training.learner import NotFinite, with_readers
from benchmark.training.loop import check_batch, train, validated
from benchmark.training.scalars import NoLog, ScalarLog, scalar_log
from common import stopping
from common.errors import DataError, UsageError, UserError, first_line, reason
from common.files import check_writable, locked, write_atomic
from common.progress import Listener, Silent
from models.predictor import DensePredictor
from tasks.base import Task


@dataclass
class Runner:
    """Executes a plan.

    every: seconds between two saved states of a training. retime: time finished runs again.
    tensorboard: write its files beside ``metrics.jsonl``. threads: of runs that ask for none.
    began: results that are newer were made by another process. skipped: what was finished before.
    """

    results: Path
    overwrite: bool = False
    listener: Listener = field(default_factory=Silent)
    min_time: float = 2.0
    retime: bool = False
    tensorboard: bool = False
    every: float = EVERY
    threads: int = field(default_factory=torch.get_num_threads)
    began: float = field(default_factory=time.time)
    skipped: list[str] = field(default_factory=list)

    def run(self, plan: Sequence[RunConfig]) -> list[Result]:
        """The results of ``plan``, in order. Failed runs are among them, with their reason.

        Raises UserError before anything starts if the results folder cannot be written, and
        DataError for unusable data; what was finished before stays.
        """
        if distributed.lead():
            check_writable(self.results)
        done: dict[str, Result] = {}
        for config in plan:
            key = run_key(config)
            found = None if self.overwrite else load(folder_of(self.results, config, key))
            found = distributed.from_lead(found)
            if found is not None and found.status == "finished":
                done[key] = found
                self.skipped.append(key)
                if distributed.lead():
                    tidy(folder_of(self.results, config, key) / FILE)
        pending = [config for config in plan if run_key(config) not in done]
        impossible = self.check(pending)
        if impossible and len(impossible) == len(pending):
            raise next(iter(impossible.values()))  # the user's mistake: no result
        data: dict[tuple[Any, ...], Data] = {}
        for config in plan:
            key = run_key(config)
            if key not in done:
                done[key] = self.one(config, data, impossible.get(key))
                if done[key].error is not None:
                    self.listener.message(f"failed: {config.decoder}: {done[key].error}")
        for group in comparable(plan) if distributed.lead() else ():
            self.time(group, done)
        return [done[run_key(config)] for config in plan]

    @staticmethod
    def check(pending: Sequence[RunConfig]) -> dict[str, UserError]:
        """Why runs are impossible, by key, found before anything starts."""
        errors: dict[str, UserError] = {}
        for config in pending:
            try:
                check_device(config.device)
                assert config.batch_size is not None
                distributed.check_batch(config.batch_size)
                check_sync(config)
                model = build_model(config, make_tasks(config))
                check_batch(config, model.decoder.info, config.limit)
            except UserError as error:
                errors[run_key(config)] = error
        return errors

    def one(
        self,
        config: RunConfig,
        data: dict[tuple[Any, ...], Data],
        impossible: UserError | None = None,
    ) -> Result:
        """Train and score one run, and write its result, failed or finished.

        data: what the runs before have opened, by ``shared_data``. impossible: why it cannot be.
        Raises what opening the data raises, and DataError for data that prove unusable later.
        """
        folder = folder_of(self.results, config, run_key(config))
        torch.set_num_threads(config.threads or self.threads)
        tasks = make_tasks(config)
        shared = shared_data(config)
        seconds: dict[str, float] = {}
        if impossible is None and shared not in data:
            start = time.perf_counter()
            data[shared] = Data.open(config, tasks, self.listener)
            seconds["data"] = time.perf_counter() - start
        with distributed.alone(folder, self.listener):
            if (made := self._made_meanwhile(folder)) is not None:
                self.listener.message(f"{folder}: finished by another process, not run again")
                return made
            return self._one(config, tasks, data.get(shared), folder, impossible, seconds)

    def _made_meanwhile(self, folder: Path) -> Result | None:
        """The finished result that another process has written since this one planned its runs."""
        file = folder / FILE
        found = None
        if file.is_file() and file.stat().st_mtime >= self.began:
            found = load(folder)
        found = distributed.from_lead(found)
        return found if found is not None and found.status == "finished" else None

    def _one(
        self,
        config: RunConfig,
        tasks: Sequence[Task],
        data: Data | None,
        folder: Path,
        impossible: UserError | None,
        seconds: dict[str, float],
    ) -> Result:
        result = Result(
            key=run_key(config), status="failed", config=config, command=command_of(config),
            seconds=seconds,
        )  # fmt: skip
        if distributed.lead() and (kept := load(folder)) is not None and kept.status == "finished":
            clear_finished(folder / FILE)
        begin = time.perf_counter()
        apart: Exception | None = None
        try:
            if impossible is not None:
                raise impossible
            assert data is not None
            result.environment = environment(config.device)
            self._train_and_score(config, tasks, data, result, folder)
            result.status = "finished"
        except UserError as error:
            result.error = first_line(error)
            if isinstance(error, DataError) and error is not impossible:
                raise DataError(result.error) from error  # the other runs would meet it too
            if error is not impossible and not isinstance(error, UsageError | NotFinite):
                apart = error
        except Exception as error:  # a defect: the others go on
            result.error, apart = reason(error), error
            if distributed.lead():
                write_atomic(folder / "traceback.txt", traceback.format_exc())
        several = distributed.size() > 1
        if apart is not None and several:
            result.error = f"{result.error} (another of its processes may have said why)"
        spent = time.perf_counter() - begin
        result.seconds["total"] = spent + result.seconds.pop("before", 0.0)
        if distributed.lead():
            self._record(folder, result)
            if result.status == "finished":
                clear(folder / TRAINING)
        if apart is not None and several:
            raise apart  # the others may wait for this process: torchrun ends them
        if not several:
            stopping.stop()  # a failure may have come before a signal was heeded
        return result

    def fail(self, config: RunConfig, error: Exception) -> Result:
        """Write that a run failed before it began, and why."""
        key = run_key(config)
        folder = folder_of(self.results, config, key)
        result = Result(key=key, status="failed", config=config, command=command_of(config))
        result.error = reason(error)
        if not isinstance(error, UserError):
            write_atomic(folder / "traceback.txt", "".join(traceback.format_exception(error)))
        return self._record(folder, result)

    @staticmethod
    def _record(folder: Path, result: Result) -> Result:
        """Write a result; a failed one beside an earlier finished one, which stays."""
        if result.error is None:
            for name in ("failed.json", "traceback.txt"):
                (folder / name).unlink(missing_ok=True)
        else:
            kept = load(folder)
            if kept is not None and kept.status == "finished":
                write_atomic(folder / "failed.json", result.model_dump_json(indent=1) + "\n")
                return result
        save(folder, result)
        return result

    @staticmethod
    def _measure_size(config: RunConfig, model: DensePredictor, result: Result) -> None:
        assert config.image_size is not None
        result.params = count_parameters(model)
        result.macs = count_macs(model, config.image_size)
        result.macs_exclude = NOT_COUNTED

    def _train_and_score(
        self,
        config: RunConfig,
        tasks: Sequence[Task],
        data: Data,
        result: Result,
        folder: Path,
    ) -> None:
        # an earlier result keeps its weights until this run is scored
        fresh = folder / TRAINING
        identity = {"key": result.key, "data": data.facts, "torch": torch.__version__}

        def checkpoint(which: str, network: nn.Module, row: dict[str, Any]) -> None:
            if distributed.lead():
                save_checkpoint(fresh, which, network, {"key": result.key, "epoch": row})

        def validate(network: nn.Module) -> dict[str, float]:
            accumulators = {task: task.validator() for task in tasks}
            evaluate(config, network, accumulators, data.val)
            return {
                validated(tasks, task, name): value
                for task, accumulator in accumulators.items()
                for name, value in metrics_of(accumulator).items()
                if "/" not in name
            }

        def attempt() -> None:
            model = build_model(config, tasks)
            self._measure_size(config, model, result)
            declared = model.decoder.info
            check_batch(config, declared, len(data.train))
            keeper = Keeper(fresh, identity, self.every, self.listener, config.device)
            keeper.watch({"train": data.train.bad, "val": data.val.bad})
            result.seconds.setdefault("before", keeper.seconds)
            with scalar_log(fresh, self.tensorboard, keeper.log_position) as log:
                keeper.log = log
                history = train(
                    *(config, model, tasks, data.train, validate, checkpoint, log.write),
                    *(self.listener, declared, keeper),
                )
                result.seconds["train"] = keeper.seconds
                result.history, result.resumed = history.epochs, keeper.resumed
                result.best_epoch, result.steps = history.best_epoch, history.steps
                assert config.batch_size is not None
                if history.at_once < config.batch_size:
                    result.at_once = history.at_once
                if config.score == "best":
                    if distributed.lead():
                        load_checkpoint(fresh, "best", model)
                    distributed.copy_from_lead(model)
                self._score(config, tasks, model, data, result, fresh, log)

        with_readers(attempt, config.workers, self.listener)
        if distributed.lead():
            hand_over(fresh, folder)

    def _score(
        self,
        config: RunConfig,
        tasks: Sequence[Task],
        model: DensePredictor,
        data: Data,
        result: Result,
        fresh: Path,
        log: ScalarLog | NoLog,
    ) -> None:
        start = time.perf_counter()
        accumulators = {task: task.accumulator() for task in tasks}
        evaluate(config, model, accumulators, data.test, self.listener)
        replicates = {task: replicates_of(a, task) for task, a in accumulators.items()}
        missing = len(data.test.bad)
        scores = {
            task.name: scores_of(
                accumulator,
                task,
                protocol_id(config, task, missing=missing),
                replicates[task],
            ).model_copy(update={"constant": data.constant[task.name]})
            for task, accumulator in accumulators.items()
        }
        result.seconds["score"] = time.perf_counter() - start
        log.write(
            result.steps,
            {
                f"test/{validated(tasks, task, name)}": scores[task.name].metrics[name]
                for task in tasks
                for name in scores[task.name].columns
            },
        )
        result.data = data.told()
        if len(tasks) > 1:
            result.tasks = scores
        else:
            for name, value in scores[tasks[0].name]:
                setattr(result, name, value)
        if not distributed.lead():
            return
        save_replicates(fresh, {task.name: values for task, values in replicates.items()})
        try:
            save_strips(fresh, config, model, tasks, data.test)
        except Exception as error:  # a picture must not cost a training
            self.listener.message(f"no pictures of {config.decoder}: {first_line(error)}")

    def time(self, group: Sequence[RunConfig], done: dict[str, Result]) -> None:
        """Time the finished runs of ``group`` in turns, unless all of them have been timed."""
        try:
            self._time(group, done)
        except (UserError, RuntimeError) as error:  # memory, a damaged checkpoint
            self.listener.message(f"not timed: {first_line(error)}")

    def _time(self, group: Sequence[RunConfig], done: dict[str, Result]) -> None:
        if not (finished := self._untimed(group, done)):
            return

        def waiting() -> None:
            self.listener.message(f"{self.results}: another process is timing: waiting for it")

        with locked(self.results, waiting):
            for config in finished:  # another process may have timed them meanwhile
                there = load(folder_of(self.results, config, run_key(config)))
                if there is not None and there.status == "finished":
                    done[there.key] = there
            finished = self._untimed(group, done)
            if finished:
                threads = finished[0].threads or self.threads
                time_in_turns(finished, done, self.results, self.min_time, threads, self.listener)

    def _untimed(self, group: Sequence[RunConfig], done: Mapping[str, Result]) -> list[RunConfig]:
        """The finished runs of ``group``, if there is one to be timed."""
        finished = [c for c in group if done[run_key(c)].status == "finished"]
        missing = any(done[run_key(c)].speed is None for c in finished)
        return finished if self.retime or missing else []
