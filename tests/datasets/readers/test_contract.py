"""What every data set that is read from files must do, on the tiny folders of the fixtures."""

import pickle
import random
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmark.experiment.config import RunConfig, make_config
from benchmark.experiment.plan import make_task, resolve
from benchmark.scoring.evaluate import protocol_id
from common.errors import DataError, UsageError
from datasets.base import DATASETS, DatasetInfo, DenseDataset, Sample
from datasets.pipeline import open_splits
from tasks.base import TASKS
from tests.datasets import fixtures_data, fixtures_depth_saliency
from tests.datasets.fixtures_data import ODD

FIXTURES = fixtures_data.FIXTURES | fixtures_depth_saliency.FIXTURES
CASES = 30  # of damage to each data set
FEWER_CASES = {"nyu-depth-v2": 6}  # each reads all frames, which are larger than other fixtures'

# What a data set's published layout excepts it from:
NUMBERED = {"nyu-depth-v2"}  # samples are frames of one file, so that no name can be odd
# sets whose images alone say what there is: DUTS is published with masks that have no image
IMAGES_DECIDE = {"duts", "ecssd", "hku-is", "dut-omron", "pascal-s"}
UNREAD = {  # files of the layout that no sample is made of
    "cityscapes": ["*_instanceIds.png"],
    "voc2012-aug": [f"SegmentationClass/{name}.png" for name in ("2007_000032", ODD)],
}

pytestmark = pytest.mark.filterwarnings("ignore:.* samples in '.*' where .* has ")


def trains(name: str) -> bool:
    return "train" in DATASETS.get(name).info.splits


