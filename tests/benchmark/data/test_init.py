"""`data init` on folders as people have them: what it writes is read, checked and trained on."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import Result

from common.annotators import unpack
from datasets.labels import voc_colour
from datasets.own.description import Description
from datasets.own.reader import OwnData
from datasets.own.reading import read_description
from tests.datasets.own.folder import YAML, discs, maps, save
from tests.support import TINY, line

Cli = Callable[..., Result]


def init(cli: Cli, root: Path, *options: str) -> tuple[Description, Result]:
    """The description that the command writes, which `data check` then accepts."""
    done = cli("data", "init", root, *options)
    assert done.exit_code == 0, done.output
    described = read_description(root)
    checked = cli("data", "check", "own", "--data", root, "--json", "-")
    assert checked.exit_code == 0, json.loads(checked.stdout)["problems"]
    assert json.loads(checked.stdout)["problems"] == []
    return described, done


def trained(cli: Cli, root: Path, *tasks: str) -> None:
    """A run on the description ends in a row."""
    names = [part for task in tasks for part in ("--task", task)]
    done = cli("run", "--dataset", "own", "--data", root, *names, "--decoder", "fcn", *TINY,
               "--epochs", "1", "--results", root.parent / "runs")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert all(f"{task} on own ({read_description(root).name})" in done.stdout for task in tasks)


def test_every_kind_of_ground_truth_is_found(cli: Cli, tmp_path: Path) -> None:
    root = discs(tmp_path / "discs")
    (root / "dataset.yaml").unlink()
    described, done = init(cli, root)
    wanted = Description.model_validate(
        {"name": "discs", "images": "rgb/*.jpg",
         "targets": {
             "segmentation": {"files": "labels/*.png",
                              "classes": ["class_0", "class_1", "class_2"]},
             "depth": {"files": "depth/*.png", "metres_per_unit": 0.001, "invalid": [0, 65535],
                       "range": [1.5, 4.0]},
             "saliency": {"files": "masks/*.png"},
             "edges": {"files": ["edges/*_1.png", "edges/*_2.png"]}},
         "splits": {"val": 0.1, "test": 0.2, "seed": 0, "group": r"(.*)[_-]\d+$"},
         "image_size": [64, 64]}
    )  # fmt: skip
    assert described.images == wanted.images
    assert described.targets == wanted.targets
    assert described.splits.group == wanted.splits.group
    assert all(len(OwnData(root, split, "depth")) >= 3 for split in ("train", "val", "test"))
    assert "not sure: metres_per_unit: 0.001: median" in done.output


def test_labels_and_depth_of_other_names_and_sizes(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "my scan"
    for index in range(12):
        arrays = maps(index)
        big = [np.kron(arrays[name], np.ones((1 + index % 2,) * 2)) for name in ("labels", "depth")]
        image = np.repeat(np.repeat(arrays["image"], 1 + index % 2, 0), 1 + index % 2, 1)
        save(root / f"photos/shot-{index:02d}.JPG", image)
        save(root / f"annotations/shot-{index:02d}_labels.png", big[0].astype(np.uint8))
        save(root / f"scan/shot-{index:02d}_depth.png", big[1].astype(np.uint16))
    (root / "classes.txt").write_text("floor\nball\nring\n")
    described, _ = init(cli, root)
    assert described.name == "my-scan"
    assert described.images == ("photos/*.JPG",)
    assert described.targets.segmentation is not None
    assert described.targets.segmentation.files == ("annotations/*_labels.png",)
    assert described.targets.segmentation.classes == ("floor", "ball", "ring")
    assert described.targets.depth is not None
    assert described.targets.depth.files == ("scan/*_depth.png",)
    trained(cli, root, "segmentation", "depth")


@pytest.mark.parametrize("first", [0, 1])
def test_class_names_with_their_values(cli: Cli, tmp_path: Path, first: int) -> None:
    for index in range(10):
        arrays = maps(index)
        save(tmp_path / f"images/{index}.jpg", arrays["image"])
        save(tmp_path / f"labels/{index}.png", arrays["labels"].astype(np.uint8))
    names = ["floor", "ball", "ring"]
    lines = [f"{value} {name}\n" for value, name in enumerate(names)][first:]
    (tmp_path / "classes.txt").write_text("".join(lines))
    described, _ = init(cli, tmp_path)
    assert described.targets.segmentation is not None
    assert described.targets.segmentation.classes == tuple(names[first:])
    sample = OwnData(tmp_path, "train", "segmentation")[0]
    stored = maps(int(sample.name))["labels"].astype(int)
    wanted = np.where((stored < first) | (stored == 255), 255, stored - first)
    assert np.array_equal(sample.targets["segmentation"].numpy(), wanted)


def test_labels_of_0_and_255_are_two_classes(cli: Cli, tmp_path: Path) -> None:
    for index in range(10):
        arrays = maps(index)
        save(tmp_path / f"images/{index}.jpg", arrays["image"])
        save(tmp_path / f"labels/{index}.png", arrays["mask"])
    described, _ = init(cli, tmp_path)
    assert described.targets.segmentation is not None
    sample = OwnData(tmp_path, "train", "segmentation")[0]
    stored = maps(int(sample.name))["mask"]
    assert set(np.unique(stored)) == {0, 255}
    assert np.array_equal(sample.targets["segmentation"].numpy(), stored // 255)


@pytest.mark.parametrize("top", [1, 255])
def test_masks_alone(cli: Cli, tmp_path: Path, top: int) -> None:
    root = tmp_path / "masks"
    for index in range(10):
        arrays = maps(index)
        save(root / f"img_{index}.jpg", arrays["image"])
        save(root / f"mask_{index}.png", arrays["mask"] // (255 // top))
    described, _ = init(cli, root)
    assert (described.images, list(described.targets.present)) == (("img_*.jpg",), ["saliency"])
    data = OwnData(root, "train", "saliency")
    truth = maps(int(data[0].name))["mask"] > 0
    assert np.array_equal(data[0].targets["saliency"].numpy(), truth)
    trained(cli, root, "saliency")


def test_float_depth(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "lidar"
    for index in range(10):
        arrays = maps(index)
        save(root / f"rgb/{index:04d}.png", arrays["image"])
        metres = np.where(arrays["depth"] == 65535, np.nan, arrays["depth"] / 1000)
        (root / "depth").mkdir(exist_ok=True)
        tifffile.imwrite(root / f"depth/{index:04d}.tiff", metres.astype(np.float32))
    described, done = init(cli, root)
    assert described.targets.depth is not None
    assert described.targets.depth.metres_per_unit == 1.0
    assert described.targets.depth.range[0] <= 1.5
    assert described.targets.depth.range[1] >= 3.47
    assert "not sure: metres_per_unit" not in done.output
    trained(cli, root, "depth")


@pytest.mark.parametrize("how", ["interleaved", "planes", "pages", "array"])
def test_images_of_five_bands(cli: Cli, tmp_path: Path, how: str) -> None:
    root = tmp_path / "satellite"
    (root / "tiles").mkdir(parents=True)
    for index in range(12):
        arrays = maps(index)
        bands = np.stack([arrays["labels"] % 3 * 800.0 + 100 * (b + 1) for b in range(5)], -1)
        bands[0, 0] += index  # no two images are alike
        bands = bands.astype(np.uint16)
        path = root / f"tiles/{index}.tif"
        if how == "array":
            np.save(path.with_suffix(".npy"), bands)
        elif how == "interleaved":  # as tifffile writes an array without further arguments
            tifffile.imwrite(path, bands)
        else:
            planar = {"planarconfig": "separate", "extrasamples": [0] * 4}
            options = planar if how == "planes" else {}
            tifffile.imwrite(path, bands.transpose(2, 0, 1), photometric="minisblack", **options)
        save(root / f"cover/{index}.png", arrays["labels"])
    described, done = init(cli, root)
    assert described.bands is not None
    assert described.bands.names == tuple(f"band_{n}" for n in range(1, 6))
    assert len(described.bands.max) == 5
    assert "not sure: bands.max" in done.output
    image = OwnData(root, "train", "segmentation")[0].image
    assert image.shape == (5, 48, 64)
    assert image[0].min() * described.bands.max[0] / 255 == pytest.approx(100)
    trained(cli, root, "segmentation")
    (folder,) = (root.parent / "runs").iterdir()
    predicted = cli("predict", root / "tiles", "--checkpoint", folder, "-o", root.parent / "maps")
    assert predicted.exit_code == 0, predicted.output
    assert len(list((root.parent / "maps").glob("*_segmentation.png"))) == 12


def test_folders_of_splits_and_scenes(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "folders"
    for index, split in enumerate(["train"] * 6 + ["val"] * 3):
        arrays = maps(index)
        save(root / f"{split}/images/{index}.png", arrays["image"])
        save(root / f"{split}/labels/{index}.png", arrays["labels"])
    described, _ = init(cli, root)
    assert described.images == ("*/images/*.png",)
    assert described.splits.lists == {"train": "train/*/*", "val": "val/*/*"}
    assert [len(OwnData(root, split, "segmentation")) for split in ("train", "val")] == [6, 3]


@pytest.mark.parametrize("clips", [5, 6])
def test_a_few_clips_leave_no_split_empty(cli: Cli, tmp_path: Path, clips: int) -> None:
    root = tmp_path / "rooms"
    for index in range(4 * clips):
        arrays = maps(index)
        name = f"room{index // 4}_{index:03d}"
        save(root / f"images/{name}.png", arrays["image"])
        save(root / f"masks/{name}.png", arrays["mask"])
    described, _ = init(cli, root)
    assert described.splits.group == r"(.*)[_-]\d+$"
    parts = [len(OwnData(root, split, "saliency")) for split in ("train", "val", "test")]
    assert min(parts) >= 4, parts
    assert sum(parts) == 4 * clips


def test_lists_beside_the_data_are_used(cli: Cli, tmp_path: Path) -> None:
    root = discs(tmp_path / "discs")
    (root / "dataset.yaml").unlink()
    (root / "lists").mkdir()
    for split, numbers in {"train": range(3, 24), "test": range(3)}.items():
        lines = [f"rgb/clip{n // 3}_{n:03d}.jpg" for n in numbers]
        (root / f"lists/{split}.txt").write_text("\n".join(lines))
    (root / "train_notes.txt").write_text("nothing of the kind\n")
    described, _ = init(cli, root)
    assert described.splits.lists == {"train": "lists/train.txt", "test": "lists/test.txt"}


@pytest.mark.parametrize("palette", [False, True])
def test_labels_in_colours(cli: Cli, tmp_path: Path, palette: bool) -> None:
    from PIL import Image

    root, table = tmp_path / "colours", np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
    for index in range(8):
        arrays = maps(index)
        labels = np.where(arrays["labels"] == 255, 0, arrays["labels"])
        save(root / f"image/{index}.png", arrays["image"])
        path = save(root / f"label/{index}.png", table[labels])
        if palette:
            Image.open(path).quantize(3).save(path)
    described, _ = init(cli, root)
    assert described.targets.segmentation is not None
    read = OwnData(root, "train", "segmentation")[0]
    truth = maps(int(read.name))["labels"]
    colours = described.targets.segmentation.palette
    wanted = {tuple(table[i]): colours.index(tuple(table[i].tolist())) for i in range(3)}
    for value, colour in enumerate(table):
        pixels = read.targets["segmentation"].numpy()[truth == value]
        assert (pixels == wanted[tuple(colour)]).all()


def test_a_part_of_the_images_has_ground_truth(cli: Cli, tmp_path: Path) -> None:
    root = discs(tmp_path / "discs")
    (root / "dataset.yaml").unlink()
    for index in range(0, 24, 4):
        (root / f"depth/clip{index // 3}_{index:03d}.png").unlink()
    described, done = init(cli, root)
    assert described.targets.depth is not None
    assert described.targets.depth.partial
    assert "not sure: partial: true: 6 of 24 images have no depth" in done.output


def test_disparity_asks_for_what_no_file_says(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "stereo"
    for index in range(6):
        arrays = maps(index)
        save(root / f"left/{index}.png", arrays["image"])
        save(root / f"disparity/{index}.png", arrays["depth"])
    done = cli("data", "init", root)
    assert done.exit_code == 0, done.output
    assert "not sure: focal_times_baseline: FILL_IN" in done.output
    refused = cli("data", "check", "own", "--data", root)
    assert refused.exit_code == 2
    assert "targets.depth.focal_times_baseline: " in line(refused)


def test_nothing_is_overwritten_unasked(cli: Cli, tmp_path: Path) -> None:
    root = discs(tmp_path / "discs")
    refused = cli("data", "init", root)
    assert refused.exit_code == 2
    assert line(refused).endswith("dataset.yaml: exists: edit it, or replace it by --overwrite")
    assert (root / "dataset.yaml").read_text() == YAML
    assert cli("data", "init", root, "--overwrite").exit_code == 0
    assert (root / "dataset.yaml").read_text() != YAML


def test_folders_without_anything_to_describe(cli: Cli, tmp_path: Path) -> None:
    gone = cli("data", "init", tmp_path / "gone")
    assert (gone.exit_code, "there is no folder: name one" in line(gone)) == (2, True)
    empty = cli("data", "init", tmp_path)
    assert (empty.exit_code, "holds no image or array" in line(empty)) == (1, True)
    for index in range(3):
        save(tmp_path / f"a/{index}.png", maps(index)["image"])
    alone = cli("data", "init", tmp_path)
    assert alone.exit_code == 1
    assert "no ground truth of the names of a/*.png" in line(alone)


def test_images_of_several_kinds_are_not_taken_for_scenes(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "rig"
    for index in range(8):
        arrays = maps(index)
        save(root / f"rgb/{index}.png", arrays["image"])
        save(root / f"infrared/{index}.png", arrays["image"][::-1])
        save(root / f"labels/{index}.png", arrays["labels"])
    described, done = init(cli, root)
    assert described.images == ("rgb/*.png",)
    assert "not sure: images: rgb/*.png: infrared/*.png look like images too" in done.output


def test_masks_that_are_jpegs(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "jpegs"
    for index in range(8):
        arrays = maps(index)
        save(root / f"images/{index}.jpg", arrays["image"])
        save(root / f"masks/{index}.jpg", arrays["mask"], quality=90)
    described, _ = init(cli, root)
    assert list(described.targets.present) == ["saliency"]


def test_colours_of_voc_are_known(cli: Cli, tmp_path: Path) -> None:
    root, table = tmp_path / "voc", np.array([voc_colour(index) for index in range(256)], np.uint8)
    (root / "label").mkdir(parents=True)
    (root / "classes.txt").write_text("background\nplane\nbicycle\n")
    for index in range(8):
        arrays = maps(index)
        save(root / f"image/{index}.png", arrays["image"])
        save(root / f"label/{index}.png", table[arrays["labels"]])
    described, _ = init(cli, root)
    assert described.targets.segmentation is not None
    assert described.targets.segmentation.classes == ("background", "plane", "bicycle")
    read = OwnData(root, "train", "segmentation")[0]
    truth = maps(int(read.name))["labels"]
    assert np.array_equal(read.targets["segmentation"].numpy(), truth)


@pytest.mark.parametrize(
    ("scale", "far", "doubt"),
    [(100.0, 0.0, "metres_per_unit"), (1.0, 10000.0, "range")],
)
def test_depth_that_may_be_something_else_is_asked_about(
    cli: Cli, tmp_path: Path, scale: float, far: float, doubt: str
) -> None:
    root = tmp_path / "depth"
    (root / "depth").mkdir(parents=True)
    for index in range(8):
        arrays = maps(index)
        save(root / f"rgb/{index}.png", arrays["image"])
        metres = np.where(arrays["depth"] == 65535, far, arrays["depth"] / 1000 * scale)
        np.save(root / f"depth/{index}.npy", metres.astype(np.float32))
    done = cli("data", "init", root)
    assert done.exit_code == 0, done.output
    assert f"not sure: {doubt}:" in done.output


@pytest.mark.parametrize("folder", ["masks", "trimaps", "labels"])
def test_trimaps(cli: Cli, tmp_path: Path, folder: str) -> None:
    """0, 128 and 255: unknown pixels are ignored; of labels no value is lost."""
    for index in range(10):
        arrays = maps(index)
        save(tmp_path / f"images/{index}.jpg", arrays["image"])
        trimap = np.where(arrays["marks"] > 0, 128, arrays["mask"]).astype(np.uint8)
        save(tmp_path / f"{folder}/{index}.png", trimap)
    _, done = init(cli, tmp_path)
    task = "segmentation" if folder == "labels" else "saliency"
    sample = OwnData(tmp_path, "train", task)[0]
    arrays = maps(int(sample.name))
    band, inside = arrays["marks"] > 0, arrays["mask"] > 0
    if task == "saliency":
        wanted = np.where(band, 255, inside)
        assert "not sure: ignore: 128: 128 is taken for unknown pixels" in done.output
    else:
        wanted = np.where(band, 1, 2 * inside)
        assert "not sure: classes: 255 may stand for pixels to ignore, or 128" in done.output
    assert np.array_equal(sample.targets[task].numpy(), wanted)


def test_few_clips_fill_every_split(cli: Cli, tmp_path: Path) -> None:
    for index in range(40):
        arrays = maps(index)
        save(tmp_path / f"images/row{index // 8}-shot{index % 8:02d}.png", arrays["image"])
        save(tmp_path / f"labels/row{index // 8}-shot{index % 8:02d}.png", arrays["labels"])
    described, _ = init(cli, tmp_path)
    assert described.splits.group == r"(.*)[_-][A-Za-z]+\d+$"
    rows = [
        {sample.name[:4] for sample in OwnData(tmp_path, split, "segmentation").samples}
        for split in ("train", "val", "test")
    ]
    assert sorted(row for split in rows for row in split) == [f"row{n}" for n in range(5)]
    assert all(rows)


def test_depth_of_few_values_and_another_name(cli: Cli, tmp_path: Path) -> None:
    """No classes, though each file has few values: all files together have many."""
    for index in range(30):
        arrays = maps(index)
        near = np.where(arrays["labels"] == 0, 0, 350 + 10 * index + arrays["labels"].astype(int))
        save(tmp_path / f"images/{index}.png", arrays["image"])
        save(tmp_path / f"zed/{index}.png", near.astype(np.uint16))
    described, done = init(cli, tmp_path)
    assert list(described.targets.present) == ["depth"]
    assert "not sure: depth: it may be something else than depth" in done.output


def test_three_greys_with_names(cli: Cli, tmp_path: Path) -> None:
    for index in range(10):
        arrays = maps(index)
        labels = np.where(arrays["labels"] == 255, 0, arrays["labels"])
        save(tmp_path / f"images/{index}.jpg", arrays["image"])
        save(tmp_path / f"labels/{index}.png", (labels * 127.5).astype(np.uint8))
    (tmp_path / "classes.txt").write_text("floor\nball\nring\n")
    described, _ = init(cli, tmp_path)
    assert described.targets.segmentation is not None
    assert described.targets.segmentation.classes == ("floor", "ball", "ring")
    sample = OwnData(tmp_path, "train", "segmentation")[0]
    stored = maps(int(sample.name))["labels"]
    assert np.array_equal(
        sample.targets["segmentation"].numpy(), np.where(stored == 255, 0, stored)
    )


@pytest.mark.parametrize(("folder", "kind"), [("masks", "mask"), ("edges", "marks")])
def test_some_files_of_0_and_1_and_others_of_255(
    cli: Cli, tmp_path: Path, folder: str, kind: str
) -> None:
    for index in range(10):
        arrays = maps(index)
        save(tmp_path / f"images/{index}.jpg", arrays["image"])
        save(tmp_path / f"{folder}/{index}.png", arrays[kind] // (255 if index % 2 else 1))
    _, done = init(cli, tmp_path)
    assert "not sure: threshold: 0: the largest value is 1 in 5 of 10 files" in done.output
    task = {"masks": "saliency", "edges": "edges"}[folder]
    data = OwnData(tmp_path, "train", task)
    for index in range(len(data)):
        sample = data[index]
        target = sample.targets[task]
        marked = unpack(target)[0] if task == "edges" else target
        assert np.array_equal(marked.numpy() > 0, maps(int(sample.name))[kind] > 0)


def test_labels_of_0_and_1_and_others_of_255_are_asked_about(cli: Cli, tmp_path: Path) -> None:
    for index in range(10):
        arrays = maps(index)
        save(tmp_path / f"images/{index}.jpg", arrays["image"])
        save(tmp_path / f"labels/{index}.png", arrays["mask"] // (255 if index % 2 else 1))
    _, done = init(cli, tmp_path)
    assert "not sure: ignore: 255: 5 files have 1 and 5 have 255, none both" in done.output


def test_masks_with_pixels_to_ignore(cli: Cli, tmp_path: Path) -> None:
    for index in range(10):
        arrays = maps(index)
        mask = arrays["mask"] // 255
        mask[0] = 255
        save(tmp_path / f"images/{index}.jpg", arrays["image"])
        save(tmp_path / f"masks/{index}.png", mask)
    _, done = init(cli, tmp_path)
    assert "not sure: ignore: 255: 1 is taken for the object" in done.output
    sample = OwnData(tmp_path, "train", "saliency")[0]
    wanted = (maps(int(sample.name))["mask"] > 0).astype(np.uint8)
    wanted[0] = 255
    assert np.array_equal(sample.targets["saliency"].numpy(), wanted)


def test_masks_with_a_few_greys_at_their_border_are_no_classes(cli: Cli, tmp_path: Path) -> None:
    for index in range(10):
        arrays = maps(index)
        save(tmp_path / f"images/{index}.jpg", arrays["image"])
        border = arrays["marks"] > 0
        arrays["mask"][border] = np.resize([51, 102, 153, 204], border.sum())
        save(tmp_path / f"masks/{index}.png", arrays["mask"])
    described, _ = init(cli, tmp_path)
    assert list(described.targets.present) == ["saliency"]


@pytest.mark.parametrize(
    ("folder", "target"),
    [("images", "labels"), ("images", "depth"), ("images", "masks"), ("scans", "labels")],
)
def test_grey_photographs_of_16_bits(cli: Cli, tmp_path: Path, folder: str, target: str) -> None:
    key = {"labels": "labels", "depth": "depth", "masks": "mask"}[target]
    random = np.random.default_rng(0)
    for index in range(10):
        arrays = maps(index)
        grey = arrays["image"].mean(2) * 256 + random.integers(0, 256, (48, 64))
        save(tmp_path / f"{folder}/{index}.png", grey.astype(np.uint16))
        save(tmp_path / f"{target}/{index}.png", arrays[key])
    described, done = init(cli, tmp_path)
    assert described.images == (f"{folder}/*.png",)
    assert described.bands is not None
    assert described.bands.names == ("grey",)
    assert "maps of one channel, which may be depth" in done.output
    task = {"labels": "segmentation", "depth": "depth", "masks": "saliency"}[target]
    assert list(described.targets.present) == [task]


def test_two_folders_that_may_be_photographs_are_not_guessed(cli: Cli, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for index in range(6):
        for folder in ("a", "b"):
            deep = random.integers(0, 60_000, (48, 64)).astype(np.uint16)
            save(tmp_path / f"{folder}/{index}.png", deep)
    done = cli("data", "init", tmp_path)
    assert done.exit_code == 1
    assert "no group of files looks like photographs" in line(done)
    assert line(done).endswith(": call the photographs' folder images")


@pytest.mark.parametrize("endings", [("jpg", "png"), ("jpg", "JPG"), ("jpeg", "jpg")])
def test_images_of_two_endings(cli: Cli, tmp_path: Path, endings: tuple[str, str]) -> None:
    for index in range(12):
        arrays = maps(index)
        save(tmp_path / f"images/{index}.{endings[index % 2]}", arrays["image"])
        save(tmp_path / f"labels/{index}.png", arrays["labels"])
    described, done = init(cli, tmp_path)
    assert set(described.images) == {f"images/*.{ending}" for ending in endings}
    counts = [len(OwnData(tmp_path, split, "segmentation")) for split in ("train", "val", "test")]
    assert sum(counts) == 12
    assert "look like images too" not in done.output


def test_ground_truth_of_two_endings(cli: Cli, tmp_path: Path) -> None:
    for index in range(12):
        arrays = maps(index)
        save(tmp_path / f"{index}.png", arrays["image"])
        save(tmp_path / f"{index}_mask.{('png', 'bmp')[index % 2]}", arrays["mask"])
    described, _ = init(cli, tmp_path)
    assert described.targets.saliency is not None
    assert set(described.targets.saliency.files) == {"*_mask.png", "*_mask.bmp"}
    assert not described.targets.saliency.partial


def test_copies_of_images_are_not_taken_twice(cli: Cli, tmp_path: Path) -> None:
    for index in range(8):
        arrays = maps(index)
        save(tmp_path / f"images/{index}.png", arrays["image"])
        save(tmp_path / f"images/{index}.jpg", arrays["image"])
        save(tmp_path / f"labels/{index}.png", arrays["labels"])
    described, done = init(cli, tmp_path)
    assert len(described.images) == 1
    assert "look like images too" in done.output


def test_grey_images_may_be_one_band(cli: Cli, tmp_path: Path) -> None:
    for index in range(10):
        arrays = maps(index)
        save(tmp_path / f"images/{index}.png", arrays["image"][..., 0])
        save(tmp_path / f"labels/{index}.png", arrays["labels"])
    _, done = init(cli, tmp_path)
    hint = "bands: {names: [grey]}"
    assert hint in done.output
    assert len(OwnData(tmp_path, "train", "segmentation")[0].image) == 3
    with (tmp_path / "dataset.yaml").open("a") as file:
        file.write(f"{hint}\n")
    assert len(OwnData(tmp_path, "train", "segmentation")[0].image) == 1


def test_a_file_of_names_that_may_be_misread_is_not_used(cli: Cli, tmp_path: Path) -> None:
    for index in range(10):
        arrays = maps(index)
        save(tmp_path / f"images/{index}.jpg", arrays["image"])
        save(tmp_path / f"labels/{index}.png", arrays["labels"])
    (tmp_path / "classes.txt").write_text("name,value\nfloor,0\nball,1\nring,2\n")
    described, done = init(cli, tmp_path)
    assert described.targets.segmentation is not None
    assert described.targets.segmentation.classes[0] == "class_0"
    assert f"not used: {tmp_path / 'classes.txt'}:1: 'name,value' has no value" in done.output
    (tmp_path / "classes.txt").write_text("floor,0\nball,1\nring,2\n")
    described, done = init(cli, tmp_path, "--overwrite")
    assert described.targets.segmentation is not None
    assert described.targets.segmentation.classes == ("floor", "ball", "ring")
