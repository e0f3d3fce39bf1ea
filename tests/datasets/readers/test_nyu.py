"""NYU Depth v2 in its MATLAB 7.3 file."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from torch.utils.data import DataLoader

from common.errors import DataError
from datasets.pipeline import Resized, Split, collate
from datasets.readers.nyu import CLASSES, FRAMES, MAPPING, SPLITS, NyuDepthV2
from tasks.depth import Depth
from tests.datasets.fixtures_depth_saliency import NYU_LABELS, nyu_arrays, nyu_depth_v2
from tests.support import TINY

H, W = SIZE = 40, 64
PUBLISHED = r"samples in '\w+' where NYU Depth v2 has"
pytestmark = pytest.mark.filterwarnings(f"ignore:.*{PUBLISHED}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    nyu_depth_v2(tmp_path / "nyu", SIZE)
    return tmp_path / "nyu"


def load(root: Path, split: str = "train", task: str = "depth") -> NyuDepthV2:
    return NyuDepthV2(root, split, task)


def failure(root: Path, task: str = "depth") -> str:
    with pytest.raises(DataError) as caught:
        list(load(root, task=task))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(root: Path, change: Callable[[h5py.File], object]) -> None:
    """Change a copy that then takes the file's place: HDF5 writes to no file that is open."""
    copy = shutil.copy(root / FRAMES, root / "copy")
    with h5py.File(copy, "r+") as file:
        change(file)
    (root / "copy").replace(root / FRAMES)


def replace(root: Path, name: str, array: np.ndarray) -> None:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = array

    edit(root, change)


def test_classes_colours_and_crop() -> None:
    assert len(CLASSES) == 40
    palette = NyuDepthV2.info.palette
    # the colours of aeroplane, bicycle, bottle and potted plant in PASCAL VOC
    assert [palette[i - 1] for i in (1, 2, 5, 16)] == [
        *((128, 0, 0), (0, 128, 0), (128, 0, 128), (0, 64, 0)),
    ]
    assert Depth(**NyuDepthV2.info.tasks["depth"]).accumulator().protocol == "nyu_eigen"


@pytest.mark.parametrize("task", ["depth", "segmentation"])
def test_samples_carry_both_targets(root: Path, task: str) -> None:
    truth = nyu_arrays(SIZE)
    for split, numbers in {"train": [2, 4, 5], "test": [1, 3]}.items():
        data = pickle.loads(pickle.dumps(load(root, split, task)))
        assert [sample.name for sample in data] == [f"{number:04d}" for number in numbers]
        for sample, number in zip(data, numbers, strict=True):
            image = truth["images"][number - 1].transpose(2, 0, 1)
            assert np.array_equal(sample.image.numpy(), image)
            depth = sample.targets["depth"]
            assert depth.dtype == torch.float32
            assert np.array_equal(depth.numpy(), truth["depths"][number - 1])
            labels = truth["labels"][number - 1].astype(int)
            # the fixture maps label n to class (n - 1) % 40, counted from 0
            expected = np.where(labels == 0, 255, (labels - 1) % 40)
            assert (labels == 0).any()
            assert sample.targets["segmentation"].dtype == torch.uint8
            assert np.array_equal(sample.targets["segmentation"].numpy(), expected)


def test_depth_needs_no_class_mapping(root: Path) -> None:
    data = load(root)
    first = data.fingerprint()
    (root / MAPPING).unlink()
    assert data.fingerprint() != first
    assert list(load(root)[0].targets) == ["depth"]
    text = failure(root, "segmentation")
    assert text.startswith(f"{root / MAPPING}: file is missing: segmentation needs it")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_what_one_process_reads(root: Path, method: str) -> None:
    data, other = load(root), load(root, "test")
    assert other[0].name == "0001"  # the file is open, twice, when the workers are forked
    split = Resized(Split(data, [0, 1, 2] * 4, "train"), (32, 32), ("depth", "segmentation"), True)
    split.cached = False
    alone = list(DataLoader(split, batch_size=2, collate_fn=collate))
    shared = DataLoader(
        split, batch_size=2, collate_fn=collate, num_workers=2, multiprocessing_context=method
    )
    for (images, targets), (others, found) in zip(alone, shared, strict=True):
        assert torch.equal(images, others)
        for one, two in zip(targets, found, strict=True):
            assert all(torch.equal(one[name], two[name]) for name in one)


