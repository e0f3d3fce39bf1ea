"""Files from elsewhere: what is refused before it takes memory, and names that stay names."""

import argparse
import csv
import io
import json
import pickle
import re
import struct
import subprocess
import time
import zipfile
import zlib
from collections.abc import Callable
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

from benchmark.data.pack import pack
from benchmark.experiment.config import read_config_file
from benchmark.experiment.network import build_model
from benchmark.experiment.plan import make_tasks, resolve
from benchmark.leaderboard.boards import boards
from benchmark.leaderboard.overall import overall
from benchmark.leaderboard.sides import open_side
from benchmark.report.files import write_reports
from benchmark.report.page.page import page
from benchmark.report.tables import rich_overall, rich_table
from benchmark.results.checkpoint import open_checkpoint, save_checkpoint
from benchmark.results.layout import FILE
from benchmark.results.replicates import REPLICATES, load_replicates
from benchmark.results.samples import read_strips
from benchmark.results.store import collect, save
from benchmark.wiring.figure import render, wiring_figure
from common import limits
from common.errors import DataError, UsageError, UserError
from common.limits import LimitError, printable, read_bytes, size_text
from common.marked_yaml import read_marked_yaml
from common.progress import Silent
from datasets.base import DATASETS
from datasets.decoding import read_any_image, read_depth, read_image, read_mask
from datasets.files import read_list
from datasets.hdf5 import Packed
from datasets.labels import read_labels
from models.backbones import create_backbone
from models.connectivity import Connectivity, fully_dense
from tests.page import page_data
from tests.support import line

pytestmark = pytest.mark.filterwarnings("ignore:.*samples in")

HUGE = 2 * 2**30  # bytes of a sparse file: reading it would show


def sparse(path: Path, start: bytes = b"") -> Path:
    """A file of 2 GB that takes no room on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(start)
    with path.open("r+b") as file:
        file.truncate(HUGE)
    return path


# --- files ---------------------------------------------------------------------------------------


def test_sizes_in_words() -> None:
    sizes = {0: "0 bytes", 1023: "1023 bytes", 1024: "1.0 kB", 64 * 2**20: "64 MB"}
    assert {size: size_text(size) for size in sizes} == sizes
    assert size_text(HUGE) == "2.0 GB"


def test_no_more_than_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(LimitError, match="it has 5 bytes, at most 4 bytes are read"):
        read_bytes(path, 4)
    with pytest.raises(LimitError, match=r"has 2\.0 GB"):
        read_bytes(sparse(path), limits.RESULT)


def test_a_pipe_and_a_device_are_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(LimitError, match="no file but a pipe or a device"):
            read_bytes(path, 100)
        with pytest.raises(DataError, match="no file but a pipe"):
            read_image(path)
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path, 100)


def test_printable() -> None:
    assert printable("straße 日本 🎉 δ1 ↑") == "straße 日本 🎉 δ1 ↑"
    assert printable("a\nb\tc\r") == "a b c "
    assert printable("\x1b[31m\x9b\u202e\udcff\0") == "�[31m����"
    assert printable("x" * 9, 5) == "xxxx…"


# --- results -------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two runs on one board."""
    for name in ("fcn", "sparsemask"):
        save(tmp_path / "runs" / name, page_data.result(name))
    return tmp_path / "runs"


def left_out(results: Path) -> str:
    """Why the third run is left out; the two good ones must be there."""
    found, problems = collect(results)
    assert len(found) == 2
    (problem,) = problems
    start = f"{results / 'bad' / FILE}: left out: "
    assert problem.startswith(start)
    assert len(problem) < len(start) + 500
    assert problem == printable(problem)
    return problem.removeprefix(start)


def test_a_result_of_2_gb_is_left_out_unread(results: Path) -> None:
    sparse(results / "bad" / FILE, b"{")
    assert left_out(results) == "it has 2.0 GB, at most 64 MB are read: a result has some 10 kB"


