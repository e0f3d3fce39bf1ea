import csv
import io
import json

import pytest

from benchmark.config import RunConfig
from benchmark.leaderboard import boards
from benchmark.report.files import markdown, write_reports
from benchmark.report.tables import cells, header, rich_table
from benchmark.results import Result


def result(decoder="fcn", seed=0, value=0.5, device="cpu A", protocol="p", higher=True, **values):
    base = {
        "key": f"{decoder}{seed}",
        "status": "finished",
        "config": RunConfig(task="segmentation", dataset="camvid", decoder=decoder, seed=seed,
                            backbone="b"),
        "protocol": protocol,
        "columns": ["m", "other"],
        "higher_is_better": {"m": higher, "other": True},
        "metrics": {"m": value, "other": 0.25, "iou/Sky": 0.1},
        "intervals": {"m": (value - 0.1, value + 0.1)},
        "counts": {"images": 7},
        "constant": {"value": 1.0, "metrics": {"m": 0.125, "other": 0.2}},
        "params": {"backbone": 2_000_000, "decoder": 500_000, "head": 1_000},
        "macs": {"backbone": 10**9, "decoder": 5 * 10**8, "head": 0},
        "speed": {"median_ms": 10.0 + seed, "fps": 100.0, "session": "s"},
        "seconds": {"total": 60.0},
        "environment": {"device": device, "threads": 2},
        "command": "python cli.py run",
    }  # fmt: skip
    return Result(**{**base, **values})


def test_ranked_by_the_first_column_in_its_direction():
    rising = boards([result("a", value=0.2), result("b", value=0.4), result("c", value=0.3)])
    assert [row.decoder for row in rising[0].rows] == ["b", "c", "a"]
    falling = boards([result("a", value=0.2, higher=False), result("b", value=0.4, higher=False)])
    assert [row.decoder for row in falling[0].rows] == ["a", "b"]


def test_rows_whose_intervals_overlap_share_a_rank():
    values = {"a": 0.9, "b": 0.75, "c": 0.65, "d": 0.3}  # each ± 0.1
    (board,) = boards([result(name, value=value) for name, value in values.items()])
    assert [row.rank for row in board.rows] == [1, 1, 3, 4]


def test_seeds_become_one_row_with_mean_and_sd():
    (board,) = boards([result(seed=0, value=0.4), result(seed=1, value=0.5)])
    (row,) = board.rows
    assert row.seeds == [0, 1]
    assert row.metrics["m"] == pytest.approx(0.45)
    assert row.spread["m"] == pytest.approx(0.0707107)
    assert row.latency_ms == 10.5
    # the interval over images is not the spread over seeds: each has its column
    assert row.interval == pytest.approx((0.35, 0.55))
    assert "0.071 (2)" in cells(board, row)
    assert "± seeds" in header(board)
    assert len(cells(board, row)) == len(header(board))
    assert "± seeds" not in header(boards([result()])[0])


def test_other_settings_are_another_row():
    config = RunConfig(
        task="segmentation", dataset="camvid", decoder="fcn", seed=1, backbone="b", lr=0.5
    )
    (board,) = boards([result(), result(seed=1, config=config)])
    assert len(board.rows) == 2
    assert {row.settings for row in board.rows} == {"lr=None", "lr=0.5"}
    assert any("fcn (lr=0.5)" in cells(board, row) for row in board.rows)


def test_devices_and_protocols_never_mix():
    other_images = {"test": {"fingerprint": "cd"}, "train": {"fingerprint": "ab"}}
    amp = result().config.model_copy(update={"amp": True})
    apart = [result(), result(device="gpu B"), result(protocol="q"), result(config=amp),
             result(data=other_images)]  # fmt: skip
    assert len(boards(apart)) == 5


def test_other_training_images_are_another_row():
    data = {"train": {"fingerprint": "cd"}}
    (board,) = boards([result(), result(data=data)])
    assert [row.seeds for row in board.rows] == [[0], [0]]


def test_failed_runs_are_shown_unranked_with_their_reason():
    failed = result("broken", status="failed", error="the loss is nan", protocol="", metrics={})
    (board,) = boards([failed, result()])
    assert [(row.rank, row.decoder) for row in board.rows] == [(1, "fcn"), (None, "broken")]
    text = markdown([board])
    assert "broken on b failed: the loss is nan" in text
    rich_table(board, 120)


def test_all_failed_still_gives_a_board():
    failed = result("broken", status="failed", error="the loss is nan", protocol="", metrics={})
    assert "the loss is nan" in markdown(boards([failed]))
    rich_table(boards([failed])[0], 120)


def test_tables_agree(tmp_path):
    tables = boards([result("a", value=0.2), result("b", value=0.4)])
    paths = write_reports(tables, tmp_path)
    assert [path.name for path in paths] == [
        "leaderboard.md", "leaderboard.csv", "leaderboard.json",
    ]  # fmt: skip
    rows = json.loads(paths[2].read_text())
    table = list(csv.DictReader(io.StringIO(paths[1].read_text())))
    assert [row["decoder"] for row in rows] == [row["decoder"] for row in table] == ["b", "a"]
    assert float(table[0]["m"]) == rows[0]["m"] == 0.4
    text = paths[0].read_text()
    assert text.index("| b |") < text.index("| a |")
    assert "| best constant |" in text
    assert "0.125" in text
    for board in tables:
        for row in board.rows:
            assert len(cells(board, row)) == len(header(board))


def test_same_results_same_bytes(tmp_path):
    runs = [result("a", value=0.2), result("b", value=0.4)]
    first = [path.read_bytes() for path in write_reports(boards(runs), tmp_path / "1")]
    second = [path.read_bytes() for path in write_reports(boards(runs), tmp_path / "2")]
    assert first == second


def test_timings_of_another_session_are_marked():
    def timed(decoder, session):
        return result(decoder, speed={"median_ms": 10.0, "fps": 100.0, "session": session})

    (board,) = boards([timed("a", "s1"), timed("b", "s1"), timed("c", "s2")])
    marked = {row.decoder: "10.0*" in cells(board, row) for row in board.rows}
    assert marked == {"a": False, "b": False, "c": True}
    assert "another session" in markdown([board])
    (alike,) = boards([timed("a", "s1"), timed("b", "s1")])
    assert "another session" not in markdown([alike])


def test_backbone_is_a_column_only_where_it_differs():
    other = result("a").config.model_copy(update={"backbone": "c"})
    (board,) = boards([result("a"), result("b")])
    assert "backbone" not in header(board)
    assert "camvid, b" in markdown([board])
    (board,) = boards([result("a"), result("a", config=other)])
    assert "backbone" in header(board)
    for row in board.rows:
        assert len(cells(board, row)) == len(header(board))


@pytest.mark.parametrize("width", [100, 140])
def test_a_narrow_terminal_cuts_no_text(width):
    """Whole metric columns give way; names and numbers stay whole."""
    from rich.console import Console

    (board,) = boards([result("unet-connectivity", value=0.25), result("sparsemask", value=0.75)])
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(rich_table(board, width))
    text = console.export_text()
    assert "…" not in text
    for word in ("unet-connectivity", "sparsemask", "0.750", "0.650–0.850", "2.000+0.500+0.001"):
        assert word in text
    assert ("other" in text) == (width > 100)
