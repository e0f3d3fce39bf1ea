"""What can be named on the command line, with the facts that a reader chooses by."""

import fnmatch
from typing import Any

from datasets.base import DATASETS
from models.backbones import backbone_names
from models.decoders.base import DECODERS
from tasks.base import TASKS


def list_decoders(pattern: str = "") -> list[str]:
    """Names for ``create_model`` and ``create_decoder``, sorted.

    pattern: a substring or a wildcard, as in ``list_decoders("smp-*")``.
    """
    return _matching(DECODERS.names(), pattern)


def _matching(names: list[str], pattern: str) -> list[str]:
    return fnmatch.filter(names, pattern if any(c in pattern for c in "*?[") else f"*{pattern}*")


def describe(kind: str, pattern: str = "") -> list[dict[str, Any]]:
    """Rows with ``name``, ``title`` and more.

    kind: backbones, decoders, tasks or datasets. pattern: a substring or a wildcard.
    """
    if kind == "backbones":
        return [{"name": name} for name in backbone_names(pattern)]
    describers = {"decoders": _decoder, "tasks": _task, "datasets": _dataset}
    registries = {"decoders": DECODERS, "tasks": TASKS, "datasets": DATASETS}
    names = _matching(registries[kind].names(), pattern)  # type: ignore[attr-defined]
    return [{"name": name, **describers[kind](name)} for name in names]


def _decoder(name: str) -> dict[str, Any]:
    info = DECODERS.get(name).info
    return {
        "title": info.title,
        "source": info.source,
        "needs_strides": list(info.strides),
        "size_divisor": info.size_divisor,
        "exportable": info.exportable,
        "min_train_batch": info.min_train_batch,
    }


def _task(name: str) -> dict[str, Any]:
    task = TASKS.get(name)
    return {
        "title": task.title,
        "metrics": list(task.columns),
        "default_loss": task.default_loss,
        "datasets": [d for d in DATASETS.names() if task.target in DATASETS.get(d).info.tasks],
    }


def _dataset(name: str) -> dict[str, Any]:
    info = DATASETS.get(name).info
    return {
        "title": info.title,
        "tasks": {task: dict(facts) for task, facts in info.tasks.items()},
        "splits": dict(info.splits),
        "scored": info.scored,
        "licence": info.licence,
        "citation": info.citation,
        "homepage": info.homepage,
    }