def test_records_of_2_gb_beside_a_result_are_not_read(cli, results: Path) -> None:
    folder = results / "fcn"
    for name in ("metrics.jsonl", REPLICATES, "samples/segmentation_0_x_image.webp"):
        sparse(folder / name, b"RIFF")
    done = cli("report", "--results", results, "--html", results / "page")
    assert done.exit_code == 0
    assert load_replicates(folder, "segmentation") == {}
    assert read_strips(folder) == []


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, '{"format": "\\u001b[2J\\n"'])
def test_json_that_is_nested_too_deep(results: Path, text: str) -> None:
    (results / "bad").mkdir()
    (results / "bad" / FILE).write_text(text)
    left_out(results)


BAD = {
    "environment": ({"device": ["x"], "threads": 2}, "environment: device is list"),
    "speed": ({"median_ms": "x", "fps": 1, "session": "s"}, "speed: median_ms is str x"),
    "constant": ({"metrics": {"miou": "x", "macc": 1, "aacc": 1}}, "constant: miou is str x"),
    "data": ({"train": 5}, "data: train is no object"),
    "params": ({"decoder": 10**400}, "params"),
    "metrics": ({"miou": 1.7e308, "macc": 0.1, "aacc": 0.1}, "metrics: a number above 1e+100"),
    "key": ("k" * 10**6, "key: has 1000000 characters, at most 300 are read"),
    "format": ("\x1b" * 1000, "format �"),
    "\x1b]0;x\x07" * 1000: (1, "�]0;x"),
}


@pytest.mark.parametrize(("field", "name"), [("environment", "versions"), ("constant", "metrics")])
def test_a_null_where_reports_look_further(results: Path, field: str, name: str) -> None:
    content = json.loads(page_data.result("encnet").model_dump_json())
    content[field] = {**content[field], name: None}
    (results / "bad").mkdir()
    (results / "bad" / FILE).write_text(json.dumps(content))
    assert f"{field}: {name} is null" in left_out(results)


@pytest.mark.parametrize("field", BAD)
def test_a_result_that_no_report_could_show(results: Path, field: str) -> None:
    value, message = BAD[field]
    content = json.loads(page_data.result("encnet").model_dump_json())
    (results / "bad").mkdir()
    (results / "bad" / FILE).write_text(json.dumps({**content, field: value}))
    assert message in left_out(results)


@pytest.mark.parametrize(
    ("name", "message"),
    [(["x"], "description: name is list"), ("n" * 400, "description: name: has 400 characters")],
)
def test_a_description_whose_name_no_report_could_show(
    results: Path, name: object, message: str
) -> None:
    content = json.loads(page_data.result("encnet").model_dump_json())
    content["config"] |= {"dataset": "own", "description": {"name": name}}
    (results / "bad").mkdir()
    (results / "bad" / FILE).write_text(json.dumps(content))
    assert message in left_out(results)


def test_replicates_that_unpack_to_much(tmp_path: Path) -> None:
    def header(shape: str, kind: str = "<f4") -> bytes:
        text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117)
        return b"\x93NUMPY\1\0v\0" + text.encode() + b"\n"

    members = {
        "depth/good.npy": header("(2,)") + np.array([1, 2], np.float32).tobytes(),
        "depth/claims.npy": header("(100000000000,)"),
        "depth/square.npy": header("(1, 1)") + bytes(4),
        "depth/objects.npy": header("(1,)", "|O") + b"\x80\x04N.",
        "depth/none.npy": header("(0,)"),
    }
    path = tmp_path / REPLICATES

    def write(**more: bytes) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in {**members, **more}.items():
                archive.writestr(name, content)

    write()
    assert load_replicates(tmp_path, "depth")["good"].tolist() == [1, 2]
    assert set(load_replicates(tmp_path, "depth")) <= {"good"}
    write(bomb=bytes(limits.REPLICATES + 1))
    assert path.stat().st_size < 10**5
    assert load_replicates(tmp_path, "depth") == {}


