"""Objects that live as long as a ``with`` block."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closing(ABC):
    """A block calls ``open`` where it begins and ``close`` where it ends, also by an error."""

    def open(self) -> None:
        """Make ready. If it raises, ``close`` is not called."""
        return

    @abstractmethod
    def close(self) -> None:
        """Release what the object holds."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
