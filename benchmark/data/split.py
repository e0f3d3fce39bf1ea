"""Lists of the samples of each split, chosen by a hash of their names."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from common.errors import DataError, UsageError
from common.files import whole_file
from common.limits import printable
from common.validation import message_of
from datasets.files import Line
from datasets.own.description import Description, Splits
from datasets.own.reader import Folder
from datasets.own.reading import read_description
from datasets.own.splits import Names, by_hash, check_group, group_of

SHARES = Splits(val=0.1, test=0.2)
SEEDS = 1000
"""How many seeds are tried to suggest one."""


@dataclass(frozen=True)
class Written:
    """samples, groups: number of each split. entry: of ``dataset.yaml``. used: it has it."""

    samples: Mapping[str, int]
    groups: Mapping[str, int] | None
    entry: str
    used: bool


def split(
    root: Path,
    val: float | None = None,
    test: float | None = None,
    seed: int | None = None,
    group: str | None = None,
    overwrite: bool = False,
) -> Written:
    """Write ``train.txt`` and those of ``val.txt`` and ``test.txt`` whose share is not 0.

    What is None is taken from the shares in ``dataset.yaml``; without these, 0.1 of the samples are
    val and 0.2 test. Writes all lists or none. Raises UsageError for options that contradict each
    other and for lists that are there already, unless ``overwrite``; DataError for an empty split.
    """
    described = read_description(root)
    wanted = _shares(described.splits, val, test, seed, group)
    names = _names(root, described)
    if wanted.group is not None:
        check_group(names, wanted.group, f"--group {printable(wanted.group, 80)}")
    chosen = by_hash(names, wanted)
    _check_filled(root, chosen, wanted)
    files = {name: f"{name}.txt" for name in chosen}
    for name in ("train", "val", "test"):
        path = root / f"{name}.txt"
        if path.exists() and name not in chosen:
            raise UsageError(f"{path}: is there and --{name} 0 writes none: remove it")
        if path.exists() and not overwrite:
            raise UsageError(f"{path}: is there already: --overwrite replaces it")
    with ExitStack() as lists:  # each takes its place at the end
        for name, samples in chosen.items():
            path = lists.enter_context(whole_file(root / files[name], "DIR"))
            path.write_text("".join(f"{sample}\n" for sample in samples), "utf-8")
    groups = None
    if wanted.group is not None:
        groups = {n: len({group_of(s, wanted.group) for s in part}) for n, part in chosen.items()}
    entry = ", ".join(f"{name}: {file}" for name, file in files.items())
    counts = {name: len(samples) for name, samples in chosen.items()}
    return Written(counts, groups, f"splits: {{{entry}}}", described.splits.lists == files)


def _shares(
    described: Splits, val: float | None, test: float | None, seed: int | None, group: str | None
) -> Splits:
    """The options, each else as described. Raises UsageError."""
    known = SHARES if described.lists else described
    values = {
        "val": known.val or 0.0 if val is None else val,
        "test": known.test or 0.0 if test is None else test,
        "seed": known.seed or 0 if seed is None else seed,
        "group": known.group if group is None else group,
    }
    if not values["val"] and not values["test"]:
        raise UsageError("--val 0 --test 0: give one of them a share: networks are scored on it")
    try:
        return Splits.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        message = message_of(first)
        if not first["loc"]:
            raise UsageError(f"--val {values['val']} --test {values['test']}: {message}") from None
        got = printable(repr(first["input"]), 200)
        raise UsageError(f"--{first['loc'][0]}: {message} (got {got})") from None


def _names(root: Path, described: Description) -> list[str]:
    """The samples. Raises DataError for a name that a line of a list cannot hold."""
    images = Folder(root, described, tuple(described.targets.present)).images
    known = Names(images, [])
    for name, file in images.items():
        try:
            name.encode()
            same = name == name.strip() and "\n" not in name and "\r" not in name
            same = same and known.sample(Line("", name)) == name
        except (DataError, UnicodeEncodeError):
            same = False
        if not same:
            problem = f"no line of a list can stand for its name, '{printable(name, 80)}'"
            raise DataError(f"{root}: {printable(file, 200)}: {problem}: rename the file")
    return list(images)


def _check_filled(root: Path, chosen: Mapping[str, Sequence[str]], wanted: Splits) -> None:
    """Raises DataError for a split without a sample; names a seed that fills all, if there is."""
    empty = next((name for name, samples in chosen.items() if not samples), None)
    if empty is None:
        return
    names = [name for samples in chosen.values() for name in samples]
    count = len({group_of(name, wanted.group) for name in names})
    what = ("sample" if wanted.group is None else "group") + "s" * (count > 1)
    remedy = "take a larger share, or add images"
    for seed in range(SEEDS):
        if all(by_hash(names, wanted.model_copy(update={"seed": seed})).values()):
            remedy = f"--seed {seed} fills every split, or take a larger share"
            break
    raise DataError(f"{root}: of {count} {what} none falls into {empty}: {remedy}")
