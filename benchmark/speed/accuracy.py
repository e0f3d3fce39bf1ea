"""What each runtime and precision costs in accuracy: the deployed networks, scored in pairs."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmark.experiment.environment import environment
from benchmark.results.result import Calibration, Cost, PairScores, TaskScores
from benchmark.results.runtimes import Pair
from benchmark.scoring.rescore import Rescore, Scoring, on_device
from benchmark.speed.latency import Setup
from benchmark.speed.runtimes import Preparation, unavailable
from common.errors import UserError, reason
from datasets.pipeline import Resized
from tasks.metrics.resampling import Floats, interval

ALLOWED = {"f32": 0.005, "bf16": 0.005, "int8": 0.02}
"""Relative losses of a ranking metric, by precision, past which a row is marked."""


def deployed(scoring: Scoring, pairs: Sequence[Pair], calibrate: int) -> Rescore:
    """Score the network as each runtime and precision runs it, and as PyTorch does in f32.

    calibrate: number of the run's training images for int8. Files take images of the configured
    size, or of any where the data has several. A pair that fails is a row with the reason.
    """
    start = time.perf_counter()
    exact = scoring.score(on_device(scoring), amp=False)
    calibrations: list[Calibration] = []

    def quantize(source: Path, target: Path) -> None:
        calibrations.append(_quantize(scoring, source, target, calibrate))

    rows = []
    size, static = scoring.config.image_size, not scoring.data.mixed
    batch = scoring.config.batch_size if static else 1
    assert batch is not None
    with Preparation(Setup(), quantize, static) as prepare:
        for pair in pairs:
            row = PairScores(runtime=pair[0], precision=pair[1], static=static)
            rows.append(row)
            try:
                if why := unavailable(pair, scoring.config.device):
                    raise UserError(why)
                if pair[0] == "compiled" and not static:
                    raise UserError("it would be compiled for each of the images' sizes")
                model = scoring.checkpoint.model
                ready = prepare("network", model, pair, size, batch)
                row.once = dict(ready.once)
                found = scoring.score(ready.model, amp=ready.setup.amp)
            except Exception as error:  # exporters and runtimes may raise anything
                row.reason = reason(error)
                continue
            row.tasks = found[0]
            row.costs = {name: _cost(name, exact, found, pair[1]) for name in found[0]}
            row.calibration = calibrations[-1] if pair[1] == "int8" else None
    return Rescore(
        checkpoint=str(scoring.checkpoint.path),
        key=scoring.checkpoint.key,
        tasks=exact[0],
        data=scoring.facts(),
        environment=environment(scoring.config.device),
        seconds=time.perf_counter() - start,
        pairs=rows,
    )


def _quantize(scoring: Scoring, source: Path, target: Path, asked: int) -> Calibration:
    """Write ``source`` in int8, with ranges from at most ``asked`` images trained on."""
    from benchmark.export.quantize import quantize

    data = _training_images(scoring, asked)
    if len(data) < asked:
        scoring.listener.message(f"int8: calibrated on all {len(data)} images trained on")
    names = ("image_size", "workers", "batch_size")
    how = {name: getattr(scoring.config, name) for name in names}
    config = scoring.checkpoint.config.model_copy(update=how)
    checkpoint = replace(scoring.checkpoint, config=config)
    kept = quantize(checkpoint, source, target, data, scoring.listener)
    return Calibration(asked=asked, images=len(data), split=data.source.name, kept_in_float=kept)


def _training_images(scoring: Scoring, most: int) -> Resized:
    """The first images that the run was trained on, at the size that is scored.

    Where its own data are gone and the same data set is scored, they are looked for there.
    """
    from benchmark.export.quantize import open_data

    trained, scored = scoring.checkpoint.config, scoring.config
    how = {"image_size": scored.image_size, "on_bad_sample": scored.on_bad_sample}
    own = trained.model_copy(update=how)
    most = min(most, trained.limit or most)
    try:
        return open_data(own, scoring.checkpoint.tasks, "train", most)
    except UserError:
        if (own.dataset, own.description) != (scored.dataset, scored.description):
            raise
        there = own.model_copy(update={"data": scored.data})
        return open_data(there, scoring.checkpoint.tasks, "train", most)


def _cost(
    task: str,
    exact: tuple[dict[str, TaskScores], dict[str, dict[str, Floats]]],
    found: tuple[dict[str, TaskScores], dict[str, dict[str, Floats]]],
    precision: str,
) -> Cost:
    from benchmark.export.quantize import worse_by

    scores = found[0][task]
    name = scores.columns[0]
    higher = scores.higher_is_better[name]
    before, value = exact[0][task].metrics[name], scores.metrics[name]
    replicates = [one[1][task].get(name) for one in (found, exact)]
    ends = None
    if replicates[0] is not None and replicates[1] is not None:
        ends = interval(replicates[0] - replicates[1])
    lost = worse_by(before, value, higher)
    return Cost(
        metric=name,
        higher_is_better=higher,
        reference=before,
        value=value,
        difference=value - before,
        interval=ends,
        worse=None if math.isnan(lost) else lost,
        within=lost <= ALLOWED[precision] if before else (value - before) * (2 * higher - 1) >= 0,
    )
