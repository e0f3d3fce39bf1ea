"""A few real files of published sets, in their published naming; linked to, never copied."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from benchmark.data.check import check
from common.progress import Silent
from datasets.labels import read_labels
from datasets.readers import nyu
from datasets.readers._matlab import read_numbers
from datasets.readers.ade20k import Ade20k
from datasets.readers.cityscapes import CLASSES as STREETS
from datasets.readers.cityscapes import IDS, VOID, Cityscapes
from datasets.readers.voc import CLASSES, Voc2012
from tests.support import SHARED

SAMPLES = SHARED / "published_samples"
pytestmark = [
    pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"{SAMPLES} is not there"),
    pytest.mark.filterwarnings("ignore:.* samples in '.*' where "),
]


def stored(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def rewritten(path: Path, folder: Path) -> Path:
    """A grey label map as a lossless optimiser writes it: a palette of the greys that occur."""
    greys, indices = np.unique(stored(path), return_inverse=True)
    image = Image.fromarray(indices.reshape(stored(path).shape).astype(np.uint8), mode="P")
    image.putpalette(np.stack([greys] * 3, 1).astype(np.uint8).tobytes())
    image.save(folder / path.name)
    return folder / path.name


def test_ade20k(tmp_path: Path) -> None:
    data = Ade20k(SAMPLES / "ade20k", "val", "segmentation")
    assert [pair.name for pair in data.pairs] == [f"ADE_val_{n:08d}" for n in (1, 2, 3)]
    for sample, pair in zip(data, data.pairs, strict=True):
        labels = stored(pair.target).astype(int)
        assert sample.image.shape[1:] == labels.shape
        target = sample.targets["segmentation"]
        assert np.array_equal(target.numpy(), np.where(labels == 0, 255, labels - 1))
        assert torch.equal(target, data.read_target(rewritten(pair.target, tmp_path)))


def test_cityscapes(tmp_path: Path) -> None:
    """The samples have no photographs."""
    paths = sorted((SAMPLES / "cityscapes/gtFine/val").glob("*/*_gtFine_labelIds.png"))
    assert len(paths) == 4
    for path in paths:
        ids, classes = stored(path), read_labels(path, IDS, VOID)
        for index, (label, _) in enumerate(STREETS.values()):
            assert ((classes == index).numpy() == (ids == label)).all()
        assert ((classes == 255).numpy() == ~np.isin(ids, IDS)).all()
        assert torch.equal(classes, read_labels(rewritten(path, tmp_path), IDS, VOID))
    assert Cityscapes.info.tasks["segmentation"]["classes"] == tuple(STREETS)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """The samples and lists, which they lack."""
    root = tmp_path / "VOC2012"
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).symlink_to(SAMPLES / "voc2012" / folder)
    names = sorted(path.stem for path in (root / "JPEGImages").iterdir())
    for split, part in {"train": names[:1], "val": names[1:]}.items():
        text = "".join(f"{name}\n" for name in part)
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text(text)
    return root


def test_voc2012(voc: Path, tmp_path: Path) -> None:
    present = []
    for split in ("train", "val"):
        data = Voc2012(voc, split, "segmentation")
        for sample, pair in zip(data, data.pairs, strict=True):
            target = sample.targets["segmentation"]
            assert np.array_equal(target.numpy(), stored(pair.target))
            present.append([CLASSES[i] for i in target.unique().tolist() if i != 255])
            with Image.open(pair.target) as picture:  # the same in colours, and in fewer of them
                colours = picture.convert("RGB")
            for save in (colours.save, colours.quantize(16).save):
                save(tmp_path / "a.png")
                assert torch.equal(data.read_target(tmp_path / "a.png"), target)
    assert present == [
        ["background", "bottle", "person"],
        ["background", "chair", "person", "sofa"],
        ["background", "bus", "car"],
    ]


def test_three_photographs_are_not_voc(voc: Path) -> None:
    problems = check("voc2012", voc, ("segmentation",), Silent())["problems"]
    words = "this is not the published set: for data of your own take --dataset own"
    assert problems == [
        f"train: 1 samples, published are 1464: {words}",
        f"train: segmentation: pixels of only 3 of 21 classes: {words}",
        f"val: 2 samples, published are 1449: {words}",
    ]


def test_nyu() -> None:
    train, test = (read_numbers(SAMPLES / "nyu/splits.mat", f"{s}Ndxs") for s in ("train", "test"))
    assert (len(train), len(test)) == (795, 654)
    assert sorted([*train, *test]) == list(range(1, 1450))
    mapping = read_numbers(SAMPLES / "nyu/classMapping40.mat", "mapClass")
    assert set(mapping) == set(range(1, 41))
    names = scipy.io.loadmat(SAMPLES / "nyu/classMapping40.mat")["className"]
    published = [str(name[0]).replace(" ", "") for name in names.ravel()]
    ours = [name.replace(" ", "") for name in nyu.CLASSES]
    ours[ours.index("refrigerator")] = "refridgerator"  # as it is written there
    assert published == ours
