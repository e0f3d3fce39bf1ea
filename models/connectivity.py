"""Connectivity: which features feed which decoder stage, as plain data for the decoder.

Names: encoder features E1 (highest resolution) … EL (lowest), G (global average of EL), decoder
stages D1 … DL. Stage l has the spatial size of E_l and may take E_i with i ≥ l, D_i with i > l
and G. D1 is the output. Source: Wu, Zhang, Huang, ICCV 2019, section 3.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from common.errors import UsageError
from common.limits import WIRING, parse_json, printable, read_bytes
from common.registry import unknown_name

if TYPE_CHECKING:
    from models.feature_maps import FeatureSpec

ARCHITECTURES = Path(__file__).parent / "architectures"
GLOBAL = "G"
NAME = 120  # characters to which a name in a file is cut
MOST_FEATURES, MOST_STRIDE = 100, 1024  # the deepest of timm have 12 and stride 64
Connection = tuple[int, str]
"""A stage's number and the name of one of its inputs."""


def candidates(stage: int, stages: int) -> list[str]:
    """All inputs that stage ``stage`` of ``stages`` may take: 2(L − l + 1) names."""
    encoder = [f"E{i}" for i in range(stages, stage - 1, -1)]
    decoder = [f"D{i}" for i in range(stages, stage, -1)]
    return [*encoder, GLOBAL, *decoder]


