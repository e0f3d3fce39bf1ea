"""What every data set that is read from files must do, on the tiny folders of the fixtures.

A layout's own test file holds what no other layout has.
"""

import pickle
import random
import re
import shutil
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmark.experiment.config import RunConfig, make_config
from benchmark.experiment.plan import make_task, resolve
from benchmark.scoring.evaluate import protocol_id
from common.errors import DataError, UsageError
from datasets.base import DATASETS, DatasetInfo, DenseDataset, Sample
from datasets.files import one_of
from datasets.paired import PairedFiles
from datasets.pipeline import open_split, open_splits
from tasks.base import TASKS
from tests.datasets import fixtures_data, fixtures_depth_saliency
from tests.datasets.fixtures_data import ODD, H, W, write_array

FIXTURES = {
    **fixtures_data.FIXTURES,
    **fixtures_depth_saliency.FIXTURES,
    # nothing is scored here, which needs the published size
    "nyu-depth-v2": partial(fixtures_depth_saliency.nyu_depth_v2, size=(40, 64)),
}
CASES = 30  # of damage to each data set

# What a data set's published layout excepts it from:
NUMBERED = {"nyu-depth-v2"}  # samples are frames of one file, so that no name can be odd
# sets whose images alone say what there is: DUTS is published with masks that have no image
IMAGES_DECIDE = {"duts", "ecssd", "hku-is", "dut-omron", "pascal-s"}
OPTIONAL = {"image-masks": "val", "kitti-depth": "val"}  # splits that are there if their list is
ANY_FORMAT = {"image-masks"}  # of an image: a missing one is a name that no image has
UNREAD = {  # files of the layout that no sample is made of
    "cityscapes": ["*_instanceIds.png"],
    "voc2012-aug": [f"SegmentationClass/{name}.png" for name in ("2007_000032", ODD)],
}

# Of layouts without lists: the folder of the first split's images, that of its targets, and what
# messages call the files that are looked for in each.
FOLDERS = {
    "ade20k": ("images/training", "annotations/training", ".jpg", ".png"),
    "bsds500": ("images/train", "groundTruth/train", ".jpg", ".mat"),
    "cityscapes": ("leftImg8bit/train", "gtFine/train", "_leftImg8bit.png", "_gtFine_labelIds.png"),
    "duts": ("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask", "image", None),
    "ecssd": ("images", "ground_truth_mask", "image", None),
    "hku-is": ("imgs", "gt", "image", None),
    "dut-omron": ("DUT-OMRON-image", "pixelwiseGT-new-PNG", "image", None),
    "pascal-s": ("datasets/imgs/pascal", "datasets/masks/pascal", "image", None),
}
# Of a list that is empty or missing, where it is not the published folder that is needed.
REMEDIES = {
    "image-masks": "write one name a line, such as ",
    "seven-scenes": "write one frame a line, such as ",
    "voc2012-aug": "convert the labels of SBD to NAME.png here, and list ",
}
# A label that is no class, and what a message says of the classes and of what is ignored.
FOREIGN = {
    "ade20k": (151, "1…150 and 0, 255"),
    "camvid": (37, "0…10 and 11, 255"),
    "cityscapes": (34, "7…8, 11…13, 17, 19…28, 31…33 and 0…6, 9…10, 14…16, 18, 29…30, 255"),
    "voc2012": (21, "0…20 and 255"),
    "voc2012-aug": (21, "0…20 and 255"),
}
PUBLISHED = {  # samples in each split
    "ade20k": {"train": 20210, "val": 2000},
    "bsds500": {"train": 200, "val": 100, "test": 200},
    "camvid": {"train": 367, "val": 101, "test": 233},
    "cityscapes": {"train": 2975, "val": 500},
    "diode": {"train": 25458, "test": 771},
    "dut-omron": {"test": 5168},
    "duts": {"train": 10553, "test": 5019},
    "ecssd": {"test": 1000},
    "hku-is": {"test": 4447},
    "image-masks": {"train": None, "val": None, "test": None},
    "kitti-depth": {"train": 23158, "val": None, "test": 652},
    "msra-b": {"train": 2500, "val": 500, "test": 2000},
    "nyu-depth-v2": {"train": 795, "test": 654},
    "pascal-s": {"test": 850},
    "seven-scenes": {"train": None, "test": None},
    "voc2012": {"train": 1464, "val": 1449},
    "voc2012-aug": {"train": 10582, "val": 1449},
}
DEPTH_IMAGES = {"kitti-depth": "0.001…80 m", "seven-scenes": "0.1…10 m"}

