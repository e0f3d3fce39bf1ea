"""The readers: what makes a folder of good files for each, and what reads it as a command would.

A reader returns, or raises UserError; whatever else it does is a finding. ``READERS`` names them.
"""

import argparse
import csv
import dataclasses
import io
import json
import random
import re
import shutil
import warnings
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from PIL import Image
from rich.console import Console
from starlette.testclient import TestClient

from benchmark.commands.options import option_values
from benchmark.data.pack import pack
from benchmark.experiment.config import read_config_file
from benchmark.experiment.plan import plan
from benchmark.export import hub
from benchmark.leaderboard.boards import boards
from benchmark.leaderboard.compare import compare
from benchmark.leaderboard.overall import overall
from benchmark.leaderboard.recommend import choose_board, recommend, with_latencies
from benchmark.leaderboard.reported import add_reported
from benchmark.leaderboard.sides import open_side
from benchmark.predict import serve as serving
from benchmark.report.comparison import comparison_json, comparison_lines, comparison_table
from benchmark.report.files import BEGIN, END, update_between_markers, write_reports
from benchmark.report.page.page import page
from benchmark.report.recommendation import recommendation_table, sentences
from benchmark.report.tables import rich_overall, rich_table
from benchmark.results.checkpoint import open_checkpoint
from benchmark.results.layout import FILE
from benchmark.results.replicates import save_replicates
from benchmark.results.result import TaskScores
from benchmark.results.store import collect, save
from benchmark.sweep.file import read_sweep
from benchmark.training.keeper import Keeper
from benchmark.wiring.figure import render, search_figure, wiring_figure
from benchmark.wiring.names import lines
from benchmark.wiring.prune import prune
from benchmark.wiring.record import load_search, read_search
from common.errors import UserError
from common.progress import Silent
from datasets import files, hdf5
from datasets.base import DATASETS
from datasets.decoding import read_stored
from datasets.readers.bsds500 import read_boundaries
from datasets.readers.diode import _read_map
from models.backbones import create_backbone
from models.connectivity import Connectivity, fully_dense
from tests.datasets import fixtures_data, fixtures_depth_saliency
from tests.page import page_data
from tests.robustness.fuzz import mutations, own
from tests.robustness.fuzz.mutations import Mutation


class Finding(Exception):
    """What a reader wrote is not what it may write."""


class Reader(NamedTuple):
    """make: fills a folder; read: reads it. files: which are changed, patterns with how."""

    make: Callable[[Path], None]
    read: Callable[[Path, random.Random], None]
    files: Sequence[tuple[str, Mutation]]


# --- results -------------------------------------------------------------------------------------


def make_results(root: Path) -> None:
    found = [page_data.result(name, seed) for name in ("sparsemask", "fcn") for seed in (0, 1)]
    found += [page_data.failed(), page_data.result("fcn", task="depth", dataset="scenes")]
    joint = page_data.result("fcn", 3)
    scores = {name: getattr(joint, name) for name in TaskScores.model_fields}
    config = {**joint.config.model_dump(), "task": "segmentation+depth"}
    config |= {"decoder": "connectivity:w.json", "wiring": wiring_of_five()}
    found.append(
        type(joint)(
            **{**joint.model_dump(exclude={"folder"}), "config": config, "key": "j"},
        ).model_copy(update={"tasks": {}})
    )
    own = {"dataset": "own", "description": {"name": "pipes", "images": ["a/*.png"]}}
    found.append(
        joint.model_copy(update={"config": joint.config.model_copy(update=own), "key": "o"})
    )
    found[-2].tasks = {task: TaskScores(**scores) for task in ("segmentation", "depth")}
    for number, result in enumerate(found):
        folder = root / f"{number}_{result.key}"
        save(folder, result)
        save_replicates(folder, {t: {m: np.arange(9.0) for m in v.metrics}
                                 for t, v in result.by_task().items()})  # fmt: skip
        if number < 2:
            page_data.strips(folder, "segmentation", 1)


def wiring_of_five() -> dict[str, Any]:
    content = fully_dense((2, 4, 8, 16, 32)).to_json()
    return {"strides": content["encoder"]["strides"], "stages": content["stages"]}


