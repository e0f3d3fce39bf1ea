"""CamVid in a folder as the SegNet tutorial lays it out."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import DataError, UsageError
from datasets.base import DATASETS, DenseDataset
from datasets.readers.camvid import CLASSES, CamVid

H, W = 36, 48
NAMES = {
    "train": ["0001TP_006690", "0006R0_f00930"],
    "val": ["0016E5_07959"],
    "test": ["Seq05VD_f05100"],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    root = tmp_path / "camvid"
    for split, names in NAMES.items():
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for name in names:
            image = generator.integers(0, 256, (H, W, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / split / f"{name}.png")
            labels = np.resize(np.arange(12, dtype=np.uint8), (H, W))
            Image.fromarray(labels).save(root / f"{split}annot" / f"{name}.png")
        lines = [f"{split}/{name}.png {split}annot/{name}.png\n" for name in names]
        (root / f"{split}.txt").write_text("".join(lines))
    return root


def load(root: Path | None, split: str = "train", task: str = "segmentation") -> DenseDataset:
    with pytest.warns(UserWarning, match=r"2 samples in 'train' where CamVid .* has 367"):
        return CamVid(root, split, task)


def failure(root: Path | None, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        CamVid(root, split, "segmentation")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_declares_itself() -> None:
    assert DATASETS.get("camvid") is CamVid
    assert len(CLASSES) == len(CamVid.info.palette) == len(set(CamVid.info.palette)) == 11
    assert CamVid.available_splits(None) == ["train", "val", "test"]


def test_samples(root: Path) -> None:
    data = load(root)
    assert [sample.name for sample in data] == NAMES["train"]
    sample = pickle.loads(pickle.dumps(data))[-1]
    image = np.array(Image.open(root / "train" / f"{sample.name}.png"))
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), image)
    labels = sample.targets["segmentation"]
    assert list(sample.targets) == ["segmentation"]
    assert (labels.dtype, labels.shape) == (torch.uint8, (H, W))
    assert sorted(labels.unique().tolist()) == [*range(11), 255]
    assert labels[0, 11] == 255
    with pytest.raises(IndexError):
        data[2]


def test_published_count_is_silent(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = (root / "val.txt").read_text()
    (root / "val.txt").write_text(line * 101)
    monkeypatch.setattr("warnings.warn", pytest.fail)
    assert len(CamVid(root, "val", "segmentation")) == 101


def test_lists_of_the_tutorial_hold_its_own_paths(root: Path) -> None:
    lines = (root / "train.txt").read_text().splitlines()
    lines = [" ".join(f"/SegNet/CamVid/{path}" for path in line.split()) for line in lines]
    relative = load(root)
    (root / "train.txt").write_text("\r\n".join(lines))
    assert [sample.name for sample in load(root)] == NAMES["train"]
    assert load(root).fingerprint() == relative.fingerprint()


@pytest.mark.parametrize("gap", [" ", "  ", "\t"])
def test_names_with_spaces_and_other_letters(root: Path, gap: str) -> None:
    name = "ein Bild – straße 日本"
    for folder in ("train", "trainannot"):
        shutil.copy(root / folder / "0001TP_006690.png", root / folder / f"{name}.png")
    line = f"train/{name}.png{gap}trainannot/{name}.png"
    (root / "train.txt").write_text(f"{line}\n{line}\n", encoding="utf-8")
    assert load(root)[0].name == name


def test_only_the_split_is_needed(root: Path) -> None:
    for split in ("val", "test"):
        shutil.rmtree(root / split)
        (root / f"{split}.txt").unlink()
    assert len(load(root)) == 2


def test_fingerprint(root: Path) -> None:
    data = load(root)
    first = data.fingerprint()
    assert load(root).fingerprint() == first
    shutil.copy(root / "trainannot/0001TP_006690.png", root / "train/0001TP_006690.png")
    assert data.fingerprint() != first


def test_wrong_usage(root: Path) -> None:
    with pytest.raises(UsageError, match=r"camvid needs --data DIR.*train\.txt.*https://"):
        CamVid(None, "train", "segmentation")
    with pytest.raises(UsageError, match="no split 'dev': choose train, val or test"):
        CamVid(root, "dev", "segmentation")
    with pytest.raises(UsageError, match="no task 'depth': choose segmentation"):
        CamVid(root, "train", "depth")


def test_missing_folder_and_lists(root: Path) -> None:
    elsewhere = root / "elsewhere"
    assert failure(elsewhere).startswith(f"{elsewhere}: does not exist: --data must name a folder")
    assert failure(root / "val.txt").startswith(f"{root / 'val.txt'}: is not a folder")
    (root / "val.txt").unlink()
    assert failure(root, "val").startswith(f"{root / 'val.txt'}: list is missing: --data must")
    (root / "val.txt").touch()
    assert failure(root, "val").startswith(f"{root / 'val.txt'}: list is empty")


def test_paths_are_shown_as_given(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    (root / "trainannot/0006R0_f00930.png").unlink()
    expected = "camvid/trainannot/0006R0_f00930.png: label map is missing: "
    assert failure(Path("camvid")).startswith(expected)


@pytest.mark.parametrize(("folder", "role"), [("train", "image"), ("trainannot", "label map")])
def test_missing_and_empty_files(root: Path, folder: str, role: str) -> None:
    path = root / folder / "0006R0_f00930.png"
    path.write_bytes(b"")
    assert failure(root).startswith(f"{path}: {role} is empty (0 bytes)")
    path.unlink()
    text = failure(root)
    assert text.startswith(f"{path}: {role} is missing")
    assert f"{root / 'train.txt'}:2" in text


def test_line_without_label(root: Path) -> None:
    (root / "train.txt").write_text("train/0001TP_006690.png\n")
    expected = f"{root / 'train.txt'}:1: 'train/0001TP_006690.png' is not 'image label'"
    assert failure(root).startswith(expected)


def test_line_that_leads_out(root: Path) -> None:
    (root / "train.txt").write_text("../train/a.png trainannot/a.png\n")
    assert failure(root).startswith(f"{root / 'train.txt'}:1: ../train/a.png leads out of {root}")


def test_label_out_of_range(root: Path) -> None:
    path = root / "trainannot/0006R0_f00930.png"
    Image.fromarray(np.full((H, W), 37, np.uint8)).save(path)
    data = load(root)
    assert data[0].name
    with pytest.raises(DataError, match="label 37 is outside 0…10 and 11, 255") as caught:
        data[1]
    assert str(caught.value).startswith(f"{path}: ")


def test_sizes_differ(root: Path) -> None:
    path = root / "trainannot/0001TP_006690.png"
    Image.fromarray(np.zeros((H, W - 1), np.uint8)).save(path)
    with pytest.raises(DataError) as caught:
        load(root)[0]
    image = root / "train/0001TP_006690.png"
    expected = f"{path}: label map of 47×36 pixels but its image {image} has 48×36: take both"
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize("folder", ["train", "trainannot"])
def test_damaged_file(root: Path, folder: str) -> None:
    path = root / folder / "0001TP_006690.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError) as caught:
        load(root)[0]
    assert str(caught.value).startswith(f"{path}: cannot be read (")


def test_file_removed_after_opening(root: Path) -> None:
    data = load(root)
    path = root / "train/0001TP_006690.png"
    path.unlink()
    with pytest.raises(DataError, match="is missing") as caught:
        data[0]
    assert str(path) in str(caught.value)
