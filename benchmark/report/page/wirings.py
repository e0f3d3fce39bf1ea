"""The distinct wirings of the rows of a page."""

import functools
import json
from dataclasses import dataclass, field, replace

from benchmark.experiment.config import RunConfig
from benchmark.wiring.names import lines
from common.errors import UserError
from models.backbones import NOT_TAKEN, create_without_weights
from models.connectivity import PRESETS, Connectivity, preset
from models.decoder_name import DecoderName
from models.feature_maps import FeatureSpec, as_dilated


@dataclass
class Drawn:
    """A wiring and its users, "decoder on backbone" in the order of the rows."""

    wiring: Connectivity
    users: dict[str, None] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """The wiring as text, for screen readers."""
        return f"{self.wiring.connections} connections: {'; '.join(lines(self.wiring))}"


class Wirings:
    """Collects distinct wirings in ``drawn``."""

    def __init__(self) -> None:
        self.drawn: list[Drawn] = []
        self._places: dict[str, int] = {}

    def place(self, config: RunConfig, label: str) -> int | None:
        """The index of a run's wiring in ``drawn``; None for a decoder without one."""
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
    """The wiring of a run's decoder on its backbone; None if it has none or it cannot be drawn.

    A result may name a backbone that the installed timm lacks, or a wiring edited by hand: then
    the row has no picture.
    """
    if config.wiring is None and config.decoder not in PRESETS:
        return None
    try:
        arguments = {k: v for k, v in config.backbone_args.items() if k not in NOT_TAKEN}
        features = _features(config.backbone or "", json.dumps(arguments, sort_keys=True))
        if not config.match_undilated:
            features = as_dilated(features)
        if config.wiring is None:
            wiring = preset(config.decoder, [f.undilated for f in features])
            return replace(wiring, name=config.decoder)
        name = DecoderName.parse(config.decoder).label
        return Connectivity.from_record(name, config.wiring).onto(features).wiring
    except (UserError, KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return None


@functools.cache
def _features(backbone: str, arguments: str) -> tuple[FeatureSpec, ...]:
    return create_without_weights(backbone, json.loads(arguments)).features
