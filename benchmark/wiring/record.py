"""The record of a search, search.json: its fields and checks."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from benchmark.wiring.names import arrow
from common.errors import UsageError
from common.limits import RESULT, printable, read_bytes
from models.connectivity import (
    MOST_FEATURES,
    Connection,
    Connectivity,
    candidates,
)

SEARCH, WIRING = "search.json", "found.json"


Step = Annotated[int, Field(ge=0, le=10**12)]


Weight = Annotated[float, Field(ge=0, le=1)]


class SearchConnection(BaseModel):
    """A candidate connection of a search: an input of a stage."""

    stage: int
    source: str


class Search(BaseModel):
    """The record of a search, ``search.json``. Fields beside those of pruning and drawing stay too.

    weights: w/2 in 0…1 of each of ``connections``, a row for each of ``iterations``. final: the
    last weights. inputs: number of inputs of each stage, with MaskConnect.
    """

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")

    format: Literal[1]
    method: str
    task: str
    dataset: str
    config: dict[str, Any]
    inputs: int | None = None
    merge: bool = True
    absorb: bool = True
    backbone: str
    strides: tuple[int, ...] = Field(max_length=MOST_FEATURES)
    threshold: float = Field(ge=0, lt=1)
    connections: list[SearchConnection] = Field(min_length=1)
    iterations: list[Step] = Field(min_length=1)
    weights: list[list[Weight]]
    final: list[Weight]

    @property
    def pairs(self) -> list[Connection]:
        """The connections as (stage, source)."""
        return [(c.stage, c.source) for c in self.connections]

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


def read_search(folder: Path) -> Search:
    """The record in a search folder. Raises UsageError that names the file and its fault."""
    path = folder / SEARCH
    try:
        return Search.model_validate_json(read_bytes(path, RESULT))
    except FileNotFoundError:
        raise UsageError(f"{path}: not there: name the folder that a search wrote") from None
    except (OSError, ValueError) as error:  # limits, or pydantic
        seen = printable(_reason(error), 200)
        raise UsageError(f"{path}: not the record of a search ({seen})") from error


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
    return f"{where}: {first['msg']}" if where else first["msg"].removeprefix("Value error, ")
