"""Trained networks of one comparison, timed in turns: the very networks that were scored."""

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic_core import to_json
from torch import nn

from benchmark.experiment.environment import device_name
from benchmark.experiment.network import spec_of, unfilled_model
from benchmark.experiment.plan import PlannedRun, make_tasks
from benchmark.results.checkpoint import checkpoint_file, load_checkpoint
from benchmark.results.layout import FILE
from benchmark.results.result import Result
from benchmark.results.store import save
from benchmark.speed.latency import Setup, speed_record, time_models
from benchmark.speed.memory import fresh_process, peak_memory
from common.progress import Listener


def time_in_turns(
    finished: Sequence[PlannedRun],
    done: Mapping[str, Result],
    min_time: float,
    threads: int,
    listener: Listener,
) -> None:
    """Time the ``finished`` runs of a comparison and write it into ``done``, their results by key.

    min_time: seconds for each network. Of runs that differ in their weights only, one is timed and
    named in ``weights_of`` of all. Runs of another machine or number of threads, and runs whose
    weights are not here, are left out with a message. Raises UserError for damaged weights.
    """
    first = finished[0].config
    runs = {run.key: run for run in finished}
    torch.set_num_threads(threads)
    here = device_name(first.device), torch.get_num_threads()
    models, setups, alike = _prepared(finished, done, here, listener)
    if not models:
        return
    listener.begin("time in turns", 1 + len(alike))
    names = [runs[key].config.decoder for key in models]
    session = uuid.uuid4().hex[:8]
    start = time.perf_counter()
    latencies = time_models(
        models,
        first.image_size,
        first.device,
        setup=Setup(amp=first.amp),
        necks=True,
        min_time=min_time,
    )
    listener.step()
    if share := max(one.disturbed or 0.0 for one in latencies.values()):
        listener.message(
            f"timed while other work took {share:.0%} of the processors: time again with --retime "
            "on an idle machine"
        )
    with fresh_process() as process:
        for same in alike.values():
            key = same[0]
            config = runs[key].config
            others = sorted({name for name in names if name != config.decoder})
            memory = peak_memory(
                spec_of(config, make_tasks(config)),
                *(first.image_size, 1, setups[key], first.device),
                process=process,
            )
            speed = speed_record(
                *(latencies[key], first.image_size, first.device, setups[key], others, session),
                channels=config.channels,
            )
            if (neck := latencies.get(f"{key}/neck")) is not None:
                speed["neck_ms"] = neck.median_ms
            speed["weights_of"] = key
            speed["peak_memory_mb"] = _megabytes(memory["forward_bytes"])
            speed["weights_mb"] = _megabytes(memory["weights_bytes"])
            speed["peak_memory_how"] = memory["error"] or memory["how"]
            for result in map(done.__getitem__, same):
                result.speed = speed
                result.seconds["time"] = time.perf_counter() - start
                _save(runs[result.key].folder, result)
            listener.step()


def _prepared(
    finished: Sequence[PlannedRun],
    done: Mapping[str, Result],
    here: tuple[str, int],
    listener: Listener,
) -> tuple[dict[str, nn.Module], dict[str, Setup], dict[bytes, list[str]]]:
    """Networks and setups by key of the run whose weights they have; keys of runs alike.

    here: this device and its threads.
    """
    models: dict[str, nn.Module] = {}
    setups: dict[str, Setup] = {}
    alike: dict[bytes, list[str]] = {}  # runs of each network; the first one's weights are timed
    for run in finished:
        config, key, folder = run.config, run.key, run.folder
        if not checkpoint_file(folder, config.score).is_file():
            listener.message(f"not timed: {folder}: its checkpoint is not there")
        elif (there := done[key].machine) != here:
            # a board is of one machine, accuracy and latency alike
            listener.message(
                f"not timed: {folder}: its run was on {there[0]}, {there[1]} threads, this is "
                f"{here[0]}, {here[1]}: use speed --json here, and recommend --speed"
            )
        else:
            tasks = make_tasks(config)
            same = alike.setdefault(to_json(spec_of(config, tasks)), [])
            same.append(key)
            if len(same) == 1:
                model = unfilled_model(config, tasks)
                load_checkpoint(folder, config.score, model)
                models[key], setups[key] = Setup(amp=config.amp).prepared(model)
    return models, setups, alike


def _save(folder: Path, result: Result) -> None:
    """Write a result that was there, with its time: a training that has begun since is newer."""
    before = (folder / FILE).stat()
    save(folder, result)
    os.utime(folder / FILE, ns=(before.st_atime_ns, before.st_mtime_ns))


def _megabytes(count: int | None) -> float | None:
    return None if count is None else count / 1e6
