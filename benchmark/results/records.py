"""Results as a list in Python, and as flat records for a table."""

import json
import warnings
from pathlib import Path
from typing import Any

from benchmark.results.layout import FILE
from benchmark.results.result import Result
from benchmark.results.store import collect
from common.errors import UsageError
from models.decoder_name import DecoderName

IDENTITY = ("task", "dataset", "backbone", "decoder", "seed")


class Results(list[Result]):
    """Results of runs, with ``to_records`` for a table.

    To select some: ``Results(r for r in rows if r.config.dataset == "camvid")``.
    """

    def to_records(self) -> list[dict[str, Any]]:
        """A flat record for each run and task, as ``pandas.DataFrame`` takes them.

        label: the decoder's name for people. metric: the one that ranks; score: its value;
        interval_low, interval_high: its 95 % interval over the choice of test images. Every metric
        stands under its own name as well. params_PART, params and macs: counts, MACs of one image;
        of a network with a neck, its part is in macs_neck and neck_ms too.
        latency_ms and fps: of one image; memory_mb: of its forward, above the weights; compare
        them within one ``session`` of timing. disturbed: the share of the processors that other
        work took meanwhile. seconds: of the run. config.NAME: its other options. A value that a run
        lacks, because it failed or was not timed, is None or missing.
        """
        return [_record(task, view) for run in self for task, view in run.by_task().items()]


def load_results(path: str | Path) -> Results:
    """The results under ``path``, in order of their folders' names.

    path: a folder of runs (``--results``), or one run's. Leaves out, with a warning, each result
    that cannot be read or is a duplicate. Raises UsageError where there is no such folder.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UsageError(f"{path}: no such folder: name one that holds runs, or a run's")
    if (folder / FILE).is_file():  # collect it as the only folder of its parent
        folder = folder.resolve()
        results, problems = collect(folder.parent, [folder.name])
    else:
        results, problems = collect(folder)
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return Results(results)


def _record(task: str, result: Result) -> dict[str, Any]:
    """The record of one task; values are text, numbers, flags, None or tuples of these."""
    config, environment, speed = result.config, result.environment, result.speed or {}
    metric = next(iter(result.columns), None)
    low, high = result.intervals.get(metric or "", (None, None))
    options = config.model_dump(exclude={*IDENTITY, "wiring"})
    return {
        **{name: getattr(config, name) for name in IDENTITY},
        "task": task,
        "label": DecoderName.parse(config.decoder).label,
        "status": result.status,
        "error": result.error,
        "protocol": result.protocol,
        "metric": metric,
        "score": result.metrics.get(metric or ""),
        "interval_low": low,
        "interval_high": high,
        **result.metrics,
        **{f"params_{part}": count for part, count in result.params.items()},
        "params": sum(result.params.values()) or None,
        "macs": sum(result.macs.values()) or None,
        **{f"deployed_{count}": result.deployed.get(count) for count in ("params", "macs")},
        **_neck(result),
        "latency_ms": speed.get("median_ms"),
        "fps": speed.get("fps"),
        "memory_mb": speed.get("peak_memory_mb"),
        "session": speed.get("session"),
        "disturbed": speed.get("disturbed"),
        "seconds": result.seconds.get("total"),
        "device": environment.get("device"),
        "threads": environment.get("threads"),
        "commit": environment.get("commit"),
        "key": result.key,
        "folder": None if result.folder is None else str(result.folder),
        "command": result.command,
        **{f"config.{name}": _flat(value) for name, value in options.items()},
    }


def _neck(result: Result) -> dict[str, Any]:
    """MACs and time of the neck; empty for a network without one."""
    if "neck" not in result.params:
        return {}
    return {"macs_neck": result.macs.get("neck"), "neck_ms": (result.speed or {}).get("neck_ms")}


def _flat(value: Any) -> Any:
    """A value that a table can hold and group by."""
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True, default=str)
    return str(value) if isinstance(value, Path) else value
