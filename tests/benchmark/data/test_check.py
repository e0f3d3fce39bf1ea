"""`data check`: all faults of each kind are listed, and none where there is none."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.data.check import check
from common.annotators import pack as annotated
from common.progress import Silent
from datasets.base import TARGETS
from datasets.readers.camvid import CamVid
from datasets.scenes import scenes
from tests.support import line

pytestmark = pytest.mark.filterwarnings("ignore:.*samples in.*")

FACTS: Mapping[str, Mapping[str, Any]] = {
    "segmentation": {"classes": ("sky", "road", "car")},
    "depth": {"min_depth": 0.1, "max_depth": 10.0},
    "saliency": {},
    "edges": {},
}


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of six images is CamVid as it is published."""
    splits = {"train": 6, "val": 2, "test": 3}
    monkeypatch.setattr(CamVid, "info", replace(CamVid.info, splits=splits))


def report(root: Path | None, name: str = "camvid", task: str = "segmentation") -> dict[str, Any]:
    return check(name, root, (task,), Silent())


def counted(kind: str, *maps: torch.Tensor) -> tuple[dict[str, Any], list[str], list[str | None]]:
    statistics = TARGETS.get(kind).statistics(FACTS[kind])
    problems = [statistics.add(target) for target in maps]
    return statistics.summary(), statistics.doubts(), problems


# --- the command ---------------------------------------------------------------------------------


def test_a_whole_folder_is_fine(cli, camvid: Path, tmp_path: Path) -> None:
    done = cli("data", "check", "camvid", "--data", camvid, "--json", tmp_path / "report.json")
    assert done.exit_code == 0, done.stdout
    assert "problems 0, warnings" in done.stdout
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["problems"] == []
    printed = cli("data", "check", "camvid", "--data", camvid, "--json", "-")
    assert json.loads(printed.stdout) == stored
    train = stored["splits"]["train"]
    assert (train["samples"], train["published"], train["readable"]) == (6, 6, 6)
    assert train["image_sizes"] == {"48x64": 6}
    assert not any("samples" in text for text in stored["warnings"])
    images = [np.array(Image.open(path)) for path in (camvid / "train").iterdir()]
    pixels = np.stack(images).reshape(-1, 3) / 255
    assert stored["mean"] == pytest.approx(pixels.mean(0).tolist(), abs=1e-4)
    assert stored["std"] == pytest.approx(pixels.std(0).tolist(), abs=1e-4)