def test_a_commit_cannot_write_outside_its_folder(tmp_path: Path, monkeypatch) -> None:
    """git makes no tree with a folder ``..``, but reads one that another program made."""
    monkeypatch.chdir(tmp_path)

    def git(*arguments: str, text: bytes = b"") -> str:
        author = ("-c", "user.name=x", "-c", "user.email=x")
        done = subprocess.run(["git", *author, *arguments], input=text, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    git("init", "-q")
    content = page_data.result("fcn").model_dump_json().encode()
    blob = git("hash-object", "-w", "--stdin", text=content)
    inner = git("mktree", text=f"100644 blob {blob}\t{FILE}\n".encode())
    entry = b"".join(b"40000 " + name + b"\0" + bytes.fromhex(inner) for name in (b"..", b"a"))
    outer = git("hash-object", "-t", "tree", "--literally", "-w", "--stdin", text=entry)
    root = git("mktree", text=f"040000 tree {outer}\tresults\n".encode())
    commit = git("commit-tree", root, "-m", "x")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with open_side(commit, Path("results")) as side:
        assert [r.folder.name for r in side.results if r.folder] == ["a"]
        assert [path.name for path in temporary.iterdir() if path.name == FILE] == []


# --- names in reports ----------------------------------------------------------------------------

ESCAPES = "\x1b[31m\x1b]8;;http://evil\x07\x9b2J\u202e"
NAMES = (
    page_data.HOSTILE,
    "x</script><script>alert(1)</script>",
    "[link=http://evil]click[/link] [/] [bold",
    "![x](http://evil/x.png) [y](javascript:alert(1)) `z` \\[w](u)",
    "a|b\n# heading\n<!-- leaderboard:end -->",
    '=HYPERLINK("http://evil")',
    "@SUM(1)",
    "\\input{/etc/passwd}",
    "$\\frac{",
    ESCAPES,
    "../../../etc/passwd",
    "{{ 7 * 7 }}{% raw %}",
)


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))


def named(tmp_path: Path, name: str) -> Path:
    """Results whose every name is ``name``, as files."""
    base = page_data.result("fcn").model_dump(mode="json")
    config = {**base["config"], "decoder": name, "backbone": name, "dataset": name}
    environment = {"device": name, "threads": 1, name: {name: name}}
    units, better = {name: name, "m": "1"}, {name: True, "m": True}
    numbers = {name: 0.5, "m": 0.25}
    finished = {
        **base, "key": name, "config": config, "environment": environment, "protocol": name,
        "columns": [name, "m"], "higher_is_better": better, "units": units, "metrics": numbers,
        "intervals": {name: [0.4, 0.6]}, "constant": {"metrics": numbers}, "command": name,
        "speed": {"median_ms": 1.0, "fps": 1.0, "session": name, name: name},
        "params": {name: 1}, "data": {"test": {"fingerprint": name}, "train": {}},
        "history": [{"epoch": 1, name: 1.0}],
    }  # fmt: skip
    other = {**finished, "key": "b", "config": {**config, "lr": 0.5, "task": name}}
    failed = {**finished, "key": "f", "status": "failed", "error": name}
    for number, result in enumerate((finished, other, failed)):
        folder = tmp_path / "runs" / str(number)
        folder.mkdir(parents=True)
        (folder / FILE).write_text(json.dumps(result))
    return tmp_path / "runs"


@pytest.mark.parametrize("name", NAMES)
def test_names_in_a_result_stay_names(tmp_path: Path, name: str) -> None:
    found, problems = collect(named(tmp_path, name))
    assert len(found) == 3, problems
    tables = boards(found)
    across = overall(tables, None)
    tame = boards(collect(named(tmp_path / "tame", "tame"))[0])

    html = page(tables, across)
    tags, plain = Tags(html).tags, Tags(page(tame, overall(tame, None))).tags
    assert [t for t, _ in tags if t in ("script", "img", "iframe")] == ["script", "script"]
    assert {t for t, _ in tags} <= {t for t, _ in plain} | {"wbr"}
    assert not [a for _, attrs in tags for a in attrs if a[0].startswith("on")]
    links = [v or "" for _, attrs in tags for k, v in attrs if k in ("href", "src")]
    assert all(v.startswith(("#", "data:")) for v in links)
    json.loads(html.split('id="data">')[1].split("</script>")[0])

    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=True)
    for board in tables:
        console.print(rich_table(board, 200))
    for table in across:
        console.print(rich_overall(table))
    shown = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())  # rich's own styles
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
    assert "\x1b]8" not in out.getvalue()

    texts = {p.name: p.read_text() for p in write_reports(tables, tmp_path / "out", across)}
    for kind in ("md", "tex", "csv"):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", texts[f"leaderboard.{kind}"])
    for row in csv.reader(io.StringIO(texts["leaderboard.csv"])):
        assert not [cell for cell in row if cell.startswith(("=", "@"))]
    prose = re.sub(r"(?m)^`[^`\n]*`$", "", texts["leaderboard.md"])
    assert not re.search(r"(?<!\\)(\\\\)*[\[`]|<", prose)
    lines = texts["leaderboard.md"].splitlines()
    titles = ("# Leaderboard", "## ")
    assert all(text.startswith(titles) for text in lines if text.startswith("#"))
    table = [text.replace("\\|", "") for text in lines if text.startswith("|")]
    widths = {text.count("|") for text in table}
    assert len(widths) <= 3
    assert "\\input{" not in texts["leaderboard.tex"]
    assert json.loads(texts["leaderboard.json"])["boards"]


