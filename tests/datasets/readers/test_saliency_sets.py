"""MSRA-B, DUTS, ECSSD, HKU-IS, DUT-OMRON and PASCAL-S in their published folders."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import DataError, UsageError
from datasets.base import DATASETS, DenseDataset
from datasets.pipeline import open_split, open_splits
from tests.datasets.fixtures_depth_saliency import FIXTURES, write_image, write_mask

SETS = {
    "msra-b": {"train": 2500, "val": 500, "test": 2000},
    "duts": {"train": 10553, "test": 5019},
    "ecssd": {"test": 1000},
    "hku-is": {"test": 4447},
    "dut-omron": {"test": 5168},
    "pascal-s": {"test": 850},
}
# a test sample: its image, its mask
FILES = {
    "msra-b": ("image/9_122_122991.jpg", "annotation/9_122_122991.png"),
    "duts": (
        "DUTS-TE/DUTS-TE-Image/ILSVRC2012_test_00000003.jpg",
        "DUTS-TE/DUTS-TE-Mask/ILSVRC2012_test_00000003.png",
    ),
    "ecssd": ("images/0001.jpg", "ground_truth_mask/0001.png"),
    "hku-is": ("imgs/0004.png", "gt/0004.png"),
    "dut-omron": ("DUT-OMRON-image/im005.jpg", "pixelwiseGT-new-PNG/im005.png"),
    "pascal-s": ("datasets/imgs/pascal/1.jpg", "datasets/masks/pascal/1.png"),
}
FOLDERS = [name for name in SETS if name != "msra-b"]
pytestmark = pytest.mark.filterwarnings("ignore:.*samples in '.*' where")


@pytest.fixture
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The folder of the data set that the test's parameter ``name`` says."""
    name = request.node.callspec.params["name"]
    FIXTURES[name](tmp_path / name)
    return tmp_path / name


def load(name: str, root: Path | None, split: str = "test") -> DenseDataset:
    return DATASETS.get(name)(root, split, "saliency")


def failure(name: str, root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(name, root)[0]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", SETS)
def test_samples(name: str, root: Path) -> None:
    assert DATASETS.get(name).available_splits(root) == list(SETS[name])
    for split, published in SETS[name].items():
        with pytest.warns(UserWarning, match=rf"\d samples in '{split}' where .* has {published}"):
            data = pickle.loads(pickle.dumps(load(name, root, split)))
        for sample in data:
            mask = sample.targets["saliency"]
            assert (mask.dtype, mask.shape) == (torch.uint8, sample.image.shape[1:])
        assert mask[8:24, 12:36].all() or name == "pascal-s"
    image, mask = FILES[name]
    sample = next(iter(load(name, root)))
    assert sample.name == Path(image).stem
    pixels = np.array(Image.open(root / image))
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), pixels)
    grey = np.array(Image.open(root / mask))
    assert np.array_equal(sample.targets["saliency"].numpy(), grey > 128)


@pytest.mark.parametrize("name", SETS)
def test_fingerprint(name: str, root: Path) -> None:
    prints = {load(name, root, split).fingerprint() for split in SETS[name]}
    assert len(prints) == len(SETS[name])
    first = load(name, root).fingerprint()
    assert first in prints
    (root / FILES[name][1]).write_bytes(b"other")
    assert load(name, root).fingerprint() != first


@pytest.mark.parametrize("name", SETS)
def test_bad_files(name: str, root: Path) -> None:
    image, mask = (root / file for file in FILES[name])
    content = mask.read_bytes()
    mask.write_bytes(content[:60])
    assert failure(name, root).startswith(f"{mask}: cannot be read (")
    mask.write_bytes(b"")
    assert failure(name, root).startswith(f"{mask}: mask is empty (0 bytes)")
    mask.unlink()
    text = failure(name, root)
    assert text.startswith(f"{mask}: ")
    assert "no mask for" in text or "mask is missing" in text
    mask.write_bytes(content)
    image.write_bytes(b"")
    assert failure(name, root).startswith(f"{image}: image is empty (0 bytes)")


@pytest.mark.parametrize("name", FOLDERS)
def test_other_folders(name: str, root: Path) -> None:
    image, mask = (root / file for file in FILES[name])
    for path in (image.parent / "Thumbs.db", image.parent / "._0001.jpg"):
        path.write_bytes(b"x")
    assert load(name, root)[0].name == image.stem
    mask.parent.rename(root / "elsewhere")
    text = failure(name, root)
    assert text.startswith(f"{mask.parent}: no such folder: --data must name a folder with ")
    mask.parent.mkdir()
    for path in image.parent.iterdir():
        path.unlink()
    assert failure(name, root).startswith(f"{image.parent}: no image in it: unpack ")
    with pytest.raises(UsageError, match=f"{name} needs --data DIR"):
        load(name, None)


@pytest.mark.parametrize("name", ["msra-b"])
def test_msra_b_beside_its_lists(name: str, root: Path) -> None:
    expected = [sample.name for sample in load(name, root, "train")]
    for folder in ("image", "annotation"):
        for path in (root / folder).iterdir():
            path.rename(root / path.name)
        (root / folder).rmdir()
    (root / "train_cvpr2013.txt").rename(root / "train.txt")
    assert [sample.name for sample in load(name, root, "train")] == expected
    (root / "train.txt").write_text(f"{expected[1]}\n{expected[0]}.jpg\n", encoding="utf-8")
    assert [sample.name for sample in load(name, root, "train")] == expected[::-1]
    write_image(root / "ein straße 日本.jpg")
    write_mask(root / "ein straße 日本.png")
    (root / "train.txt").write_text("ein straße 日本.png\n", encoding="utf-8")
    assert load(name, root, "train")[0].name == "ein straße 日本"
    (root / "test_cvpr2013.txt").write_text("../a.png")
    assert failure(name, root).startswith(f"{root / 'test_cvpr2013.txt'}:1: ../a.png leads out")
    (root / "test_cvpr2013.txt").unlink()
    assert failure(name, root).startswith(f"{root / 'test_cvpr2013.txt'}: list is missing: --data")


@pytest.mark.parametrize("name", ["pascal-s"])
def test_pascal_s_takes_what_more_than_half_chose(name: str, root: Path) -> None:
    chosen = [bool(sample.targets["saliency"].any()) for sample in load(name, root)]
    assert chosen == [True, True, False]  # twelve, eight and four viewers of twelve


@pytest.mark.parametrize("name", [name for name in SETS if "train" not in SETS[name]])
def test_a_set_without_training_images_is_for_scoring(name: str, root: Path) -> None:
    remedy = f"train on duts or msra-b and score it with evaluate --dataset {name}"
    with pytest.raises(UsageError, match=f"has only a test split: {remedy}"):
        open_splits(name, root, "saliency", (32, 32))
    split = open_split(name, root, "saliency", (32, 32), "test", limit=1)
    assert len(split) == 1
    assert split.name == "test"
    with pytest.raises(UsageError, match=f"{name} has no split 'train': choose test"):
        open_split(name, root, "saliency", (32, 32), "train")
