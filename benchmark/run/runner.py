"""One run: trained, scored and written; and the runs of a comparison, timed in turns."""

import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmark.experiment import distributed
from benchmark.experiment.config import ResolvedRun
from benchmark.experiment.environment import environment
from benchmark.experiment.network import build_model, check_device, check_sync
from benchmark.experiment.plan import PlannedRun, command_of, make_tasks
from benchmark.experiment.readers import with_readers
from benchmark.results.checkpoint import load_checkpoint, save_checkpoint
from benchmark.results.layout import FAILED, FILE, TRACEBACK, clear, clear_finished, hand_over
from benchmark.results.layout import FOLDER as TRAINING
from benchmark.results.replicates import save_replicates
from benchmark.results.result import Result
from benchmark.results.runtimes import Pair
from benchmark.results.samples import save_strips
from benchmark.results.store import is_finished, load, save
from benchmark.run.data import Data, shared_data
from benchmark.run.deployment import score_all
from benchmark.run.timing import time_in_turns
from benchmark.scoring.evaluate import evaluate, metrics_of, protocol_id, replicates_of, scores_of
from benchmark.speed.count import NOT_COUNTED, count_deployed, count_macs, count_parameters
from benchmark.training.batches import check_batch, check_norms
from benchmark.training.keeper import EVERY, Keeper
from benchmark.training.learner import NotFinite
from benchmark.training.network_training import NetworkTraining, validation_key
from benchmark.training.scalars import NoLog, ScalarLog, scalar_log
from common import stopping
from common.errors import DataError, UsageError, UserError, first_line, reason
from common.files import locked, write_atomic
from common.progress import Listener, Silent
from models.predictor import DensePredictor
from tasks.base import Task


