"""From a data set's samples to batches."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from common.annotators import pack, unpack
from common.errors import DataError, UsageError
from common.registry import Registry
from datasets import pipeline
from datasets.base import DatasetInfo, DenseDataset, Sample
from datasets.pipeline import (
    Resized,
    Split,
    collate,
    open_split,
    open_splits,
    resize_image,
    resize_target,
    role_of,
)
from datasets.readers.image_masks import ImageMasks

H, W = 10, 14


class Counted(DenseDataset):
    """In memory; each image carries its index. Counts how often each sample is read."""

    info = DatasetInfo("counted", "test", {"depth": {}}, {"train": 25, "val": 3, "test": 4})
    lengths: ClassVar[dict[str, int]] = {"train": 25, "val": 3, "test": 4}

    def __init__(self, root: Path | None, split: str, task: str, **facts: Any) -> None:
        self.split, self.task, self.facts = split, task, facts
        self.reads: list[int] = []

    def __len__(self) -> int:
        return self.lengths[self.split]

    def __getitem__(self, index: int) -> Sample:
        self.reads.append(index)
        random = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, H, W), generator=random, dtype=torch.uint8)
        depth = torch.rand(H, W, generator=random)
        return Sample(image, {"depth": depth, "other": depth}, f"{self.split}/{index}")

    def fingerprint(self) -> str:
        return "0"


class WithoutVal(Counted):
    info = DatasetInfo("no val", "test", {"depth": {}}, {"train": 25, "test": 4}, built_in=True)


class ScoredOnVal(Counted):
    info = DatasetInfo(
        "scored on val", "test", {"depth": {}}, {"train": 25, "val": 3}, "val", "spread"
    )


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    entries: Registry[type[DenseDataset]] = Registry("dataset", "datasets")
    entries.register("counted")(Counted)
    entries.register("without-val")(WithoutVal)
    entries.register("scored-on-val")(ScoredOnVal)
    entries.register("image-masks")(ImageMasks)
    monkeypatch.setattr(pipeline, "DATASETS", entries)


def names(samples: Iterable[Sample]) -> list[str]:
    return [sample.name for sample in samples]


# --- splits --------------------------------------------------------------------------------------


def test_declared_splits_are_whole() -> None:
    splits = open_splits("counted", None, "depth", (8, 8))
    assert {name: len(split) for name, split in splits.items()} == Counted.lengths
    assert splits["val"].name == "val"
    assert splits["val"][2].name == "val/2"
    data: Any = splits["train"].data
    assert data.facts == {}  # files have a size of their own


def test_the_last_tenth_of_train_is_held_out_where_val_is_missing() -> None:
    splits = open_splits("without-val", None, "depth", (8, 9))
    assert len(splits["train"]) == 23  # 10 % of 25, rounded
    assert names(splits["val"][i] for i in range(2)) == ["train/23", "train/24"]
    assert splits["val"].name == "held out of train"
    assert len(splits["val"]) == 2
    assert len(splits["test"]) == 4
    data: Any = splits["test"].data
    assert data.facts == {"size": (8, 9)}  # a built-in data set is made at the asked size


def test_a_val_split_that_is_scored_is_not_validated_on() -> None:
    splits = open_splits("scored-on-val", None, "depth", (8, 8))
    assert splits["test"].name == "val"
    assert names(splits["test"]) == ["val/0", "val/1", "val/2"]
    assert splits["val"].name == "held out of train"
    assert names(splits["val"]) == ["train/12", "train/24"]  # spread, as declared
    assert names(splits["train"]) == [f"train/{i}" for i in range(25) if i not in (12, 24)]


@pytest.mark.parametrize("count", [2, 3, 10, 14, 15, 16, 1464, 10582])
def test_what_is_held_out_is_spread_over_train(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(ScoredOnVal, "lengths", {"train": count, "val": 1})
    splits = open_splits("scored-on-val", None, "depth", (8, 8))
    held = splits["val"].indices
    assert len(held) == max(1, round(0.1 * count))
    assert sorted([*held, *splits["train"].indices]) == list(range(count))
    assert min(held) < 20
    assert max(held) == count - 1


def test_splits_are_named_as_they_are_published() -> None:
    """What runs choose by has a name of its own where it is no published split."""
    roles = {
        "counted": {"train": "train", "val": "val", "test": "test"},
        "without-val": {"train": "train", "held-out": "val", "test": "test"},
        # no test labels are published: the scored split keeps its name, and may be asked for so
        "scored-on-val": {"train": "train", "held-out": "val", "val": "test", "test": "test"},
    }
    for name, expected in roles.items():
        for split in pipeline.SPLITS:
            if split in expected:
                assert role_of(name, None, split) == expected[split]
            else:
                with pytest.raises(UsageError, match=f"--split {split}: .* has no such split"):
                    role_of(name, None, split)
    published = open_split(
        "scored-on-val", None, "depth", (8, 8), role_of("scored-on-val", None, "val")
    )
    assert published.name == "val"
    assert published[0].name == "val/0"


@pytest.mark.parametrize(("train", "kept"), [(2, 1), (9, 8), (10, 9), (367, 330)])
def test_at_least_one_image_is_held_out(
    monkeypatch: pytest.MonkeyPatch, train: int, kept: int
) -> None:
    monkeypatch.setattr(WithoutVal, "lengths", {"train": train, "test": 1})
    splits = open_splits("without-val", None, "depth", (8, 8))
    assert (len(splits["train"]), len(splits["val"])) == (kept, train - kept)
    assert set(splits["train"].indices).isdisjoint(splits["val"].indices)


def test_limit_keeps_the_first_of_each() -> None:
    splits = open_splits("without-val", None, "depth", (8, 8), limit=3)
    assert {name: len(split) for name, split in splits.items()} == {"train": 3, "val": 2, "test": 3}
    assert names(splits["train"][i] for i in range(3)) == ["train/0", "train/1", "train/2"]
    assert splits["val"][0].name == "train/23"  # still none that is trained on


@pytest.mark.parametrize(
    ("lengths", "empty"),
    [({"train": 1, "test": 1}, "train"), ({"train": 5, "test": 0}, "test")],
)
def test_an_empty_split_is_named(
    monkeypatch: pytest.MonkeyPatch, lengths: dict[str, int], empty: str
) -> None:
    monkeypatch.setattr(WithoutVal, "lengths", lengths)
    with pytest.raises(DataError, match=f"without-val: the {empty} split is empty"):
        open_splits("without-val", None, "depth", (8, 8))


@pytest.mark.parametrize("name", ["counted", "without-val"])
@pytest.mark.parametrize("limit", [None, 1])
def test_one_split_is_as_in_all(name: str, limit: int | None) -> None:
    for split, among in open_splits(name, None, "depth", (8, 8), limit).items():
        alone = open_split(name, None, "depth", (8, 8), split, limit)
        assert names(alone[i] for i in range(len(alone))) == names(
            among[i] for i in range(len(among))
        )
        assert alone.name == among.name


def test_what_is_held_out_is_opened_with_train_once() -> None:
    splits = open_splits("without-val", None, "depth", (8, 8))
    assert splits["val"].data is splits["train"].data


def test_a_data_set_without_train_is_only_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    info = DatasetInfo("counted", "Counted", {"depth": {}}, {"test": 4})
    monkeypatch.setattr(Counted, "info", info)
    remedy = "train on .* and score it with evaluate --dataset counted"
    with pytest.raises(UsageError, match=f"Counted has only a test split: {remedy}"):
        open_splits("counted", None, "depth", (8, 8))
    assert len(open_split("counted", None, "depth", (8, 8), "test")) == 4


def test_an_unknown_data_set_lists_near_matches() -> None:
    with pytest.raises(UsageError, match="unknown dataset 'cuonted': did you mean counted"):
        open_splits("cuonted", None, "depth", (8, 8))


# --- sizes ---------------------------------------------------------------------------------------


def test_images_are_averaged_not_sampled() -> None:
    stripes = torch.zeros(3, 16, 32, dtype=torch.uint8)
    stripes[:, :, ::4] = 255  # which samples taken at the new pixels' centres would all miss
    small = resize_image(stripes, (4, 8))
    assert small.shape == (3, 4, 8)
    assert small.dtype == torch.uint8
    assert (small[:, :, 1:-1] == 64).all()  # a quarter of 255, rounded
    assert (small[:, :, [0, -1]] > 32).all()


def test_a_whole_resize_keeps_constant_colours_and_the_extremes() -> None:
    image = torch.zeros(3, 7, 9, dtype=torch.uint8)
    image[0], image[1] = 255, 13
    for size in ((5, 5), (20, 31), (7, 9)):
        resized = resize_image(image, size)
        assert resized.shape == (3, *size)
        for channel, colour in enumerate((255, 13, 0)):
            assert (resized[channel] == colour).all()


@pytest.mark.parametrize("size", [(5, 7), (20, 28), (13, 3), (10, 14), (1, 1)])
def test_labels_are_taken_never_mixed(size: tuple[int, int]) -> None:
    random = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 3, 255])[torch.randint(0, 3, (H, W), generator=random)]
    labels = labels.to(torch.uint8)
    resized = resize_target("segmentation", labels, size)
    assert resized.dtype == torch.uint8
    assert resized.shape == size
    # nearest: the source pixel in which the centre of the new pixel lies
    rows = ((torch.arange(size[0]) + 0.5) * H / size[0]).floor().long()
    columns = ((torch.arange(size[1]) + 0.5) * W / size[1]).floor().long()
    assert torch.equal(resized, labels[rows][:, columns])


def test_depth_keeps_its_metres_and_its_holes() -> None:
    depth = torch.rand(H, W, generator=torch.Generator().manual_seed(0)) * 9 + 1
    depth[2:5] = 0
    resized = resize_target("depth", depth, (23, 31))
    assert resized.dtype == torch.float32
    assert set(resized.unique().tolist()) == set(depth.unique().tolist())
    whole = resize_target("segmentation", torch.full((4, 4), 70_000, dtype=torch.int32), (2, 2))
    assert whole.dtype == torch.int32
    assert (whole == 70_000).all()


# --- samples of one size -------------------------------------------------------------------------


def resized(targets: bool = True, indices: range = range(5)) -> Resized:
    data = Counted(None, "train", "depth")
    return Resized(Split(data, indices, "train"), (6, 8), "depth", targets)


def test_targets_are_resized_for_training_and_left_for_scoring() -> None:
    for targets, shape in ((True, (6, 8)), (False, (H, W))):
        sample = resized(targets)[1]
        assert sample.image.shape == (3, 6, 8)
        assert sample.targets["depth"].shape == shape
        assert set(sample.targets) == {"depth"}  # what no task reads is dropped
        assert sample.name == "train/1"


def test_the_cache_reads_each_sample_once_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cached = resized(indices=range(20, 25))
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 5 * (3 * 6 * 8 + 4 * 6 * 8) - 1)  # one too few
    uncached = resized(indices=range(20, 25))
    assert (cached.cached, uncached.cached) == (True, False)
    for _ in range(2):
        for index in range(5):
            a, b = cached[index], uncached[index]
            assert a.name == b.name == f"train/{20 + index}"
            assert torch.equal(a.image, b.image)
            assert torch.equal(a.targets["depth"], b.targets["depth"])
    reads = [source.source.data.reads for source in (cached, uncached)]  # type: ignore[attr-defined]
    assert sorted(reads[0]) == list(range(20, 25))
    assert sorted(reads[1]) == sorted([20, *range(20, 25), *range(20, 25)])


def test_collate_stacks_images_and_keeps_targets_of_any_size() -> None:
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    image[0], image[1] = 255, 51
    targets = [{"depth": torch.rand(4, 5)}, {"depth": torch.rand(6, 7)}]
    images, collated = collate([Sample(image, t, "x") for t in targets])
    assert images.dtype == torch.uint8
    assert images.shape == (2, 3, 2, 2)
    assert images[0, :, 0, 0].tolist() == [255, 51, 0]
    assert all(c is t for c, t in zip(collated, targets, strict=True))


# --- workers -------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A small data set on disk: a spawned worker has to find its class by import."""
    random = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for index in range(5):
        pixels = random.integers(0, 256, (H, W, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
        mask = np.where(pixels[..., 0] > 100, 255, 0).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index}.png")
    (tmp_path / "train.txt").write_text("0\n1\n2\n3\n")
    (tmp_path / "test.txt").write_text("4\n")
    return tmp_path


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_give_what_one_process_gives(files: Path, method: str) -> None:
    split = open_splits("image-masks", files, "saliency", (6, 8))["train"]
    data = Resized(split, (6, 8), "saliency", targets=True)

    def batches(**options: Any) -> list[tuple[Tensor, list[dict[str, Tensor]]]]:
        return list(DataLoader(data, batch_size=2, collate_fn=collate, **options))

    alone = batches()
    shared = batches(num_workers=2, multiprocessing_context=method)
    assert [len(images) for images, _ in shared] == [2, 1]
    for (images, targets), (other_images, other_targets) in zip(alone, shared, strict=True):
        assert torch.equal(images, other_images)
        for one, other in zip(targets, other_targets, strict=True):
            assert torch.equal(one["saliency"], other["saliency"])


def test_no_edge_is_lost_where_an_image_shrinks():
    marks = torch.zeros(2, 40, 60, dtype=torch.bool)
    marks[0, :, 17] = True
    marks[1, 23] = True
    valid = torch.ones(40, 60)
    valid[:4] = 0
    small = resize_target("edges", pack(marks, valid), (10, 20))
    assert small.shape == (10, 20)
    assert torch.equal(small == 0, torch.arange(10)[:, None].expand(10, 20) == 0)
    one, other = unpack(small)
    assert torch.equal(one.nonzero()[:, 1].unique(), torch.tensor([17 // 3]))
    assert int(one.sum()) == 9
    assert torch.equal(other.nonzero()[:, 0].unique(), torch.tensor([23 // 4]))
    assert int(other.sum()) == 20


def test_a_line_stays_whole_where_one_side_grows():
    marks = torch.zeros(1, 40, 20, dtype=torch.bool)
    marks[0, 11] = True
    small = unpack(resize_target("edges", pack(marks), (32, 40)))[0]
    assert small.any(0).all()
    assert int(small.any(1).sum()) == 1


def test_ignored_everywhere_stays_so():
    assert not resize_target("edges", torch.zeros(8, 8, dtype=torch.int32), (4, 4)).any()
