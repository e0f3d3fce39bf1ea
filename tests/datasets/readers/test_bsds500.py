"""BSDS500 as distributed."""

import pickle
import random
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from common.annotators import annotators, unpack
from common.errors import DataError
from datasets.pipeline import Resized, Split
from datasets.readers import _matlab
from datasets.readers.bsds500 import BSDS500, read_boundaries
from tests.support import SHARED

SIZES = {"2": (32, 48), "10": (48, 32)}
# what a cell holds instead of Segmentation and Boundaries
OTHERS = {
    "cells": np.zeros((3, 4)),
    "fields": {"Segmentation": np.zeros((3, 4))},
    "text": {"Boundaries": "straight"},
}


def write_mat(path: Path, maps: list[np.ndarray], compressed: bool = True) -> None:
    """A .mat in BSDS's form: a 1×A cell of structs with Segmentation and Boundaries."""
    cells = np.empty((1, len(maps)), object)
    for index, boundaries in enumerate(maps):
        cells[0, index] = {
            "Segmentation": boundaries.astype(np.uint16) + 1,
            "Boundaries": boundaries.astype(np.uint8),
        }
    scipy.io.savemat(path, {"groundTruth": cells}, do_compression=compressed)


def read_by_scipy(path: Path) -> np.ndarray:
    """[A, H, W]"""
    cells = scipy.io.loadmat(path)["groundTruth"]
    return np.stack([cell["Boundaries"][0, 0] for cell in cells[0]])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "groundTruth" / split).mkdir(parents=True)
        for name, size in SIZES.items():
            image = random.integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(image).save(tmp_path / "images" / split / f"{name}.jpg")
            maps = [random.random(size) < 0.1 for _ in range(5)]
            write_mat(tmp_path / "groundTruth" / split / f"{name}.mat", maps)
    return tmp_path


def load(root: Path, split: str = "train") -> BSDS500:
    with pytest.warns(UserWarning, match=r"2 samples in '\w+' where BSDS500 has [12]00"):
        return BSDS500(root, split, "edges")


def test_samples(root):
    data = pickle.loads(pickle.dumps(load(root)))
    assert [sample.name for sample in data] == ["2", "10"]  # by number, not by letters
    truth = data[0].targets["edges"]
    assert (truth.dtype, truth.shape) == (torch.int32, (32, 48))
    expected = read_by_scipy(root / "groundTruth" / "train" / "2.mat")
    assert np.array_equal(unpack(truth), expected)


def test_training_turns_upright_photographs_and_scoring_does_not(root):
    split = Split(load(root), [0, 1], "train")
    training = Resized(split, (16, 24), "edges", targets=True)
    assert {tuple(training[i].image.shape) for i in (0, 1)} == {(3, 16, 24)}
    assert not training.mixed
    scoring = Resized(split, (32, 48), "edges", targets=False)
    assert scoring.mixed
    assert [tuple(scoring[i].image.shape[1:]) for i in (0, 1)] == [(32, 48), (48, 32)]
    same = Resized(split, (32, 48), "edges", targets=True)
    assert torch.equal(same[1].image, scoring[1].image.rot90(1, (1, 2)))
    assert torch.equal(same[1].targets["edges"], scoring[1].targets["edges"].rot90(1, (0, 1)))


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ("other", "cannot be read (it has no groundTruth)"),
        ("numbers", "cannot be read (groundTruth is no cell array)"),
        ("cells", "cannot be read (groundTruth{1} is no single struct)"),
        ("fields", "cannot be read (groundTruth{1} has no Boundaries)"),
        ("text", "cannot be read (groundTruth{1}.Boundaries is no matrix of numbers)"),
        ("none", "0 boundary maps, not 1 to 22"),
        ("many", "23 boundary maps, not 1 to 22"),
        ("shapes", "boundary maps of shapes [(3, 4), (4, 4)]"),
        ("values", "hold more than 0 and 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*2 samples")
def test_bad_ground_truth_is_named(root, how, part):
    path = root / "groundTruth" / "test" / "10.mat"
    if how == "other":
        scipy.io.savemat(path, {"truth": np.zeros(3)})
    elif how in OTHERS:
        content = np.empty((1, 1), object)
        content[0, 0] = OTHERS[how]
        scipy.io.savemat(path, {"groundTruth": content})
    elif how == "numbers":
        scipy.io.savemat(path, {"groundTruth": np.zeros((3, 4))})
    elif how in ("none", "many"):
        write_mat(path, [np.zeros((48, 32))] * {"none": 0, "many": 23}[how])
    elif how == "shapes":
        write_mat(path, [np.zeros((3, 4)), np.zeros((4, 4))])
    else:
        write_mat(path, [np.full((48, 32), 7)])
    with pytest.raises(DataError, match=r"10\.mat: ") as caught:
        BSDS500(root, "test", "edges")[1]
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_bits_give_boundaries_or_name_the_file(tmp_path, compressed):
    generator, path = random.Random(0), tmp_path / "10.mat"
    marks = np.random.default_rng(0).random((5, 12, 16)) < 0.1
    write_mat(path, [*marks], compressed)
    assert np.array_equal(read_boundaries(path), marks)
    assert np.array_equal(read_by_scipy(path), marks)
    original, refused = path.read_bytes(), []
    for _ in range(400):
        content = bytearray(original)
        if generator.random() < 0.2:
            del content[generator.randrange(len(content)) :]
        else:
            for _ in range(generator.choice((1, 1, 3, 20))):
                # what the file says of itself stands at the start
                end = generator.choice((len(content), 500))
                content[generator.randrange(end)] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
        try:
            read = read_boundaries(path)
        except DataError as error:
            refused.append(str(error))
        else:
            assert (read.dtype, read.ndim) == (bool, 3)
    assert 100 < len(refused) < 400
    assert all(text.startswith(f"{path}: ") and "\n" not in text for text in refused)


def test_a_small_file_that_unpacks_to_a_large_one(tmp_path, monkeypatch):
    monkeypatch.setattr(_matlab, "LARGEST", 2**20)
    path = tmp_path / "2.mat"
    write_mat(path, [np.zeros((32, 48))])
    packed = zlib.compress(bytes(2**26))
    element = (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed
    path.write_bytes(path.read_bytes()[:128] + element)
    tracemalloc.start()
    with pytest.raises(DataError, match="unpacks to more than 1048576 bytes"):
        read_boundaries(path)
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "bsds500").is_dir(), reason="no BSDS500 beside the checkout")
def test_the_real_one():
    counts = set()
    for split, count in BSDS500.info.splits.items():
        data = BSDS500(SHARED / "bsds500", split, "edges")
        assert len(data) == count
        for index in range(0, count, 10):
            sample = data[index]
            assert sorted(sample.image.shape[1:]) == [321, 481]
            counts.add(annotators(sample.targets["edges"]))
            marks = unpack(sample.targets["edges"])
            assert np.array_equal(marks, read_by_scipy(data.pairs[index].target))
            share = marks.float().mean((1, 2))
            assert (share > 0).all()
            assert (share < 0.2).all()
    assert counts <= set(range(4, 10))
    assert len(counts) > 1
