"""Results made small: what tables do not read is dropped, what many results share is kept once.

A result of ten epochs takes some 30 kB as objects, a light one about 6 kB.
"""

import marshal
from typing import Any

from benchmark.results import Result

SCORES = ("columns", "higher_is_better", "units", "counts", "constant")
SHARED = (*SCORES, "params", "macs", "data", "environment")
SPEED = ("median_ms", "fps", "session", "peak_memory_mb")


class Lightener:
    """Makes results light; those made by one of these share their parts."""

    def __init__(self) -> None:
        self.pool: dict[Any, Any] = {}

    def __call__(self, result: Result) -> Result:
        """``result`` itself, without its history and with fewer times. It cannot be saved again."""
        result.history = []
        result.seconds = {n: result.seconds[n] for n in ("total",) if n in result.seconds}
        if result.speed is not None:
            result.speed = {n: result.speed[n] for n in SPEED if n in result.speed}
        for view in (result, *result.tasks.values()):
            shown = view.columns
            # those of single classes are many, and in no table
            view.metrics = {n: x for n, x in view.metrics.items() if "/" not in n or n in shown}
            view.intervals = {n: view.intervals[n] for n in shown[:1] if n in view.intervals}
        self._share(result.__dict__, SHARED)
        for scores in result.tasks.values():
            self._share(scores.__dict__, SCORES)
        config = result.config
        values = config.__dict__
        for name, value in values.items():
            if value is None or isinstance(value, bool):
                continue
            if isinstance(value, dict):
                self._share(values, (name,))
            else:  # of one field, so that 1 and 1.0 stay apart
                values[name] = self.pool.setdefault((name, value), value)
        for model in (result, config):
            given = frozenset(model.model_fields_set)
            object.__setattr__(
                model, "__pydantic_fields_set__", self.pool.setdefault(given, set(given))
            )
        return result

    def _share(self, values: dict[str, Any], names: tuple[str, ...]) -> None:
        for name in names:
            value = values[name]
            key = marshal.dumps(value, 2)  # without references: alike values, alike bytes
            values[name] = self.pool.setdefault(key, value)
