"""Scalars of a training, as lines of JSON and, if asked for, for TensorBoard."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from common.errors import UsageError
from common.files import cannot_write

FILE = "metrics.jsonl"


def check_tensorboard() -> None:
    """Raises UsageError unless the package that writes TensorBoard's files is there."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise UsageError("--tensorboard: needs a package: pip install -e .[tensorboard]") from None


class ScalarLog:
    """Writes each row at once, so that a run that is killed has left all it told."""

    def __init__(self, folder: Path, tensorboard: bool = False) -> None:
        """Begin ``metrics.jsonl`` in ``folder`` anew, and TensorBoard's own file beside it."""
        self.path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._file = self.path.open("w", encoding="utf-8")
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """``scalars`` as they are after ``step`` training steps."""
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if self._writer is not None:
            self._writer.close()