def test_each_process_opens_the_file_for_itself(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load(root)
    first = data._open
    assert data[0].name == "0002"
    assert data._open is first
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert data[0].name == "0002"
    assert first is not None
    assert not first[1]  # closed
    assert data._open is not None
    assert data._open[0] == -1


def test_one_frame_is_read_at_a_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, read = load(root), []
    whole = h5py.Dataset.__getitem__

    def spy(array: h5py.Dataset, index: object, *rest: object) -> object:
        read.append(index)
        return whole(array, index, *rest)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    assert data[1].name == "0004"
    assert read == [3, 3, 3]


def test_a_mapping_of_old_and_new_files(root: Path) -> None:
    """MATLAB compresses what it saves, SciPy does not unless it is told."""
    first = load(root)[0].targets["segmentation"]
    numbers = np.arange(NYU_LABELS)[None] % 40 + 1.0  # MATLAB's own numbers are double
    scipy.io.savemat(root / MAPPING, {"x": "text", "mapClass": numbers}, do_compression=False)
    assert torch.equal(load(root)[0].targets["segmentation"], first)


def test_missing_and_empty_files(root: Path) -> None:
    for name in (SPLITS, FRAMES):
        (root / name).write_bytes(b"")
        assert failure(root).startswith(f"{root / name}: file is empty (0 bytes)")
        (root / name).unlink()
        expected = f"{root / name}: file is missing: --data must name a folder with {FRAMES} and"
        assert failure(root).startswith(expected)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_file_cut_in_the_middle(root: Path, share: float) -> None:
    path = root / FRAMES
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert failure(root).startswith(f"{path}: cannot be read (")


def test_a_file_of_another_kind(root: Path) -> None:
    (root / FRAMES).write_bytes(b"<html>not found</html>")
    assert failure(root).startswith(
        f"{root / FRAMES}: cannot be read (Unable to synchronously open file"
    )
    shutil.rmtree(root)
    nyu_depth_v2(root, SIZE)
    (root / SPLITS).write_bytes((root / FRAMES).read_bytes())  # version 7.3 is HDF5
    assert "cannot be read (it does not start as a MATLAB file of version 5)" in failure(root)


def test_arrays_of_another_kind(root: Path) -> None:
    truth = nyu_arrays(SIZE)
    replace(root, "images", truth["images"])  # [N, H, W, 3]: the axes as in MATLAB
    seen = "images is uint8 of shape (5, 40, 64, 3), not as it is published"
    assert failure(root).startswith(f"{root / FRAMES}: {seen}")
    replace(root, "images", truth["images"].transpose(0, 3, 2, 1))
    replace(root, "depths", truth["depths"].astype(np.uint16))
    assert "depths is uint16 of shape (5, 40, 64), not as it is published" in failure(root)
    replace(root, "depths", truth["depths"])  # of the right type, but not turned
    expected = f"{root / FRAMES}: frame 2: depth map of (64, 40) but image of (40, 64)"
    assert failure(root).startswith(expected)
    edit(root, lambda file: file.pop("depths"))
    assert failure(root).startswith(f"{root / FRAMES}: cannot be read (KeyError: ")


def test_damaged_sizes_ask_for_no_memory(root: Path) -> None:
    def huge(file: h5py.File) -> None:
        del file["depths"]
        file.create_dataset("depths", (5, 10**7, 10**7), np.float32, chunks=(1, 8, 8))

    edit(root, huge)
    assert "depths has frames of 100000000000000 pixels" in failure(root)

    def packed(file: h5py.File) -> None:
        del file["depths"]
        chunks = (2**15, W, H)  # 320 MiB
        file.create_dataset("depths", (5, W, H), np.float32, chunks=chunks, maxshape=(None, W, H))

    edit(root, packed)
    assert "depths is packed in pieces of (32768, 64, 40)" in failure(root)


def test_depth_in_the_wrong_unit(root: Path) -> None:
    turned = nyu_arrays(SIZE)["depths"].transpose(0, 2, 1)
    replace(root, "depths", turned * 1000)
    low, high = (float(bound) for bound in ((turned * 1000)[1].min(), (turned * 1000)[1].max()))
    seen = f"no pixel has a depth within 0.001…10 m but {low:g}…{high:g} m, read as metres"
    assert failure(root).startswith(f"{root / FRAMES}: frame 2: {seen}")
    mixed = turned * 100
    mixed[:, :4] = 1
    replace(root, "depths", mixed)
    data = load(root)
    with pytest.warns(UserWarning, match="check the unit") as caught:
        list(data)
    texts = [str(w.message) for w in caught if "unit" in str(w.message)]
    assert len(texts) == 1
    assert texts[0].startswith(f"{root / FRAMES}: frame 2: depths of 1…{mixed[1].max():g} m")
    assert "stored as metres" in texts[0]


def test_depth_that_is_no_number(root: Path) -> None:
    turned = nyu_arrays(SIZE)["depths"].transpose(0, 2, 1).copy()
    turned[:, 0, :3] = np.nan, np.inf, -1
    replace(root, "depths", turned)
    depth = load(root)[0].targets["depth"]
    assert depth[:3, 0].tolist() == [0, 0, 0]
    assert (depth.flatten() > 0).sum() == H * W - 3


def test_labels_without_a_class(root: Path) -> None:
    labels = np.full((5, W, H), NYU_LABELS + 1, np.uint16)
    replace(root, "labels", labels)
    expected = f"{root / FRAMES}: frame 2: label 895 is outside 0…894"
    assert failure(root, "segmentation").startswith(expected)


def test_files_that_do_not_belong_together(root: Path) -> None:
    mapping = {"mapClass": np.ones((1, 893), np.uint8)}
    scipy.io.savemat(root / MAPPING, mapping)
    text = failure(root, "segmentation")
    assert text.startswith(f"{root / MAPPING}: mapClass has 893 labels, ")
    assert "has 894 names" in text
    scipy.io.savemat(root / MAPPING, {"mapClass": np.full((1, 894), 41, np.uint8)})
    assert failure(root, "segmentation").startswith(f"{root / MAPPING}: mapClass has classes 41…41")
    scipy.io.savemat(root / SPLITS, {"trainNdxs": [[1], [6]]})
    assert failure(root).startswith(f"{root / SPLITS}: trainNdxs has frames 1…6, ")
    for content, seen in (
        ({"testNdxs": [[1]]}, "it has no trainNdxs"),
        ({"trainNdxs": "1 2 3"}, "trainNdxs is no matrix of numbers"),
        ({"trainNdxs": [[1.5]]}, "trainNdxs has values that are no whole numbers"),
        ({"trainNdxs": [[np.nan]]}, "trainNdxs has values that are no whole numbers"),
    ):
        scipy.io.savemat(root / SPLITS, content)
        assert failure(root).startswith(f"{root / SPLITS}: cannot be read ({seen})")
    scipy.io.savemat(root / SPLITS, {"trainNdxs": np.zeros((0, 1))})
    assert failure(root).startswith(f"{root / SPLITS}: trainNdxs is empty")


@pytest.mark.filterwarnings("ignore:.*samples in")
def test_one_network_for_depth_and_classes(cli, tmp_path):
    nyu_depth_v2(tmp_path / "nyu")
    done = cli("run", "--task", "segmentation", "--task", "depth", "--dataset", "nyu-depth-v2",
               "--data", tmp_path / "nyu", *TINY, "--image-size", "32x64", "--crop-size", "32x32",
               "--epochs", "1", "--batch-size", "2", "--decoder", "fcn", "--zoom", "1,1",
               "--results", tmp_path / "runs")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    (path,) = (tmp_path / "runs").glob("*/result.json")
    tasks = json.loads(path.read_text())["tasks"]
    assert tasks["depth"]["protocol"] == "nyu-depth-v2/depth/test/abs_rel@nyu_eigen/32x64"
    assert tasks["segmentation"]["counts"]["images"] == 2
