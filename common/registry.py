"""Implementations by name, which the modules of a registry's packages enter."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from common.errors import UsageError
from common.limits import printable

T = TypeVar("T")


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The ``count`` of ``names`` that look most like ``name``, best first."""
    names = list(names)
    lowered = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), lowered, n=count, cutoff=0.5)
    return [lowered[candidate] for candidate in close]


def unknown_name(kind: str, name: str, names: Iterable[str], listing: str) -> UsageError:
    """The error for a ``name`` that is none of ``names``: near matches, or where to list them."""
    close = nearest(name, names)
    hint = f"did you mean {' or '.join(close)}?" if close else f"see {listing}"
    return UsageError(f"unknown {kind} '{printable(name, 80)}': {hint}")


def import_all(package: str) -> None:
    """Import the modules of ``package`` whose names do not begin with ``_``."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package}.{module.name}")


class Registry(Generic[T]):
    """Implementations by name. The modules of ``packages`` are imported on the first look-up.

    To add an implementation, one of these modules calls ``@REGISTRY.register("name")``; nothing
    else is edited. listing: where to see all names, for errors; default: the command.
    """

    def __init__(self, kind: str, *packages: str, listing: str = "") -> None:
        self.kind = kind
        self.listing = listing or f"python cli.py list {kind.replace(' ', '')}s"
        self.packages = packages
        self._entries: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers its argument as ``name``.

        Raises ValueError if something else has the name.
        """

        def enter(entry: T) -> T:
            if self._entries.setdefault(name, entry) is not entry:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            return entry

        return enter

    def _load(self) -> None:
        if not self._loaded:
            for package in self.packages:
                import_all(package)
            self._loaded = True

    def names(self) -> list[str]:
        """All names, sorted."""
        self._load()
        return sorted(self._entries)

    def get(self, name: str) -> T:
        """The implementation ``name``. Raises UsageError that lists the close matches."""
        self._load()
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries, self.listing)
        return self._entries[name]
