"""From names, or a configuration, to a network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from benchmark.experiment.config import Resolved, ResolvedRun, split_tasks
from benchmark.experiment.numerics import seed_everything
from benchmark.experiment.plan import info_of
from benchmark.experiment.transfer import initialise
from common.errors import UsageError
from common.limits import CHANNELS
from datasets.augment import check_crop
from models.backbones import Backbone, create_backbone, input_statistics
from models.create import check_decoder, create_decoder, decoder_class
from models.decoders.base import Decoder, SeparateDecoders
from models.feature_maps import as_dilated
from models.predictor import DensePredictor, Predictor, plain
from tasks.base import TASKS, Task


def create_model(
    decoder: str,
    backbone: str,
    *,
    task: str = "segmentation",
    classes: int | None = None,
    pretrained: bool = False,
    weights: str | Path | None = None,
    width: int | None = None,
    backbone_args: Mapping[str, Any] | None = None,
    in_channels: int = 3,
) -> Predictor:
    """A new network: images [B, in_channels, H, W] in 0…1 → logits [B, channels, H, W].

    decoder: see ``list_decoders``, or ``connectivity:FILE.json``. backbone: a timm model with at
    least four strides. task: segmentation, depth, saliency or edges; or several joined by ``+``,
    whose logits the network returns by name. classes: channels of a segmentation. pretrained:
    download timm's weights of the backbone; weights: read them from this ``.safetensors`` or
    ``.pth`` file. width: channels of the decoder's own maps, where it has a choice. backbone_args:
    passed to ``timm.create_model``. in_channels: of the images; 3 is RGB. The first convolution of
    weights of RGB images is adapted to other channels as timm does, and each channel is normalised
    by the mean of timm's three numbers.

    All other weights are random (torch's generator), and the network is in training mode, as every
    new module. Normalisation, padding and resizing are part of it: it takes images of any size.
    Its parts are ``backbone``, ``decoder`` and ``heads``. ``model.outputs(images)`` gives the
    logits by task, in training with the side outputs of deep supervision. ``model.fuse()`` is a
    faster copy for inference. ``load_state_dict`` takes the weights of a run of these choices;
    ``load_model`` builds a run's network and needs no choices.

    Raises UsageError for unknown names and for what does not fit together, DataError for a file of
    weights that is missing or another network's.
    """
    heads = _channels(task, classes)
    if not 1 <= in_channels <= CHANNELS:
        raise UsageError(f"in_channels={in_channels}: expected 1 to {CHANNELS}")
    if pretrained and weights is not None:
        raise UsageError(f"weights={weights}: give it or pretrained, not both")
    check_decoder(decoder)  # before anything is downloaded
    path = None if weights is None else Path(weights).expanduser()
    body = create_backbone(
        backbone, backbone_args, path, pretrained, in_channels,
        full_resolution=decoder_class(decoder).info.full_resolution,
    )  # fmt: skip
    built = create_decoder(decoder, body.features, width=width)
    statistics = input_statistics(backbone, path, in_channels)
    return plain(DensePredictor(body, built, heads, *statistics))


def has_classes(task: str) -> bool:
    """Whether a data set's classes decide the channels of one of the tasks that ``a+b`` joins."""
    return any(not hasattr(TASKS.get(name), "channels") for name in split_tasks(task))


def _channels(task: str, classes: int | None) -> dict[str, int]:
    """Channels of each of the tasks that ``a+b`` joins."""
    names = split_tasks(task)
    fixed = {name: getattr(TASKS.get(name), "channels", None) for name in names}
    if len(fixed) < len(names):
        raise UsageError(f"task {task}: names a task twice")
    if classes is None and has_classes(task):
        raise UsageError(f"task {task}: say how many classes there are, as in classes=21")
    if classes is not None and not has_classes(task):
        raise UsageError(f"classes={classes}: task {task} has no classes: leave it out")
    if classes is not None and classes < 1:
        raise UsageError(f"classes={classes}: expected at least one")
    return {name: channels or classes or 0 for name, channels in fixed.items()}


@dataclass(frozen=True)
class NetworkSpec:
    """What builds a network with random weights, in another process too.

    heads: channels by task. wiring: of a decoder ``connectivity:FILE``, where it is known.
    in_channels: of the images. decoder_revision: None for the newest network of that name. width:
    of the decoder; None for its own. match_undilated: whether a dilated backbone's maps are matched
    by the strides that they have undilated. Its fields are all that JSON can hold.
    """

    backbone: str
    decoder: str
    heads: Mapping[str, int]
    backbone_args: Mapping[str, Any] = field(default_factory=dict)
    wiring: Mapping[str, Any] | None = None
    separate_decoders: bool = False
    in_channels: int = 3
    decoder_revision: int | None = None
    width: int | None = None
    match_undilated: bool = True

    @property
    def full_resolution(self) -> bool:
        """Whether the decoder reads the backbone's map at the image's own resolution."""
        return decoder_class(self.decoder, self.decoder_revision).info.full_resolution

    def make_decoder(self, backbone: Backbone) -> Decoder | SeparateDecoders:
        """The decoder on ``backbone``, or one for each head."""

        matched = backbone.features if self.match_undilated else as_dilated(backbone.features)

        def decoder() -> Decoder:
            return create_decoder(
                self.decoder, matched, width=self.width, wiring=self.wiring,
                revision=self.decoder_revision,
            )  # fmt: skip

        if not self.separate_decoders:
            return decoder()
        return SeparateDecoders({task: decoder() for task in self.heads})

    def build(self) -> DensePredictor:
        """The network on the CPU. Raises UserError for what does not fit together."""
        backbone = create_backbone(
            self.backbone, self.backbone_args, in_channels=self.in_channels,
            full_resolution=self.full_resolution,
        )  # fmt: skip
        return DensePredictor(backbone, self.make_decoder(backbone), self.heads)


def open_network(
    config: Resolved,
    make_decoder: Callable[[Backbone], Decoder | SeparateDecoders],
    channels: Mapping[str, int],
    full_resolution: bool = False,
) -> DensePredictor:
    """Backbone, decoder and a head for each of ``channels``, for images of the run's sizes.

    full_resolution: of the backbone, see ``create_backbone``.

    Raises UsageError for sizes that the backbone or the augmentation cannot take.
    """
    backbone = create_backbone(
        config.backbone, config.backbone_args, config.weights, config.pretrained, config.channels,
        config.weights_key, full_resolution,
    )  # fmt: skip
    model = DensePredictor(backbone, make_decoder(backbone), channels, config.mean, config.std)
    crop = config.crop_size or config.image_size
    model.check_size(*config.image_size)
    model.check_size(*crop, option="--crop-size")
    if info_of(config).turned:
        model.check_size(*config.image_size[::-1])
    check_crop(config.image_size, crop)
    if config.init is not None:
        backbone.note = initialise(model, config)
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
        config.channels,
        config.decoder_revision,
        config.width,
        config.match_undilated,
    )


