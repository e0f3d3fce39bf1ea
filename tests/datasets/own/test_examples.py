"""The example files of the documentation, each on a small folder of its published layout."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from datasets.own.description import (
    Bands,
    Depth,
    Description,
    Edges,
    Saliency,
    Segmentation,
    Splits,
)
from datasets.own.reader import OwnData
from datasets.pipeline import open_splits
from tests.datasets.own.folder import discs, maps, save
from tests.support import ROOT

EXAMPLES = ROOT / "docs" / "own"


def described(name: str, root: Path) -> Path:
    root.mkdir(exist_ok=True)
    shutil.copy(EXAMPLES / f"{name}.yaml", root / "dataset.yaml")
    return root


def test_every_example_has_a_test() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == {"pipes", "nyu-bts", "coco-stuff"}


def test_the_page_names_every_key_and_shows_the_example() -> None:
    page = (ROOT / "docs" / "own-data.md").read_text()
    table = page[page.index("## All keys") : page.index("## Splits")]
    named = set(
        re.findall(
            r"`(\w+)", "".join(row.split("|")[1] for row in table.splitlines()[3:] if "|" in row)
        )
    )
    for part in (Description, Segmentation, Depth, Saliency, Edges):
        assert set(part.model_fields) - {"ids"} <= named, part
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    example = yaml.safe_load((EXAMPLES / "pipes.yaml").read_text())
    assert blocks[0] == {name: example[name] for name in ("name", "images", "targets", "splits")}
    assert Bands.model_validate(blocks[1]["bands"]).max == (255, 255, 255, 10000)
    assert all(f"  {name}:" in page for name in set(Bands.model_fields))
    assert all(f"{name}:" in page or f"`{name}`" in page for name in Splits.model_fields)


def test_pipes(tmp_path: Path) -> None:
    root = discs(tmp_path, 30)
    for path in root.glob("rgb/*.jpg"):
        save(path.with_suffix(".png"), maps(int(path.stem[-3:]))["image"])
    described("pipes", root)
    tasks = ("segmentation", "depth", "saliency", "edges")
    splits = open_splits("own", root, tasks, (48, 64))
    assert sum(map(len, splits.values())) == 30
    for part in splits.values():
        sample = part[0]
        truth = maps(int(sample.name[-3:]))
        assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), truth["image"])
        assert np.array_equal(sample.targets["segmentation"].numpy(), truth["labels"])


def test_nyu_by_the_lists_of_bts(tmp_path: Path) -> None:
    root = described("nyu-bts", tmp_path)
    # as published: the number alone is no name, and scenes to train on are cut at random
    frames = {
        "sync/kitchen_0028b": (45, 62), "sync/living_room_0019": (45, 111),
        "official_splits/test/kitchen": (0, 1), "official_splits/test/office": (8,),
    }  # fmt: skip
    for index, (scene, numbers) in enumerate(frames.items()):
        for number in numbers:
            depth = np.full((48, 64), 1000 * (index + 1) + number, np.uint16)
            depth[0] = 0
            save(root / f"{scene}/rgb_{number:05d}.jpg", np.full((48, 64, 3), number, np.uint8))
            save(root / f"{scene}/sync_depth_{number:05d}.png", depth)
    (root / "nyudepthv2_train_files_with_gt.txt").write_text(
        "/kitchen_0028b/rgb_00045.jpg /kitchen_0028b/sync_depth_00045.png 518.8579\n"
        "/living_room_0019/rgb_00111.jpg /living_room_0019/sync_depth_00111.png 518.8579\n"
        "/living_room_0019/rgb_00045.jpg /living_room_0019/sync_depth_00045.png 518.8579\n"
    )
    (root / "nyudepthv2_test_files_with_gt.txt").write_text(
        "/kitchen/rgb_00001.jpg /kitchen/sync_depth_00001.png 0.0  /kitchen/sync_seg_00001.png\n"
        "/office/rgb_00008.jpg /office/sync_depth_00008.png 518.8579\n"
    )
    data = {split: OwnData(root, split, "depth") for split in ("train", "test")}
    names = {split: [sample.name for sample in part] for split, part in data.items()}
    assert names == {
        "train": ["kitchen_0028b/00045", "living_room_0019/00111", "living_room_0019/00045"],
        "test": ["kitchen/00001", "office/00008"],
    }
    depth = data["train"][1].targets["depth"]
    assert depth[:2, 5].tolist() == [0, pytest.approx(2.111)]
    assert data["test"][1].targets["depth"].max().item() == pytest.approx(4.008)
    assert data["train"].info.tasks["depth"]["crop"] == "nyu_eigen"
    assert data["train"].info.scored == "test"


def test_coco_stuff(tmp_path: Path) -> None:
    root = described("coco-stuff", tmp_path)
    values = np.array([[0, 10, 12], [91, 181, 255]], np.uint8).repeat(20, 0).repeat(20, 1)
    for split, number in (("train2017", 9), ("train2017", 25), ("val2017", 139)):
        image = np.full((*values.shape, 3), number, np.uint8)
        save(root / f"images/{split}/{number:012d}.jpg", image)
        save(root / f"annotations/{split}/{number:012d}.png", values)
    data = OwnData(root, "train", "segmentation")
    classes = data.info.tasks["segmentation"]["classes"]
    assert len(classes) == 171
    assert [sample.name for sample in data] == ["train/000000000009", "train/000000000025"]
    assert len(OwnData(root, "val", "segmentation")) == 1
    labels = data[0].targets["segmentation"][::20, ::20]
    assert [classes[label] for label in labels.flatten()[:-1]] == [
        *("person", "fire hydrant", "stop sign", "banner", "wood")
    ]  # fmt: skip
    assert labels[1, 2] == 255
    assert data.info.scored == "val"
    # a published index without a class
    values[0, 0] = 11
    save(root / "annotations/train2017/000000000009.png", values)
    assert len(data.faults(0)) == 1
