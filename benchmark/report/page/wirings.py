"""The wirings behind the rows of a page, each distinct one once."""

import functools
import json
from dataclasses import dataclass, field, replace

from benchmark.experiment.config import RunConfig
from benchmark.wiring.names import lines
from common.errors import UserError
from models.backbones import FETCHING, create_without_weights
from models.connectivity import PRESETS, Connectivity, preset
from models.decoder_name import DecoderName


@dataclass
class Drawn:
    """A wiring and who uses it: "decoder on backbone", each once, in the order of the rows."""

    wiring: Connectivity
    users: dict[str, None] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """The wiring in words, for those who do not see the picture."""
        return f"{self.wiring.connections} connections: {'; '.join(lines(self.wiring))}"


class Wirings:
    """Collects wirings; the number of one is its place among ``drawn``."""

    def __init__(self) -> None:
        self.drawn: list[Drawn] = []
        self._places: dict[str, int] = {}

    def place(self, config: RunConfig, label: str) -> int | None:
        """The number of the wiring of a run; None for a decoder that is not wired by data."""
        wiring = wiring_of(config)
        if wiring is None:
            return None
        content = json.dumps([wiring.strides, sorted(wiring.stages.items())])
        if content not in self._places:
            self._places[content] = len(self.drawn)
            self.drawn.append(Drawn(wiring))
        place = self._places[content]
        self.drawn[place].users[f"{label} on {config.backbone}"] = None
        return place


def wiring_of(config: RunConfig) -> Connectivity | None:
    """The wiring that a run's decoder had on its backbone; None where there is none to draw.

    A result may name a backbone that this machine's timm lacks, or hold a wiring that was edited
    by hand: then there is no picture, and the row stands all the same.
    """
    if config.wiring is None and config.decoder not in PRESETS:
        return None
    try:
        arguments = {k: v for k, v in config.backbone_args.items() if k not in FETCHING}
        strides = _strides(config.backbone or "", json.dumps(arguments, sort_keys=True))
        if config.wiring is None:
            return replace(preset(config.decoder, strides), name=config.decoder)
        name = DecoderName.parse(config.decoder).label
        return Connectivity.recorded(name, config.wiring).transfer(strides)
    except (UserError, KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return None


@functools.cache
def _strides(backbone: str, arguments: str) -> tuple[int, ...]:
    features = create_without_weights(backbone, json.loads(arguments)).features
    return tuple(f.stride for f in features)
