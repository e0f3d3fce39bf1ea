"""The data set ``own``: samples, pairs, splits, and what is said of files without a partner."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.experiment.config import make_config
from benchmark.experiment.plan import resolve, run_key
from common.errors import DataError, UsageError
from datasets.base import DATASETS, Sample
from datasets.own.reader import OwnData
from datasets.pipeline import info_at, open_splits
from tests.datasets.own.folder import YAML, H, W, discs, maps

TASKS = ("segmentation", "depth", "saliency", "edges")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return discs(tmp_path / "Daten Größe")


def edited(root: Path, old: str, new: str) -> Path:
    assert old in YAML
    (root / "dataset.yaml").write_text(YAML.replace(old, new))
    return root


def same(one: Sample, other: Sample) -> bool:
    return torch.equal(one.image, other.image) and all(
        torch.equal(target, other.targets[name]) for name, target in one.targets.items()
    )


def test_samples_hold_every_target_that_is_asked_for(root: Path) -> None:
    data = OwnData(root, "train", "segmentation", also=TASKS[1:])
    copy = pickle.loads(pickle.dumps(data))
    assert len(data) > 4
    for index in range(len(data)):
        sample = data[index]
        assert same(sample, copy[index])
        number = int(sample.name.rpartition("_")[2])
        truth = maps(number)
        pixels = np.array(Image.open(root / f"rgb/{sample.name}.jpg"))
        assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), pixels)
        assert np.array_equal(sample.targets["segmentation"].numpy(), truth["labels"])
        known = ~np.isin(truth["depth"], [0, 65535])
        expected = np.where(known, truth["depth"] / 1000, 0).astype(np.float32)
        assert np.array_equal(sample.targets["depth"].numpy(), expected)
        assert np.array_equal(sample.targets["saliency"].numpy() * 255, truth["mask"])
    assert list(OwnData(root, "train", "depth")[0].targets) == ["depth"]
    with pytest.raises(IndexError):
        data[len(data)]


def test_facts_are_those_of_the_description(root: Path) -> None:
    info = info_at("own", root)
    assert info.title == "discs"
    assert info.tasks["segmentation"] == {"classes": ("background", "disc", "ring")}
    assert info.tasks["depth"] == {"min_depth": 0.1, "max_depth": 10.0}
    assert list(info.splits) == OwnData.available_splits(root) == ["train", "val", "test"]
    assert (info.licence, info.citation) == ("CC0", "nobody")


def test_clips_stay_together_and_splits_cover_all(root: Path) -> None:
    splits = open_splits("own", root, TASKS, (32, 32))
    names = {split: {sample.name for sample in part} for split, part in splits.items()}
    assert len(set.union(*names.values())) == sum(map(len, names.values())) == 24
    clips = [{name.partition("_")[0] for name in part} for part in names.values()]
    assert sum(map(len, clips)) == len(set.union(*clips)) == 8


def test_a_sample_has_one_name_whatever_tasks_are_read(root: Path) -> None:
    """Names choose the split: what one task trains on must be what another does."""
    (root / "depth").rename(root / "day1")
    edited(root, "depth/*.png", "'day?/*.png'")
    text = (root / "dataset.yaml").read_text().replace("images: rgb/", "images: r?b/")
    (root / "dataset.yaml").write_text(text)
    depth, masks = (OwnData(root, "train", task) for task in ("depth", "saliency"))
    assert [s.name for s in depth] == [s.name for s in masks]
    assert depth[0].name.startswith("clip")


def test_lists_are_read_in_their_order(root: Path) -> None:
    shares = YAML[YAML.index("{val:") : YAML.index("licence:") - 1]
    edited(root, shares, "{train: a.txt, test: b.txt}")
    (root / "a.txt").write_text("clip1_003\nrgb/clip0_001.jpg\n")
    (root / "b.txt").write_text("clip0_000.jpg masks/clip0_000.png\n")
    assert [s.name for s in OwnData(root, "train", "depth")] == ["clip1_003", "clip0_001"]
    splits = open_splits("own", root, "saliency", (32, 32))
    assert [splits[name].name for name in splits] == ["train", "held out of train", "test"]
    (root / "a.txt").write_text("clip1_003\nclip9_999\nclip0_001\n")
    with pytest.raises(DataError, match=r"a.txt:2: 'clip9_999' is no image"):
        OwnData(root, "train", "depth")
    data, missing = OwnData.survey(root, "train", "depth")
    assert (len(data), data.dropped, len(missing)) == (2, 1, 1)


def test_an_image_without_its_target_is_an_error_unless_it_is_partial(root: Path) -> None:
    names = [s.name for s in OwnData(root, "train", "depth")]
    (root / f"depth/{names[0]}.png").unlink()
    with pytest.raises(DataError) as caught:
        OwnData(root, "train", "depth")
    assert str(caught.value) == (
        f"{root}/rgb/{names[0]}.jpg: no depth of its name (depth/*.png): add it, or write "
        f"partial: true below targets.depth in {root}/dataset.yaml"
    )
    assert len(OwnData(root, "train", "saliency")) == len(names)
    edited(root, "depth: {", "depth: {partial: true, ")
    assert [s.name for s in OwnData(root, "train", "depth")] == names[1:]
    both = OwnData(root, "train", "depth", also=["saliency"])
    assert [s.name for s in both] == names
    assert [list(both[i].targets) for i in (0, 1)] == [["saliency"], ["depth", "saliency"]]


def test_another_size_and_an_empty_file(root: Path) -> None:
    data = OwnData(root, "train", "saliency")
    name = data[0].name
    Image.fromarray(np.zeros((H, W + 1), np.uint8)).save(root / f"masks/{name}.png")
    with pytest.raises(DataError, match=f"saliency of {W + 1}×{H} pixels but its image .*{W}×{H}"):
        data[0]
    (root / f"masks/{name}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"masks/.*.png: saliency file is empty \(0 bytes\)"):
        OwnData(root, "train", "saliency")


def test_every_damaged_file_of_a_sample_is_a_fault(root: Path) -> None:
    data = OwnData(root, "train", "saliency", also=["depth"])
    name = data[0].name
    for file in (f"rgb/{name}.jpg", f"masks/{name}.png"):
        (root / file).write_bytes(b"no image")
    assert [str(fault).split(":")[0] for fault in data.faults(0)] == [
        f"{root}/rgb/{name}.jpg",
        f"{root}/masks/{name}.png",
    ]


def test_what_is_not_described_is_no_task(root: Path) -> None:
    edited(root, "  saliency: {files: masks/*.png}\n", "")
    with pytest.raises(UsageError, match="dataset own has no task 'saliency': choose segment"):
        OwnData(root, "train", "saliency")
    with pytest.raises(UsageError, match="data set own has no saliency: it has segmentation"):
        resolve(make_config({"dataset": "own", "data": root, "task": "saliency"}))


def test_the_description_is_part_of_a_run(root: Path) -> None:
    values = {"dataset": "own", "data": root, "task": "depth", "backbone": "test_efficientnet"}
    key = run_key(resolve(make_config(values)))
    edited(root, "CC0", "CC BY")
    assert run_key(resolve(make_config(values))) == key
    edited(root, "range: [0.1, 10]", "range: [0.1, 8]")
    assert run_key(resolve(make_config(values))) != key
    edited(root, "licence:", "image_size: [64, 96]\nlicence:")
    config = resolve(make_config(values))
    assert config.image_size == (64, 96)
    assert resolve(config).description == config.description
    (root / "dataset.yaml").unlink()  # a result holds what it needs
    assert DATASETS.get("own").facts(config.description).title == "discs"


def test_a_group_that_no_name_has_is_an_error(root: Path) -> None:
    """Each sample would be its own group, and frames of a clip in two splits."""
    edited(root, r"(.*)_\d+", r"(.*)-\d+")
    with pytest.raises(UsageError) as caught:
        OwnData(root, "train", "depth")
    assert f"{root}/dataset.yaml: splits.group: matches none of the 24 names" in str(caught.value)


def test_a_folder_is_needed_and_its_description() -> None:
    with pytest.raises(UsageError, match="dataset own needs --data DIR, a folder with a dataset"):
        resolve(make_config({"dataset": "own"}))


def test_the_fingerprint_changes_with_a_file(root: Path) -> None:
    before = OwnData(root, "train", "edges").fingerprint()
    assert OwnData(root, "train", "depth").fingerprint() != before
    name = OwnData(root, "train", "edges")[0].name
    with (root / f"edges/{name}_2.png").open("ab") as file:
        file.write(b"more")
    assert OwnData(root, "train", "edges").fingerprint() != before


def test_what_has_no_partner_is_counted(root: Path) -> None:
    data = OwnData(root, "train", "depth", also=["saliency"])
    assert data.remarks() == []
    (root / "rgb/clip0_000.jpg").rename(root / "rgb/other.jpg")
    assert OwnData.survey(root, "train", "depth")[0].remarks() == [
        "1 file of depth without an image, first depth/clip0_000.png",
        "1 file in whose name splits.group finds nothing, each a group, first rgb/other.jpg",
    ]
    shares = YAML[YAML.index("{val:") : YAML.index("licence:") - 1]
    text = YAML.replace(shares, "{train: a.txt, test: b.txt}")
    text = text.replace("depth: {", "depth: {partial: true, ")
    (root / "dataset.yaml").write_text(text)
    (root / "a.txt").write_text("clip0_001\nclip0_002\n")
    (root / "b.txt").write_text("clip1_003\n")
    assert OwnData(root, "train", "depth", also=["saliency"]).remarks() == [
        "1 file of depth without an image, first depth/clip0_000.png",
        "1 file of images without depth, first rgb/other.jpg",
        "1 file of saliency without an image, first masks/clip0_000.png",
        "21 files of images in none of the lists, first rgb/clip1_004.jpg",
    ]


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_photograph_that_a_tag_turns_stays_on_its_target(root: Path, orientation: int) -> None:
    data = OwnData(root, "train", "saliency", also=["segmentation"])
    name = data[0].name
    path = root / f"rgb/{name}.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(path).save(path, exif=exif)
    stored = np.array(Image.open(path))
    if orientation == 3:  # a map fits it either way
        with pytest.warns(UserWarning, match="EXIF orientation 3"):
            sample = data[0]
        assert [where for where, _ in data.doubts()] == [str(path)]
    else:
        sample = data[0]
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), stored)


@pytest.mark.parametrize("size", [(24, 32), (25, 33), (96, 128), (480, 640)])
def test_a_target_may_have_another_size_of_the_same_proportions(
    root: Path, size: tuple[int, int]
) -> None:
    data = OwnData(root, "train", "saliency", also=["segmentation"])
    path = root / f"masks/{data[0].name}.png"
    mask = Image.open(path)
    mask.resize(size[::-1], Image.Resampling.NEAREST).save(path)
    sample = data[0]
    assert sample.targets["saliency"].shape == size
    assert sample.image.shape[1:] == sample.targets["segmentation"].shape == (H, W)


def test_palettes_that_number_colours_anew_in_each_file_are_refused(root: Path) -> None:
    data = OwnData(root, "train", "segmentation")
    for index, order in enumerate(([0, 1, 2], [2, 0, 1])):
        values = np.array([[0, 1, 2]] * H * W, np.uint8)[:, :1].reshape(H, W)
        values[:2, :3] = [0, 1, 2]
        picture = Image.fromarray(values)
        colours = np.array([[0, 0, 0], [200, 0, 0], [0, 0, 200]], np.uint8)[order]
        picture.putpalette(colours.flatten().tolist())
        picture.save(root / f"labels/{data[index].name}.png")
    data[0]
    with pytest.raises(
        DataError, match=r"value 0 has the colour \[0, 0, 200\], in .* write palette"
    ):
        data[1]
