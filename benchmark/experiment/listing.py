"""What can be named on the command line, with the facts that a reader chooses by.

Each kind imports what it lists and no more: timm and torch take seconds.
"""

import fnmatch
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from common.registry import Registry
from datasets.base import DATASETS, DenseDataset

if TYPE_CHECKING:
    from models.decoders.base import Decoder
    from tasks.base import Task


def list_decoders(pattern: str = "") -> list[str]:
    """Names for ``create_model`` and ``create_decoder``, sorted.

    pattern: a substring or a wildcard, as in ``list_decoders("smp-*")``.
    """
    from models.decoders.base import DECODERS

    return _matching(DECODERS.names(), pattern)


def _matching(names: list[str], pattern: str) -> list[str]:
    return fnmatch.filter(names, pattern if any(c in pattern for c in "*?[") else f"*{pattern}*")


def describe(kind: str, pattern: str = "") -> list[dict[str, Any]]:
    """Rows with ``name``, ``title`` and more.

    kind: backbones, decoders, tasks or datasets. pattern: a substring or a wildcard.
    """
    if kind == "backbones":
        from models.backbone_facts import backbone_facts

        return backbone_facts(pattern)
    registry, facts = _registry(kind)
    names = _matching(registry.names(), pattern)
    return [{"name": name, **facts(registry.get(name))} for name in names]


def _registry(kind: str) -> tuple[Registry[Any], Callable[[Any], dict[str, Any]]]:
    """The implementations of a kind, and the facts of one."""
    if kind == "decoders":
        from models.decoders.base import DECODERS

        return DECODERS, _decoder
    if kind == "tasks":
        from tasks.base import TASKS

        return TASKS, _task
    return DATASETS, _dataset


def _decoder(decoder: "type[Decoder]") -> dict[str, Any]:
    info = decoder.info
    return {
        "title": info.title,
        "source": info.source,
        "needs_strides": list(info.strides),
        "size_divisor": info.size_divisor,
        "exportable": info.exportable,
        "min_train_batch": info.min_train_batch,
    }


def _task(task: "type[Task]") -> dict[str, Any]:
    return {
        "title": task.title,
        "metrics": list(task.columns),
        "default_loss": task.default_loss,
        "datasets": [d for d in DATASETS.names() if task.target in DATASETS.get(d).info.tasks],
    }


def _dataset(dataset: type[DenseDataset]) -> dict[str, Any]:
    info = dataset.info
    return {
        "title": info.title,
        "tasks": {task: dict(facts) for task, facts in info.tasks.items()},
        "splits": dict(info.splits),
        "scored": info.scored,
        "licence": info.licence,
        "citation": info.citation,
        "homepage": info.homepage,
    }
