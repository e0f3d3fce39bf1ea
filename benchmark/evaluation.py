"""Scoring: predictions at the ground truth's own resolution, through the task's metrics."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmark.config import RunConfig
from benchmark.events import Listener
from benchmark.training import autocast
from datasets.pipeline import Resized, collate
from tasks.base import Task
from tasks.metrics.base import Accumulator


@dataclass(frozen=True)
class Scores:
    """Numbers of a split, 95 % bootstrap intervals over its images, and what was counted."""

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    counts: dict[str, int]

    @classmethod
    def of(cls, accumulator: Accumulator, main: str) -> "Scores":
        """The numbers of ``accumulator``; intervals for the ranking metric."""
        intervals = {accumulator.key(name): x for name, x in accumulator.bootstrap().items()}
        metrics = metrics_of(accumulator)
        return cls(metrics, {k: x for k, x in intervals.items() if k == main}, accumulator.counts())


def metrics_of(accumulator: Accumulator) -> dict[str, float]:
    """The accumulator's numbers, named with the protocol that they depend on."""
    return {accumulator.key(name): value for name, value in accumulator.compute().items()}


def protocol_id(config: RunConfig, task: Task, split: str = "test") -> str:
    """What makes two scores comparable: ``camvid/segmentation/test/miou@240x320``."""
    assert config.image_size is not None
    height, width = config.image_size
    limit = f"/first{config.limit}" if config.limit else ""
    return f"{config.dataset}/{config.task}/{split}/{task.main}/{height}x{width}{limit}"


@torch.inference_mode()
def evaluate(
    config: RunConfig, model: nn.Module, task: Task, data: Resized, listener: Listener | None = None
) -> Accumulator:
    """Score ``model`` on ``data``: resized images, targets at the files' resolution."""
    device = torch.device(config.device)
    model.eval()
    accumulator = task.accumulator()
    loader = DataLoader(
        data, batch_size=config.batch_size, collate_fn=collate, num_workers=config.workers
    )
    if listener is not None:
        listener.begin(f"score {config.decoder}", len(data))
    for images, targets in loader:
        images = images.to(device, memory_format=torch.channels_last).float().div_(255)
        with autocast(config):
            logits = model(images)[task.name]
        for one, sample in zip(logits, targets, strict=True):
            target = sample[task.target]
            prediction = task.predict_at(one, *target.shape)
            accumulator.update(prediction.cpu(), task.truth(target))
            if listener is not None:
                listener.step()
    return accumulator


def score_constant(task: Task, train: Resized, test: Resized) -> dict[str, Any]:
    """The best constant prediction on the training split, scored on ``test``: the floor."""

    def targets(data: Resized) -> Iterable[Tensor]:
        for index in range(len(data)):
            yield data[index].targets[task.target]

    value = task.best_constant(targets(train))
    accumulator = task.accumulator()
    for target in targets(test):
        accumulator.update(task.constant(value, target), task.truth(target))
    return {"value": value, "metrics": metrics_of(accumulator)}