@pytest.fixture(params=sorted(FIXTURES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(name: str, tmp_path: Path) -> Path:
    root = tmp_path / "Daten Größe"
    FIXTURES[name](root)
    return root


def opened(name: str, root: Path) -> list[DenseDataset]:
    """Every split for every task."""
    kind = DATASETS.get(name)
    return [
        kind(root, split, task) for task in kind.info.tasks for split in kind.available_splits(root)
    ]


def configs(name: str) -> list[RunConfig]:
    """A run by the data set's defaults for each of its tasks that there is."""
    tasks = [task for task in DATASETS.get(name).info.tasks if task in TASKS.names()]
    return [resolve(make_config({"dataset": name, "task": task})) for task in tasks]


def check_segmentation(target: Tensor, info: DatasetInfo) -> None:
    assert target.dtype == torch.uint8
    assert ((target < len(info.tasks["segmentation"]["classes"])) | (target == 255)).all()


def check_depth(target: Tensor, info: DatasetInfo) -> None:
    assert target.dtype == torch.float32
    assert torch.isfinite(target).all()
    assert (target >= 0).all()


def check_saliency(target: Tensor, info: DatasetInfo) -> None:
    assert target.dtype == torch.uint8
    assert (target <= 1).all()


def check_edges(target: Tensor, info: DatasetInfo) -> None:
    assert target.dtype == torch.int32


TARGETS: dict[str, Callable[[Tensor, DatasetInfo], None]] = {
    "segmentation": check_segmentation,
    "depth": check_depth,
    "saliency": check_saliency,
    "edges": check_edges,
}


def check_sample(sample: Sample, info: DatasetInfo) -> None:
    assert sample.image.dtype == torch.uint8
    assert sample.image.shape[0] == 3
    for target, values in sample.targets.items():
        assert values.shape == sample.image.shape[1:]
        TARGETS[target](values, info)


def read_all(name: str, root: Path) -> str | None:
    """Read every sample of every split. The message of the DataError that stops it."""
    try:
        for data in opened(name, root):
            for index in range(len(data)):
                check_sample(data[index], data.info)
    except DataError as error:
        text = str(error)
    else:
        return None
    assert "\n" not in text
    return text


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def samples_files(name: str, root: Path) -> set[Path]:
    """The files that samples are made of: all that a fixture writes, but for lists."""
    unread = ["*.txt", *UNREAD.get(name, [])]
    return {p for p in files(root) if not any(p.match(pattern) for pattern in unread)}


def replace(path: Path, content: bytes) -> None:
    """Write a new file: HDF5 takes one of the same inode for that which it has open."""
    path.unlink()
    path.write_bytes(content)


def same(one: Sample, other: Sample) -> bool:
    return (
        one.name == other.name
        and torch.equal(one.image, other.image)
        and one.targets.keys() == other.targets.keys()
        and all(torch.equal(t, other.targets[n]) for n, t in one.targets.items())
    )


def test_every_data_set_of_files_has_a_fixture() -> None:
    assert set(FIXTURES) == {n for n in DATASETS.names() if not DATASETS.get(n).info.built_in}


def test_declares_itself(name: str) -> None:
    info = DATASETS.get(name).info
    assert info.name == name
    assert info.title
    assert info.licence
    assert info.generic or (info.citation and info.homepage.startswith("http"))
    assert info.tasks
    assert trains(name) or list(info.splits) == ["test"]
    assert info.scored in info.splits
    if "segmentation" in info.tasks:
        classes = info.tasks["segmentation"]["classes"]
        assert len(set(classes)) == len(classes) == len(info.palette)
        assert all(len(c) == 3 and 0 <= min(c) <= max(c) <= 255 for c in info.palette)
    for config in configs(name):  # its defaults are values of a run
        assert {key: getattr(config, key) for key in info.defaults} == dict(info.defaults)


def test_samples(name: str, root: Path) -> None:
    for data in opened(name, root):
        copy = pickle.loads(pickle.dumps(data))
        assert len(data) == len(copy) >= 2
        for index in range(len(data)):
            sample = data[index]
            check_sample(sample, data.info)
            assert same(sample, data[index])
            assert same(sample, copy[index])
        names = [sample.name for sample in data]
        assert len(set(names)) == len(names)
        assert any(ODD in n for n in names) or name in NUMBERED
        with pytest.raises(IndexError):
            data[len(data)]


def test_some_pixels_are_known(name: str, root: Path) -> None:
    unknown = {"segmentation": 255, "depth": 0, "saliency": 0, "edges": 0}
    for data in opened(name, root):
        for target, values in data[0].targets.items():
            assert (values != unknown[target]).any()


@pytest.mark.parametrize("name", [name for name in FIXTURES if trains(name)])
def test_splits_do_not_overlap(name: str, root: Path) -> None:
    info = DATASETS.get(name).info
    for task in info.tasks:
        splits = open_splits(name, root, task, (32, 32))
        names = [sample.name for split in splits.values() for sample in split]
        assert len(set(names)) == len(names)
        assert splits["test"].name == info.scored


@pytest.mark.parametrize("name", [name for name in FIXTURES if not trains(name)])
def test_a_set_without_training_images_is_for_scoring(name: str, root: Path) -> None:
    info = DATASETS.get(name).info
    for task in info.tasks:
        seen = f"{info.title} has only a test split: train on "
        with pytest.raises(UsageError, match=rf"^{seen}.+ evaluate --dataset {name}$"):
            open_splits(name, root, task, (32, 32))


def test_a_wrong_count_names_both(name: str, root: Path) -> None:
    info = DATASETS.get(name).info
    for task in info.tasks:
        for split, published in info.splits.items():
            if published is not None:
                expected = rf" samples in '{split}' where {re.escape(info.title)} has {published}$"
                with pytest.warns(UserWarning, match=expected) as caught:
                    data = DATASETS.get(name)(root, split, task)
                assert str(caught[0].message).startswith(f"{data.root}: {len(data)} samples in ")


def test_fingerprint_follows_every_file(name: str, root: Path) -> None:
    first = [data.fingerprint() for data in opened(name, root)]
    assert [data.fingerprint() for data in opened(name, root)] == first
    noticed = set()
    for path in files(root):
        if path.suffix != ".txt":
            content = path.read_bytes()
            replace(path, content + b"\0")
            if [data.fingerprint() for data in opened(name, root)] != first:
                noticed.add(path)
            replace(path, content)
    assert noticed == samples_files(name, root)


def test_a_score_says_which_split_it_is_of(name: str) -> None:
    split = "val" if name in ("voc2012", "voc2012-aug", "ade20k", "cityscapes") else "test"
    for config in configs(name):
        expected = f"{name}/{config.task}/{split}/"
        assert protocol_id(config, make_task(config)).startswith(expected)


def test_wrong_usage(name: str, root: Path) -> None:
    kind = DATASETS.get(name)
    task, split = next(iter(kind.info.tasks)), next(iter(kind.info.splits))
    with pytest.raises(UsageError, match=f"{name} needs --data DIR"):
        kind(None, split, task)
    with pytest.raises(UsageError, match=f"no split 'dev': choose {split}"):
        kind(root, "dev", task)
    with pytest.raises(UsageError, match="no task 'flow'"):
        kind(root, split, "flow")
    missing = root / "elsewhere"
    with pytest.raises(DataError) as caught:
        kind(missing, split, task)
    assert str(caught.value).startswith(f"{missing}: does not exist: --data must name a folder")
    missing.mkdir()
    with pytest.raises(DataError) as caught:
        kind(missing, split, task)
    assert str(caught.value).startswith(str(missing))


@pytest.mark.parametrize("damage", ["missing", "empty", "a folder", "truncated", "other"])
def test_a_bad_file_is_named(name: str, root: Path, damage: str) -> None:
    noticed = set()
    counts = [len(data) for data in opened(name, root)]
    for path in files(root):
        content = path.read_bytes()
        if damage == "truncated" and path.suffix == ".txt":
            continue  # half a list may be a list
        path.unlink()
        if damage == "empty":
            path.touch()
        elif damage == "a folder":
            path.mkdir()
        elif damage != "missing":
            path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"\xff" * 9)
        text = read_all(name, root)
        if text is not None:
            # which format a missing image would have is not known everywhere
            assert str(path.with_suffix("") if damage in ("missing", "a folder") else path) in text
            noticed.add(path)
        elif name in IMAGES_DECIDE and [len(data) for data in opened(name, root)] != counts:
            assert damage == "missing"
            noticed.add(path)
        if damage == "a folder":
            path.rmdir()
        path.write_bytes(content)
    assert noticed >= samples_files(name, root)
    assert read_all(name, root) is None


def test_damaged_bits_give_a_sample_or_name_the_file(name: str, root: Path) -> None:
    generator = random.Random(name)
    paths = files(root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(FEWER_CASES.get(name, CASES)):
            path = generator.choice(paths)
            content = path.read_bytes()
            damaged = bytearray(content)
            if generator.random() < 0.3:
                del damaged[generator.randrange(len(damaged)) :]
            else:
                for _ in range(generator.randint(1, 8)):
                    # the start holds sizes, modes and palettes
                    end = generator.choice([len(damaged), min(64, len(damaged))])
                    damaged[generator.randrange(end)] ^= 1 << generator.randrange(8)
            replace(path, bytes(damaged))
            text = read_all(name, root)
            assert text is None or str(path) in text, text
            replace(path, content)