def test_a_failure_without_a_reason_is_one(tmp_path: Path) -> None:
    runs = named(tmp_path, "tame")
    path = runs / "2" / FILE
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "error": None}))
    found, problems = collect(runs)
    assert not problems
    assert [run.error for run in found if run.status == "failed"] == ["no reason given"]


def test_a_hostile_result_from_the_command_line(cli, tmp_path: Path) -> None:
    runs = named(tmp_path, ESCAPES)
    (runs / "2" / FILE).write_text('{"format": "\\u001b[2J", "config": 1}')
    done = cli("report", "--results", runs, "--html", tmp_path / "page")
    assert done.exit_code == 0
    assert "left out: format �[2J" in done.stderr
    done.stdout.encode()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout + done.stderr)


def test_progress_shows_a_samples_name_as_it_is(monkeypatch) -> None:
    from benchmark.commands.options import progress

    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    with progress() as listener:
        listener.begin("score [/x]", 2)
        listener.step("a[/b] \x1b]8;;x\x07")
    assert "a[/b] �]8;;x�" in console.file.getvalue()


# --- wirings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": {"strides": [2] * 10**5}}, "at most 100 features"),
        ({"encoder": {"strides": [float("inf")]}}, "not a connectivity: OverflowError"),
        ({"encoder": {"strides": [0, 2]}}, "of strides 1…1024"),
        ({"stages": {"1": ["\x1b" * 5000]}}, "stage 1 cannot take ��"),
        ({"\x1b" * 5000: 1}, "unknown key ���"),
    ],
)
def test_a_hostile_wiring_is_one_line(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "w.json"
    path.write_text(json.dumps({**fully_dense((2, 4, 8, 16)).to_json(), **change}))
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        Connectivity.load(path)
    assert len(str(caught.value)) < 1000
    assert str(caught.value) == printable(str(caught.value))


def test_wirings_that_are_large_or_deep(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_text("[" * 10**5)
    with pytest.raises(UsageError, match="nested too deep"):
        Connectivity.load(path)
    with pytest.raises(UsageError, match=r"it has 2\.0 GB, at most 1\.0 MB are read"):
        Connectivity.load(sparse(path))


@pytest.mark.parametrize("name", ["$\\frac{", "x" * 10**5, ESCAPES, "a\nb"])
def test_a_wirings_name_is_no_formula(cli, tmp_path: Path, name: str) -> None:
    path = tmp_path / "w.json"
    content = {**fully_dense((2, 4)).to_json(), "name": name}
    content["encoder"] |= {"backbone": name}
    path.write_text(json.dumps(content))
    assert render(wiring_figure(Connectivity.load(path)), ".svg").startswith(b"<?xml")
    done = cli("transfer", path, "--backbone", "test_resnet")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout + done.stderr)


# --- configurations ------------------------------------------------------------------------------


def laughs(row: str) -> str:
    """Nine levels of nine aliases each: 400 million values of 600 characters."""
    pairs = zip("abcdefgh", "bcdefghi", strict=True)
    return row.format(new="a", many="[1]") + "".join(
        row.format(new=new, many=f"[{', '.join(['*' + old] * 9)}]") for old, new in pairs
    )


YAMLS = {
    "laughs": (laughs("{new}: &{new} {many}\n"), "more than 20000 values, aliases written out"),
    "merges": (
        "a: &a {x: 1}\n"
        + "".join(
            f"{new}: &{new} {{<<: [{', '.join(['*' + old] * 9)}]}}\n"
            for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "more than 20000 values, aliases written out",
    ),
    "itself": ("a: &a [*a]", "*a stands within what it stands for"),
    "deep": ("a: " + "[" * 10_000, "more than 20 levels"),
    "many": ("a: [" + "1," * 21_000 + "]", "more than 20000 values"),
    "large": ("a: " + "x" * limits.YAML, "at most 128 kB are read"),
    "number": ("a: " + "9" * 4000, "a whole number of more than 19 digits"),
    "hexadecimal": ("a: 0x" + "f" * 5000, "a whole number of more than 19 digits"),
    "code": ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
    "tag": ("a: !!timestamp x", "NoneType"),
    "zero": ("a: \0", "not allowed"),
    "bytes": (b"\xff\xfe\xfd", "not UTF-8"),
}


@pytest.mark.parametrize("read", [read_marked_yaml, read_config_file])
@pytest.mark.parametrize("kind", YAMLS)
def test_a_yaml_bomb_is_one_line(tmp_path: Path, read, kind: str) -> None:
    content, message = YAMLS[kind]
    path = tmp_path / "a.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_anchors_and_merges_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: &a {x: 1}\nb: {<<: *a, y: 0x10}\nc: [*a, *a]")
    expected = {"a": {"x": 1}, "b": {"x": 1, "y": 16}, "c": [{"x": 1}, {"x": 1}]}
    assert read_marked_yaml(path).content == expected
    assert read_config_file(path) == expected


def test_a_block_of_many_runs(cli, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    names = ", ".join(["fcn"] * 400)
    path.write_text(
        f"runs:\n  - seeds: [{', '.join(map(str, range(400)))}]\n    decoders: [{names}]"
    )
    assert "stands for 160000 runs, at most 100000 are planned" in line(cli("sweep", path))


def test_a_size_that_no_image_has(cli, tmp_path: Path) -> None:
    done = cli("run", "--image-size", "100000x100000", "--dry-run", "--results", tmp_path)
    assert "--image-size: 100000x100000 has more than 100000000 pixels" in line(done)


# --- images --------------------------------------------------------------------------------------

IMAGE_READERS = [
    read_image,
    read_any_image,
    read_mask,
    pytest.param(lambda path: read_labels(path, range(11)), id="labels"),
    pytest.param(lambda path: read_depth(path, 1000, 0, (0.1, 10)), id="depth"),
]


def png(width: int, height: int, depth: int = 8, kind: int = 0, rows: bytes = b"") -> bytes:
    """A PNG whose header says what it likes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("read", IMAGE_READERS)
@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (12_000, 12_000), (2**31 - 1, 1)])
@pytest.mark.filterwarnings("error")
def test_an_image_of_too_many_pixels_is_not_decoded(
    tmp_path: Path, read, width: int, height: int
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(width, height, 16 if width < 10**6 else 8, rows=bytes(10**6)))
    with pytest.raises(DataError, match="more than 100000000 pixels: reduce the image") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_predict_leaves_out_what_is_no_image(tmp_path: Path) -> None:
    for width, height, rows in ((8, 8, b""), (0, 8, b""), (8, 8, bytes(3))):
        (tmp_path / "a.png").write_bytes(png(width, height, rows=rows))
        with pytest.raises(DataError, match=r"a\.png"):
            read_any_image(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"2\.0 GB, at most 1\.0 GB are read"):
        read_any_image(sparse(tmp_path / "b.png", png(8, 8)))


def webp(path: Path, size: tuple[int, int], **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, "WEBP", **options)


def test_strips_are_small_webp_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    parts = [folder / f"depth_0_x_{part}.webp" for part in ("image", "truth", "prediction")]
    for path in parts:
        webp(path, (192, 144))
    assert [strip.name for strip in read_strips(tmp_path)] == ["x"]
    webp(parts[1], (192, 100), lossless=True)
    assert len(read_strips(tmp_path)) == 1
    webp(parts[1], (193, 8), lossless=True)
    assert read_strips(tmp_path) == []
    webp(parts[1], (8, 8))
    content = bytearray(parts[1].read_bytes())
    assert len(read_strips(tmp_path)) == 1
    content[26:30] = (16_000).to_bytes(2, "little") * 2  # a gigabyte in the reader's browser
    parts[1].write_bytes(content)
    assert read_strips(tmp_path) == []
    parts[1].write_bytes(b"<svg onload=alert(1)>")
    assert read_strips(tmp_path) == []


# --- data sets -----------------------------------------------------------------------------------


def test_a_list_of_2_gb_and_a_line_without_end(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train.txt: cannot be read \(it has 2\.0 GB"):
        read_list(sparse(tmp_path / "train.txt"), "write it")
    for text, seen in (("x" * 10**6, "1000000 characters"), ("a\0b", "a zero byte")):
        (tmp_path / "train.txt").write_text(f"a b\n{text}\n")
        with pytest.raises(DataError, match=f"train.txt:2: the line has {seen}: write it"):
            read_list(tmp_path / "train.txt", "write it")


OUT = ("../secret/a", "/etc/passwd", "a/../../secret/a", "../a", "x/../a")


@pytest.mark.parametrize("entry", [*OUT, "\x1b[2J/../a"])
def test_names_in_a_list_stay_in_the_folder(camvid: Path, entry: str) -> None:
    (camvid.parent / "secret").mkdir()
    (camvid / "train.txt").write_text(f"train/0.png trainannot/0.png\n{entry}.png {entry}.png\n")
    with pytest.raises(DataError, match=r"train\.txt:2") as caught:
        DATASETS.get("camvid")(camvid, "train", "segmentation")
    if ".." in entry:
        assert "leads out of" in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 300, "y/" * 400])
def test_names_too_long_for_the_system_are_missing(camvid: Path, name: str) -> None:
    (camvid / "train.txt").write_text(f"{name}.png {name}.png\n")
    with pytest.raises(DataError, match=r"image (is missing|cannot be reached)"):
        DATASETS.get("camvid")(camvid, "train", "segmentation")


@pytest.fixture
def packed(camvid: Path) -> Path:
    path = camvid.parent / "a.h5"
    pack("camvid", camvid, ("segmentation",), (32, 40), "none", path, False, Silent())
    return path


def other_array(file: h5py.File, name: str, **options: object) -> None:
    del file[name]
    file.create_dataset(name, **options)


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3, 32, 40), "u1")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3, 32, 40))
    del file["test/image/0"]
    file.create_virtual_dataset("test/image/0", layout)


def link(file: h5py.File, name: str, to: object) -> None:
    del file[name]
    file[name] = to


FIRST, SIZE = "test/image/0", (3, 32, 40)
OUTSIDE = [("/etc/passwd", 0, 3840)]
PACKS = {
    "shape": (
        lambda f: other_array(f, FIRST, shape=(3, 10**7, 10**7), dtype="u1", chunks=(3, 64, 64)),
        "has 100000000000000 pixels",
    ),
    "names": (
        lambda f: other_array(f, "test/names", shape=(10**12,), dtype="S9", chunks=(9,)),
        "test/names is |S9 of shape (1000000000000,)",
    ),
    "chunk": (
        lambda f: other_array(f, FIRST, shape=SIZE, dtype="u1", chunks=(3, 2**13, 2**14),
                              maxshape=(3, None, None)),
        "is packed in pieces of (3, 8192, 16384)",
    ),
    "type": (lambda f: other_array(f, FIRST, shape=SIZE, dtype="f8"), "is float64"),
    "bytes": (lambda f: other_array(f, FIRST, shape=(3, 10**4, 10**4), dtype="f4",
                                    chunks=(3, 64, 64)), "has 1200000000 bytes, at most"),
    "channels": (lambda f: f.attrs.create("channels", [3, 3]), "cut or damaged"),
    "text": (lambda f: other_array(f, FIRST, data="x", dtype=h5py.string_dtype()), "object"),
    "outside": (lambda f: other_array(f, FIRST, shape=SIZE, dtype="u1", external=OUTSIDE),
                "has its numbers elsewhere"),
    "virtual": (virtual, "has its numbers elsewhere"),
    "external link": (lambda f: link(f, FIRST, h5py.ExternalLink("/etc/passwd", "x")),
                      "0 is a link to elsewhere"),
    "group link": (lambda f: link(f, "test", h5py.ExternalLink("b.h5", "x")), "test is a link"),
    "soft link": (lambda f: link(f, "test/image", h5py.SoftLink("/")), "image is a link"),
    "filter": (lambda f: other_array(f, FIRST, shape=SIZE, dtype="u1", chunks=SIZE,
                                     compression=32015, allow_unknown_filter=True),
               "packed by a filter of number 32015"),
    "attribute": (lambda f: f.attrs.create("tasks", ["x"], dtype=h5py.string_dtype()),
                  "attribute tasks is object"),
    "empty": (lambda f: f.attrs.create("tasks", h5py.Empty("f")), "attribute tasks is"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PACKS)
def test_a_packed_file_is_its_own_plain_numbers(packed: Path, kind: str) -> None:
    change, message = PACKS[kind]
    with h5py.File(packed, "r+", libver=("v110", "v110")) as file:
        change(file)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        Packed(packed, "test", "segmentation", dataset="camvid")[0]
    assert str(caught.value).startswith(f"{packed}: ")
    assert "\n" not in str(caught.value)


# --- weights -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run's folder with weights, not trained."""
    folder = tmp_path_factory.mktemp("run")
    result = page_data.result("fcn", backbone="test_resnet")
    result.config = resolve(result.config)
    save(folder, result)
    save_checkpoint(folder, "last", build_model(result.config, make_tasks(result.config)), {})
    return folder


def edited(run: Path, folder: Path, **config: object) -> Path:
    """A copy of a run whose configuration says something else."""
    content = json.loads((run / FILE).read_text())
    content["config"] |= config
    folder.mkdir()
    (folder / FILE).write_text(json.dumps(content))
    (folder / "last.safetensors").write_bytes((run / "last.safetensors").read_bytes())
    return folder


def test_the_run_as_it_is(run: Path) -> None:
    assert open_checkpoint(run).config.decoder == "fcn"


@pytest.mark.parametrize("key", ["checkpoint_path", "cache_dir", "pretrained_cfg"])
def test_a_result_makes_timm_read_no_file(run: Path, tmp_path: Path, monkeypatch, key: str) -> None:
    """timm would open it, and of another kind than safetensors run what is in it."""
    monkeypatch.setattr("timm.create_model", lambda *_, **__: pytest.fail("timm was called"))
    folder = edited(run, tmp_path / "run", backbone_args={key: "evil.pth"})
    with pytest.raises(UsageError, match=f"--backbone-arg {key}=evil.pth: is not taken"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"decoder": "connectivity:x", "wiring": {"stages": 5}}, "describes no network"),
        ({"backbone": "hf-hub:evil/model"}, "unknown backbone"),
        ({"backbone": "local-dir:/tmp"}, "unknown backbone"),
        ({"backbone": "test_resnet2", "backbone_args": {}}, "unknown backbone"),
        ({"backbone_args": {"channels": [10**5] * 4}}, r"not this run's weights: \d+ numbers"),
        ({"image_size": [10**6, 10**6]}, "has more than 100000000 pixels"),
        ({"workers": 10**6}, "workers"),
    ],
)
def test_a_result_that_describes_another_network(
    run: Path, tmp_path: Path, config: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        open_checkpoint(edited(run, tmp_path / "run", **config))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [[2**40], [-1], [2**62, 2**62], [3, 3]])
