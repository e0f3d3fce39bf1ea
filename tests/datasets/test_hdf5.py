"""Packed files: the same samples and results as the folder's, in any process; bad ones refused."""

import json
import pickle
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from benchmark.data.pack import pack
from common.errors import DataError, UsageError, UserError
from common.progress import Silent
from datasets import pipeline
from datasets.base import Sample
from datasets.hdf5 import Packed
from datasets.pipeline import Resized, collate, open_splits
from tests.support import ROOT, TINY, line

pytestmark = pytest.mark.filterwarnings("ignore:.*samples in.*")

SIZE = (32, 40)


def packed(root: Path, name: str = "camvid", task: str = "segmentation", **options: Any) -> Path:
    path = options.pop("output", root.parent / f"{name}.h5")
    values = {"compression": "none", "overwrite": False, "listener": Silent(), **options}
    pack(name, root, (task,), SIZE, output=path, **values)
    return path


def opened(root: Path, name: str = "camvid", task: str = "segmentation") -> dict[str, Resized]:
    """As a run opens them."""
    splits = open_splits(name, root, task, SIZE)
    return {n: Resized(split, SIZE, task, targets=n == "train") for n, split in splits.items()}


def same(one: Sample, other: Sample) -> bool:
    tensors = [(one.image, other.image)]
    tensors += [(one.targets[kind], other.targets[kind]) for kind in one.targets]
    return (
        one.name == other.name
        and one.targets.keys() == other.targets.keys()
        and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in tensors)
    )


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """image-masks with images of different sizes, other letters in names and no val split."""
    from PIL import Image

    root, generator = tmp_path / "masks", np.random.default_rng(0)
    names = [f"ein Bild – straße 日本 {i}" for i in range(22)]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i, name in enumerate(names):
        pixels = generator.integers(0, 256, (24 + i, 50 - i, 3), np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{name}.png")
        mask = np.where(pixels[..., 0] > 100, 255, 0).astype(np.uint8)
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    (root / "train.txt").write_text("\n".join(names[:20]), encoding="utf-8")
    (root / "test.txt").write_text("\n".join(names[20:]), encoding="utf-8")
    return root


# --- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "lzf", "gzip"])
def test_camvid_is_the_same_as_from_its_folder(camvid: Path, compression: str) -> None:
    path = packed(camvid, compression=compression)
    files, pack_ = opened(camvid), opened(path)
    for name, part in files.items():
        assert len(part) == len(pack_[name]) > 0
        assert part.source.name == pack_[name].source.name
        assert part.source.data.fingerprint() == pack_[name].source.data.fingerprint()
        assert all(same(part[i], pack_[name][i]) for i in range(len(part)))
    # scored at the files' resolution, trained on at the run's
    assert pack_["test"][0].targets["segmentation"].shape == (48, 64)
    assert pack_["train"].source[0].targets["segmentation"].shape == SIZE


def test_any_size_and_name_and_a_split_that_is_held_out(masks: Path) -> None:
    path = packed(masks, "image-masks", "saliency")
    files, pack_ = (opened(root, "image-masks", "saliency") for root in (masks, path))
    assert [len(part) for part in pack_.values()] == [18, 2, 2]
    assert pack_["val"].source.name == "held out of train"
    for name, part in files.items():
        assert all(same(part[i], pack_[name][i]) for i in range(len(part)))
    assert pack_["val"][1].targets["saliency"].shape == (24 + 19, 50 - 19)
    assert pack_["train"][0].name == "ein Bild – straße 日本 0"


def test_several_tasks_of_one_rendering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.scenes.scenes._SPLITS", {"train": 3, "val": 1, "test": 1})
    path = tmp_path / "scenes.h5"
    pack("scenes", None, ("depth", "saliency"), (32, 32), "lzf", path, False, Silent())
    for task in ("depth", "saliency"):
        folder, file = (open_splits("scenes", root, task, (32, 32)) for root in (None, path))
        sample, other = folder["train"][2], file["train"][2]
        assert list(other.targets) == ["depth", "saliency"]
        assert same(Sample(sample.image, {t: sample.targets[t] for t in other.targets},
                           sample.name), other)  # fmt: skip


def test_attributes_tell_what_it_is(camvid: Path) -> None:
    with h5py.File(packed(camvid)) as file:
        facts = dict(file.attrs)
        assert (facts["format"], facts["dataset"], facts["compression"]) == (1, b"camvid", b"none")
        assert list(facts["tasks"]) == [b"segmentation"]
        assert list(facts["image_size"]) == list(SIZE)
        assert facts["classes"][0] == b"Sky"
        assert facts["palette"].shape == (11, 3)
        assert {split: file[split].attrs["count"] for split in file} == {
            "train": 6, "val": 2, "test": 3
        }  # fmt: skip
        assert file["train/image/0"].chunks == (3, *SIZE)
        assert "complete" in facts


def test_index_from_the_end_and_beyond(camvid: Path) -> None:
    data = Packed(packed(camvid), "train", "segmentation", dataset="camvid")
    assert same(data[-1], data[5])
    with pytest.raises(IndexError):
        data[6]


@pytest.mark.parametrize(("method", "workers"), [(None, 0), ("fork", 1), ("fork", 2), ("spawn", 2)])
def test_loaders_workers(
    camvid: Path, monkeypatch: pytest.MonkeyPatch, method: str | None, workers: int
) -> None:
    """The parent has the file open, and goes on reading, while its children read."""
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    part, expected = opened(packed(camvid))["train"], opened(camvid)["train"]
    assert not part.cached
    loader = DataLoader(
        part, 1, collate_fn=collate, num_workers=workers,
        multiprocessing_context=method, persistent_workers=workers > 0,
    )  # fmt: skip
    for _ in range(2):
        for index, (images, targets) in enumerate(loader):
            assert same(part[index], expected[index])
            assert torch.equal(images[0], expected[index].image)
            target = expected[index].targets["segmentation"]
            assert torch.equal(targets[0]["segmentation"], target)


def test_a_pickle_holds_no_handle(camvid: Path) -> None:
    data = Packed(packed(camvid), "test", "segmentation", dataset="camvid")
    first = data[0]
    assert same(pickle.loads(pickle.dumps(data))[0], first)


def test_a_run_from_the_pack_is_the_run_from_the_folder(cli, masks: Path, tmp_path: Path) -> None:
    path = packed(masks, "image-masks", "saliency")
    results = []
    for root in (masks, path):
        folder = tmp_path / f"runs {root.suffix}"
        done = cli("run", "--task", "saliency", "--dataset", "image-masks", "--data", root,
                   "--image-size", "32x40", "--crop-size", "32x32", "--epochs", "2",
                   "--batch-size", "3", "--decoder", "fcn", *TINY, "--results", folder,
                   "--threads", "1", "--score", "best")  # fmt: skip
        assert done.exit_code == 0, done.stderr
        (stored,) = folder.glob("*/result.json")
        results.append(json.loads(stored.read_text()))
    one, other = results
    for what in ("metrics", "intervals", "history", "constant", "data", "protocol", "counts"):
        assert one[what] == other[what], what


# --- writing -------------------------------------------------------------------------------------


def test_command_packs_and_never_overwrites_unasked(cli, camvid: Path, tmp_path: Path) -> None:
    path = tmp_path / "straße 日本.h5"
    words = ("data", "pack", "camvid", "--data", camvid, "-o", path, "--image-size", "32x40")
    done = cli(*words)
    assert done.exit_code == 0, done.stderr
    assert f"wrote {path}: 11 samples" in done.stderr
    assert "packing images of 32x40: runs on the file need --image-size 32x40" in done.stderr
    again = cli(*words)
    assert again.exit_code == 2
    assert line(again) == (
        f"error: -o {path}: exists: name another file, or replace it by --overwrite"
    )
    assert cli(*words, "--overwrite", "--compression", "lzf").exit_code == 0
    assert len(opened(path)["train"]) == 6
    preview = cli("data", "preview", "camvid", "--data", path, "--image-size", "32x40",
                  "-o", tmp_path / "sheet.png")  # fmt: skip
    assert preview.exit_code == 0, preview.stderr
    assert path.stat().st_mode & 0o777 == 0o644


def test_wrong_outputs(cli, camvid: Path, tmp_path: Path) -> None:
    words = ("data", "pack", "camvid", "--data", camvid, "--image-size", "32x40", "-o")
    done = cli(*words, tmp_path / "camvid.zip")
    assert done.exit_code == 2
    assert "call the file .h5" in line(done)
    (tmp_path / "file").touch()
    done = cli(*words, tmp_path / "file" / "a.h5")
    assert done.exit_code == 1
    assert "cannot be written" in line(done)


def test_a_damaged_sample_leaves_no_file(camvid: Path) -> None:
    path = camvid / "test" / "1.png"
    path.write_bytes(path.read_bytes()[:-40])
    output = camvid.parent / "out" / "a.h5"
    with pytest.raises(DataError, match=r"test/1\.png"):
        packed(camvid, output=output)
    assert not list(output.parent.iterdir())
    output.write_bytes(b"what was there before")
    with pytest.raises(DataError, match=r"test/1\.png"):
        packed(camvid, output=output, overwrite=True)
    assert output.read_bytes() == b"what was there before"


def test_a_full_disk_is_one_line_and_leaves_no_file(camvid: Path, tmp_path: Path) -> None:
    """The system's limit on a file's size stands for the disk, full anywhere up to the end."""
    size = packed(camvid).stat().st_size
    code = """
import resource, signal, sys
from pathlib import Path
from common.progress import Silent
from benchmark.data.pack import pack
from common.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
root, output, size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
for limit in (0, 100, *range(3000, size, size // 7), size - 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        pack("camvid", root, ("segmentation",), (32, 40), "none", output, False, Silent())
    except UserError as error:
        assert str(error).startswith(f"{output}: cannot be written (File too large): "), error
    else:
        raise AssertionError(limit)
    assert not list(output.parent.iterdir())
print("done")
"""
    words = [sys.executable, "-W", "ignore", "-c", code, camvid, tmp_path / "out" / "a.h5"]
    done = subprocess.run([*words, str(size)], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_a_killed_pack_leaves_nothing_that_opens(camvid: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "a.h5"
    code = (
        "import time, sys; from pathlib import Path; from benchmark.data.pack import pack; "
        "from common.progress import Silent\n"
        "class Slow(Silent):\n"
        "    def step(self, note=''): print(note, flush=True); time.sleep(0.2)\n"
        "pack('camvid', Path(sys.argv[1]), ('segmentation',), (32, 40), 'none', "
        "Path(sys.argv[2]), False, Slow())"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, camvid, output], cwd=ROOT,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (left,) = output.parent.iterdir()
    assert left.suffix == ".partial"
    copy = left.rename(tmp_path / "copy.h5")
    with pytest.raises(DataError, match=r"interrupted|damaged"):
        opened(copy)
    shutil.copy(copy, left)
    packed(camvid, output=output)
    assert list(output.parent.iterdir()) == [output]
    assert len(opened(output)["train"]) == 6


# --- wrong files ---------------------------------------------------------------------------------


def refused(path: Path, kind: type[UserError], name: str = "camvid", **options: Any) -> str:
    values = {"split": "train", "task": "segmentation", "size": SIZE, **options}
    with pytest.raises(kind) as caught:
        Packed(path, values.pop("split"), values.pop("task"), dataset=name, **values)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def test_a_run_of_another_size_is_refused_before_anything_is_built(
    cli, camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(camvid)
    monkeypatch.setattr("benchmark.experiment.plan.resolve", lambda _: pytest.fail("resolved"))
    options = ("--task", "segmentation", "--dataset", "camvid", "--data", path)
    for size, named in {("--image-size", "48x64"): "48x64", (): "240x320"}.items():
        for command in (("run", *TINY), ("search", "--output", tmp_path)):
            done = cli(*command, *options, *size)
            assert done.exit_code == 2
            assert f"packed at 32x40, not {named}: give --image-size 32x40" in line(done)


def test_another_content_is_wrong_usage(camvid: Path) -> None:
    path = packed(camvid)
    text = refused(path, UsageError, size=(48, 64))
    assert "packed at 32x40, not 48x64: give --image-size 32x40, or pack anew" in text
    assert "packed from camvid, not scenes" in refused(path, UsageError, "scenes")
    text = refused(path, UsageError, task="depth")
    assert "holds segmentation, no depth: pack anew with --task depth" in text
    assert "no split 'extra'" in refused(path, UsageError, split="extra")
    with h5py.File(path, "a") as file:
        file.attrs["revision"] += 1
    assert "has changed since: pack it anew" in refused(path, UsageError)


def test_what_is_no_packed_file(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    assert "does not exist: write it with python cli.py data pack" in refused(path, DataError)
    path.write_bytes(b"PK something else")
    assert "is no HDF5 file" in refused(path, DataError)
    path.write_bytes(b"")
    assert "is no HDF5 file" in refused(path, DataError)
    with h5py.File(path, "w") as file:
        file["x"] = 1
    assert "holds no packed data set" in refused(path, DataError)
    with h5py.File(path, "a") as file:
        file.attrs["format"] = 2
    assert "has format 2 where this version reads 1" in refused(path, DataError)
    with h5py.File(path, "a") as file:
        file.attrs["format"] = 1
    assert "packing was interrupted" in refused(path, DataError)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_in_the_middle_is_one_line(cli, camvid: Path, share: float) -> None:
    path = packed(camvid)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    done = cli("run", "--task", "segmentation", "--dataset", "camvid", "--data", path,
               "--image-size", "32x40", "--crop-size", "32x32", "--batch-size", "3",
               "--decoder", "fcn", *TINY, "--results", path.parent / "runs")  # fmt: skip
    assert done.exit_code == 1
    text = line(done)
    assert text.startswith(f"error: {path}: ")
    assert "damaged" in text
    assert "data pack" in text


def outcome(path: Path) -> str:
    """What all samples are, as one text; DataError's or UsageError's message; else it raises."""
    try:
        samples = [s for part in opened(path).values() for s in (part[i] for i in range(len(part)))]
        return repr([(s.name, s.image.sum(), s.targets["segmentation"].sum()) for s in samples])
    except (DataError, UsageError) as error:
        return str(error)


def test_flipped_bits_are_found_or_harmless(camvid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checksums see to it that no wrong pixel is read for a right one."""
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    path = packed(camvid)
    content, whole = path.read_bytes(), outcome(path)
    generator = random.Random(0)
    found = 0
    for trial in range(60):
        position = generator.randrange(len(content) if trial % 2 else 4000)
        damaged = bytearray(content)
        damaged[position] ^= 1 << generator.randrange(8)
        # a new file each time: HDF5 would know the old one again by its inode
        copy = path.with_name(f"{trial}.h5")
        copy.write_bytes(damaged)
        seen = outcome(copy)
        copy.unlink()
        assert seen == whole or (str(copy) in seen and "\n" not in seen), (position, seen)
        found += seen != whole
    assert found > 20
