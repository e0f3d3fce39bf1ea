"""Facts of a trained network that an exported file and a model card hold."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmark.experiment.config import ResolvedRun
from benchmark.experiment.plan import info_of
from benchmark.results.result import Result
from tasks.base import Task

RGB = ("red", "green", "blue")
PACKAGES = ("torch", "timm", "onnx", "onnxruntime", "onnxscript")


def versions() -> dict[str, str]:
    """Versions of the installed packages among ``PACKAGES``, which write and run files."""
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def task_facts(config: ResolvedRun, task: Task, result: Result | None) -> dict[str, Any]:
    """A task's unit, classes and depth range; score and protocol, if ``result`` has them."""
    facts: dict[str, Any] = {"title": task.title, "channels": task.channels}
    facts |= {"unit": task.unit, "from_logits": task.formula}
    facts |= info_of(config).tasks[task.target]
    scored = result.by_task().get(task.name) if result is not None else None
    if scored is not None and scored.columns:
        main = scored.columns[0]
        facts["protocol"] = scored.protocol
        facts["score"] = {
            "metric": main,
            "value": scored.metrics[main],
            "interval_95": scored.intervals.get(main),
            "higher_is_better": scored.higher_is_better[main],
        }
    return facts


def network_facts(
    config: ResolvedRun, tasks: list[Task], key: str, result: Result | None
) -> dict[str, Any]:
    """Network, input and tasks as JSON values."""
    info = info_of(config)
    colours = "RGB, " if config.channels == 3 else ""
    return {
        "format": 1,
        "backbone": config.backbone,
        "decoder": config.decoder,
        "dataset": config.dataset,
        "key": key,
        "input": {
            "layout": f"[batch, {config.channels}, height, width], {colours}float32 in 0…1",
            "channels": config.channels,
            "channel_names": list(info.channel_names) or (list(RGB) if info.channels == 3 else []),
            "mean": config.mean,
            "std": config.std,
            "image_size": list(config.image_size),
        },
        "tasks": {task.name: task_facts(config, task, result) for task in tasks},
    }


def export_facts(
    facts: Mapping[str, Any], static: tuple[int, int] | None, smallest: int, postprocessing: bool
) -> dict[str, Any]:
    """``network_facts`` and those of one file: input sizes, output, package versions."""
    return {
        **facts,
        "input": {
            **facts["input"],
            "normalisation": "in the network",
            "dynamic": ["batch"] if static else ["batch", "height", "width"],
            "size": list(static) if static else None,
            "smallest_side": None if static else smallest,
        },
        "output": "predictions [batch, height, width]"
        if postprocessing
        else "logits [batch, channels, height, width]",
        "versions": versions(),
    }