pytestmark = pytest.mark.filterwarnings("ignore:.* samples in '.*' where .* has ")


def trains(name: str) -> bool:
    return "train" in DATASETS.get(name).info.splits


def paired(name: str) -> bool:
    """Whether a data set has a file for each image and one for its target."""
    return issubclass(DATASETS.get(name), PairedFiles)


def these(names: Iterable[str]) -> pytest.MarkDecorator:
    """A contract of these data sets alone."""
    return pytest.mark.parametrize("name", sorted(names))


PAIRED = [name for name in FIXTURES if paired(name)]
LISTED = sorted(set(PAIRED) - set(FOLDERS) - {"diode"})


@pytest.fixture(params=sorted(FIXTURES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(name: str, tmp_path: Path) -> Path:
    root = tmp_path / "Daten Größe"
    FIXTURES[name](root)
    return root


def first_split(name: str, root: Path) -> Any:
    info = DATASETS.get(name).info
    return DATASETS.get(name)(root, next(iter(info.splits)), next(iter(info.tasks)))


def needed(*splits: PairedFiles) -> set[Path]:
    """The files of samples, and their lists."""
    pairs = [pair for split in splits for pair in split.pairs]
    lists = {Path(pair.where.rpartition(":")[0]) for pair in pairs}
    return lists.union(*(pair[:2] for pair in pairs))


def failure(name: str, root: Path) -> str:
    """The message of the DataError in which reading the first split ends."""
    with pytest.raises(DataError) as caught:
        list(first_split(name, root))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def opened(name: str, root: Path) -> list[DenseDataset]:
    """Every split for every task."""
    kind = DATASETS.get(name)
    return [
        kind(root, split, task) for task in kind.info.tasks for split in kind.available_splits(root)
    ]


def configs(name: str) -> list[RunConfig]:
    """A run by the data set's defaults for each of its tasks that there is."""
    tasks = [task for task in DATASETS.get(name).info.tasks if task in TASKS.names()]
    return [resolve(make_config({"dataset": name, "task": task})) for task in tasks]


def check_segmentation(target: Tensor, info: DatasetInfo) -> None:
    assert target.dtype == torch.uint8
    assert ((target < len(info.tasks["segmentation"]["classes"])) | (target == 255)).all()


def check_depth(target: Tensor, info: DatasetInfo) -> None:
    assert target.dtype == torch.float32
    assert torch.isfinite(target).all()
    assert (target >= 0).all()


def check_saliency(target: Tensor, info: DatasetInfo) -> None:
    assert target.dtype == torch.uint8
    assert (target <= 1).all()


def check_edges(target: Tensor, info: DatasetInfo) -> None:
    assert target.dtype == torch.int32


TARGETS: dict[str, Callable[[Tensor, DatasetInfo], None]] = {
    "segmentation": check_segmentation,
    "depth": check_depth,
    "saliency": check_saliency,
    "edges": check_edges,
}


def check_sample(sample: Sample, info: DatasetInfo) -> None:
    assert sample.image.dtype == torch.uint8
    assert sample.image.shape[0] == 3
    for target, values in sample.targets.items():
        assert values.shape == sample.image.shape[1:]
        TARGETS[target](values, info)


def read_all(name: str, root: Path) -> str | None:
    """Read every sample of every split. The message of the DataError that stops it."""
    try:
        for data in opened(name, root):
            for index in range(len(data)):
                check_sample(data[index], data.info)
    except DataError as error:
        text = str(error)
    else:
        return None
    assert "\n" not in text
    return text


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def samples_files(name: str, root: Path) -> set[Path]:
    """The files that samples are made of: all that a fixture writes, but for lists."""
    unread = ["*.txt", *UNREAD.get(name, [])]
    return {p for p in files(root) if not any(p.match(pattern) for pattern in unread)}


def replace_file(path: Path, content: bytes) -> None:
    """Write a new file: HDF5 takes one of the same inode for that which it has open."""
    path.unlink()
    path.write_bytes(content)


def same(one: Sample, other: Sample) -> bool:
    return (
        one.name == other.name
        and torch.equal(one.image, other.image)
        and one.targets.keys() == other.targets.keys()
        and all(torch.equal(t, other.targets[n]) for n, t in one.targets.items())
    )


def test_every_data_set_of_files_has_a_fixture() -> None:
    of_files = {n for n in DATASETS.names() if not DATASETS.get(n).info.built_in}
    assert set(FIXTURES) == of_files - {"own"}  # whose facts are the user's: tests/datasets/own


def test_the_tables_here_leave_no_data_set_out() -> None:
    segmenting = {n for n in PAIRED if "segmentation" in DATASETS.get(n).info.tasks}
    assert segmenting == set(FOREIGN)
    listing = {n for n in PAIRED if n not in FOLDERS and n not in LISTED}
    assert listing == {"diode"}  # whose two kinds of scenes are folders of their own


class TestReaderContract:
    def test_declares_itself(self, name: str, root: Path) -> None:
        kind = DATASETS.get(name)
        info = kind.info
        assert info.name == name
        assert info.title
        assert info.licence
        assert info.generic or (info.citation and info.homepage.startswith("http"))
        assert info.tasks
        assert trains(name) or list(info.splits) == ["test"]
        assert info.splits == PUBLISHED[name]
        assert info.scored in info.splits
        splits = [split for split in info.splits if split != OPTIONAL.get(name)]
        assert kind.available_splits(root) == kind.available_splits(None) == splits
        if "segmentation" in info.tasks:
            classes = info.tasks["segmentation"]["classes"]
            assert len(set(classes)) == len(classes) == len(info.palette)
            colours = len(classes) - (name == "ade20k")  # which gives two classes the same one
            assert len(set(info.palette)) == colours
            assert all(len(c) == 3 and 0 <= min(c) <= max(c) <= 255 for c in info.palette)
        for config in configs(name):  # its defaults are values of a run
            assert {key: getattr(config, key) for key in info.defaults} == dict(info.defaults)

    def test_samples(self, name: str, root: Path) -> None:
        for data in opened(name, root):
            copy = pickle.loads(pickle.dumps(data))
            assert len(data) == len(copy) >= 2
            for index in range(len(data)):
                sample = data[index]
                check_sample(sample, data.info)
                assert same(sample, data[index])
                assert same(sample, copy[index])
            names = [sample.name for sample in data]
            assert len(set(names)) == len(names)
            assert any(ODD in n for n in names) or name in NUMBERED
            with pytest.raises(IndexError):
                data[len(data)]

    @these(PAIRED)
    def test_an_image_s_pixels_are_its_file_s(self, name: str, root: Path) -> None:
        for data in opened(name, root):
            assert isinstance(data, PairedFiles)
            for pair, sample in zip(data.pairs, data, strict=True):
                pixels = np.array(Image.open(pair.image))
                assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), pixels)
                assert pair.image.name.startswith(Path(sample.name).name)
                assert list(sample.targets) == [data.task]

    def test_some_pixels_are_known(self, name: str, root: Path) -> None:
        unknown = {"segmentation": 255, "depth": 0, "saliency": 0, "edges": 0}
        for data in opened(name, root):
            for target, values in data[0].targets.items():
                assert (values != unknown[target]).any()

    @these(name for name in FIXTURES if trains(name))
    def test_splits_do_not_overlap(self, name: str, root: Path) -> None:
        info = DATASETS.get(name).info
        for task in info.tasks:
            splits = open_splits(name, root, task, (32, 32))
            names = [sample.name for split in splits.values() for sample in split]
            assert len(set(names)) == len(names)
            assert splits["test"].name == info.scored

    @these(name for name in FIXTURES if not trains(name))
    def test_a_set_without_training_images_is_for_scoring(self, name: str, root: Path) -> None:
        info = DATASETS.get(name).info
        for task in info.tasks:
            remedy = f"train on duts or msra-b and score it with evaluate --dataset {name}"
            expected = f"^{info.title} has only a test split: {remedy}$"
            with pytest.raises(UsageError, match=expected):
                open_splits(name, root, task, (32, 32))
            split = open_split(name, root, task, (32, 32), "test", limit=1)
            assert len(split) == 1
            assert split.name == "test"
            with pytest.raises(UsageError, match=f"{name} has no split 'train': choose test"):
                open_split(name, root, task, (32, 32), "train")

    def test_a_wrong_count_names_both(self, name: str, root: Path) -> None:
        info = DATASETS.get(name).info
        for task in info.tasks:
            for split, published in info.splits.items():
                if published is not None:
                    title = re.escape(info.title)
                    expected = rf" samples in '{split}' where {title} has {published}: this is "
                    with pytest.warns(UserWarning, match=expected) as caught:
                        data = DATASETS.get(name)(root, split, task)
                    start = f"{data.root}: {len(data)} samples in "
                    assert str(caught[0].message).startswith(start)

    def test_the_published_count_is_silent(
        self, name: str, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kind = DATASETS.get(name)
        counts = {data.split: len(data) for data in opened(name, root)}
        monkeypatch.setattr(kind, "info", replace(kind.info, splits=counts))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert opened(name, root)

    def test_fingerprint_follows_every_file(self, name: str, root: Path) -> None:
        data = opened(name, root)
        first = [one.fingerprint() for one in data]
        assert [one.fingerprint() for one in opened(name, root)] == first
        assert len(set(first)) == len({one.split for one in data})
        noticed = set()
        for path in files(root):
            if path.suffix != ".txt":
                content = path.read_bytes()
                replace_file(path, content + b"\0")
                if [one.fingerprint() for one in data] != first:
                    noticed.add(path)
                replace_file(path, content)
        assert noticed == samples_files(name, root)

    def test_a_score_says_which_split_it_is_of(self, name: str) -> None:
        split = "val" if name in ("voc2012", "voc2012-aug", "ade20k", "cityscapes") else "test"
        for config in configs(name):
            expected = f"{name}/{config.task}/{split}/"
            assert protocol_id(config, make_task(config)).startswith(expected)

    def test_wrong_usage(self, name: str, root: Path) -> None:
        kind = DATASETS.get(name)
        info, layout = kind.info, kind.layout
        task, split = next(iter(info.tasks)), next(iter(info.splits))
        source = f" (get it from {info.homepage})" if info.homepage else ""
        for arguments, expected in (
            ((None, split, task), f"{name} needs --data DIR, a folder with {layout}{source}"),
            ((root, "dev", task), f"no split 'dev': choose {one_of(info.splits)}"),
            ((root, split, "flow"), f"no task 'flow': choose {one_of(info.tasks)}"),
        ):
            with pytest.raises(UsageError, match=rf"{re.escape(expected)}$"):
                kind(*arguments)
        if optional := OPTIONAL.get(name):
            expected = one_of(kind.available_splits(root))
            with pytest.raises(UsageError, match=f"no split '{optional}': choose {expected}$"):
                kind(root, optional, task)
        needed = f": --data must name a folder with {layout}{source}"
        missing = root / "elsewhere"
        assert failure(name, missing) == f"{missing}: does not exist{needed}"
        missing.touch()
        assert failure(name, missing) == f"{missing}: is not a folder{needed}"
        missing.unlink()
        missing.mkdir()
        assert failure(name, missing).startswith(str(missing))

    # --- files that are there for each sample

    @these(PAIRED)
    @pytest.mark.parametrize("file", ["image", "target"])
    def test_a_missing_or_damaged_file_is_named_with_its_role(
        self, name: str, root: Path, file: str
    ) -> None:
        data = first_split(name, root)
        pair = data.pairs[-1]
        path, other = (pair.image, pair.target)[:: 1 if file == "image" else -1]
        role = "image" if file == "image" else data.target
        asked = (
            pair.where if name in LISTED else str(other if pair.where == str(path) else pair.where)
        )
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert failure(name, root).startswith(f"{path}: cannot be read (")
        path.write_bytes(b"")
        assert failure(name, root).startswith(f"{path}: {role} is empty (0 bytes)")
        path.unlink()
        if file == "image" and name in ANY_FORMAT:
            expected = f"{path.with_suffix('')}: no image of that name: add it or remove {asked}"
            assert failure(name, root).startswith(expected)
        elif file == "image" and name in IMAGES_DECIDE:
            assert len(first_split(name, root)) == len(data) - 1
        else:
            expected = (
                f"{path}: {role} is missing: add the file or remove what asks for it ({asked})"
            )
            assert failure(name, root) == expected
        with pytest.raises(DataError, match="is missing") as caught:  # removed after opening
            list(data)
        assert str(path) in str(caught.value)

    @these(PAIRED)
    def test_sizes_that_differ(self, name: str, root: Path) -> None:
        data = first_split(name, root)
        image, target, *_ = data.pairs[0]
        Image.open(image).crop((0, 0, W - 1, H)).save(image)
        seen = f"{data.target} of {W}×{H} pixels but its image {image} has {W - 1}×{H}"
        assert failure(name, root) == f"{target}: {seen}: take both from the same source"

    @these(PAIRED)
    def test_paths_are_shown_as_given(
        self, name: str, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = first_split(name, root).pairs[0].target
        target.unlink()
        monkeypatch.chdir(root.parent)
        shown = target.relative_to(root.parent)
        assert failure(name, Path(root.name)).startswith(f"{shown}: ")

    # --- lists

    @these(LISTED)
    def test_lists(self, name: str, root: Path) -> None:
        data = first_split(name, root)
        path = Path(data.pairs[0].where.rpartition(":")[0])
        lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("\r\n\r\n".join(lines), encoding="utf-8-sig")
        assert [p[:3] for p in first_split(name, root).pairs] == [p[:3] for p in data.pairs]
        path.write_text(f"../{lines[0]}\n", encoding="utf-8")
        text = failure(name, root)
        assert text.startswith(f"{path}:1: ")
        assert f" leads out of {data.root}: " in text
        remedy = REMEDIES.get(name, data.remedy)
        path.write_text(" \n")
        assert failure(name, root).startswith(f"{path}: list is empty: {remedy}")
        path.unlink()
        assert failure(name, root).startswith(f"{path}: list is missing: {remedy}")

    @these(LISTED)
    def test_only_the_files_of_the_split_are_needed(self, name: str, root: Path) -> None:
        data, *others = opened(name, root)
        for path in needed(*others) - needed(data):
            if path.suffix != ".txt" or name != "voc2012-aug":  # it leaves out what is scored
                path.unlink()
        assert len(list(first_split(name, root))) == len(data)

    # --- folders without lists

    @these(FOLDERS)
    def test_files_of_other_programs_are_no_samples(self, name: str, root: Path) -> None:
        names = [pair.name for pair in first_split(name, root).pairs]
        for pair in first_split(name, root).pairs:
            for path in pair[:2]:
                (path.parent / "Thumbs.db").write_bytes(b"\0")
                (path.parent / f"._{path.name}").write_bytes(b"\0")
        assert [pair.name for pair in first_split(name, root).pairs] == names

    @these(FOLDERS)
    @pytest.mark.parametrize("place", [0, 1])
    def test_a_folder_that_is_empty_or_missing(self, name: str, root: Path, place: int) -> None:
        data = first_split(name, root)
        folder, kind = root / FOLDERS[name][place], FOLDERS[name][2 + place]
        shutil.rmtree(folder)
        text = failure(name, root)
        assert re.match(rf"{re.escape(str(folder))}: (folder is missing|no such folder): ", text)
        assert text.endswith(f": {data.remedy}")
        folder.mkdir()
        if kind is None:  # masks of images that are there
            assert failure(name, root).startswith(f"{data.pairs[0].target}: mask is missing: ")
        else:
            assert failure(name, root).startswith(f"{folder}: no {kind} in it: ")

    # --- contents of target files

    @these(FOREIGN)
    def test_labels_that_are_no_classes(self, name: str, root: Path) -> None:
        path = first_split(name, root).pairs[0].target
        label, classes = FOREIGN[name]
        write_array(path, [label])
        expected = f"{path}: label {label} is outside {classes} in {W * H} pixels: map it to"
        assert failure(name, root).startswith(expected)
        write_array(path, [300], np.uint16)  # as instances are stored
        assert failure(name, root).startswith(f"{path}: label 300 is outside {classes} in ")
        Image.new("RGB", (W, H), (1, 2, 3)).save(path)
        problem = failure(name, root)
        declared = f"{path}: colour (1, 2, 3) of {W * H} pixels: no label has it: take the original"
        unknown = f"{path}: mode RGB is no map of class indices: write an 8-bit grey or palette"
        assert problem.startswith(declared if name.startswith("voc") else unknown)

    @these(DEPTH_IMAGES)
    def test_depth_images_of_another_kind(self, name: str, root: Path) -> None:
        path = first_split(name, root).pairs[0].target
        write_array(path, [9])
        expected = f"{path}: 8 bits a channel (mode L) where 16-bit depth is expected"
        assert failure(name, root).startswith(expected)
        write_array(path, [0], np.uint16)
        expected = f"{path}: no pixel has a depth within {DEPTH_IMAGES[name]}: remove the frame"
        assert failure(name, root).startswith(expected)

    # --- any damage

    @pytest.mark.parametrize("damage", ["missing", "empty", "a folder", "truncated", "other"])
    def test_a_bad_file_is_named(self, name: str, root: Path, damage: str) -> None:
        noticed = set()
        counts = [len(data) for data in opened(name, root)]
        for path in files(root):
            content = path.read_bytes()
            if damage == "truncated" and path.suffix == ".txt":
                continue  # half a list may be a list
            path.unlink()
            if damage == "empty":
                path.touch()
            elif damage == "a folder":
                path.mkdir()
            elif damage != "missing":
                path.write_bytes(
                    content[: len(content) // 2] if damage == "truncated" else b"\xff" * 9
                )
            text = read_all(name, root)
            if text is not None:
                # which format a missing image would have is not known everywhere
                assert (
                    str(path.with_suffix("") if damage in ("missing", "a folder") else path) in text
                )
                noticed.add(path)
            elif name in IMAGES_DECIDE and [len(data) for data in opened(name, root)] != counts:
                assert damage == "missing"
                noticed.add(path)
            if damage == "a folder":
                path.rmdir()
            path.write_bytes(content)
        assert noticed >= samples_files(name, root)
        assert read_all(name, root) is None

    def test_damaged_bits_give_a_sample_or_name_the_file(self, name: str, root: Path) -> None:
        generator = random.Random(name)
        paths = files(root)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(CASES):
                path = generator.choice(paths)
                content = path.read_bytes()
                damaged = bytearray(content)
                if generator.random() < 0.3:
                    del damaged[generator.randrange(len(damaged)) :]
                else:
                    for _ in range(generator.randint(1, 8)):
                        # the start holds sizes, modes and palettes
                        end = generator.choice([len(damaged), min(64, len(damaged))])
                        damaged[generator.randrange(end)] ^= 1 << generator.randrange(8)
                replace_file(path, bytes(damaged))
                text = read_all(name, root)
                assert text is None or str(path) in text, text
                replace_file(path, content)
