"""Score predictions at the ground truth's own resolution with the tasks' metrics."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from benchmark.experiment import distributed
from benchmark.experiment.config import ResolvedRun
from benchmark.experiment.numerics import autocast
from benchmark.experiment.plan import info_of
from benchmark.experiment.readers import Loader
from benchmark.results.result import Constant, TaskScores
from benchmark.scoring.views import Views, predict
from common.errors import DataError, UserError, out_of_memory
from common.memory import fitting
from common.progress import Listener
from datasets.base import TargetStatistics
from datasets.pipeline import Readable, Resized
from tasks.base import Task
from tasks.metrics.base import Accumulator, MetricInfo
from tasks.metrics.resampling import Floats, interval

PLAIN = Views()


def replicates_of(accumulator: Accumulator, task: Task) -> dict[str, Floats]:
    """Bootstrap replicates of the metrics that a table shows, by their name in a result."""
    columns = {accumulator.key(name) for name in task.columns}
    replicates = {accumulator.key(name): x for name, x in accumulator.replicates().items()}
    return {name: values for name, values in replicates.items() if name in columns}


def scores_of(
    accumulator: Accumulator, task: Task, protocol: str, replicates: Mapping[str, Floats]
) -> TaskScores:
    """The metrics of ``accumulator``, with the ranking metric's interval from ``replicates``."""
    columns = [accumulator.key(name) for name in task.columns]
    infos = {name: task.metric_info(name) for name in columns}
    ends = {
        name: _within(interval(replicates[name]), infos[name])
        for name in columns[:1]
        if name in replicates
    }
    return TaskScores(
        protocol=protocol,
        columns=columns,
        higher_is_better={name: info.higher_is_better for name, info in infos.items()},
        units={name: info.unit for name, info in infos.items()},
        metrics=metrics_of(accumulator),
        intervals={name: x for name, x in ends.items() if x is not None},
        bootstrap="weighted",
        counts=accumulator.counts(),
    )


def _within(ends: tuple[float, float] | None, info: MetricInfo) -> tuple[float, float] | None:
    """``ends`` within what the metric can be: from 0, and where it is a share up to 1."""
    if ends is None:
        return None
    most = 1.0 if info.higher_is_better and info.unit == "1" else math.inf
    return max(ends[0], 0.0), min(ends[1], most)


def metrics_of(accumulator: Accumulator) -> dict[str, float]:
    """The accumulator's metrics, under names that include their protocol."""
    return {accumulator.key(name): value for name, value in accumulator.compute().items()}


def protocol_id(
    config: ResolvedRun,
    task: Task,
    split: str | None = None,
    views: Views = PLAIN,
    original: bool = False,
    missing: int = 0,
) -> str:
    """Name of the conditions of a score: ``camvid/segmentation/test/miou/240x320``.

    Scores are comparable if their names are equal. split: published name of the scored split;
    None: the one that the data set declares. original: images have the files' own resolution.
    missing: number of bad samples that are skipped.
    """
    split = split or info_of(config).scored
    size = "original" if original else "x".join(map(str, config.image_size))
    parts = [
        config.dataset, task.name, split, task.main, f"{size}{views.name}",
        f"first{config.limit}" if config.limit else "",
        f"without{missing}" if missing else "",
        task.accumulator().rules,
    ]  # fmt: skip
    return "/".join(filter(None, parts))


