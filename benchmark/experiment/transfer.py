"""What fits of another run's network goes into a new one."""

from collections.abc import Iterator, Mapping
from functools import cached_property

import torch
from timm.models import adapt_input_conv
from torch import Tensor

from benchmark.experiment.config import NetworkConfig
from benchmark.experiment.initial import Initial
from benchmark.experiment.plan import make_task, make_tasks
from common.errors import UsageError, UserError
from common.words import count_of
from models.connected_decoder import ConnectedDecoder
from models.create import create_decoder
from models.decoders.base import Decoder, SeparateDecoders
from models.feature_maps import as_dilated
from models.predictor import DensePredictor
from models.weights import COUNTER

NECK = "backbone.neck."
State = Mapping[str, Tensor]


def initialise(model: DensePredictor, config: NetworkConfig) -> str:
    """Give ``model`` what fits of the network of ``config.init``; returns a line that says what.

    All of the backbone (of its neck: if the run has one), the decoder's tensors of the same name
    and shape if it is of the same kind (of wired ones: the connections and stages that both have),
    and the heads of tasks with the same classes. Raises UsageError where the backbone does not fit.
    """
    assert config.init is not None
    initial = Initial.open(config.init)
    transfer = _Transfer(initial, model, config)
    parts = [transfer.backbone(), *transfer.decoders(), *transfer.heads()]
    model.load_state_dict(transfer.taken, strict=False)
    run = initial.config
    return (
        f"init: {initial.path} ({initial.file.stem} weights of {run.decoder} for {run.task} on "
        f"{run.dataset}): {'; '.join(parts)}"
    )


