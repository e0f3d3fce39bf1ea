"""KITTI depth by the lists of the Eigen split."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import DataError
from datasets.readers.kitti import KittiDepth
from tasks.depth import Depth
from tests.datasets.fixtures_depth_saliency import kitti_depth

LIST = "eigen_train_files_with_gt.txt"
IMAGE = "2011_09_26/2011_09_26_drive_0057_sync/image_02/data/0000000311.png"
DEPTH = "2011_09_26_drive_0057_sync/proj_depth/groundtruth/image_02/0000000311.png"
pytestmark = pytest.mark.filterwarnings("ignore:.*samples in '.*' where KITTI")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    kitti_depth(tmp_path / "kitti")
    return tmp_path / "kitti"


def load(root: Path, split: str = "train") -> KittiDepth:
    return KittiDepth(root, split, "depth")


def failure(root: Path, *lines: str) -> str:
    if lines:
        (root / LIST).write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        list(load(root))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_crop_is_garg_s() -> None:
    assert Depth(**KittiDepth.info.tasks["depth"]).accumulator().protocol == "kitti_garg"


def test_samples(root: Path) -> None:
    data = load(root)
    assert [sample.name[-10:] for sample in data] == ["0000000311", "0000000312", "0000000313"]
    sample = data[0]
    assert sample.name == IMAGE[:-4]
    raw = np.array(Image.open(root / "train" / DEPTH))
    depth = sample.targets["depth"]
    assert raw.dtype == np.uint16
    assert depth.dtype == torch.float32
    assert np.array_equal(depth.numpy(), raw / np.float32(256))
    assert (depth == 0).any()
    assert 60 < depth.max() <= 75


def test_lines_without_depth_are_left_out(root: Path) -> None:
    assert "None" in (root / "eigen_test_files_with_gt.txt").read_text()
    assert [pair.image.stem[-2:] for pair in load(root, "test").pairs] == ["69", "54"]
    assert failure(root, f"{IMAGE} None 721.5377").startswith(f"{root / LIST}: None of its lines")


@pytest.mark.parametrize(
    "depths", ["", "val", "data_depth_annotated", "data_depth_annotated/train"]
)
@pytest.mark.parametrize("images", ["", "raw", "raw_data"])
def test_archives_unpacked_elsewhere(root: Path, depths: str, images: str) -> None:
    expected = load(root)[0]
    for source, target in (
        (root / "2011_09_26", root / images / "2011_09_26"),
        (root / "train" / DEPTH[:26], root / depths / DEPTH[:26]),
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)
    sample = load(root)[0]
    assert sample.name == expected.name
    assert torch.equal(sample.image, expected.image)
    assert torch.equal(sample.targets["depth"], expected.targets["depth"])


def test_other_names_of_the_lists(root: Path) -> None:
    (root / LIST).rename(root / f"kitti_{LIST}")
    assert len(load(root)) == 3
    (root / f"kitti_{LIST}").rename(root / "train.txt")
    assert len(load(root)) == 3
    shutil.copy(root / "train.txt", root / "eigen_val_files_with_gt.txt")
    assert KittiDepth.available_splits(root) == ["train", "val", "test"]
    assert len(load(root, "val")) == 3


@pytest.mark.parametrize(
    "line", ["{} {}", "/{} /{} 721.5", "{}\t{}\t721.5", "{} {} 721.5 right/a.png right/b.png"]
)
def test_lines(root: Path, line: str) -> None:
    (root / LIST).write_text(line.format(IMAGE, DEPTH))
    assert [sample.name for sample in load(root)] == [IMAGE[:-4]]


def test_a_line_of_another_form(root: Path) -> None:
    assert failure(root, "a.png").startswith(f"{root / LIST}:1: 'a.png' is not 'image depth focal'")


def test_metres_where_steps_of_the_laser_are_expected(root: Path) -> None:
    raw = np.array(Image.open(root / "train" / DEPTH))
    metres = raw // 256
    for number in (311, 312):
        path = root / "train" / DEPTH.replace("311", str(number))
        Image.fromarray(metres).save(path)
    data = load(root)
    with pytest.warns(UserWarning, match="check the unit") as caught:
        list(data)
    texts = [str(w.message) for w in caught]
    low, high = metres[metres > 0].min() / 256, metres.max() / 256
    assert len(texts) == 1  # once for the data set
    assert texts[0].startswith(f"{root / 'train' / DEPTH}: depths of {low:g}…{high:g} m, median ")
    assert "if stored as 1/256 m: check the unit" in texts[0]


def test_depth_out_of_range(root: Path) -> None:
    path = root / "train" / DEPTH
    Image.fromarray(np.full((40, 48), 65535, np.uint16)).save(path)
    seen = "no pixel has a depth within 0.001…80 m but 255.996…255.996 m, read as 1/256 m"
    assert failure(root).startswith(f"{path}: {seen}")