def test_tensors_whose_header_says_another_shape(run: Path, tmp_path: Path, shape: list) -> None:
    content = (run / "last.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header[next(name for name in header if name != "__metadata__")]["shape"] = shape
    text = json.dumps(header).encode()
    folder = edited(run, tmp_path / "run")
    path = folder / "last.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    with pytest.raises(UserError, match="not this run's weights"):
        open_checkpoint(folder)
    with pytest.raises(DataError, match="not a readable weights file"):
        create_backbone("test_resnet", weights=path)


def test_a_checkpoint_is_no_pickle(run: Path, tmp_path: Path) -> None:
    folder = edited(run, tmp_path / "run")
    torch.save({"a": torch.zeros(1)}, folder / "last.safetensors")
    with pytest.raises(UserError, match="not this run's weights"):
        open_checkpoint(folder)


def test_a_packed_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(10**6)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    with pytest.raises(DataError, match=r"its entry .* is compressed"):
        create_backbone("test_resnet", weights=path)


def test_a_pickle_that_asks_for_much(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"\x80\x02X\xff\xff\xff\x7f")  # a text of 2 GB
    before = torch.load
    seen = []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "torch.load",
            lambda file, **more: (seen.append(len(file.read(2**31))), before(file, **more)),
        )
        with pytest.raises(DataError, match="not a readable weights file"):
            create_backbone("test_resnet", weights=path)
    assert seen == [7]


