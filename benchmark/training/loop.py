"""The training loop of every network, in runs and in searches for a wiring."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from itertools import islice, starmap
from typing import ClassVar, Generic, TypeVar

from torch import Tensor

from benchmark.experiment.numerics import State
from benchmark.training.batches import Batches, make_augment
from benchmark.training.keeper import Keeper
from benchmark.training.learner import Learner
from benchmark.training.optimizer import rate
from common import stopping
from common.progress import Listener

Log = Callable[[int, Mapping[str, float]], None]
Outcome = TypeVar("Outcome")
LOG_EVERY = 10
"""Steps between two rows of ``scalars`` in the log."""


class Training(ABC, Generic[Outcome]):
    """``epochs`` of ``epoch_steps`` steps each; subclasses define the hooks that ``fit`` calls.

    title: for the listener. step: number of finished steps. epoch: the current one, from 1.
    """

    logs_last_step: ClassVar[bool] = False
    """Whether the last step always logs ``scalars``; for trainings without epoch rows."""

    def __init__(self, title: str, learner: Learner, epochs: int, epoch_steps: int) -> None:
        self.title, self.learner = title, learner
        self.epochs, self.epoch_steps, self.steps = epochs, epoch_steps, epochs * epoch_steps
        self.step, self.epoch = 0, 1

    def fit(self, log: Log, listener: Listener, keeper: Keeper | None = None) -> Outcome:
        """Train to the end, from ``keeper``'s state if it has one.

        log: called with the number of finished steps and a row: ``scalars`` every few steps, and
        each epoch's row. keeper: saves the state at intervals. Raises NotFinite if the loss is not
        finite, and Stopped, with the state saved, after a signal.
        """
        listener.begin(self.title, self.steps)
        if keeper is not None and keeper.state is not None:
            self.learner.restore(keeper.state["learner"])
            listener.message(self.restore(keeper.state))
            for _ in range(self.step):
                listener.step()
        augment, batches = make_augment(self.learner.config), _endless(self.learner.batches)
        with stopping.deferred():  # a signal waits until the state is saved
            while self.epoch <= self.epochs:
                self.learner.model.train()
                # none if the state was saved between an epoch's last step and its end
                rest = islice(batches, self.epoch * self.epoch_steps - self.step)
                for images, targets in starmap(augment, rest):
                    listener.step(self._step(images, targets, log))
                    if keeper is not None:
                        keeper.after_step(self.step, self.whole_state)
                row = self.end_epoch(keeper)
                if row:
                    log(self.step, row)
                    listener.detail(" ".join(f"{name} {value:.4g}" for name, value in row.items()))
                self.epoch += 1
                if keeper is not None:
                    keeper.after_step(self.step, self.whole_state, due=True)
        return self.finish()

    def _step(self, images: Tensor, targets: Mapping[str, Tensor], log: Log) -> str:
        self.before_step()
        self.learner.set_rate(rate(self.learner.config, self.step, self.steps))
        loss, parts = self.learner.step(images, targets, self.losses_of, self.step_name())
        self.step += 1
        note = self.after_step(loss, parts)
        if self.step % LOG_EVERY == 0 or (self.logs_last_step and self.step == self.steps):
            log(self.step, self.scalars())
        return note

    def whole_state(self) -> State:
        """State for a keeper: the learner's and this training's."""
        return {"learner": self.learner.state(), **self.state()}

    @abstractmethod
    def losses_of(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the network's ``outputs``, and its parts by name."""

    @abstractmethod
    def step_name(self) -> str:
        """Name of the next step in errors."""

    def before_step(self) -> None:
        """Prepare the next step."""

    @abstractmethod
    def after_step(self, loss: float, parts: Mapping[str, float]) -> str:
        """Record the finished step; returns a short note for the listener."""

    @abstractmethod
    def scalars(self) -> Mapping[str, float]:
        """The log's row for the steps since the last one."""

    def end_epoch(self, keeper: Keeper | None) -> Mapping[str, float]:  # noqa: ARG002
        """Validate if due; returns the epoch's row of the log, empty for none.

        A training resumed at an epoch's end repeats this. Raises Stopped, with the state saved.
        """
        return {}

    @abstractmethod
    def finish(self) -> Outcome:
        """The result of ``fit``. Called after the last epoch, also if nothing was left to train."""

    @abstractmethod
    def state(self) -> State:
        """State that later steps depend on, besides the learner's."""

    @abstractmethod
    def restore(self, state: State) -> str:
        """Continue from a ``state``; returns a line for the listener with the position."""


def _endless(batches: Batches) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    while True:
        yield from batches