@dataclass(frozen=True)
class Connectivity:
    """A wiring. stages: stage number → names of its inputs.

    strides: of E1 … EL, those that they have undilated.
    """

    name: str
    strides: tuple[int, ...]
    stages: Mapping[int, tuple[str, ...]]
    backbone: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises UsageError that names an impossible stage or input."""
        count = len(self.strides)
        if count > MOST_FEATURES or not all(1 <= stride <= MOST_STRIDE for stride in self.strides):
            raise UsageError(
                f"connectivity {self.name}: expected at most {MOST_FEATURES} features, of strides "
                f"1…{MOST_STRIDE}"
            )
        if 1 not in self.stages or not self.stages[1]:
            raise UsageError(f"connectivity {self.name}: stage 1, the output, has no input")
        for stage, inputs in self.stages.items():
            if not 1 <= stage <= count:
                raise UsageError(
                    f"connectivity {self.name}: stage {stage} of an encoder with {count} features"
                )
            allowed = candidates(stage, count)
            for source in inputs:
                if source not in allowed:
                    raise UsageError(
                        f"connectivity {self.name}: stage {stage} cannot take "
                        f"{printable(source, 80)}; it may take {', '.join(allowed)}"
                    )
                if source[0] == "D" and int(source[1:]) not in self.stages:
                    raise UsageError(
                        f"connectivity {self.name}: stage {stage} takes {source}, "
                        "but that stage has no input"
                    )
            if len(set(inputs)) != len(inputs):
                raise UsageError(f"connectivity {self.name}: stage {stage} has an input twice")

    @property
    def connections(self) -> int:
        """Number of connections."""
        return sum(len(inputs) for inputs in self.stages.values())

    def alive(self) -> "Connectivity":
        """The wiring without stages that have no input or no consumer; D1 needs no consumer."""
        stages = alive_stages(self.stages)
        return Connectivity(self.name, self.strides, stages, self.backbone, self.origin)

    def pruned(self, merge: bool = True, absorb: bool = True) -> "Connectivity":
        """``alive``, without stages that repeat others (the reference's last two pruning steps).

        merge: of two stages with the same inputs only the deeper one stays, which all consumers of
        both may take. absorb: a stage is dropped if another stage has all its inputs and
        consumers. D1 always stays, and nothing merges into it.
        """
        stages = alive_stages(self.stages)
        while True:
            fewer = _without_repeats(stages, merge, absorb)
            if fewer == stages:
                return Connectivity(self.name, self.strides, stages, self.backbone, self.origin)
            stages = alive_stages(fewer)

    def transfer(self, strides: Sequence[int], backbone: str = "") -> "Connectivity":
        """The same wiring on a backbone with features of ``strides``; see ``carry``."""
        return self.carry(strides, backbone).wiring

    def carry(self, strides: Sequence[int], backbone: str = "") -> "Transfer":
        """Carry the wiring to a backbone with features of ``strides`` (paper, section 4.3).

        Features are matched by stride. Where both sides have several of one stride they are
        matched in order from the deepest; surplus ones of the source share the shallowest match,
        so that their connections stay. Where the backbone has no feature of a stride, the
        stage and its connections are dropped. The output D1 stays the highest resolution; if
        nothing is left for it, it takes the deepest feature.
        """
        strides = tuple(strides)
        partner: dict[int, int] = {}
        for stride in set(self.strides):
            ours = [i for i, s in enumerate(self.strides, 1) if s == stride]
            theirs = [i for i, s in enumerate(strides, 1) if s == stride]
            for depth, index in enumerate(reversed(ours)):
                if theirs:
                    partner[index] = theirs[max(len(theirs) - 1 - depth, 0)]
        moved: dict[Connection, Connection] = {}
        lost: dict[Connection, str] = {}
        stages: dict[int, dict[str, None]] = {}  # a dict keeps order and drops repeats
        for stage, inputs in self.stages.items():
            target = 1 if stage == 1 else partner.get(stage)
            for source in inputs:
                place = 0 if source == GLOBAL else int(source[1:])
                name = f"{source[0]}{partner.get(place)}" if place else GLOBAL
                if target is None:
                    lost[stage, source] = f"no feature of stride {self.strides[stage - 1]}"
                elif place and place not in partner:
                    lost[stage, source] = f"no feature of stride {self.strides[place - 1]}"
                elif name == f"D{target}":
                    lost[stage, source] = f"both ends are {name} now"
                elif name not in candidates(target, len(strides)):
                    lost[stage, source] = f"D{target} may not take {name}"
                else:
                    moved[stage, source] = (target, name)
                    stages.setdefault(target, {})[name] = None
        result = {stage: tuple(names) for stage, names in stages.items()}
        same = strides == self.strides
        result = dict(self.stages) if same else alive_stages(result) or {1: (f"E{len(strides)}",)}
        for connection, (target, name) in list(moved.items()):
            if name not in result.get(target, ()):
                dead = name if target in result else f"D{target}"
                lost[connection] = f"nothing reaches D1 through {dead}"
                del moved[connection]
        wiring = Connectivity(self.name, strides, result, backbone, self.origin)
        return Transfer(wiring, partner, moved, lost)

    def onto(self, features: Sequence["FeatureSpec"], backbone: str = "") -> "Transfer":
        """Carry the wiring to these features, matched by the strides that they have undilated.

        A wiring of the very strides that they have dilated stays as it is: it was searched there
        by a version that did not tell them apart.
        """
        strides = tuple(feature.stride for feature in features)
        if strides != self.strides:
            strides = tuple(feature.undilated for feature in features)
        return self.carry(strides, backbone)

    def to_json(self) -> dict[str, Any]:
        """The content of an architecture file."""
        return {
            "format": 1,
            "name": self.name,
            "encoder": {"backbone": self.backbone, "strides": list(self.strides)},
            "stages": {str(s): list(i) for s, i in sorted(self.stages.items(), reverse=True)},
            "origin": dict(self.origin),
        }

    @classmethod
    def load(cls, path: Path) -> "Connectivity":
        """Read an architecture file. Raises UsageError that names the file and what is wrong."""
        try:
            content = parse_json(read_bytes(path, WIRING))
        except FileNotFoundError:
            raise UsageError(f"{path}: no such connectivity file") from None
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: not a readable connectivity file ({error})") from error
        known = {"format", "name", "encoder", "stages", "origin"}
        unknown = sorted(set(content) - known) if isinstance(content, dict) else ["(no object)"]
        if unknown or content.get("format") != 1:
            wrong = f"unknown key {printable(unknown[0], 80)}" if unknown else "not format 1"
            raise UsageError(f"{path}: {wrong}; the keys are {', '.join(sorted(known))}")
        try:
            return cls(
                name=printable(str(content["name"]), NAME),
                strides=tuple(int(s) for s in content["encoder"]["strides"]),
                stages={int(s): tuple(map(str, i)) for s, i in content["stages"].items()},
                backbone=printable(str(content["encoder"].get("backbone", "")), NAME),
                origin=dict(content.get("origin", {})),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UsageError(
                f"{path}: not a connectivity: {printable(repr(error), 200)}"
            ) from error
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error

    @classmethod
    def from_record(
        cls, name: str, wiring: Mapping[str, Any], backbone: str = ""
    ) -> "Connectivity":
        """From strides and stages of a run's configuration; invalid values raise any error."""
        return cls(
            name=name,
            strides=tuple(int(s) for s in wiring["strides"]),
            stages={int(s): tuple(map(str, i)) for s, i in wiring["stages"].items()},
            backbone=backbone,
        )


@dataclass(frozen=True)
class Transfer:
    """A wiring on another backbone, and the fate of each feature and connection.

    partner: index of a source feature → index of its counterpart; no entry where the backbone lacks
    its stride. moved: connection → its counterpart, which several may share. lost: connection →
    reason why it is dropped. Keys are of the source wiring.
    """

    wiring: Connectivity
    partner: Mapping[int, int]
    moved: Mapping[Connection, Connection]
    lost: Mapping[Connection, str]


def alive_stages(stages: Mapping[int, tuple[str, ...]]) -> dict[int, tuple[str, ...]]:
    """The stages that have an input and reach D1; none where D1 has none."""
    alive = {stage: tuple(inputs) for stage, inputs in stages.items()}
    while True:
        used = {source for inputs in alive.values() for source in inputs}
        fewer = {s: i for s, i in alive.items() if i and (s == 1 or f"D{s}" in used)}
        fewer = {
            s: tuple(x for x in i if x[0] != "D" or int(x[1:]) in fewer) for s, i in fewer.items()
        }
        if fewer == alive:
            return alive
        alive = fewer


def from_weights(
    name: str,
    strides: Sequence[int],
    weights: Mapping[int, Mapping[str, float]],
    threshold: float,
    inputs: int | None = None,
) -> Connectivity:
    """The connections whose weight is above ``threshold``, or the ``inputs`` largest of each stage.

    weights: stage → source → weight in 0…1. Stages without input or consumer stay in the result:
    ``alive`` drops them. Raises UsageError if no connection is left that reaches D1.
    """
    stages = {}
    for stage, row in weights.items():
        ranked = sorted(row, key=lambda source: -row[source])
        chosen = ranked[:inputs] if inputs else [s for s in row if row[s] > threshold]
        stages[stage] = tuple(source for source in row if source in chosen)
    if 1 not in alive_stages(stages):
        largest = max(weight for row in weights.values() for weight in row.values())
        output = max(weights[1].values(), default=0.0)
        raise UsageError(
            f"--threshold {threshold:g} leaves no connection that reaches the output: the largest "
            f"weight is {largest:.4g}, that of the output's inputs {output:.4g}: use a smaller one"
        )
    return Connectivity(name, tuple(strides), stages)


def _without_repeats(
    stages: Mapping[int, tuple[str, ...]], merge: bool, absorb: bool
) -> dict[int, tuple[str, ...]]:
    """``stages`` without the first stage that repeats another, or unchanged."""
    result = dict(stages)
    users = {s: {c for c, inputs in result.items() if f"D{s}" in inputs} for s in result}
    for stage, other in itertools.permutations(sorted(set(result) - {1}), 2):
        mine, theirs = set(result[stage]), set(result[other])
        if merge and mine == theirs and stage < other:
            for user in users[stage]:
                renamed = [f"D{other}" if n == f"D{stage}" else n for n in result[user]]
                result[user] = tuple(dict.fromkeys(renamed))
        elif not (absorb and mine <= theirs and users[stage] <= users[other]):
            continue
        del result[stage]
        for user in users[stage]:
            result[user] = tuple(n for n in result[user] if n != f"D{stage}")
        return result
    return result


def fully_dense(strides: Sequence[int]) -> Connectivity:
    """Every allowed connection: the Fully Dense Network that a search starts from."""
    count = len(strides)
    stages = {stage: tuple(candidates(stage, count)) for stage in range(count, 0, -1)}
    return Connectivity("fully-dense", tuple(strides), stages)


def sparse_acn(strides: Sequence[int]) -> Connectivity:
    """Sparsely aggregated: each D takes the names 1, 2, 4, 8, 16 places before it that it may.

    The places are those in E1 … EL, G, DL … D1 (Zhu et al. 2018, as the paper's table 1 counts).
    """
    count = len(strides)
    line = [f"E{i}" for i in range(1, count + 1)] + [GLOBAL]
    line += [f"D{i}" for i in range(count, 0, -1)]
    stages = {}
    for stage in range(count, 0, -1):
        place = line.index(f"D{stage}")
        taken = [line[place - back] for back in (1, 2, 4, 8, 16) if back <= place]
        stages[stage] = tuple(name for name in taken if name in candidates(stage, count))
    return Connectivity("sparse-acn", tuple(strides), stages)


def encoder_sum(strides: Sequence[int]) -> Connectivity:
    """D1 ← EL … E1: every encoder feature straight into the output, and nothing else."""
    names = tuple(f"E{i}" for i in range(len(strides), 0, -1))
    return Connectivity("encoder-sum", tuple(strides), {1: names})


def random_subset(strides: Sequence[int], seed: int | str) -> Connectivity:
    """A random set of encoder features and G straight into D1, each of them equally likely."""
    names = [f"E{i}" for i in range(len(strides), 0, -1)] + [GLOBAL]
    random = Random(f"subset {seed} {tuple(strides)}")
    while not (taken := tuple(name for name in names if random.random() < 0.5)):
        pass
    origin = {"source": "random", "seed": seed}
    return Connectivity(f"random-subset-{seed}", tuple(strides), {1: taken}, "", origin)


def random_wiring(strides: Sequence[int], connections: int, seed: int | str) -> Connectivity:
    """A wiring of exactly ``connections`` live connections, drawn at random.

    It grows from a random input of D1: each step adds a connection drawn evenly from those that a
    stage in use may still take, and a stage that comes into use gets a random input of its own.
    A draw that overshoots the number starts again. Raises UsageError for an impossible number.
    """
    count = len(strides)
    if not 1 <= connections <= count * (count + 1):
        raise UsageError(
            f"a random wiring of {connections} connections: {count} features allow "
            f"1…{count * (count + 1)}"
        )
    random = Random(f"{seed} {connections} {tuple(strides)}")
    while True:
        stages: dict[int, list[str]] = {1: []}

        def take(stage: int, source: str, stages: dict[int, list[str]] = stages) -> None:
            stages[stage].append(source)
            if source[0] == "D" and int(source[1:]) not in stages:
                new = int(source[1:])
                stages[new] = []
                take(new, random.choice(candidates(new, count)))

        while (taken := sum(map(len, stages.values()))) < connections:
            free = [(s, n) for s, i in stages.items() for n in candidates(s, count) if n not in i]
            if not free:
                break
            take(*random.choice(free))
        if taken == connections:
            wired = {s: tuple(i) for s, i in sorted(stages.items(), reverse=True)}
            origin = {"source": "random", "seed": seed}
            return Connectivity(f"random-{connections}-{seed}", tuple(strides), wired, "", origin)


def unet(strides: Sequence[int]) -> Connectivity:
    """D_l ← E_l, D_{l+1}: the connections of U-Net (without G)."""
    count = len(strides)
    stages = {s: (f"E{s}", f"D{s + 1}") if s < count else (f"E{s}",) for s in range(1, count + 1)}
    return Connectivity("unet-connectivity", tuple(strides), stages)


def sparsemask(strides: Sequence[int]) -> Connectivity:
    """The authors' wiring for MobileNetV2 on VOC 2012, transferred."""
    return Connectivity.load(ARCHITECTURES / "sparsemask-voc2012.json").transfer(strides)


PRESETS: dict[str, Callable[[Sequence[int]], Connectivity]] = {
    "sparsemask": sparsemask,
    "fully-dense": fully_dense,
    "unet-connectivity": unet,
    "sparse-acn": sparse_acn,
    "encoder-sum": encoder_sum,
}


def preset(name: str, strides: Sequence[int]) -> Connectivity:
    """The connectivity called ``name`` on features of ``strides``."""
    if name not in PRESETS:
        raise unknown_name("connectivity", name, PRESETS, "python cli.py list decoders")
    return PRESETS[name](strides)


def is_preset(text: str) -> bool:
    """Whether ``text`` stands for a preset, known or mistyped, and not for a file."""
    return text in PRESETS or not (text.endswith(".json") or Path(text).expanduser().exists())


def find(text: str, strides: Sequence[int]) -> Connectivity:
    """The preset or the architecture file that ``text`` names, on features of ``strides``.

    Raises UsageError if it is neither, and for a file that is no connectivity.
    """
    if is_preset(text):
        return preset(text, strides)
    return Connectivity.load(Path(text).expanduser()).transfer(strides)
