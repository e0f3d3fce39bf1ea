"""Pictures of wirings and searches: what is drawn, in which colour, and byte for byte alike."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.patches import FancyArrowPatch
from PIL import Image

from benchmark.wiring.figure import FAINT, KINDS, render, search_figure, wiring_figure
from benchmark.wiring.names import load_wiring
from benchmark.wiring.record import load_search
from models.backbones import FeatureSpec
from models.connectivity import PRESETS, Connectivity, fully_dense
from tests.support import line

FIVE = (2, 4, 8, 16, 32)


def arrows(ax: Axes) -> list[FancyArrowPatch]:
    return [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """A search folder: D1 ← E5, D4 and D4 ← G are found; D3 ← E3 is kept, but nobody uses D3."""
    folder = tmp_path / "my search"
    folder.mkdir()
    dense = fully_dense(FIVE)
    connections = [(s, n) for s, inputs in dense.stages.items() for n in inputs]
    kept = {(1, "E5"): 0.9, (1, "D4"): 0.5, (4, "G"): 0.7, (3, "E3"): 0.4}
    final = [kept.get(c, 0.0) for c in connections]
    record = {
        "format": 1, "method": "sparsemask", "task": "depth", "dataset": "scenes",
        "config": {}, "backbone": "test_resnet", "strides": FIVE,
        "threshold": 0.001, "iterations": [0, 10, 20], "final": final,
        "connections": [{"stage": s, "source": n} for s, n in connections],
        "weights": [[0.5] * 30, [0.5 * w + 0.1 for w in final], final], "losses": {"task": [1.0]},
    }  # fmt: skip
    (folder / "search.json").write_text(json.dumps(record))
    found = Connectivity("found", FIVE, {1: ("E5", "D4"), 4: ("G",)}, "test_resnet")
    (folder / "found.json").write_text(json.dumps(found.to_json()))
    return folder


@pytest.mark.parametrize("name", PRESETS)
def test_every_connection_is_an_arrow_of_its_kind(name: str) -> None:
    wiring = load_wiring(name)
    (ax,) = wiring_figure(wiring).axes
    drawn = arrows(ax)
    assert len(drawn) == wiring.connections
    for kind, (_, colour, _) in KINDS.items():
        wanted = sum(n[0] == kind for inputs in wiring.stages.values() for n in inputs)
        assert sum(same_color(arrow.get_edgecolor(), colour) for arrow in drawn) == wanted
    assert f"mobilenetv2_100 · {wiring.connections} connections" in " ".join(texts(ax))


def test_strides_and_channels_stand_at_the_nodes() -> None:
    wiring = Connectivity("mine", (4, 8), {1: ("E2", "G")})
    (ax,) = wiring_figure(wiring, [FeatureSpec(24, 4), FeatureSpec(56, 8)]).axes
    assert {"E1", "E2", "G", "D1", "D2", "stride 4\n24 channels", "stride 8\n56 channels"} < set(
        texts(ax)
    )
    (ax,) = wiring_figure(wiring).axes
    assert {"stride 4", "stride 8"} < set(texts(ax))


def test_what_does_not_reach_the_output_is_faint() -> None:
    wiring = Connectivity("mine", (4, 8, 16), {1: ("E2",), 2: ("E3", "G")})
    (ax,) = wiring_figure(wiring).axes
    colours = [arrow.get_edgecolor() for arrow in arrows(ax)]
    assert [same_color(colour, FAINT) for colour in colours] == [False, True, True]
    faint = {t.get_text() for t in ax.texts if same_color(t.get_color(), FAINT)}
    assert {"E1", "E3", "G", "D2", "D3"} < faint
    assert {"E2", "D1"}.isdisjoint(faint)
    assert "3 connections, 2 of them dead · 1 of 3 stages" in texts(ax)


def test_lines_leave_a_box_side_by_side() -> None:
    (ax,) = wiring_figure(load_wiring("fully-dense")).axes
    starts = {tuple(arrow.get_path().vertices[0].round(3)) for arrow in arrows(ax)}
    assert len(starts) == 90


def test_a_search_shows_its_weights(search: Path) -> None:
    found, record = load_search(search)
    wiring, matrix, curves = search_figure(found, record).axes
    assert len(arrows(wiring)) == 3
    (mesh,) = matrix.collections
    values = mesh.get_array().reshape(5, 10)
    assert values.count() == 30  # what cannot be is blank
    assert (values[0, 4], values[3, 5], values[2, 2]) == (0.9, 0.7, 0.4)
    assert values[0, 8] == 0.5  # E1 … E5, G, D2, D3, D4
    assert values.mask[1, 0]
    assert values.mask[1, 6]
    assert (
        matrix.get_title() == "Final weights: ● 3 kept, ○ 1 above the threshold but dead or merged"
    )
    marks = {(m.get_xdata()[0], m.get_ydata()[0]): m for m in matrix.lines}
    assert set(marks) == {(4, 0), (8, 0), (5, 3), (2, 2)}
    assert marks[2, 2].get_markerfacecolor() == "none"
    assert len(curves.lines) == 30 + 1
    assert any("threshold 0.001" in text for text in texts(curves))
    assert min(curves.lines[0].get_ydata()) == pytest.approx(0.0001)


@pytest.mark.parametrize("suffix", [".svg", ".pdf", ".png"])
def test_the_same_picture_is_the_same_bytes(search: Path, suffix: str) -> None:
    found, record = load_search(search)
    first, second = (render(search_figure(found, record), suffix) for _ in range(2))
    assert first == second


def test_pictures_through_the_command_line(cli, search: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("draw", "sparsemask", "--backbone", "test_resnet")
    assert done.exit_code == 0, done.stderr
    assert "wrote sparsemask.svg" in done.stderr
    assert ElementTree.parse("sparsemask.svg").getroot().tag.endswith("svg")
    assert cli("draw", search).exit_code == 0
    assert Path("my search.svg").stat().st_size < 300_000
    assert cli("draw", search / "found.json", "-o", "deep/found.png").exit_code == 0
    with Image.open("deep/found.png") as image:
        assert min(image.size) > 600


def break_search(folder: Path, how: str) -> None:
    path = folder / "search.json"
    record: dict[str, Any] = json.loads(path.read_text())
    if how == "truncated":
        path.write_text(path.read_text()[:200])
    elif how == "missing":
        path.unlink()
    elif how == "no wiring":
        (folder / "found.json").unlink()
    else:
        change: dict[str, Any] = {
            "no key": {"final": None},
            "short row": {"final": record["final"][1:]},
            "short": {"iterations": [0, 10]},
            "other strides": {"strides": [4, 8, 16, 32, 64]},
            "impossible": {"connections": [{"stage": 2, "source": "E1"}] * 30},
        }[how]
        path.write_text(json.dumps(record | change))


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ("truncated", "search.json: not the record of a search"),
        ("missing", "search.json: not there"),
        ("no wiring", "found.json: no such connectivity file"),
        ("no key", "search.json: not the record of a search (final:"),
        ("short row", "29 weights for 30 connections"),
        ("short", "3 rows of weights for 2 iterations"),
        ("other strides", "found.json and search.json have other strides"),
        ("impossible", "D2 ← E1 cannot be with 5 features"),
    ],
)
def test_a_damaged_search_is_one_line(
    cli, search: Path, tmp_path: Path, how: str, part: str
) -> None:
    break_search(search, how)
    out = tmp_path / "out.svg"
    out.write_text("kept")
    done = cli("draw", search, "-o", out)
    assert part in line(done)
    assert done.exit_code == 2
    assert out.read_text() == "kept"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("sparsmask",), "did you mean sparsemask"),
        (("none.json",), "none.json: no such connectivity file"),
        (("sparsemask", "--backbone", "resnet1"), "unknown backbone"),
        (("sparsemask", "-o", "x.gif"), "-o x.gif: draw writes .svg, .png, .pdf"),
        (("sparsemask", "-o", "/proc/x.svg"), "choose another place with -o"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(cli, arguments: tuple[str, ...], part: str) -> None:
    done = cli("draw", *arguments)
    assert part in line(done)
    assert done.exit_code == 2


def test_a_search_keeps_its_backbone(cli, search: Path) -> None:
    done = cli("draw", search, "--backbone", "test_resnet")
    assert "--backbone" in line(done)
    assert "found.json" in line(done)
    assert done.exit_code == 2
