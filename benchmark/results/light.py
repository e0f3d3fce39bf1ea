"""Light copies of results: only what tables read, with equal parts shared between copies.

A result of ten epochs takes some 30 kB as objects, a light copy about 5 kB.
"""

import marshal
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from benchmark.results.result import PairScores, Result, TaskScores

SCORES = ("columns", "higher_is_better", "units", "counts", "constant")
SHARED = (("params", "macs", "deployed"), ("data", "environment", "macs_exclude"))
CONFIG = ("image_size", "crop_size", "mean", "std", "zoom", "rotate", "colour", "backbone_args",
          "wiring", "lr", "decoder_lr_factor", "momentum", "weight_decay", "warmup", "clip_grad",
          "task_weights")  # fmt: skip
SPEED = ("median_ms", "fps", "session", "peak_memory_mb", "neck_ms", "disturbed")
Model = TypeVar("Model", bound=BaseModel)
Value = TypeVar("Value")


class Lightener:
    """Makes light copies of results; the copies of one ``Lightener`` share their equal parts."""

    def __init__(self) -> None:
        self.pool: dict[bytes, dict[str, Any]] = {}
        self.history: list[dict[str, float]] = []

    def __call__(self, result: Result) -> Result:
        """A copy of ``result`` without history and most times. Never save it."""
        changes = {**self._scores(result), "config": self.config(result.config)}
        for names in SHARED:
            changes |= self._shared(result, names)
        changes["history"] = self.history
        changes["seconds"] = _of(result.seconds, ("total",))
        changes["speed"] = None if result.speed is None else _of(result.speed, SPEED)
        if result.pairs:
            changes["pairs"] = [self._pair(pair) for pair in result.pairs]
        if result.tasks:
            changes["tasks"] = {n: _light(s, self._scores(s)) for n, s in result.tasks.items()}
        return _light(result, changes)

    def _pair(self, pair: PairScores) -> PairScores:
        tasks = {name: _light(scores, self._scores(scores)) for name, scores in pair.tasks.items()}
        speed = None if pair.speed is None else _of(pair.speed, SPEED)
        return _light(pair, {"tasks": tasks, "costs": {}, "speed": speed})

    def config(self, config: Model) -> Model:
        """A copy of ``config`` that shares parts with other copies."""
        return _light(config, self._shared(config, CONFIG))

    def _scores(self, scores: TaskScores) -> dict[str, Any]:
        shown = scores.columns
        return {
            **self._shared(scores, SCORES),
            # metrics of single classes are many, and no table shows them
            "metrics": {n: x for n, x in scores.metrics.items() if "/" not in n or n in shown},
            "intervals": _of(scores.intervals, shown[:1]),
        }

    def _shared(self, model: BaseModel, names: tuple[str, ...]) -> dict[str, Any]:
        """Values of the fields ``names``; models with equal values share one dict."""
        values = {name: getattr(model, name) for name in names}
        key = marshal.dumps(values, 2)  # version 2 has no references: equal values give equal bytes
        return self.pool.setdefault(key, values)


def _light(model: Model, changes: Mapping[str, Any]) -> Model:
    light = model.model_copy(update=changes)
    light.model_fields_set.clear()  # saves some 2 kB
    return light


def _of(values: Mapping[str, Value], names: Iterable[str]) -> dict[str, Value]:
    return {name: values[name] for name in names if name in values}
