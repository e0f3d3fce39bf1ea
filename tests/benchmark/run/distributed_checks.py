"""What several processes must agree on; run by torchrun from test_distributed.py beside it.

Writes, as JSON, scores of the same predictions and the weights after steps without BatchNorm.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from benchmark.experiment import distributed
from benchmark.experiment.config import make_config
from benchmark.experiment.plan import make_task, resolve
from benchmark.scoring.evaluate import evaluate, metrics_of
from benchmark.training.batches import Batches
from benchmark.training.learner import Learner
from datasets.pipeline import Resized, open_split

COUNT = 7  # does not divide among two or three


class Guess(nn.Module):
    """A prediction of any task that follows from the image."""

    def __init__(self, task: str, channels: int) -> None:
        super().__init__()
        self.task, self.channels = task, channels

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        grey = images.mean(1, keepdim=True)
        return {self.task: torch.cat([grey * (n + 1) % 1 for n in range(self.channels)], 1)}


def scored(name: str) -> dict[str, object]:
    values = {"task": name, "dataset": "scenes", "image_size": "64", "limit": COUNT}
    config = resolve(make_config({**values, "batch_size": 2 * distributed.size()}))
    task = make_task(config)
    part = open_split("scenes", None, name, (64, 64), "test", COUNT)
    data = Resized(part, (64, 64), [task.target], targets=False)
    accumulator = task.accumulator()
    evaluate(config, Guess(name, task.channels), {task: accumulator}, data)
    replicates = {k: v.tolist() for k, v in accumulator.replicates().items()}
    return {"metrics": metrics_of(accumulator), "counts": accumulator.counts(),
            "replicates": replicates}  # fmt: skip


class Numbers(Dataset):
    """Samples without augmentation: what is learned depends on the order alone."""

    def __len__(self) -> int:
        return 24


class Small(nn.Module):
    """A network with a layer that nothing reads, as backbones may have."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Tanh(), nn.Conv2d(3, 1, 1))
        self.unread = nn.Conv2d(3, 1, 1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"depth": self.read(images)}


def learned() -> list[float]:
    config = resolve(make_config({"task": "depth", "batch_size": 6, "lr": 0.1, "clip_grad": 1.0}))
    torch.manual_seed(0)
    model = Small()
    values = torch.rand(24, 3, 6, 6)
    learner = Learner(config, model, [torch.optim.SGD(model.parameters(), lr=0.1)], None, {})
    order = Batches(config, Numbers()).sampler
    for indices in order:
        images = values[indices]

        def losses_of(x: dict[str, torch.Tensor], y: dict[str, torch.Tensor]) -> tuple:
            loss = (x["depth"] - y["y"]).square().mean()
            return loss, {"task": loss}

        learner.step(images, {"y": images.mean((1, 2, 3), keepdim=True)}, losses_of, "here")
    return [float(x) for p in model.parameters() for x in p.detach().flatten()]


def main() -> None:
    with distributed.processes("cpu"):
        tasks = {name: scored(name) for name in ("segmentation", "depth", "saliency", "edges")}
        weights = learned()
        digest = hashlib.sha256(json.dumps([tasks, weights], sort_keys=True).encode()).hexdigest()
        assert len(set(distributed.gathered(digest))) == 1  # every process knows the same
        text = json.dumps({"size": distributed.size(), "tasks": tasks, "weights": weights})
        if distributed.lead():
            Path(sys.argv[1]).write_text(text)


if __name__ == "__main__":
    main()
