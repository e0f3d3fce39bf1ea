"""The state of a training on disk: written while it goes on, found again by the same command.

A state is what JSON can hold and tensors, nested as it likes. It lies in one safetensors file, the
JSON and a digest of everything in the file's header: no pickle, and no damage goes unnoticed.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from benchmark.experiment import distributed
from benchmark.experiment.numerics import State
from benchmark.results.layout import FILES, _remove_made
from benchmark.training.state_file import pack, unpack
from common import stopping
from common.errors import UserError
from common.files import whole_file
from common.progress import Listener, Silent

EVERY = 60.0
"""Seconds between two saved states, besides one at the end of each epoch."""
FORMAT = 2


class Position(Protocol):
    """A log that knows how long it is."""

    @property
    def position(self) -> int:
        """Bytes written so far."""


class Keeper:
    """Saves a training's state from time to time, the newest two, and finds it again.

    folder: of the training under way. identity: what must be the same for a state to be of use.
    every: seconds between two states. device: of the training. log: whose length is part of the
    state.

    state: the newest that is whole and of this training; None: it begins anew. log_position: that
    it came with. resumed: the steps at which the training was taken up, over all its processes.
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
        found = distributed.from_lead(self._load() if distributed.lead() else {})
        self.state: State | None = found.get("training")
        if self.state is None and distributed.lead():
            _remove_made(folder)  # it must not be taken for what this training makes
        if self.state is not None:
            self._spent, self.log_position = found["seconds"], found["log"]
            self.resumed = [*found["resumed"], found["step"]]
            self._bad = found["bad"]

    def watch(self, bad: Mapping[str, dict[int, str]]) -> None:
        """Keep with the state what could not be read: reasons by index, by the split's name."""
        for name, reasons in self._bad.items():
            bad[name].update(reasons)
        self._bad = dict(bad)

    @property
    def seconds(self) -> float:
        """That the training has taken, in this process and in those before."""
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
                other = "the one before is taken" if name == FILES[0] else "it is left out"
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

        Raises UserError if it cannot be written; the one before is then still there.
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
        """Save the state if ``due`` or time. Raises Stopped, with it saved, if a signal waits.

        One of several processes is enough for either.
        """
        due = due or time.monotonic() - self._saved >= self.every
        stop, due = distributed.any_of([stopping.wanted(), due], self.device)
        if stop or due:
            self.save(step, state())
        if stop:  # a signal that came since waits for the next step: nobody has agreed on it
            stopping.stop(also=True)