@dataclass
class Runner:
    """Does runs one at a time, and completes those of a comparison: scored as they ship, timed.

    every: seconds between two saved states of a training. timed: whether finished runs are timed,
    retime: even those that have been. pairs: runtimes and precisions to score and time them in too;
    calibrate: as for ``score_all``.
    tensorboard: write its files beside ``metrics.jsonl``. threads: of runs that ask for none.
    began: results that are newer come from another process. noted: lines about weights so far.
    """

    results: Path
    listener: Listener = field(default_factory=Silent)
    min_time: float = 2.0
    retime: bool = False
    timed: bool = True
    tensorboard: bool = False
    every: float = EVERY
    threads: int = field(default_factory=torch.get_num_threads)
    began: float = field(default_factory=time.time)
    noted: set[str] = field(default_factory=set)
    pairs: Sequence[Pair] = ()
    calibrate: int = 64

    @staticmethod
    def check(config: ResolvedRun) -> None:
        """Raises UserError for a run that its device, its batch or its network make impossible."""
        check_device(config.device)
        distributed.check_batch(config.batch_size)
        check_sync(config)
        model = build_model(config, make_tasks(config))
        check_batch(config, model.decoder.info, config.limit)
        check_norms(config, model, config.limit)

    def one(self, run: PlannedRun, data: dict[tuple[Any, ...], Data]) -> Result:
        """Train and score one run, and write its result, failed or finished.

        data: what earlier runs have opened, by ``shared_data``. Raises what opening the data
        raises, and DataError for data that prove unusable later.
        """
        config = run.config
        torch.set_num_threads(config.threads or self.threads)
        tasks = make_tasks(config)
        shared = shared_data(config)
        result = Result(key=run.key, status="failed", config=config, command=command_of(config))
        if shared not in data:
            start = time.perf_counter()
            data[shared] = Data.open(config, tasks, self.listener)
            result.seconds["data"] = time.perf_counter() - start
        with distributed.alone(run.folder, self.listener):
            if (other := self._finished_meanwhile(run.folder)) is not None:
                self.listener.message(f"{run.folder}: finished by another process, not run again")
                return other
            return self._one(run, tasks, data[shared], result)

    def _finished_meanwhile(self, folder: Path) -> Result | None:
        """The finished result that another process has written since this one planned its runs."""
        file = folder / FILE
        result = None
        if file.is_file() and file.stat().st_mtime >= self.began:
            result = load(folder)
        result = distributed.from_lead(result)
        return result if result is not None and result.status == "finished" else None

    def _one(self, run: PlannedRun, tasks: Sequence[Task], data: Data, result: Result) -> Result:
        if distributed.lead() and is_finished(run.folder):
            clear_finished(run.folder / FILE)
        begin = time.perf_counter()
        defect: Exception | None = None  # not the user's mistake, nor a diverged loss
        try:
            result.environment = environment(run.config.device)
            self._train_and_score(run, tasks, data, result)
            result.status = "finished"
        except UserError as error:
            result.error = first_line(error)
            if isinstance(error, DataError):
                raise DataError(result.error) from error  # the other runs would meet it too
            if not isinstance(error, UsageError | NotFinite):
                defect = error
        except Exception as error:  # a defect: the others go on
            result.error, defect = reason(error), error
            if distributed.lead():
                write_atomic(run.folder / TRACEBACK, traceback.format_exc())
        several = distributed.size() > 1
        if defect is not None and several:
            result.error = f"{result.error} (another of its processes may have said why)"
        spent = time.perf_counter() - begin
        result.seconds["total"] = spent + result.seconds.pop("before", 0.0)
        if distributed.lead():
            self.record(run.folder, result)
            if result.status == "finished":
                clear(run.folder / TRAINING)
        if defect is not None and several:
            raise defect  # the others may wait for this process: torchrun ends them
        if not several:
            stopping.stop()  # a failure may have come before a signal was heeded
        return result

    def fail(self, run: PlannedRun, error: Exception) -> Result:
        """Write that a run failed before it began, and why."""
        result = Result(
            key=run.key, status="failed", config=run.config, command=command_of(run.config),
            error=reason(error),
        )  # fmt: skip
        if distributed.lead():
            if not isinstance(error, UserError):
                write_atomic(run.folder / TRACEBACK, "".join(traceback.format_exception(error)))
            self.record(run.folder, result)
        return result

    @staticmethod
    def record(folder: Path, result: Result) -> None:
        """Write a result; a failed one beside an earlier finished one, which stays."""
        if result.error is None:
            for name in (FAILED, TRACEBACK):
                (folder / name).unlink(missing_ok=True)
        elif is_finished(folder):
            write_atomic(folder / FAILED, result.model_dump_json(indent=1) + "\n")
            return
        save(folder, result)

    @staticmethod
    def _measure_size(config: ResolvedRun, model: DensePredictor, result: Result) -> None:
        result.params = count_parameters(model)
        result.macs = count_macs(model, config.image_size)
        result.macs_exclude = NOT_COUNTED
        result.deployed = count_deployed(model, config.image_size)

    def _train_and_score(
        self, run: PlannedRun, tasks: Sequence[Task], data: Data, result: Result
    ) -> None:
        config = run.config
        # an earlier result keeps its weights until this run is scored
        fresh = run.folder / TRAINING
        identity = {"key": result.key, "data": data.facts, "torch": torch.__version__}

        def checkpoint(which: str, network: nn.Module, row: dict[str, Any]) -> None:
            if distributed.lead():
                save_checkpoint(fresh, which, network, {"key": result.key, "epoch": row})

        def validate(network: nn.Module) -> dict[str, float]:
            accumulators = {task: task.validator() for task in tasks}
            evaluate(config, network, accumulators, data.val)
            return {
                validation_key(tasks, task, name): value
                for task, accumulator in accumulators.items()
                for name, value in metrics_of(accumulator).items()
                if "/" not in name
            }

        def attempt() -> None:
            model = build_model(config, tasks)
            self._measure_size(config, model, result)
            check_batch(config, model.decoder.info, len(data.train))
            check_norms(config, model, len(data.train))
            keeper = Keeper(fresh, identity, self.every, self.listener, config.device)
            keeper.watch({"train": data.train.bad, "val": data.val.bad})
            result.seconds.setdefault("before", keeper.seconds)
            if keeper.state is None:
                self._note(model.backbone.note)
            with scalar_log(fresh, self.tensorboard, keeper.log_position) as log:
                keeper.log = log
                training = NetworkTraining(config, model, tasks, data.train, validate, checkpoint)
                history = training.fit(log.write, self.listener, keeper)
                result.seconds["train"] = keeper.seconds
                result.history, result.resumed = history.epochs, keeper.resumed
                result.best_epoch, result.steps = history.best_epoch, history.steps
                if history.at_once < config.batch_size:
                    result.at_once = history.at_once
                if config.score == "best":
                    if distributed.lead():
                        load_checkpoint(fresh, "best", model)
                    distributed.copy_from_lead(model)
                self._score(config, tasks, model, data, result, fresh, log)

        with_readers(attempt, config.workers, self.listener)
        if distributed.lead():
            hand_over(fresh, run.folder)

    def _note(self, text: str) -> None:
        """Say where a network's weights come from, once for all runs that begin with them."""
        if text and text not in self.noted:
            self.noted.add(text)
            self.listener.message(text)

    def _score(
        self,
        config: ResolvedRun,
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
        split = None if config.split == "test" else data.facts["test"]["from"].replace(" ", "-")
        scores = {
            task.name: scores_of(
                accumulator,
                task,
                protocol_id(config, task, split, missing=missing),
                replicates[task],
            ).model_copy(update={"constant": data.constant[task.name]})
            for task, accumulator in accumulators.items()
        }
        result.seconds["score"] = time.perf_counter() - start
        log.write(
            result.steps,
            {
                f"{config.split}/{validation_key(tasks, task, name)}": score.metrics[name]
                for task in tasks
                for score in [scores[task.name]]
                for name in score.columns
            },
        )
        result.data = data.split_facts()
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

    def complete(self, group: Sequence[PlannedRun], done: dict[str, Result]) -> None:
        """Score the finished runs of ``group`` in ``pairs``, and time all in turns.

        What has been scored or timed is not again. done: the results, by key, which it completes.
        """
        if self.pairs:
            score_all(group, done, self.pairs, self.calibrate, self.listener)
        try:
            self._time(group, done)
        except Exception as error:  # memory, a damaged checkpoint, a runtime's own kind
            self.listener.message(f"not timed: {first_line(error)}")

    def _time(self, group: Sequence[PlannedRun], done: dict[str, Result]) -> None:
        if not (finished := self._untimed(group, done)):
            return

        def waiting() -> None:
            self.listener.message(f"{self.results}: another process is timing: waiting for it")

        with locked(self.results, waiting):
            for run in finished:  # another process may have timed them meanwhile
                there = load(run.folder)
                if there is not None and there.status == "finished":
                    done[run.key] = there
            finished = self._untimed(group, done)
            if finished:
                threads = finished[0].config.threads or self.threads
                time_in_turns(finished, done, self.min_time, threads, self.listener)

    def _untimed(self, group: Sequence[PlannedRun], done: Mapping[str, Result]) -> list[PlannedRun]:
        """The finished runs of ``group``, if there is one to be timed."""
        if not self.timed:
            return []
        finished = [run for run in group if done[run.key].status == "finished"]
        missing = any(self._timing_lacks(done[run.key]) for run in finished)
        return finished if self.retime or missing else []

    def _timing_lacks(self, result: Result) -> bool:
        pairs = [pair for pair in result.pairs if pair.pair in self.pairs and pair.reason is None]
        tried = all(pair.speed is not None or pair.untimed is not None for pair in pairs)
        return result.speed is None or not tried

    def lacks(self, result: Result) -> bool:
        """Whether ``complete`` has something to do for ``result``."""
        scored = {pair.pair for pair in result.pairs if pair.reason is None}
        todo = self.retime or self._timing_lacks(result) or not scored.issuperset(self.pairs)
        return result.status == "finished" and todo