class _Transfer:
    """From a run's tensors to those of a network. taken: what fits, by the network's names."""

    def __init__(self, initial: Initial, model: DensePredictor, config: NetworkConfig) -> None:
        self.initial, self.model, self.config = initial, model, config
        self.theirs = initial.tensors()
        self.own = model.state_dict()
        self.taken: dict[str, Tensor] = {}

    def backbone(self) -> str:
        names = [name for name in self.own if name.startswith("backbone.")]
        text, none = "backbone", ""
        if not any(name.startswith(NECK) for name in self.theirs):
            fresh = [name for name in names if name.startswith(NECK)]
            names = [name for name in names if name not in fresh]
            none = "; neck not taken: the run has none" if fresh else ""
        for name in names:
            mine, other = self.own[name], self.theirs.get(name)
            if other is not None and other.shape == mine.shape:
                self.taken[name] = other
            elif other is not None and self._is_input(mine, other):
                self.taken[name] = self._adapted(mine.shape[1], other)
                text = f"backbone, its first convolution adapted to {mine.shape[1]} channels"
            elif not name.endswith(COUNTER):
                seen = "is missing" if other is None else f"is {tuple(other.shape)}"
                raise UsageError(
                    f"--init {self.initial.path}: its backbone does not fit: {name} {seen}, not "
                    f"{tuple(mine.shape)}: check --backbone-arg"
                )
        return text + none

    def _is_input(self, mine: Tensor, other: Tensor) -> bool:
        """Whether two convolutions differ in the images' channels only."""
        return (
            mine.ndim == other.ndim == 4
            and mine.shape[1] == self.model.in_channels
            and mine.shape[0] == other.shape[0]
            and mine.shape[2:] == other.shape[2:]
        )

    def _adapted(self, channels: int, other: Tensor) -> Tensor:
        """The first convolution of RGB for images of ``channels``. Raises UsageError for others."""
        if other.shape[1] != 3:
            has = count_of(other.shape[1], "channel")
            problem = f"its images have {has}, those of {self.config.dataset} {channels}"
            rgb = "" if channels == 3 else ", or of RGB, whose weights are adapted"
            remedy = f"name a run on images of {channels}{rgb}"
            raise UsageError(f"--init {self.initial.path}: {problem}: {remedy}")
        adapted: Tensor = adapt_input_conv(channels, other)
        return adapted

    @cached_property
    def _decoder(self) -> Decoder | None:
        """The run's decoder on this backbone, without numbers; None if it cannot be built."""
        run, features = self.initial.config, self.model.backbone.features
        if "output_stride" in run.backbone_args and not run.match_undilated:
            features = as_dilated(features)
        try:
            with torch.device("meta"):
                return create_decoder(
                    run.decoder, features, width=run.width, wiring=run.wiring,
                    revision=run.decoder_revision,
                )  # fmt: skip
        except (UserError, RuntimeError, NotImplementedError):
            return None

    def _same_kind(self, mine: Decoder) -> bool:
        other = self._decoder
        wired = isinstance(mine, ConnectedDecoder) and isinstance(other, ConnectedDecoder)
        return wired or type(mine) is type(other)

    def decoders(self) -> Iterator[str]:
        """Take what fits of each decoder; yields a text about each."""
        decoder = self.model.decoder
        if not isinstance(decoder, SeparateDecoders):
            tasks = [task for task in self.config.tasks if task in self.initial.config.tasks]
            yield self._one(decoder, "decoder.", (tasks or self.initial.config.tasks)[0], "decoder")
            return
        for task in decoder.decoders:
            prefix = f"decoder.decoders.{task}."
            yield self._one(decoder.of(task), prefix, task, f"decoder of {task}")

    def _one(self, mine: Decoder, prefix: str, task: str, title: str) -> str:
        run = self.initial.config
        there = f"decoder.decoders.{task}." if run.separate_decoders else "decoder."
        other = self._decoder
        if not self._same_kind(mine) or (run.separate_decoders and task not in run.tasks):
            return f"{title} not taken: the run has another"
        state = {k[len(there) :]: v for k, v in self.theirs.items() if k.startswith(there)}
        if isinstance(mine, ConnectedDecoder) and isinstance(other, ConnectedDecoder):
            if mine.width != other.width:
                return f"{title} not taken: its width is {mine.width}, the run's {other.width}"
            state = _rewired(mine, other, state)
        own = mine.state_dict()
        fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
        self.taken.update({prefix + name: tensor for name, tensor in fitting.items()})
        if isinstance(mine, ConnectedDecoder) and isinstance(other, ConnectedDecoder):
            pairs = [{(s, d) for s, ds in x.consumers.items() for d in ds} for x in (mine, other)]
            return f"{title}: {len(pairs[0] & pairs[1])} of {len(pairs[0])} connections"
        return f"{title}: {len(fitting)} of {len(own)} tensors"

    def heads(self) -> Iterator[str]:
        """Take the heads whose classes agree; yields a text about each."""
        run = self.initial.config
        decoders = {task: self.model.decoder.of(task) for task in self.model.heads}
        for task in make_tasks(self.config):
            prefix = f"heads.{task.name}."
            own = {name: t for name, t in self.own.items() if name.startswith(prefix)}
            reason = ""
            if task.name not in run.tasks:
                reason = "the run has none"
            elif not self._same_kind(decoders[task.name]):
                reason = "it is of another decoder"
            elif (classes := self._classes(task.name)) != tuple(getattr(task, "classes", ())):
                count = "unknown" if classes is None else f"{len(classes)} others"
                reason = f"its classes are {count}"
            elif any(
                name not in self.theirs or self.theirs[name].shape != t.shape
                for name, t in own.items()
                if not name.endswith(COUNTER)
            ):
                reason = "it has another shape"
            else:
                self.taken.update({name: self.theirs[name] for name in own if name in self.theirs})
            yield f"head of {task.name}{f' not taken: {reason}' if reason else ''}"

    def _classes(self, task: str) -> tuple[str, ...] | None:
        """The classes of the run's task; None where its data set is not known here."""
        try:
            return tuple(getattr(make_task(self.initial.config, task), "classes", ()))
        except UserError:
            return None


def _rewired(mine: ConnectedDecoder, other: ConnectedDecoder, state: State) -> dict[str, Tensor]:
    """``state`` of the decoder ``other`` as the decoder ``mine`` has it.

    A source's convolution holds the rows of all stages that it goes to, in their order. Rows of
    connections that ``other`` lacks stay as they are.
    """
    renewed = dict(state)
    own = mine.state_dict()
    for source, users in mine.consumers.items():
        name = f"convs.{source}.weight"
        old, weight = state.get(name), own[name].clone()
        theirs = other.consumers.get(source, [])
        width = mine.width
        if old is None or len(old) != width * len(theirs) or old.shape[1:] != weight.shape[1:]:
            renewed.pop(name, None)
            continue
        for index, stage in enumerate(users):
            if stage in theirs:
                there = theirs.index(stage) * width
                weight[index * width : (index + 1) * width] = old[there : there + width]
        renewed[name] = weight
    return renewed
