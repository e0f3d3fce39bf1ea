"""Random damage to the files of the tiny data sets: a sample, or an error of one line."""

import random
import resource
import warnings
from pathlib import Path

import pytest

from common.errors import DataError
from datasets.base import DATASETS, DenseDataset, Sample
from tests.datasets.fixtures_depth_saliency import FIXTURES, nyu_depth_v2

DEPTH = "train/indoors/scene_00000/scan_00160/00000_00160_indoors_000_000"
FILES = [
    ("nyu-depth-v2", "nyu_depth_v2_labeled.mat", 60),
    ("nyu-depth-v2", "splits.mat", 40),
    ("nyu-depth-v2", "classMapping40.mat", 40),
    ("diode", f"{DEPTH}_depth.npy", 40),
    ("diode", f"{DEPTH}_depth_mask.npy", 40),
    (
        "kitti-depth",
        "train/2011_09_26_drive_0057_sync/proj_depth/groundtruth/image_02/0000000311.png",
        20,
    ),
    ("ecssd", "ground_truth_mask/0001.png", 20),
]


def damaged(original: bytes, generator: random.Random, cut: bool) -> bytes:
    """Cut somewhere, or with one to twenty bits turned, half of them near the start."""
    content = bytearray(original)
    if cut:
        return bytes(content[: generator.randrange(1, len(content))])
    for _ in range(generator.choice((1, 1, 3, 20))):
        reach = generator.choice((len(content), min(512, len(content))))
        content[generator.randrange(reach)] ^= 1 << generator.randrange(8)
    return bytes(content)


def outcome(cls: type[DenseDataset], root: Path, task: str) -> list[Sample] | str:
    """The samples, or the DataError's message; other exceptions pass."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return list(cls(root, next(iter(cls.info.splits)), task))
        except DataError as error:
            return str(error)


@pytest.mark.parametrize(("name", "file", "trials"), FILES)
def test_a_sample_or_one_line(tmp_path: Path, name: str, file: str, trials: int) -> None:
    if name == "nyu-depth-v2":
        nyu_depth_v2(tmp_path, (40, 64))
    else:
        FIXTURES[name](tmp_path)
    cls = DATASETS.get(name)
    path = tmp_path / file
    original = path.read_bytes()
    generator = random.Random(file)
    task = list(cls.info.tasks)[-1]  # for NYU Depth v2 the one that reads all files
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for trial in range(trials):
        path.unlink()  # HDF5 takes a file of the same number for the one it has open
        path.write_bytes(damaged(original, generator, cut=trial % 4 == 0))
        result = outcome(cls, tmp_path, task)
        if isinstance(result, str):
            refused += 1
            assert result.startswith(f"{tmp_path}/")
            assert path.name in result
            assert "\n" not in result
        else:
            assert all(task in sample.targets for sample in result)
    assert refused >= trials // 8
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000  # kB
