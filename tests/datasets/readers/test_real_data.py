"""Every sample of the real data sets, and damaged copies of their files.

The folders are looked for in ``../shared/data`` beside the repository; nothing is written there.
"""

import random
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from common.errors import DataError
from datasets.base import DATASETS, DenseDataset
from datasets.decoding import read_depth, read_image, read_mask
from datasets.labels import read_labels

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[3] / ".." / "shared" / "data"
SETS = [
    ("camvid", "camvid", "segmentation", {"train": 367, "val": 101, "test": 233}, (480, 360)),
    ("seven-scenes", "seven_scenes", "depth", {"train": 160, "test": 70}, (640, 480)),
    ("image-masks", "davis_foreground", "saliency", {"train": 193, "test": 84}, (854, 480)),
]


def folder(name: str) -> Path:
    path = DATA / name
    if not path.is_dir():
        pytest.skip(f"real data {path} is not here")
    return path


def check_segmentation(labels: Tensor) -> None:
    assert labels.dtype == torch.uint8
    assert ((labels < 11) | (labels == 255)).all()
    assert (labels < 11).any()


def check_depth(depth: Tensor) -> None:
    assert depth.dtype == torch.float32
    assert ((depth == 0) | ((depth > 0.1) & (depth < 10))).all()
    assert depth.any()


def check_saliency(mask: Tensor) -> None:
    assert mask.dtype == torch.uint8
    assert mask.unique().tolist() == [0, 1]


CHECKS: dict[str, Callable[[Tensor], None]] = {
    "segmentation": check_segmentation,
    "depth": check_depth,
    "saliency": check_saliency,
}


@pytest.mark.parametrize(("name", "where", "task", "splits", "size"), SETS)
def test_every_sample(
    name: str, where: str, task: str, splits: dict[str, int], size: tuple[int, int]
) -> None:
    root = folder(where)
    cls = DATASETS.get(name)
    assert cls.available_splits(root) == list(splits)
    seen: set[str] = set()
    prints = set()
    for split, count in splits.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data: DenseDataset = cls(root, split, task)
            assert len(data) == count
            for sample in data:
                assert sample.name not in seen
                seen.add(sample.name)
                assert (sample.image.dtype, sample.image.shape) == (torch.uint8, (3, *size[::-1]))
                assert list(sample.targets) == [task]
                assert sample.targets[task].shape == size[::-1]
                CHECKS[task](sample.targets[task])
        prints.add(data.fingerprint())
    assert len(seen) == sum(splits.values())
    assert len(prints) == len(splits)


READERS: list[tuple[str, Callable[[Path], Tensor]]] = [
    ("camvid/train/0001TP_006690.jpg", read_image),
    ("camvid/trainannot/0001TP_006690.png", lambda path: read_labels(path, range(11), (11,))),
    ("seven_scenes/frame-000000.depth.png", lambda path: read_depth(path, 1e3, 65535, (0.1, 10))),
    ("davis_foreground/masks/camel_00000.png", read_mask),
]


def outcome(read: Callable[[Path], Tensor], path: Path) -> Tensor | str:
    """What is read, or the DataError's message; other exceptions pass."""
    try:
        return read(path)
    except DataError as error:
        return str(error)


@pytest.mark.parametrize(("file", "read"), READERS)
@pytest.mark.parametrize("damage", ["cut", "flip", "swap"])
def test_damaged_files(
    tmp_path: Path, file: str, read: Callable[[Path], Tensor], damage: str
) -> None:
    original = (folder(file.split("/")[0]) / Path(*file.split("/")[1:])).read_bytes()
    generator = random.Random(f"{file} {damage}")
    path = tmp_path / Path(file).name
    refused = 0
    for trial in range(100):
        content = bytearray(original)
        # Half of the trials hit the header, where sizes and formats stand.
        reach = len(content) if trial % 2 else min(200, len(content))
        position = generator.randrange(reach)
        if damage == "cut":
            del content[position:]
        elif damage == "flip":
            content[position] ^= 1 << generator.randrange(8)
        else:
            content[position : position + 16] = generator.randbytes(16)
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = outcome(read, path)
        if isinstance(result, str):
            refused += 1
            assert result.startswith(f"{path}: ")
            assert "\n" not in result
            continue
        assert result.dtype in (torch.uint8, torch.float32)
        assert result.ndim in (2, 3)
        if read is not read_image:
            assert torch.isfinite(result.float()).all()
    # A cut of the few bytes after the last pixel does no harm.
    assert refused >= (90 if damage == "cut" else 1)
