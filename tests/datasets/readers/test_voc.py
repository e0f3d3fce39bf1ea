"""VOC 2012 and its trainaug: the colours, and what goes wrong with label files."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from common.errors import DataError
from datasets.paired import PairedFiles
from datasets.readers import voc
from datasets.readers.voc import AUG_LISTS, CLASSES, PALETTE, Voc2012, Voc2012Aug
from tests.datasets.fixtures_data import (
    ODD,
    H,
    W,
    voc2012,
    voc2012_aug,
    write_array,
    write_list,
    write_palette,
)

pytestmark = pytest.mark.filterwarnings("ignore:.* samples in '.*' where ")
LABELS = [*range(21), 255]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    voc2012_aug(tmp_path / "VOCdevkit" / "VOC2012")
    return tmp_path / "VOCdevkit" / "VOC2012"


def failure(root: Path, kind: type[PairedFiles] = Voc2012) -> str:
    with pytest.raises(DataError) as caught:
        kind(root, "train", "segmentation")[0]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_published_colours() -> None:
    assert len(CLASSES) == 21
    assert PALETTE[:5] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))
    assert PALETTE[CLASSES.index("person")] == (192, 128, 128)
    assert PALETTE[CLASSES.index("tvmonitor")] == (0, 64, 128)
    assert PALETTE[255] == (224, 224, 192)
    assert len(set(PALETTE)) == 256


def test_indices_are_the_classes_and_the_border_is_ignored(root: Path) -> None:
    for kind in (Voc2012, Voc2012Aug):
        labels = kind(root, "train", "segmentation")[0].targets["segmentation"]
        assert labels.flatten()[:22].tolist() == LABELS


def test_any_of_the_three_folders_is_the_same_data(root: Path) -> None:
    found = [
        Voc2012(folder, "val", "segmentation").fingerprint()
        for folder in (root, root.parent, root.parent.parent)
    ]
    assert len(set(found)) == 1


def test_colours_instead_of_indices(root: Path) -> None:
    path = root / "SegmentationClass" / "2007_000032.png"
    picture = Image.open(path).convert("RGB")
    for save in (picture.save, picture.quantize(22).save):  # with as few colours as occur
        save(path)
        labels = Voc2012(root, "train", "segmentation")[0].targets["segmentation"]
        assert labels.flatten()[:22].tolist() == LABELS
    picture.resize((W // 2, H // 2), Image.Resampling.BILINEAR).save(path)
    assert failure(root).startswith(f"{path}: colour (")
    assert failure(root).endswith("no label has it: take the original file, or write 8-bit grey")


def test_another_palette(root: Path) -> None:
    path = root / "SegmentationClass" / "2007_000032.png"
    # what comes of opening the colours and saving them with fewer of them than occur
    colours = Image.open(path).convert("RGB")
    colours.quantize(9).save(path)
    seen = failure(root)
    assert seen.startswith(f"{path}: colour (")
    assert seen.endswith("take the original file, or save right labels as 8-bit grey")
    write_palette(path, LABELS, [*PALETTE[:255], (255, 255, 255)])
    expected = f"{path}: colour (255, 255, 255) of label 255 should be (224, 224, 192): the palette"
    assert failure(root).startswith(expected)
    write_palette(path, [0, 5], PALETTE[:5])
    assert failure(root).startswith(f"{path}: colour none of label 5 should be (128, 0, 128): ")


def test_a_palette_need_only_hold_what_occurs(root: Path) -> None:
    path = root / "SegmentationClass" / "2007_000032.png"
    write_palette(path, [0, 5], [*PALETTE[:6], (1, 2, 3)])
    labels = Voc2012(root, "train", "segmentation")[0].targets["segmentation"]
    assert labels.unique().tolist() == [0, 5]


def test_grey_indices_have_no_palette_to_check(root: Path) -> None:
    path = root / "SegmentationClass" / "2007_000032.png"
    write_array(path, LABELS)
    labels = Voc2012(root, "train", "segmentation")[0].targets["segmentation"]
    assert labels.flatten()[:22].tolist() == LABELS


def test_trainaug_takes_its_own_list_and_labels(root: Path) -> None:
    write_array(root / "SegmentationClassAug" / "2007_000032.png", [7])
    data = Voc2012Aug(root, "train", "segmentation")
    assert [pair.name for pair in data.pairs] == ["2007_000032", ODD, "2008_000002"]
    assert data[0].targets["segmentation"].unique().tolist() == [7]
    val = Voc2012Aug(root.parent, "val", "segmentation")
    assert {pair.target.parent.name for pair in val.pairs} == {"SegmentationClass"}
    assert len(val) == len(Voc2012(root, "val", "segmentation"))


@pytest.mark.parametrize("place", [*AUG_LISTS, "ImageSets/Segmentation/train.txt"])
@pytest.mark.parametrize("line", ["{0}", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png"])
def test_trainaug_by_the_names_it_is_distributed_under(
    root: Path, monkeypatch: pytest.MonkeyPatch, place: str, line: str
) -> None:
    monkeypatch.setattr(voc, "VOC_TRAIN", 2)
    (root / "ImageSets/Segmentation/trainaug.txt").unlink()
    names = ["2007_000032", ODD, "2008_000002"]
    write_list(root / place, [line.format(name) for name in names])
    data = Voc2012Aug(root, "train", "segmentation")
    assert [pair.name for pair in data.pairs] == names
    assert {pair.target.parent.name for pair in data.pairs} == {"SegmentationClassAug"}
    assert {pair.where.rpartition(":")[0] for pair in data.pairs} == {str(root / place)}


def test_voc_s_own_train_is_not_trainaug(root: Path) -> None:
    path = root / "ImageSets/Segmentation/trainaug.txt"
    path.unlink()
    write_list(root / "ImageSets/Segmentation/train.txt", ["2007_000032"] * 1464)
    assert failure(root, Voc2012Aug).startswith(f"{path}: list is missing: ")


def test_trainaug_says_where_it_comes_from(root: Path, tmp_path: Path) -> None:
    path = root / "ImageSets" / "Segmentation" / "trainaug.txt"
    path.unlink()
    assert failure(root, Voc2012Aug).startswith(f"{path}: list is missing: convert the labels of")
    shutil.rmtree(root / "SegmentationClassAug")
    seen = failure(root, Voc2012Aug)
    assert seen.startswith(f"{root / 'SegmentationClassAug'}: folder is missing: convert the label")
    assert "SBD from http" in seen
    voc2012(tmp_path / "plain")
    assert "SegmentationClassAug: folder is missing" in failure(tmp_path / "plain", Voc2012Aug)


def test_trainaug_must_not_hold_what_is_scored(root: Path) -> None:
    path = root / "ImageSets" / "Segmentation" / "trainaug.txt"
    write_list(path, ["2007_000032", "2007_000033"])
    shutil.copy(root / "SegmentationClass" / "2007_000033.png", root / "SegmentationClassAug")
    expected = f"{path}:2: 2007_000033 is in val, which is scored: remove it"
    assert failure(root, Voc2012Aug) == expected


def test_fixture_is_in_the_published_encoding(root: Path) -> None:
    label = Image.open(root / "SegmentationClass" / "2007_000032.png")
    assert (label.mode, label.size) == ("P", (W, H))
    assert label.getpalette() == [value for colour in PALETTE for value in colour]
