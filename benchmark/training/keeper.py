"""Saves the state of a training to disk, so that the same command resumes it.

A state is nested JSON values and tensors. It is one safetensors file; its header holds the JSON and
a digest of everything: no pickle, and damage is detected.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from benchmark.experiment import distributed
from benchmark.experiment.numerics import State
from benchmark.results.layout import FILES, remove_outcome
from benchmark.training.state_file import pack, unpack
from common import stopping
from common.errors import UserError
from common.files import whole_file
from common.progress import Listener, Silent

EVERY = 60.0
"""Seconds between two saved states; each epoch's end saves one, too."""
FORMAT = 2


class Position(Protocol):
    """A log that knows its length."""

    @property
    def position(self) -> int:
        """Bytes written so far."""


class Keeper:
    """Saves a training's state at intervals, keeps the newest two, and loads the newest.

    folder: of the unfinished training. identity: facts that must match for a state to be used.
    every: seconds between two states. device: of the training. log: its length is saved, too.

    state: the newest undamaged one of this training; None: begin anew. log_position: the log's
    length in that state. resumed: the steps at which the training was resumed so far.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        every: float = EVERY,
        listener: Listener | None = None,
        device: str = "cpu",
    ) -> None:
        self.folder, self.every, self.listener = folder, every, listener or Silent()
        self.identity = json.loads(json.dumps({"format": FORMAT, **identity}))
        self.device = torch.device(device)
        self.log: Position | None = None
        self._bad: dict[str, dict[int, str]] = {}
        self.resumed: list[int] = []
        self.log_position = 0
        self._damaged = False
        self._spent = 0.0
        self._start = self._saved = time.monotonic()
        saved = distributed.from_lead(self._load() if distributed.lead() else {})
        self.state: State | None = saved.get("training")
        if self.state is None and distributed.lead():
            remove_outcome(folder)  # files of another training must not look like this one's
        if self.state is not None:
            self._spent, self.log_position = saved["seconds"], saved["log"]
            self.resumed = [*saved["resumed"], saved["step"]]
            self._bad = saved["bad"]

    def watch(self, bad: Mapping[str, dict[int, str]]) -> None:
        """Save ``bad`` with the state: why samples could not be read, by split and index."""
        for name, reasons in self._bad.items():
            bad[name].update(reasons)
        self._bad = dict(bad)

    @property
    def seconds(self) -> float:
        """Seconds of training so far, in this process and in earlier ones."""
        return self._spent + time.monotonic() - self._start

    def _load(self) -> State:
        for name in FILES:
            path = self.folder / name
            if not path.is_file():
                continue
            try:
                state = unpack(path)
            except UserError as error:
                self._damaged |= name == FILES[0]
                other = "the one before is used" if name == FILES[0] else "it is left out"
                self.listener.message(f"{error}: {other}")
                continue
            if state.get("identity") == self.identity:
                return state
            self.listener.message(
                f"{path}: of another version, other data or options: it is left out"
            )
        return {}

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the ``state`` after ``step`` steps; the one before stays beside it.

        Raises UserError if it cannot be written; earlier states then stay.
        """
        bad: dict[str, dict[int, str]] = {name: {} for name in self._bad}
        for theirs in distributed.gathered(self._bad):
            for name, reasons in theirs.items():
                bad[name].update(reasons)
        content = {
            "identity": self.identity,
            "step": step,
            "seconds": self.seconds,
            "log": self.log.position if self.log is not None else 0,
            "resumed": self.resumed,
            "bad": bad,
            "training": state,
        }
        self._saved = time.monotonic()
        if not distributed.lead():
            return
        newest, before = (self.folder / name for name in FILES)
        with whole_file(newest) as path:
            path.write_bytes(pack(content))
            if newest.exists() and not self._damaged:
                newest.replace(before)
        self._damaged = False

    def after_step(
        self, step: int, state: Callable[[], Mapping[str, Any]], due: bool = False
    ) -> None:
        """Save the state if ``due`` or ``every`` seconds have passed.

        Raises Stopped, with the state saved, if a signal came. Of several processes, all save or
        stop as soon as one must.
        """
        due = due or time.monotonic() - self._saved >= self.every
        stop, due = distributed.any_of([stopping.pending(), due], self.device)
        if stop or due:
            self.save(step, state())
        if stop:  # a later signal waits for the next step, when all processes agree on it
            stopping.stop(also=True)