UNTRAINED = {"weights": None, "weights_key": None, "pretrained": False, "init": None}
"""Fields of a configuration with which its network is built without reading weights."""


def build_model(config: ResolvedRun, tasks: Sequence[Task]) -> DensePredictor:
    """The network of a run, initialised from its seed, on the CPU."""
    seed_everything(config.seed)
    spec = spec_of(config, tasks)
    return open_network(config, spec.make_decoder, spec.heads, spec.full_resolution)


class _Unfilled(TorchFunctionMode):
    """Skips all that is written into parameters in place, their initial values above all."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        writes = name.endswith("_") and not name.startswith("__") and name != "requires_grad_"
        first = next(iter((*args, *kwargs.values())), None)  # torch.nn.init names its tensor
        if writes and isinstance(first, nn.Parameter):
            return first
        return func(*args, **kwargs)


def unfilled_model(config: ResolvedRun, tasks: Sequence[Task]) -> DensePredictor:
    """``build_model`` without numbers in its parameters: for weights that replace all of them.

    Neither the backbone's weights nor those of another run are read. timm builds a backbone with
    its classifier; memory that nothing is written to takes no room: of VGG16, 1.1 GB.
    """
    with _Unfilled():
        return build_model(config.model_copy(update=UNTRAINED), tasks)


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
