"""`data split`: lists that a reader takes, that more images do not change, and that are kept."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from datasets.own.reader import OwnData
from tests.datasets.own.folder import YAML, discs, maps, save

Cli = Callable[..., Result]
SHARES = r"splits: {val: 0.2, test: 0.3, seed: 0, group: '(.*)_\d+'}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return discs(tmp_path / "discs")


def lists(root: Path) -> dict[str, list[str]]:
    return {path.stem: path.read_text().splitlines() for path in root.glob("*.txt")}


def described(root: Path, splits: str) -> None:
    (root / "dataset.yaml").write_text(YAML.replace(SHARES, splits))


def test_lists_are_what_the_shares_choose(cli: Cli, root: Path) -> None:
    shares = {s: [x.name for x in OwnData(root, s, "depth")] for s in ("train", "val", "test")}
    done = cli("data", "split", root)
    assert done.exit_code == 0, done.output
    assert lists(root) == shares
    clips = len({name.partition("_")[0] for name in shares["val"]})
    assert f"val.txt: {len(shares['val'])} samples in {clips} groups" in done.stderr
    entry = done.stderr.splitlines()[-1]
    assert entry == "splits: {train: train.txt, val: val.txt, test: test.txt}"
    described(root, entry)
    read = {s: [x.name for x in OwnData(root, s, "depth")] for s in ("train", "val", "test")}
    assert read == shares


def test_more_images_move_none(cli: Cli, root: Path) -> None:
    described(root, "splits: {train: train.txt, test: test.txt}")
    options = ("data", "split", root, "--val", "0", "--test", "0.4", "--seed", "2")
    done = cli(*options)
    assert "they are used from now on" in done.stderr
    before = lists(root)
    assert set(before) == {"train", "test"}
    assert all(names == sorted(names) and names for names in before.values())
    kept = cli(*options)
    assert kept.exit_code == 2
    assert "train.txt: is there already: --overwrite replaces it" in kept.stderr
    arrays = maps(0)
    for folder, kind in (
        ("rgb", "image"),
        ("labels", "labels"),
        ("depth", "depth"),
        ("masks", "mask"),
    ):
        suffix = "jpg" if folder == "rgb" else "png"
        for number in range(24, 60):
            save(root / f"{folder}/late_{number:03d}.{suffix}", arrays[kind])
    assert lists(root) == before
    assert cli(*options, "--overwrite").exit_code == 0
    after = lists(root)
    assert sum(map(len, after.values())) == 60
    assert all(set(names) <= set(after[split]) for split, names in before.items())


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--val", "0", "--test", "0"), 2, "--val 0 --test 0: give one of them a share"),
        (("--val", "0.5", "--test", "0.5"), 2, "--val 0.5 --test 0.5: val and test leave nothing"),
        (("--val", "-0.5"), 2, "'--val': -0.5 is not in the range 0<=x<1"),
        (("--val", "nan"), 2, "'--val': 'nan' is not a finite number"),
        (("--seed", "-1"), 2, "--seed: expected at least 0"),
        (("--group", "("), 2, "--group: no regular expression: "),
        (("--group", "frame"), 2, "--group frame: matches none of the 24 names, such as"),
        (("--val", "0.01"), 1, "of 8 groups none falls into val: --seed"),
        (("--val", "0.01", "--group", ".*"), 1, "of 24 groups none falls into val"),
        (("--group", "^clip"), 1, "of 1 group none falls into "),
    ],
)  # fmt: skip
def test_what_cannot_be_split_writes_nothing(
    cli: Cli, root: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    done = cli("data", "split", root, *options)
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert lists(root) == {}


def test_the_seed_that_is_suggested_fills_all(cli: Cli, root: Path) -> None:
    done = cli("data", "split", root, "--val", "0.01")
    seed = done.stderr.partition("--seed ")[2].split()[0]
    assert cli("data", "split", root, "--val", "0.01", "--seed", seed).exit_code == 0
    assert all(lists(root).values())


def test_a_list_of_a_split_without_share_is_in_the_way(cli: Cli, root: Path) -> None:
    (root / "val.txt").write_text("clip0_000\n")
    done = cli("data", "split", root, "--val", "0", "--overwrite")
    assert done.exit_code == 2
    assert "val.txt: is there and --val 0 writes none: remove it" in done.stderr
    assert lists(root) == {"val": ["clip0_000"]}


def test_a_name_that_no_line_can_hold_is_refused(cli: Cli, root: Path) -> None:
    for folder, suffix in (("rgb", "jpg"), ("labels", "png"), ("depth", "png"), ("masks", "png")):
        (root / f"{folder}/clip0_000.{suffix}").rename(root / f"{folder}/clip0\n_000.{suffix}")
    done = cli("data", "split", root)
    assert done.exit_code == 1
    assert "rgb/clip0 _000.jpg: no line of a list can stand for its name" in done.stderr
    assert lists(root) == {}


def test_a_folder_without_description_is_sent_to_init(cli: Cli, tmp_path: Path) -> None:
    done = cli("data", "split", tmp_path)
    assert done.exit_code == 1
    assert f"python cli.py data init {tmp_path} writes one" in done.stderr