def test_a_packed_file_is_checked_likewise(cli, camvid: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    assert cli("data", "pack", "camvid", "--data", camvid, "-o", path,
               "--image-size", "48x64").exit_code == 0  # fmt: skip
    folder, file = report(camvid), report(path)
    assert {**folder, "data": None} == {**file, "data": None}
    path.write_bytes(path.read_bytes()[:-100])
    done = cli("data", "check", "camvid", "--data", path)
    assert done.exit_code == 1
    assert f"{path}: cut or damaged" in line(done)


def test_wrong_usage_is_2(cli, camvid: Path) -> None:
    for words in (("camvid",), ("camvit", "--data", camvid), ("camvid", "--task", "depth")):
        done = cli("data", "check", *words)
        assert done.exit_code == 2
        assert line(done)


def test_every_fault_is_listed(cli, camvid: Path) -> None:
    (camvid / "train/0.png").unlink()
    (camvid / "trainannot/0.png").unlink()
    (camvid / "trainannot/1.png").write_bytes(b"")
    for folder in ("train", "trainannot"):
        path = camvid / folder / "2.png"
        path.write_bytes(path.read_bytes()[:-30])
    Image.fromarray(np.full((48, 64), 37, np.uint8)).save(camvid / "valannot/0.png")
    Image.fromarray(np.zeros((48, 63), np.uint8)).save(camvid / "testannot/1.png")
    with (camvid / "test.txt").open("a") as file:
        file.write("alone.png\n")
    done = cli("data", "check", "camvid", "--data", camvid)
    assert done.exit_code == 1
    expected = [
        "train/0.png: image is missing", "trainannot/0.png: label map is missing",
        "trainannot/1.png: label map is empty", "valannot/0.png: label 37 is outside",
        "testannot/1.png: label map of 63×48", "test.txt:4: 'alone.png' is not 'image label'",
    ]  # fmt: skip
    text = done.stdout
    assert "problems 7," in text
    for part in expected:
        assert f"problem: {camvid}/{part}" in text
    assert re.search(rf"problem: 2 files: cannot be read .*, first {camvid}/train/2.png", text)
    splits = report(camvid)["splits"].items()
    assert {split: found["readable"] for split, found in splits} == {
        "train": 3,
        "val": 1,
        "test": 2,
    }
    assert {split: found["samples"] for split, found in splits} == {"train": 6, "val": 2, "test": 4}


def test_a_split_that_cannot_be_opened_is_shown(cli, camvid: Path) -> None:
    (camvid / "val.txt").unlink()
    done = cli("data", "check", "camvid", "--data", camvid)
    assert done.exit_code == 1
    assert f"problem: {camvid}/val.txt: list is missing" in done.stdout
    found = report(camvid)["splits"]["val"]
    assert (found["samples"], found["readable"], found["mean"]) == (None, 0, None)


def test_images_without_masks_and_masks_without_images(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    generator = np.random.default_rng(0)
    for name in "abcd":
        pixels = generator.integers(0, 256, (8, 9, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
        mask = np.zeros((8, 9), np.uint8) if name == "c" else np.eye(8, 9, dtype=np.uint8) * 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "images/a.png").unlink()
    (tmp_path / "masks/b.png").unlink()
    (tmp_path / "train.txt").write_text("a\nb\nc\n")
    (tmp_path / "test.txt").write_text("d\n")
    found = report(tmp_path, "image-masks", "saliency")
    assert [text.partition(": ")[0] for text in found["problems"]] == [
        str(tmp_path / "images/a"), str(tmp_path / "masks/b.png")
    ]  # fmt: skip
    assert found["warnings"] == ["train: saliency: 1 masks without an object"]
    (tmp_path / "test.txt").unlink()
    assert f"{tmp_path / 'test.txt'}: list is missing" in report(
        tmp_path, "image-masks", "saliency"
    )["problems"][-1]  # fmt: skip


def test_an_image_in_two_splits_is_a_problem_twice_in_one_a_warning(camvid: Path) -> None:
    # the same pixels in another file
    with Image.open(camvid / "train/1.png") as image:
        image.save(camvid / "test/0.png", compress_level=1)
    shutil.copy(camvid / "train/2.png", camvid / "train/3.png")
    (camvid / "val.txt").write_text("val/0.png valannot/0.png\nval/0.png valannot/0.png\n")
    found = report(camvid)
    assert found["problems"] == ["test: 0: the same image as 1 of train: leave one out"]
    assert "train: 3: the same image as 2" in found["warnings"]
    assert "val: 0: the same image as 0" in found["warnings"]


def test_labels_outside_are_counted_over_files(camvid: Path) -> None:
    for index, path in enumerate(sorted((camvid / "testannot").iterdir())):
        labels = np.zeros((48, 64), np.uint8)
        labels[:3, 0] = 37
        labels[0, :index] = 40
        Image.fromarray(labels).save(path)
    (problem,) = report(camvid)["problems"]
    first = camvid / "testannot"
    assert problem == (
        f"3 files: labels 37 (7 pixels of 3 files, first {first}/0.png), 40 (3 pixels of 2 files, "
        f"first {first}/1.png) are outside 0…10 and 11, 255: map them to classes, or to 255 to "
        "ignore them"
    )


def test_one_cause_is_one_line(cli, camvid: Path) -> None:
    for path in sorted((camvid / "trainannot").iterdir()):
        path.unlink()
    for path in sorted((camvid / "testannot").iterdir()):
        Image.fromarray(np.full((48, 64), 37, np.uint8)).save(path)
    for path in (camvid / "val").iterdir():
        shutil.copy(camvid / "test/0.png", path)
    problems = report(camvid)["problems"]
    assert problems[0].startswith(f"6 files, first {camvid}/trainannot/0.png: label map is missing")
    pixels = f"{3 * 48 * 64} pixels of 3 files, first {camvid}/testannot/0.png"
    assert problems[1] == (
        f"3 files: label 37 is outside 0…10 and 11, 255 in {pixels}: map it to a class, or to 255 "
        "to ignore it"
    )
    found = report(camvid)["splits"]["train"]
    assert (found["samples"], found["readable"], found["fingerprint"]) == (6, 0, None)
    done = cli("data", "check", "camvid", "--data", camvid)
    assert re.search(r"fingerprint +– ", done.stdout)


def test_another_folder_in_the_layout_is_a_problem(
    camvid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = replace(CamVid.info, splits={"train": 13, "val": 4, "test": 2})
    monkeypatch.setattr(CamVid, "info", info)
    for path in (camvid / "trainannot").iterdir():
        Image.fromarray(np.resize(np.arange(5, dtype=np.uint8), (48, 64))).save(path)
    found = report(camvid)
    words = "this is not the published set: for data of your own take "
    assert found["problems"] == [
        f"train: 6 samples, published are 13: {words}--dataset own",
        f"train: segmentation: pixels of only 5 of 11 classes: {words}--dataset own",
    ]
    assert "val: 2 samples, published are 4" in found["warnings"]
    assert "test: 3 samples, published are 2" in found["warnings"]
    with pytest.warns(UserWarning, match="where CamVid .* has 13: this is not .* --dataset own"):
        CamVid(camvid, "train", "segmentation")
    with pytest.warns(UserWarning, match="where CamVid .* has 4$"):
        CamVid(camvid, "val", "segmentation")


def test_doubts_about_files_are_warnings(camvid: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    for name in ("train/1.png", "train/4.png"):
        with Image.open(camvid / name) as image:
            image.save(camvid / name, exif=exif)
    found = report(camvid)
    assert found["problems"] == []
    doubt = next(text for text in found["warnings"] if "EXIF" in text)
    assert doubt.startswith("2 files: EXIF orientation 3, and its label map fits it turned or not:")
    assert doubt.endswith(f", first {camvid}/train/1.png")


def test_a_missing_folder_is_one_problem(cli, tmp_path: Path) -> None:
    done = cli("data", "check", "camvid", "--data", tmp_path / "none")
    assert done.exit_code == 1
    assert done.stdout.count("does not exist") == 1


def test_several_tasks_of_one_rendering_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "_SPLITS", {"train": 3, "val": 1, "test": 1})
    reads: list[int] = []
    render = scenes.Scenes.scene
    monkeypatch.setattr(scenes.Scenes, "scene", lambda s, i: (reads.append(i), render(s, i))[1])
    found = check("scenes", None, ("segmentation", "depth", "saliency"), Silent())
    assert found["problems"] == []
    assert sorted(found["splits"]["train"]["targets"]) == ["depth", "saliency", "segmentation"]
    assert len(reads) == 5


# --- ground truth --------------------------------------------------------------------------------


def test_classes() -> None:
    maps = [torch.tensor(rows, dtype=torch.uint8) for rows in ([[0, 0, 2, 255]], [[255, 255]])]
    summary, doubts, problems = counted("segmentation", *maps)
    assert summary["share of known pixels"] == pytest.approx(
        {"sky": 2 / 3, "road": 0, "car": 1 / 3}
    )
    assert summary["never"] == ["road"]
    assert summary["ignored share"] == 0.5
    assert doubts == ["no pixel of road", "1 maps without a known pixel"]
    assert problems == [None, None]
    *_, problems = counted("segmentation", torch.tensor([[0, 3]], dtype=torch.uint8))
    assert problems == ["label 3 is outside 0…2 and 255"]


def test_depths() -> None:
    summary, doubts, problems = counted("depth", torch.tensor([[0, 2.0, 2.0, 4.0]]))
    assert summary == {
        "nearest m": 2.0, "median m": pytest.approx(2.0, rel=0.01), "farthest m": 4.0,
        "share without reading": 0.25, "share of readings out of range": 0.0,
    }  # fmt: skip
    assert (doubts, problems) == ([], [None])
    _, doubts, _ = counted("depth", torch.tensor([[0.002, 0.003]]))
    assert "check the unit" in doubts[0]
    assert "100% out of range where 0.1…10 m are declared" in doubts[1]
    _, doubts, _ = counted("depth", torch.tensor([[0, 0, 3.0]]))
    assert doubts == ["67% of the pixels have no reading"]
    *_, problems = counted("depth", torch.tensor([[-1.0]]), torch.tensor([[float("nan")]]),
                           torch.tensor([[0.0]]))  # fmt: skip
    assert problems == [*["depths that are negative or no number"] * 2, "no pixel has a reading"]


def test_masks() -> None:
    rows = ([[0, 1, 1, 1]], [[0, 0]], [[1, 255]])
    maps = [torch.tensor(row, dtype=torch.uint8) for row in rows]
    summary, doubts, problems = counted("saliency", *maps)
    assert summary == {
        "object share": pytest.approx(4 / 7), "ignored share": 1 / 8,
        "empty masks": 1, "full masks": 1,
    }  # fmt: skip
    assert doubts == ["1 masks without an object", "1 masks that are all object"]
    assert problems == [None] * 3
    *_, problems = counted("saliency", torch.tensor([[2]], dtype=torch.uint8))
    assert problems == ["values other than 0, 1 and 255"]


def test_edges() -> None:
    marks = torch.tensor([[[1, 0, 0, 0]], [[1, 1, 0, 0]]])
    known = torch.tensor([[True, True, True, False]])
    three = torch.zeros(3, 1, 4)
    summary, doubts, problems = counted("edges", annotated(marks, known), annotated(three))
    assert summary == {
        "boundary share": pytest.approx(1.5 / 7), "ignored share": pytest.approx(1 / 8),
        "fewest annotators": 2, "most annotators": 3, "maps without a boundary": 1,
    }  # fmt: skip
    assert doubts == ["1 maps without a boundary"]
    assert problems == [None, None]
    *_, problems = counted("edges", torch.zeros(1, 2, dtype=torch.int32))
    assert problems == ["no pixel that an annotator has looked at"]
