"""The record of a front, front.json: its fields and checks."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchmark.experiment.environment import OPEN, Environment
from benchmark.results.result import SplitFacts
from benchmark.wiring.record import FRONT, read_record


class FrontWiring(BaseModel):
    """A wiring that was validated in the last rung.

    file: relative to the folder. score, interval: on the validation split, 95 % over the choice of
    its images. ms, macs, params: of one image through the whole network, as deployed. rungs: the
    score of each rung. front: whether no other is both better and cheaper. alike: whether its score
    cannot be told from the best one's. disturbed: the share of the processors that other work took
    while ``ms`` was measured.
    """

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")

    file: str = Field(pattern=r"^(front|control/candidates)/[^/\\]+\.json$", max_length=300)
    score: float
    interval: tuple[float, float] | None
    ms: float
    macs: int
    params: int
    rungs: list[float]
    origin: dict[str, Any]
    front: bool = True
    alike: bool = False
    disturbed: float | None = None


class Control(BaseModel):
    """Random wirings under the same protocol, and what the search gained over them.

    wirings: of the last rung, as the front's. mean: of all random wirings in the first rung, kinds:
    of each kind; found: the found wiring's score there. gain: (found − mean)/mean, above 0 where
    the search is better, of a skill the difference, and its 95 % interval over images and random
    wirings. best: of the random wirings in the last rung; best_gain: of the search's best over it,
    with its interval over images.
    """

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")

    kind: Literal["random"] = "random"
    candidates: int
    kinds: dict[str, float]
    mean: float
    found: float
    gain: float | None
    gain_interval: tuple[float, float] | None
    best: float
    best_gain: float | None
    best_gain_interval: tuple[float, float] | None
    hypervolume: float | None
    wirings: list[FrontWiring]
    seconds: float


class Preset(BaseModel):
    """The best preset of the last rung, and what the found wiring gains over it, as ``Control``."""

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")

    name: str
    score: float
    gain: float | None
    gain_interval: tuple[float, float] | None


class Tried(BaseModel):
    """A candidate: its costs as a wiring's, and its score in each rung that it was in."""

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")

    name: str
    rungs: list[float | None]
    ms: float
    macs: int
    params: int
    origin: dict[str, Any]
    disturbed: float | None = None


class Front(BaseModel):
    """The record of a front, front.json.

    metric: the validated one; higher_is_better: of it. cost: what the front holds the score
    against. found: the file that found.json copies. rungs: steps of each; steps: of a full
    training. wirings: those of the last rung, the best first. tried: all candidates. seconds: of
    searches and of trainings, by what they were for. hypervolume: share, in 0…1, of skill × MACs,
    up to those of the Fully Dense Network, that the wirings of the last rung dominate.
    """

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")

    format: Literal[1]
    metric: str
    higher_is_better: bool
    cost: Literal["macs", "latency", "params"]
    found: str
    wirings: list[FrontWiring] = Field(min_length=1)
    preset: Preset | None = None
    control: Control | None = None
    tried: list[Tried] = Field(default_factory=list)
    rungs: list[int] = Field(default_factory=list)
    steps: int = 0
    hypervolume: float | None = None
    task: str = ""
    dataset: str = ""
    backbone: str = ""
    config: dict[str, Any] = Field(default_factory=dict)
    command: str = ""
    environment: Annotated[Environment, OPEN] = Field(default_factory=Environment)
    data: Annotated[dict[str, SplitFacts], OPEN] = Field(default_factory=dict)
    seconds: dict[str, float] = Field(default_factory=dict)

    def text(self) -> str:
        """The content of ``front.json``."""
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"


def read_front(folder: Path) -> Front:
    """The record of a front. Raises UsageError that names the file and its fault."""
    return read_record(Front, folder / FRONT, "front")
