"""Log the scalars of a training as lines of JSON, and optionally for TensorBoard."""

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
    """Raises UsageError unless the package that writes TensorBoard's files is installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise UsageError("--tensorboard: needs a package: pip install -e .[tensorboard]") from None


class ScalarLog(Closing):
    """Writes each row at once, so that a killed run leaves all its rows."""

    def __init__(self, folder: Path, tensorboard: bool = False, position: int = 0) -> None:
        """Begin ``metrics.jsonl`` in ``folder``, and TensorBoard's own file beside it.

        position: bytes of an earlier file to keep; rows after them are later than the saved state.
        """
        self.path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._file = self.path.open("ab")
            self._file.truncate(min(position, self.position))
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
        """Write the ``scalars`` after ``step`` training steps."""
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
    """The log of a process that leaves writing to the lead."""

    position = 0

    def write(self, step: int, scalars: Mapping[str, float]) -> None: ...


@contextlib.contextmanager
def scalar_log(folder: Path, tensorboard: bool, position: int) -> Iterator[ScalarLog | NoLog]:
    """The log of a training, written by the lead of its processes."""
    if not distributed.lead():
        yield NoLog()
        return
    with ScalarLog(folder, tensorboard, position) as log:
        yield log
