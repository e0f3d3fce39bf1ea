"""From a configuration to a network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmark.experiment.config import Resolved, ResolvedRun
from benchmark.experiment.numerics import seed_everything
from common.errors import UsageError
from datasets.augment import check_crop
from datasets.base import DATASETS
from models.backbones import Backbone, create_backbone
from models.decoders.base import Decoder, SeparateDecoders
from models.predictor import DensePredictor, build_decoder
from tasks.base import Task


@dataclass(frozen=True)
class NetworkSpec:
    """What builds a network with random weights, in another process too.

    heads: channels by task. wiring: of a decoder ``connectivity:FILE``, where it is known. Its
    fields are all that JSON can hold.
    """

    backbone: str
    decoder: str
    heads: Mapping[str, int]
    backbone_args: Mapping[str, Any] = field(default_factory=dict)
    wiring: Mapping[str, Any] | None = None
    separate_decoders: bool = False

    def make_decoder(self, backbone: Backbone) -> Decoder | SeparateDecoders:
        """The decoder on ``backbone``, or one for each head."""
        if not self.separate_decoders:
            return build_decoder(self.decoder, backbone, self.wiring)
        return SeparateDecoders(
            {task: build_decoder(self.decoder, backbone, self.wiring) for task in self.heads}
        )

    def build(self) -> DensePredictor:
        """The network on the CPU. Raises UserError for what does not fit together."""
        backbone = create_backbone(self.backbone, self.backbone_args)
        return DensePredictor(backbone, self.make_decoder(backbone), self.heads)


def open_network(
    config: Resolved,
    make_decoder: Callable[[Backbone], Decoder | SeparateDecoders],
    channels: Mapping[str, int],
) -> DensePredictor:
    """Backbone, decoder and a head for each of ``channels``, for images of the run's sizes.

    Raises UsageError for sizes that the backbone or the augmentation cannot take.
    """
    backbone = create_backbone(
        config.backbone, config.backbone_args, config.weights, config.pretrained
    )
    model = DensePredictor(backbone, make_decoder(backbone), channels, config.mean, config.std)
    crop = config.crop_size or config.image_size
    sizes = [config.image_size, crop]
    if DATASETS.get(config.dataset).info.turned:
        sizes.append(config.image_size[::-1])
    for size in sizes:
        model.check_size(*size)
    check_crop(config.image_size, crop)
    return model


def spec_of(config: ResolvedRun, tasks: Sequence[Task]) -> NetworkSpec:
    """What builds a run's network, but for its weights."""
    return NetworkSpec(
        config.backbone,
        config.decoder,
        {task.name: task.channels for task in tasks},
        config.backbone_args,
        config.wiring,
        config.separate_decoders,
    )


def build_model(config: ResolvedRun, tasks: Sequence[Task]) -> DensePredictor:
    """The network of a run, initialised from its seed, on the CPU."""
    seed_everything(config.seed)
    spec = spec_of(config, tasks)
    return open_network(config, spec.make_decoder, spec.heads)


def check_device(device: str) -> None:
    """Raises UsageError unless ``device`` is a CPU or a CUDA device that this machine has."""
    try:
        kind = torch.device(device)
    except RuntimeError:
        raise UsageError(f"--device {device}: use cpu, cuda or cuda:N") from None
    if kind.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {device}: use cpu, cuda or cuda:N")
    if kind.type == "cuda" and (kind.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {device}: this machine has {torch.cuda.device_count()} CUDA devices"
        )


def check_sync(config: Resolved) -> None:
    """Raises UsageError for a BatchNorm over processes where it cannot be."""
    if config.sync_bn and not config.device.startswith("cuda"):
        raise UsageError("--sync-bn: torch has it on GPUs only: use --device cuda, or leave it out")
    if config.sync_bn and config.processes == 1:
        raise UsageError("--sync-bn: is for several processes: start them with torchrun")
