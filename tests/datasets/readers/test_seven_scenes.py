"""7-Scenes with frame lists, and as it is published."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import DataError
from datasets.readers.seven_scenes import SevenScenes

H, W = 24, 32
RAW = np.resize(np.array([0, 65535, 100, 1234, 3456], np.uint16), (H, W))


def write_frame(stem: Path, suffix: str = ".jpg") -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    Image.fromarray(image).save(f"{stem}.color{suffix}")
    Image.fromarray(RAW).save(f"{stem}.depth.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "seven_scenes"
    for split, numbers in {"train": (0, 4), "test": (720,)}.items():
        names = [f"frame-{number:06d}" for number in numbers]
        for name in names:
            write_frame(root / name)
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


@pytest.fixture
def published(tmp_path: Path) -> Path:
    root = tmp_path / "7scenes"
    for scene, train, test in (("chess", (1, 2), 3), ("stairs", (2,), 1)):
        for sequence in (*train, test):
            for frame in (0, 1):
                write_frame(root / scene / f"seq-{sequence:02d}" / f"frame-{frame:06d}", ".png")
        lines = "".join(f"sequence{sequence}\r\n" for sequence in train)
        (root / scene / "TrainSplit.txt").write_text(lines)
        (root / scene / "TestSplit.txt").write_text(f"sequence{test}\r\n")
    return root


def failure(root: Path, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        SevenScenes(root, split, "depth")[0]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_samples(root: Path) -> None:
    data = SevenScenes(root, "train", "depth")
    assert [sample.name for sample in data] == ["frame-000000", "frame-000004"]
    depth = data[0].targets["depth"]
    expected = torch.tensor([0, 0, 0.1, 1.234, 3.456])
    assert torch.equal(depth.flatten()[:5], expected)


def test_published_folder(published: Path) -> None:
    chess = [f"seq-{sequence:02d}/frame-{frame:06d}" for sequence in (1, 2) for frame in (0, 1)]
    data = SevenScenes(published / "chess", "train", "depth")
    assert [sample.name for sample in data] == chess
    names = [sample.name for sample in SevenScenes(published, "test", "depth")]
    assert names[0] == "chess/seq-03/frame-000000"
    assert names[-1] == "stairs/seq-01/frame-000001"
    assert len(names) == 4


def test_published_folder_with_frame_lists(published: Path) -> None:
    (published / "train.txt").write_text("stairs/seq-02/frame-000001\n")
    data = SevenScenes(published, "train", "depth")
    assert [sample.name for sample in data] == ["stairs/seq-02/frame-000001"]


def test_published_folder_that_is_incomplete(published: Path) -> None:
    chess = published / "chess"
    for path in (chess / "seq-02").iterdir():
        path.unlink()
    expected = f"{chess / 'seq-02'}: no .depth.png of {chess / 'TrainSplit.txt'}:2: unpack seq-02"
    assert failure(chess).startswith(expected)
    (chess / "TrainSplit.txt").write_text("sequence1\nseq-02\n")
    assert failure(chess).startswith(f"{chess / 'TrainSplit.txt'}:2: 'seq-02' is no sequence")
    (chess / "seq-03" / "frame-000001.color.png").unlink()
    expected = f"{chess / 'seq-03' / 'frame-000001.color.png'}: image is missing"
    assert failure(chess, "test").startswith(expected)


def test_a_unit_that_looks_wrong_is_told_once(root: Path) -> None:
    tenths = np.resize(np.array([0, 9_000, 40_000, 50_000], np.uint16), (H, W))
    for number in (0, 4):
        Image.fromarray(tenths).save(root / f"frame-{number:06d}.depth.png")
    path = root / "frame-000000.depth.png"
    with pytest.warns(UserWarning, match="check the unit") as caught:
        list(SevenScenes(root, "train", "depth"))
    expected = f"{path}: depths of 9…50 m, median 40 m, if stored as millimetres: check the unit"
    assert [str(w.message)[: len(expected)] for w in caught] == [expected]