@torch.inference_mode()
def evaluate(
    config: ResolvedRun,
    model: nn.Module,
    accumulators: Mapping[Task, Accumulator],
    data: Resized,
    listener: Listener | None = None,
    views: Views = PLAIN,
) -> None:
    """Score ``model`` on ``data`` for each task, into ``accumulators``.

    Images have the size that ``data`` gives them; predictions are compared at the resolution of the
    ground truth. An image without a task's ground truth counts for the other tasks only. Each of
    several processes scores its share; all receive the whole result. Raises DataError if a task has
    no image to score.
    """
    device = torch.device(config.device)
    model.eval()
    mine = distributed.share(len(data))
    size = 1 if data.mixed else config.batch_size
    assert size is not None
    at_once, tasks = size, list(accumulators)
    loader = Loader(Subset(Readable(data, replaced=False), mine), config.workers, batch_size=size)
    if listener is not None:
        listener.begin(f"score {config.decoder}", len(mine))
    for images, targets, bad in loader:
        data.bad.update(bad)
        if images is None:
            continue
        images = images.to(device, memory_format=torch.channels_last).float().div_(255)
        with autocast(config.amp, config.device):
            predictions, at_once = _in_pieces(model, tasks, images, targets, views, at_once)
        for prediction, sample in zip(predictions, targets, strict=True):
            for task, accumulator in accumulators.items():
                if task.target in sample:
                    prediction_map = prediction[task.name].cpu()
                    accumulator.update(prediction_map, task.truth(sample[task.target]))
            if listener is not None:
                listener.step()
    if distributed.size() > 1:
        _merge_processes(accumulators, data)
    for task, accumulator in accumulators.items():
        try:
            accumulator.require_images()
        except DataError as error:
            where = f"{config.dataset}, {data.source.name}, {task.name}"
            raise DataError(f"{where}: {error}: look at it with data preview") from error


def _merge_processes(accumulators: Mapping[Task, Accumulator], data: Resized) -> None:
    """Merge the scores of all processes, in the order of the images, for each of them."""
    parts = distributed.gathered(({t.name: a for t, a in accumulators.items()}, data.bad))
    for task, accumulator in accumulators.items():
        whole, *others = (by_task[task.name] for by_task, _ in parts)
        for other in others:
            whole.merge(other)
        accumulator.adopt(whole)
    for _, bad in parts:
        data.bad.update(bad)


def _in_pieces(
    model: nn.Module,
    tasks: list[Task],
    images: Tensor,
    targets: list[dict[str, Tensor]],
    views: Views,
    at_once: int,
) -> tuple[list[dict[str, Tensor]], int]:
    """``_predictions`` of ``at_once`` images at a time, or of fewer if memory is short.

    Returns them and the number at a time. Raises UserError if not even one image fits.
    """
    predictions: list[dict[str, Tensor]] = []

    def next_ones(count: int) -> list[dict[str, Tensor]]:
        part = slice(len(predictions), len(predictions) + count)
        return _predictions(model, tasks, images[part], targets[part], views)

    while len(predictions) < len(images):
        try:
            some, at_once = fitting(next_ones, at_once)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise UserError("memory ran out with one image: use a smaller --image-size") from error
        predictions += some
    return predictions, at_once


def _predictions(
    model: nn.Module,
    tasks: list[Task],
    images: Tensor,
    targets: list[dict[str, Tensor]],
    views: Views,
) -> list[dict[str, Tensor]]:
    """Each image's predictions for the tasks of its ground truth, at the ground truth's size."""
    if views != PLAIN:
        sizes = [next(iter(sample.values())).shape for sample in targets]
        return [
            predict(model, tasks, image, (size[0], size[1]), views)
            for image, size in zip(images, sizes, strict=True)
        ]
    logits = model(images)
    return [
        {
            task.name: task.predict_at(logits[task.name][index], *sample[task.target].shape)
            for task in tasks
            if task.target in sample
        }
        for index, sample in enumerate(targets)
    ]


def score_constant(
    task: Task,
    train: Resized,
    test: Resized,
    listener: Listener,
    counted: TargetStatistics | None = None,
) -> Constant:
    """The constant that fits ``train`` best, and its metrics on ``test``: the baseline.

    Each image of the two is a step for ``listener``. counted: counts the targets of ``train``.
    """

    def targets(data: Resized) -> Iterable[Tensor]:
        for index in range(len(data)):
            sample = data.get(index)
            listener.step()
            if sample is not None and (target := sample.targets.get(task.target)) is not None:
                yield target

    def trained() -> Iterable[Tensor]:
        for target in targets(train):
            if counted is not None:
                counted.add(target)
            yield target

    value = task.best_constant(trained())
    accumulator = task.accumulator()
    for target in targets(test):
        accumulator.update(task.constant(value, target), task.truth(target))
    return {"value": value, "metrics": metrics_of(accumulator)}
