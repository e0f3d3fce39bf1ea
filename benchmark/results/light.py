"""Results made small: what tables do not read is dropped, what many results share is kept once.

A result of ten epochs takes some 30 kB as objects, a light one about 6 kB.
"""

import marshal
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from benchmark.experiment.config import RunConfig
from benchmark.results.result import Result

SCORES = ("columns", "higher_is_better", "units", "counts", "constant")
SHARED = (*SCORES, "params", "macs", "data", "environment")
CONFIG = ("image_size", "crop_size", "mean", "std", "zoom", "backbone_args", "wiring",
          "task_weights")  # fmt: skip
SPEED = ("median_ms", "fps", "session", "peak_memory_mb")

Config = TypeVar("Config", bound=RunConfig)


class Lightener:
    """Makes results light; those made by one of these share their parts."""

    def __init__(self) -> None:
        self.pool: dict[Any, Any] = {}

    def __call__(self, result: Result) -> Result:
        """``result`` itself, without its history and with fewer times. It cannot be saved again."""
        own = result.__dict__  # pydantic's assignments would take a second of 100,000 results
        own["history"] = []
        own["seconds"] = _of(result.seconds, ("total",))
        if result.speed is not None:
            own["speed"] = _of(cast(dict[str, Any], result.speed), SPEED)
        for view in (result, *result.tasks.values()):
            shown, values = view.columns, view.__dict__
            # those of single classes are many, and in no table
            values["metrics"] = {
                n: x for n, x in view.metrics.items() if "/" not in n or n in shown
            }
            values["intervals"] = _of(view.intervals, shown[:1])
        self._share(own, SHARED)
        for scores in result.tasks.values():
            self._share(scores.__dict__, SCORES)
        self._share_given(result)
        self.config(result.config)
        return result

    def config(self, config: Config) -> Config:
        """``config`` itself, which shares parts with the others."""
        self._share(config.__dict__, CONFIG)
        self._share_given(config)
        return config

    def _share_given(self, model: BaseModel) -> None:
        given = frozenset(model.model_fields_set)  # some 4 kB
        object.__setattr__(
            model, "__pydantic_fields_set__", self.pool.setdefault(given, set(given))
        )

    def _share(self, values: dict[str, Any], names: tuple[str, ...]) -> None:
        for name in names:
            value = values[name]
            key = marshal.dumps(value, 2)  # without references: alike values, alike bytes
            values[name] = self.pool.setdefault(key, value)


def _of(values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}