def test_a_file_with_other_names_is_refused(tmp_path: Path) -> None:
    save_file({"../x" * 50: torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match="not weights of test_resnet"):
        create_backbone("test_resnet", weights=tmp_path / "a.safetensors")


class Wide(dict):
    """Not a plain dictionary: its class would be imported."""


def test_a_checkpoint_with_arguments_imports_nothing_else(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    path = tmp_path / "a.pth"
    torch.save({"state_dict": state, "args": argparse.Namespace(a=1)}, path)
    create_backbone("test_resnet", weights=path)
    for other in (Wide(), Path("x"), Fraction(1, 2)):
        torch.save({"state_dict": state, "args": argparse.Namespace(a=other)}, path)
        with pytest.raises(DataError, match="asks to run"):
            create_backbone("test_resnet", weights=path)
    with pytest.raises(pickle.UnpicklingError):  # the permission ends with the reading
        torch.load(io.BytesIO(saved_namespace()), weights_only=True)


def saved_namespace() -> bytes:
    buffer = io.BytesIO()
    torch.save(argparse.Namespace(a=1), buffer)
    return buffer.getvalue()


def test_a_namespace_that_builds_itself_runs_nothing(tmp_path: Path) -> None:
    """Attributes with the names of methods stay attributes."""
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    names = ("__class__", "__setstate__", "__reduce__", "__eq__", "__len__", "__iter__")
    args = argparse.Namespace()
    vars(args).update(dict.fromkeys(names, 1))
    torch.save({"state_dict": state, "args": args}, tmp_path / "a.pth")
    create_backbone("test_resnet", weights=tmp_path / "a.pth")


SIDE = 10**6
LARGE: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
    "expanded": lambda: {"0": torch.zeros(1).expand(SIDE, SIDE)},
    "meta": lambda: {"0": torch.empty(SIDE, SIDE, device="meta")},
    "sparse": lambda: {
        "0": torch.sparse_coo_tensor(
            torch.zeros(2, 1, dtype=torch.long), torch.zeros(1), (SIDE, SIDE)
        )
    },
    "the same memory": lambda: dict.fromkeys(map(str, range(2000)), torch.zeros(SIDE)),
}


@pytest.mark.filterwarnings("ignore:.*parse (tensor )?invariant:UserWarning")  # torch's, of sparse
@pytest.mark.parametrize("kind", LARGE)
def test_tensors_larger_than_their_file_are_not_copied(
    tmp_path: Path, monkeypatch, kind: str
) -> None:
    """timm's functions that rename the tensors of first publications may copy or resize them."""
    names = {f"stages.0.{name}.weight": tensor for name, tensor in LARGE[kind]().items()}
    torch.save({"model": {**names, "norm.weight": torch.zeros(1)}}, tmp_path / "a.pth")

    def rename(state: dict[str, torch.Tensor], model: object) -> dict[str, torch.Tensor]:
        assert model is not None
        if names.keys() & state.keys():
            pytest.fail("timm was given them")
        return state

    monkeypatch.setattr("timm.models.convnext.checkpoint_filter_fn", rename)
    with pytest.raises(DataError, match="not weights of convnext_atto"):
        create_backbone("convnext_atto", weights=tmp_path / "a.pth")


def test_a_checkpoint_of_many_entries_is_read_at_once(tmp_path: Path) -> None:
    entries = {f"a{i}": {"x." * 50 + str(i): torch.zeros(1)} for i in range(300)}
    torch.save({**entries, **{f"{i}.conv1.0.weight": torch.zeros(1) for i in range(3000)}},
               tmp_path / "a.pth")  # fmt: skip
    start = time.perf_counter()
    with pytest.raises(DataError, match="not weights of test_resnet"):
        create_backbone("test_resnet", weights=tmp_path / "a.pth")
    assert time.perf_counter() - start < 30