def read_results(root: Path, rng: random.Random) -> None:
    """As ``report``, ``recommend`` and ``compare`` do; looks for what must be in no report."""
    found, problems = collect(root)
    tables = boards(found)
    add_reported(tables)
    across = overall(tables, None)
    out = io.StringIO()
    console = Console(file=out, width=rng.choice((80, 180)))
    for problem in problems:
        console.print(problem, markup=False)
        if len(problem) > 2000:
            raise Finding(f"a problem of {len(problem)} characters")
    for board in tables:
        console.print(rich_table(board, console.width))
    for table in across:
        console.print(rich_overall(table))
    check_terminal(out.getvalue().replace("\x1b", "" if problems else "\x1b"))
    texts = {p.name: p.read_text() for p in write_reports(tables, root.parent / "out", across)}
    html = page(tables, across)
    check_html(html, scripts=2)
    json.loads(html.split('id="data">')[1].split("</script>")[0])
    for name in ("leaderboard.csv", "overall.csv"):
        for row in csv.reader(io.StringIO(texts[name])):
            if any(re.match(r"[=@+-](?!\d|inf|nan)", cell) for cell in row):
                raise Finding(f"{name}: a formula")
    if re.search(
        r"(?<!\\)(\\\\)*[\[`]|<(?!!)", re.sub(r"(?m)^`[^`\n]*`$", "", texts["leaderboard.md"])
    ):
        raise Finding("leaderboard.md: a link, code or HTML")
    for name, text in texts.items():
        if "\x1b" in text or "\0" in text:
            raise Finding(f"{name}: a control character")
    for board in tables:
        if board.measured:
            answer = recommend(board, {"params": 1e7})
            list(sentences(answer, {"params": 1e7}))
            console.print(recommendation_table(answer))
    folders = sorted(root.iterdir())
    for a, b in ((folders[0], folders[2]), (root, root)):
        with open_side(str(a), Path("x")) as left, open_side(str(b), Path("x")) as right:
            report = compare(left, right)
        console.print(comparison_table(report, True))
        list(comparison_lines(report))
        comparison_json(report)


def check_terminal(text: str) -> None:
    if re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text):
        raise Finding(f"a control character on the terminal: {text!r:.3000}")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.scripts, self.bad = 0, ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            address = name in ("src", "href") and not re.match(r"data:|#", value or "")
            if name.startswith("on") or address or tag in ("iframe", "object", "base"):
                self.bad = f"{tag} {name}={value}"


def check_html(text: str, scripts: int) -> None:
    tags = Tags()
    tags.feed(text)
    if tags.bad or tags.scripts != scripts:
        raise Finding(f"the page: {tags.scripts} scripts, {tags.bad}")


# --- wirings -------------------------------------------------------------------------------------


def make_wiring(root: Path) -> None:
    wiring = dataclasses.replace(fully_dense((2, 4, 8, 16, 32)), backbone="test_resnet")
    (root / "w.json").write_text(json.dumps(wiring.to_json()))


def read_wiring(root: Path, rng: random.Random) -> None:
    wiring = Connectivity.load(root / "w.json")
    lines(wiring.pruned())
    wiring.carry((2, 4, 8, 16, 32))
    if rng.random() < 0.05:
        render(wiring_figure(wiring), ".svg")


def make_search(root: Path) -> None:
    dense = fully_dense((2, 4, 8))
    connections = [(s, n) for s, inputs in dense.stages.items() for n in inputs]
    record = {
        "format": 1, "method": "sparsemask", "task": "depth", "dataset": "scenes",
        "config": {"seed": 0}, "backbone": "test_resnet", "strides": (2, 4, 8),
        "threshold": 0.001, "iterations": [0, 10], "final": [0.3] * len(connections),
        "connections": [{"stage": s, "source": n} for s, n in connections],
        "weights": [[0.5] * len(connections)] * 2, "inputs": None, "merge": True,
    }  # fmt: skip
    (root / "search.json").write_text(json.dumps(record))
    (root / "found.json").write_text(json.dumps(dense.to_json()))


def read_searches(root: Path, rng: random.Random) -> None:
    prune(read_search(root))[0].to_json()
    found, search = load_search(root)
    if rng.random() < 0.05:
        render(search_figure(found, search), ".svg")


# --- configurations ------------------------------------------------------------------------------

CONFIG = """
task: depth
dataset: scenes
decoder: [fcn, sparsemask]
image-size: 64x64
crop-size: 32x32
lr: 0.01
seed: [0, 1]
backbone-arg: {drop_rate: 0.1}
backbone: test_resnet
mean: [0.5, 0.5, 0.5]
"""
SWEEP = """
results: runs
cache: only-missing
data: {camvid: "${HOME}"}
defaults: {seeds: [0, 1], epochs: 3}
runs:
  - tasks: [segmentation, depth]
    datasets: scenes
    backbones: test_resnet
    decoders: &d [fcn, hed]
    lr: 0.005
  - task: saliency
    decoders: *d
    backbones: test_resnet
overrides:
  - when: {decoder: hed}
    set: {lr: 0.001}
"""


