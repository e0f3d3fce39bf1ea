"""The record of a search, search.json: its fields and checks."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import TypedDict

from benchmark.experiment.environment import OPEN, Environment
from benchmark.results.result import SplitFacts
from benchmark.wiring.names import arrow
from common.errors import UsageError
from common.limits import RESULT, printable, read_bytes
from common.validation import message_of
from models.connectivity import (
    MOST_FEATURES,
    Connection,
    Connectivity,
    candidates,
)

Record = TypeVar("Record", bound=BaseModel)
SEARCH, WIRING, FRONT = "search.json", "found.json", "front.json"


Step = Annotated[int, Field(ge=0, le=10**12)]


Weight = Annotated[float, Field(ge=0, le=1)]


class SearchConnection(BaseModel):
    """A candidate connection of a search: an input of a stage."""

    stage: int
    source: str


class Pruning(TypedDict):
    """Facts about a pruning; numbers of connections, and weights.

    alive: connections that reach the output. gap: smallest_kept / largest_dropped; None if all
    dropped weights are exactly 0, or if weights are shares of their stage.
    """

    candidates: int
    kept: int
    alive: int
    connections: int
    smallest_kept: float
    largest_dropped: float
    gap: float | None
    stages: dict[str, list[str]]


class Search(BaseModel):
    """The record of a search, ``search.json``. A file may have more fields.

    weights: w/2 in 0…1 of each of ``connections``, a row for each of ``iterations``. final: the
    last weights. inputs: number of inputs of each stage, with MaskConnect. losses: of every
    iteration. resumed: iterations at which an interrupted search went on. peak_memory_bytes: on
    CUDA. found: None if the threshold leaves nothing.
    """

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")

    format: Literal[1]
    method: str
    task: str
    dataset: str
    backbone: str
    strides: tuple[int, ...] = Field(max_length=MOST_FEATURES)
    threshold: float = Field(ge=0, lt=1)
    merge: bool = True
    absorb: bool = True
    inputs: int | None = None
    connections: list[SearchConnection] = Field(min_length=1)
    config: dict[str, Any]
    command: str = ""
    environment: Annotated[Environment, OPEN] = Field(default_factory=Environment)
    data: Annotated[SplitFacts, OPEN] = Field(default_factory=SplitFacts)
    iterations: list[Step] = Field(min_length=1)
    weights: list[list[Weight]]
    final: list[Weight]
    losses: dict[str, list[float]] = Field(default_factory=dict)
    seconds: float = 0.0
    resumed: list[int] = Field(default_factory=list)
    peak_memory_bytes: int | None = None
    found: Annotated[Pruning, OPEN] | None = None

    @property
    def pairs(self) -> list[Connection]:
        """The connections as (stage, source)."""
        return [(c.stage, c.source) for c in self.connections]

    def text(self) -> str:
        """The content of ``search.json``."""
        return json.dumps(self.model_dump(mode="json", exclude_unset=True)) + "\n"

    @model_validator(mode="after")
    def _check(self) -> "Search":
        count = len(self.strides)
        for stage, source in self.pairs:
            if not 1 <= stage <= count or source not in candidates(stage, count):
                raise ValueError(f"{arrow(stage, source)} cannot be with {count} features")
        if len(set(self.pairs)) < len(self.pairs):
            raise ValueError("a connection stands twice")
        if len(self.weights) != len(self.iterations):
            rows, logged = len(self.weights), len(self.iterations)
            raise ValueError(f"{rows} rows of weights for {logged} iterations")
        for row in (*self.weights, self.final):
            if len(row) != len(self.connections):
                raise ValueError(f"{len(row)} weights for {len(self.connections)} connections")
        return self


def read_record(kind: type[Record], path: Path, what: str) -> Record:
    """The record in a file, of a ``what``. Raises UsageError that names the file and its fault."""
    try:
        return kind.model_validate_json(read_bytes(path, RESULT))
    except FileNotFoundError:
        raise UsageError(f"{path}: not there: name the folder that a search wrote") from None
    except (OSError, ValueError) as error:  # limits, or pydantic
        seen = printable(_reason(error), 200)
        raise UsageError(f"{path}: not the record of a {what} ({seen})") from error


def read_search(folder: Path) -> Search:
    """The record in a search folder. Raises UsageError that names the file and its fault."""
    return read_record(Search, folder / SEARCH, "search")


def load_search(folder: Path) -> tuple[Connectivity, Search]:
    """The wiring and the record in a search folder.

    Raises UsageError that names a file which is missing, damaged or of another search.
    """
    search = read_search(folder)
    wiring = Connectivity.load(folder / WIRING)
    if wiring.strides != search.strides:
        raise UsageError(f"{folder}: found.json and search.json have other strides")
    return wiring, search


def _reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {message_of(first)}" if where else message_of(first)
