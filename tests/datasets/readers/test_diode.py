"""DIODE in its folders of scenes and scans."""

from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import DataError
from datasets.pipeline import open_splits
from datasets.readers.diode import Diode
from tests.datasets.fixtures_depth_saliency import diode, write_image

INDOORS = "indoors/scene_00000/scan_00160/00000_00160_indoors_000_000"
OUTDOOR = "outdoor/scene_00003/scan_00163/00003_00163_outdoor_000_000"
pytestmark = pytest.mark.filterwarnings("ignore:.*samples in '.*' where DIODE")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    diode(tmp_path / "diode")
    return tmp_path / "diode"


def load(root: Path, split: str = "train") -> Diode:
    return Diode(root, split, "depth")


def failure(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(load(root))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_samples(root: Path) -> None:
    data = load(root)
    assert [sample.name for sample in data][:2] == [INDOORS, OUTDOOR]
    for sample in data:
        stored = np.load(root / "train" / f"{sample.name}_depth.npy")
        valid = np.load(root / "train" / f"{sample.name}_depth_mask.npy")
        assert (stored.dtype, stored.shape, valid.shape) == (np.float32, (40, 48, 1), (40, 48))
        depth = sample.targets["depth"]
        assert depth.dtype == torch.float32
        assert np.array_equal(depth.numpy(), stored[..., 0] * valid)
        assert (depth == 0).sum() == 8 * 48  # the fixture's invalid rows


def test_the_test_split_is_the_published_val(root: Path) -> None:
    assert load(root, "test")[0].name.startswith("indoors/scene_00019/")


def test_what_is_held_out_has_rooms_and_streets(root: Path) -> None:
    for first, count in ((INDOORS, 18), (OUTDOOR, 58)):
        folder = (root / "train" / first).parent
        for index in range(count):
            write_image(folder / f"x{index:02d}.png")
            for suffix in ("_depth.npy", "_depth_mask.npy"):
                np.save(folder / f"x{index:02d}{suffix}", np.ones((40, 48)))
    held = open_splits("diode", root, "depth", (32, 32))["val"]
    kinds = [held[index].name.split("/")[0] for index in range(len(held))]
    assert sorted(kinds) == ["indoors"] * 2 + ["outdoor"] * 6


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_other_types_of_arrays(root: Path, dtype: type) -> None:
    first = load(root)[0].targets["depth"]
    for suffix, kind in (("_depth_mask.npy", dtype), ("_depth.npy", np.float64)):
        path = root / "train" / f"{INDOORS}{suffix}"
        np.save(path, np.asfortranarray(np.load(path).astype(kind)))
    assert torch.equal(load(root)[0].targets["depth"], first)


def test_readings_that_are_no_number(root: Path) -> None:
    path = root / "train" / f"{INDOORS}_depth.npy"
    stored = np.load(path)
    stored[20, :3, 0] = np.nan, np.inf, -1
    np.save(path, stored)
    assert load(root)[0].targets["depth"][20, :4].gt(0).tolist() == [False, False, False, True]
    np.save(path, stored.astype(np.float64) * 1e300)
    assert "no pixel has a depth within 0.6…350 m" in failure(root)


def test_missing_kinds_of_scenes(root: Path) -> None:
    assert failure(root / "val").startswith(
        f"{root / 'val' / 'train'}: no indoors or outdoor in it: --data must"
    )
    (root / "train/outdoor").rename(root / "elsewhere")
    assert len(load(root)) == 2
    (root / "train/outdoor").mkdir()
    assert failure(root).startswith(f"{root / 'train'}: no .png in it: --data must")


def test_a_missing_or_empty_validity_mask(root: Path) -> None:
    path = root / "train" / f"{INDOORS}_depth_mask.npy"
    path.write_bytes(b"")
    assert failure(root).startswith(f"{path}: validity mask is empty (0 bytes)")
    path.unlink()
    assert failure(root).startswith(f"{path}: validity mask is missing")


@pytest.mark.parametrize("suffix", ["_depth.npy", "_depth_mask.npy"])
def test_damaged_arrays(root: Path, suffix: str) -> None:
    path = root / "train" / f"{INDOORS}{suffix}"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    assert failure(root).startswith(f"{path}: cannot be read (")
    path.write_bytes(content.replace(b"(40, 48", b"(40000000000, 48"))  # more than the file has
    assert failure(root).startswith(f"{path}: cannot be read (")
    np.save(path, np.array([{}]), allow_pickle=True)
    assert failure(root).startswith(f"{path}: cannot be read (ValueError: ")
    np.save(path, np.ones((40, 48, 3)))
    assert failure(root).startswith(f"{path}: shape (40, 48, 3) where [H, W, 1] is expected")
    np.save(path, np.ones((40, 48), complex))
    assert failure(root).startswith(f"{path}: holds no array of numbers")
    with path.open("wb") as file:
        np.savez(file, depth=np.ones((40, 48)))
    assert failure(root).startswith(f"{path}: holds no array of numbers")


def test_sizes_of_depth_and_validity_differ(root: Path) -> None:
    mask = root / "train" / f"{INDOORS}_depth_mask.npy"
    np.save(mask, np.ones((40, 47)))
    expected = f"{mask}: shape (40, 47) but its depth map has (40, 48)"
    assert failure(root).startswith(expected)


def test_millimetres_where_metres_are_expected(root: Path) -> None:
    path = root / "train" / f"{OUTDOOR}_depth.npy"
    stored = np.load(path) * 1000
    stored[20] = 1
    np.save(path, stored)
    with pytest.warns(UserWarning, match="unit") as caught:
        list(load(root))
    text = str(next(w.message for w in caught if "unit" in str(w.message)))
    assert text.startswith(f"{path}: depths of 1…{stored[8:].max():g} m, median ")
    assert "if stored as metres" in text
