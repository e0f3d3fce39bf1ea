"""Scalars of a training, as lines of JSON and, if asked for, for TensorBoard."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmark.experiment import distributed
from common.closing import Closing
from common.errors import UsageError
from common.files import cannot_write

FILE = "metrics.jsonl"


def check_tensorboard() -> None:
    """Raises UsageError unless the package that writes TensorBoard's files is there."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise UsageError("--tensorboard: needs a package: pip install -e .[tensorboard]") from None


class ScalarLog(Closing):
    """Writes each row at once, so that a run that is killed has left all it told."""

    def __init__(self, folder: Path, tensorboard: bool = False, kept: int = 0) -> None:
        """Begin ``metrics.jsonl`` in ``folder``, and TensorBoard's own file beside it.

        kept: bytes of an earlier file to go on from; what follows them was never saved.
        """
        self.path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._file = self.path.open("ab")
            self._file.truncate(min(kept, self.position))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder))
            for line in self.path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self._show(row.pop("step"), row)

    @property
    def position(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """``scalars`` as they are after ``step`` training steps."""
        try:
            self._file.write(json.dumps({"step": step, **scalars}).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.path, error) from error
        if self._writer is not None:
            self._show(step, scalars)

    def _show(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        if self._writer is not None:
            self._writer.close()


class NoLog:
    """Of a process that leaves it to another one to write."""

    position = 0

    def write(self, step: int, scalars: Mapping[str, float]) -> None: ...


@contextlib.contextmanager
def scalar_log(folder: Path, tensorboard: bool, kept: int) -> Iterator[ScalarLog | NoLog]:
    """The log of a training, written by the lead of its processes."""
    if not distributed.lead():
        yield NoLog()
        return
    with ScalarLog(folder, tensorboard, kept) as log:
        yield log