def read_config(root: Path, rng: random.Random) -> None:
    values = option_values(read_config_file(root / "c.yaml"))
    if isinstance(tasks := values.get("task"), list | tuple):
        values["task"] = "+".join(map(str, tasks))
    axes: dict[str, Any] = {"decoder": ["fcn"]}
    for name in ("backbone", "decoder", "seed"):
        if name in values:
            value = values.pop(name)
            axes[name] = list(value) if isinstance(value, list | tuple) else [value]
    plan(values, axes)


# --- images and arrays ---------------------------------------------------------------------------


def make_images(root: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    for suffix in ("png", "jpg", "gif", "bmp", "ppm", "tif", "webp"):
        Image.fromarray(rgb).save(root / f"rgb.{suffix}")
    Image.fromarray(rgb).save(root / "zip.tif", compression="tiff_deflate")
    Image.fromarray(rgb[..., 0] % 11).save(root / "labels.png")
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 99).save(root / "depth.png")
    Image.fromarray(rgb).convert("P").save(root / "palette.png")
    Image.fromarray(rgb[..., 0] > 99).save(root / "mask.png")
    Image.fromarray(rgb[..., 0]).convert("RGBA").save(root / "alpha.png")
    few = rgb[..., 0] % 11
    greys = Image.fromarray(few, mode="P")
    greys.putpalette([value for grey in range(11) for value in (10 - grey,) * 3])
    greys.save(root / "greys.png")
    Image.fromarray(few).save(root / "few.tif", compression="packbits")
    (root / "few.pgm").write_bytes(b"P5 32 24 20\n" + few.tobytes())
    (root / "deep.pgm").write_bytes(b"P5 32 24 999\n" + few.astype(">u2").tobytes())
    Image.fromarray(np.array(PALETTE, np.uint8)[few]).save(root / "colours.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("turned.jpg", "turned.tif", "turned.png"):
        Image.fromarray(rgb).save(root / name, exif=exif)


PALETTE = [files.voc_colour(index) for index in range(12)]
IMAGE_READERS = (
    files.read_image,
    files.read_any_image,
    lambda path: files.read_labels(path, range(11)),
    lambda path: files.read_labels(path, range(11), (11,), PALETTE),
    read_stored,
    files.read_mask,
    lambda path: files.read_depth(path, 1000, 0, (1e-3, 100)),
)


def read_images(root: Path, rng: random.Random) -> None:
    for path in root.iterdir():
        refused = []
        for read in IMAGE_READERS:
            try:
                read(path)
            except UserError as error:
                refused.append(error)
                check_message(error)
        if len(refused) == len(IMAGE_READERS):
            raise refused[0]


def check_message(error: UserError) -> None:
    if "\n" in str(error) or len(str(error)) > 10_000:
        raise Finding(f"a message of several lines, or very long: {error!s:.3000}") from error


def make_arrays(root: Path) -> None:
    np.save(root / "a.npy", np.random.default_rng(0).random((24, 32, 1), np.float32))


# --- data sets -----------------------------------------------------------------------------------

LISTS = ("camvid", "voc2012", "image-masks", "seven-scenes", "msra-b", "kitti-depth")
FIXTURES = {**fixtures_data.FIXTURES, **fixtures_depth_saliency.FIXTURES}


def make_lists(root: Path) -> None:
    for name in LISTS:
        (root / name).mkdir()
        FIXTURES[name](root / name)


def read_lists(root: Path, rng: random.Random) -> None:
    refused: UserError | None = None
    for name in LISTS:
        cls = DATASETS.get(name)
        for split in cls.available_splits(root / name):
            try:
                data: Any = cls(root / name, split, next(iter(cls.info.tasks)))
            except UserError as error:
                refused = error
                continue
            for pair in data.pairs:
                for path in (pair.image, pair.target):
                    if not path.resolve().is_relative_to(root.resolve() / name):
                        raise Finding(f"{path} is outside {root / name}")
    if refused is not None:
        raise refused


def make_packed(root: Path) -> None:
    source = root.parent / "source"
    if not source.exists():
        fixtures_data.camvid(source)
    for name, compression in (("a.h5", "none"), ("b.h5", "gzip")):
        pack(
            "camvid", source, ("segmentation",), (32, 40), compression, root / name, True, Silent()
        )


def read_packed(root: Path, rng: random.Random) -> None:
    for path in root.glob("*.h5"):
        for split in hdf5.Packed.available_splits(path):
            data = hdf5.Packed(path, split, "segmentation", dataset="camvid")
            for index in range(min(len(data), 3)):
                check_sample(data[index])


def read_nyu(root: Path, rng: random.Random) -> None:
    cls = DATASETS.get("nyu-depth-v2")
    data = cls(root, "train", "segmentation")
    for index in range(min(len(data), 3)):
        check_sample(data[index])


def check_sample(sample: Any) -> None:
    shapes = {t.shape[-2:] for t in (sample.image, *sample.targets.values())}
    if sample.image.dtype != torch.uint8 or len(sample.image) != 3 or not shapes:
        raise Finding(f"a sample of {sample.image.dtype} {shapes}")


def make_matlab(root: Path) -> None:
    fixtures_data.bsds500(root)


def read_matlab(root: Path, rng: random.Random) -> None:
    for path in root.glob("groundTruth/train/*.mat"):
        read_boundaries(path)


# --- weights -------------------------------------------------------------------------------------


def make_run(root: Path) -> None:
    """A run's folder, not trained."""
    from benchmark.experiment.network import build_model
    from benchmark.experiment.plan import make_tasks, resolve
    from benchmark.results.checkpoint import save_checkpoint

    result = page_data.result("unet-connectivity", backbone="test_resnet")
    result.config = resolve(result.config)
    save(root, result)
    save_checkpoint(root, "last", build_model(result.config, make_tasks(result.config)), {})


def make_weights(root: Path) -> None:
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    torch.save(state, root / "a.pth")
    torch.save({"state_dict": state}, root / "b.pth", _use_new_zipfile_serialization=False)
    ema = {f"module.{key}": tensor for key, tensor in state.items()}
    args = argparse.Namespace(model="test_resnet", lr=0.1)
    content = {"state_dict": state, "state_dict_ema": ema, "args": args, "epoch": 3}
    torch.save(content, root / "c.pth")
    torch.save(content, root / "d.pth", _use_new_zipfile_serialization=False)


def read_weights(root: Path, rng: random.Random) -> None:
    refused: UserError | None = None
    for path in sorted(root.iterdir()):
        try:
            create_backbone("test_resnet", weights=path)
        except UserError as error:
            refused = error
            check_message(error)
    if refused is not None:
        raise refused


IDENTITY = {"key": "a"}


def make_states(root: Path) -> None:
    """Two saved states of a training, the second the newer one."""
    keeper = Keeper(root, IDENTITY)
    for step in (1, 2):
        keeper.save(step, {"step": step, "weights": {"a": torch.full((3, 4), float(step))}})


def read_states(root: Path, rng: random.Random) -> None:
    """As a run that goes on: a state is one of those written, or none."""
    state = Keeper(root, IDENTITY).state
    if state is None:
        raise UserError("no state is whole")
    weights = torch.full((3, 4), float(state["step"]))
    if state["step"] not in (1, 2) or not torch.equal(state["weights"]["a"], weights):
        raise Finding(f"a state that nobody wrote: {state}")


def make_hub_config(root: Path) -> None:
    folder = root / "run"
    make_run(folder)
    (root / hub.CONFIG).write_bytes(hub.package(open_checkpoint(folder), "u/r")[hub.CONFIG])
    shutil.rmtree(folder)


def read_hub_config(root: Path, rng: random.Random) -> None:
    """As ``from-hub``: what is kept names no file of this machine."""
    result = hub.parse(root / hub.CONFIG, "u/r")
    save(root.parent / "from-hub", result)
    places = (result.config.data, result.config.weights)
    if any(place is not None and Path(place).is_absolute() for place in places):
        raise Finding(f"a path: {places}")


def make_form(root: Path) -> None:
    """The body of a browser's form."""
    image = io.BytesIO()
    Image.new("RGB", (9, 7), (200, 10, 10)).save(image, "PNG")
    head = '--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    (root / "form").write_bytes(head.encode() + image.getvalue() + b"\r\n--x--\r\n")


def read_form(root: Path, rng: random.Random) -> None:
    """As ``serve`` does, with a network that answers with its image."""

    def draw(image: torch.Tensor) -> dict[str, Image.Image]:
        return {"depth": Image.fromarray(image.permute(1, 2, 0).numpy())}

    # 500 is for what a network fails on, and this one does not
    known = {200, 400, 413, 415}
    limits = serving.Limits(size=50_000, pixels=10_000)
    client = TestClient(
        serving.application(draw, "x", limits, "127.0.0.1"), base_url="http://127.0.0.1"
    )
    answer = client.post(
        "/",
        content=(root / "form").read_bytes(),
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    if answer.status_code not in known:
        raise Finding(f"the server answers {answer.status_code}: {answer.text[-300:]}")
    check_html(answer.text, scripts=0)
    if answer.status_code != 200:
        raise UserError("refused")


def make_speed(root: Path) -> None:
    def timing(decoder: str) -> dict[str, Any]:
        latency = {"median_ms": 3.0, "fps": 333.0, "batch": 1, "hardware": "cpu T", "threads": 1,
                   "memory_format": "channels_last", "compiled": False, "amp": False}  # fmt: skip
        return {"backbone": "test_resnet", "backbone_args": {}, "decoder": decoder, "batch": 1,
                "image_size": [96, 96], "params": {"head": 1430}, "latency": latency}  # fmt: skip

    (root / "s.json").write_text(json.dumps([timing("fcn"), timing("sparsemask")]))


def read_speed(root: Path, rng: random.Random) -> None:
    board = boards([page_data.result("fcn"), page_data.result("sparsemask")])[0]
    moved = with_latencies(board, root / "s.json")
    budgets = {"latency": 5.0}
    choose_board([moved], "segmentation", None, None)
    answer = recommend(moved, budgets)
    list(sentences(answer, budgets))
    if answer.best:
        Console(file=io.StringIO()).print(recommendation_table(answer))


def make_markdown(root: Path) -> None:
    (root / "a.md").write_text(f"# x\n{BEGIN}\nold\n{END}\nend\n")


def quiet(read: Callable[[Path], Any], pattern: str) -> Callable[[Path, random.Random], None]:
    """A reader of each file that fits."""

    def reader(root: Path, rng: random.Random) -> None:
        for path in root.glob(pattern):
            read(path)

    return reader


def writer(name: str, text: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (root / name).write_text(text)

    return make


READERS = {
    "result": Reader(make_results, read_results, [(f"*/{FILE}", mutations.of_json)]),
    "npz": Reader(make_results, read_results, [("*/bootstrap.npz", mutations.of_zip)]),
    "samples": Reader(make_results, read_results, [("*/samples/*.webp", mutations.of_bytes)]),
    "wiring": Reader(make_wiring, read_wiring, [("w.json", mutations.of_json)]),
    "search": Reader(make_search, read_searches, [("*.json", mutations.of_json)]),
    "config-yaml": Reader(writer("c.yaml", CONFIG), read_config, [("c.yaml", mutations.of_text)]),
    "sweep-yaml": Reader(
        writer("s.yaml", SWEEP),
        quiet(lambda path: read_sweep(str(path)).plan(), "*.yaml"),
        [("s.yaml", mutations.of_text)],
    ),
    "image": Reader(make_images, read_images, [("*", mutations.of_png)]),
    "npy": Reader(make_arrays, quiet(_read_map, "*"), [("a.npy", mutations.of_bytes)]),
    "packed-hdf5": Reader(make_packed, read_packed, [("*.h5", mutations.of_hdf5)]),
    "nyu-hdf5": Reader(
        lambda root: fixtures_depth_saliency.nyu_depth_v2(root, (40, 64)),
        read_nyu,
        [("nyu_depth_v2_labeled.mat", mutations.of_hdf5), ("[sc]*.mat", mutations.of_mat)],
    ),
    "matlab": Reader(make_matlab, read_matlab, [("groundTruth/train/*.mat", mutations.of_mat)]),
    "lists": Reader(make_lists, read_lists, [("**/*.txt", mutations.of_text)]),
    "own-yaml": Reader(own.make_descriptions, own.read_own, own.DESCRIPTIONS),
    "own-files": Reader(lambda root: own.make_bands(root / "bands"), own.read_own, own.CONTENTS),
    "safetensors": Reader(
        make_run,
        quiet(lambda path: open_checkpoint(path.parent), FILE),
        [("last.safetensors", mutations.of_safetensors), (FILE, mutations.of_json)],
    ),
    "pth": Reader(
        make_weights,
        read_weights,
        [("[ac].pth", mutations.of_zip), ("[bd].pth", mutations.of_bytes)],
    ),
    "state": Reader(make_states, read_states, [("state*.safetensors", mutations.of_safetensors)]),
    "hub-config": Reader(make_hub_config, read_hub_config, [(hub.CONFIG, mutations.of_json)]),
    "form": Reader(make_form, read_form, [("form", mutations.of_bytes)]),
    "speed-json": Reader(make_speed, read_speed, [("s.json", mutations.of_json)]),
    "markdown": Reader(
        make_markdown,
        quiet(lambda path: update_between_markers(path, "new"), "*.md"),
        [("a.md", mutations.of_text)],
    ),
}


def prepare() -> None:
    """What the command line does before it reads."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
