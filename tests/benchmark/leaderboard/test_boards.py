import io

import pytest

from benchmark.leaderboard.boards import boards
from benchmark.report.files import markdown
from benchmark.report.tables import cells, header, rich_table
from tests.support import result


def test_ranked_by_the_first_column_in_its_direction():
    rising = boards([result("a", value=0.2), result("b", value=0.4), result("c", value=0.3)])
    assert [row.decoder for row in rising[0].rows] == ["b", "c", "a"]
    falling = boards([result("a", value=0.2, higher=False), result("b", value=0.4, higher=False)])
    assert [row.decoder for row in falling[0].rows] == ["a", "b"]


def test_rows_whose_intervals_overlap_share_a_rank():
    values = {"a": 0.9, "b": 0.75, "c": 0.65, "d": 0.3}  # each ± 0.1
    (board,) = boards([result(name, value=value) for name, value in values.items()])
    assert [row.rank for row in board.rows] == [1, 1, 3, 4]


def test_no_better_than_a_constant_is_never_first():
    """The best constant, 0.125, takes its place: neither shares a rank across it."""
    values = {"a": 0.2, "b": 0.15, "c": 0.125, "d": 0.1}  # each ± 0.1
    (board,) = boards([result(name, value=value) for name, value in values.items()])
    assert [(row.rank, row.beats_constant) for row in board.rows] == [
        (1, True), (1, True), (4, False), (4, False)
    ]  # fmt: skip
    texts = [cells(board, row)[1] for row in board.rows]
    assert texts[1:3] == ["b", "c (no better than the best constant)"]
    assert [row["beats constant"] for row in map(type(board.rows[0]).flat, board.rows)] == [
        True, True, False, False
    ]  # fmt: skip
    (board,) = boards([result("a", value=0.1)])
    assert board.rows[0].rank == 2
    (board,) = boards([result("a", value=0.1, higher=False)])
    assert (board.rows[0].rank, board.rows[0].beats_constant) == (1, True)


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
    (board,) = boards([result(), result(seed=1, options={"lr": 0.5})])
    assert len(board.rows) == 2
    assert {row.settings for row in board.rows} == {"lr=None", "lr=0.5"}
    assert any("fcn (lr=0.5)" in cells(board, row) for row in board.rows)


def test_another_width_is_another_row():
    (board,) = boards([result("sparsemask"), result("sparsemask", 1, options={"width": 512})])
    assert {row.settings for row in board.rows} == {"", "width=512"}
    assert any("sparsemask (width=512)" in cells(board, row) for row in board.rows)


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


def test_timings_of_another_session_are_marked():
    def timed(decoder, session):
        return result(decoder, speed={"median_ms": 10.0, "fps": 100.0, "session": session})

    (board,) = boards([timed("a", "s1"), timed("b", "s1"), timed("c", "s2")])
    marked = {row.decoder: "10.0*" in cells(board, row) for row in board.rows}
    assert marked == {"a": False, "b": False, "c": True}
    assert "another session" in markdown([board])
    fronts = {row.decoder: "latency" in row.pareto for row in board.rows}
    assert fronts == {"a": True, "b": True, "c": False}
    (alike,) = boards([timed("a", "s1"), timed("b", "s1")])
    assert "another session" not in markdown([alike])


def test_disturbed_timings_are_marked_and_in_no_front():
    def timed(decoder, value, ms, share):
        speed = {"median_ms": ms, "fps": 1000 / ms, "session": "s", "disturbed": share}
        return result(decoder, value=value, speed=speed)

    runs = [timed("a", 0.4, 10.0, 0.0), timed("b", 0.6, 12.0, 0.48), timed("c", 0.5, 11.0, None)]
    (board,) = boards(runs)
    shown = {row.decoder: cells(board, row) for row in board.rows}
    assert "12.0†" in shown["b"]
    assert "†" not in str([shown["a"], shown["c"]])
    assert "† timed while other work took up to 48% of the processors" in markdown([board])
    assert {r.decoder: "latency" in r.pareto for r in board.rows} == {"a": 1, "b": 0, "c": 1}
    assert all("params" in row.pareto for row in board.rows if row.decoder == "b")
    assert {row.decoder: row.flat()["disturbed"] for row in board.rows} == {
        "a": None, "b": 0.48, "c": None,
    }  # fmt: skip
    (all_count,) = boards(runs, disturbed=True)
    assert next(r for r in all_count.rows if r.decoder == "b").pareto[0] == "latency"
    text = markdown([all_count])
    assert "12.0†" in text  # the mark stays
    assert "48% of the processors: time it again" in text
    (quiet,) = boards([runs[0], runs[2]])
    assert "†" not in markdown([quiet])
    (seeds,) = boards([runs[0], result("a", 1, speed=runs[1].speed)])
    assert seeds.rows[0].disturbed == 0.48  # one of its timings is enough


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


def priced(decoder, value, ms, params, session="s", **values):
    return result(
        decoder,
        value=value,
        speed={"median_ms": ms, "fps": 1000 / ms, "session": session, **values},
        params={"backbone": params, "decoder": 0, "head": 0},
    )


def test_fronts_and_hypervolume_by_hand():
    runs = [priced("a", 0.625, 8, 30), priced("b", 0.375, 4, 40), priced("c", 0.25, 6, 20)]
    (board,) = boards(runs)
    fronts = {row.decoder: row.pareto for row in board.rows}
    # c is slower than b and worse; b has more parameters than a and is worse; MACs are all alike
    assert fronts == {"a": ["latency", "params", "macs"], "b": ["latency"], "c": ["params"]}
    # box: 0.125 (constant) to 0.625, 0 to 8 ms; b holds 0.25 of 0.5 over 4 of 8 ms, a nothing
    assert board.hypervolume["latency"] == pytest.approx(0.25)
    # params: c 0.125 of 0.5 over 20 of 40, a 0.375 of 0.5 over 10 of 40
    assert board.hypervolume["params"] == pytest.approx(0.125 + 0.1875)
    assert "memory" not in board.hypervolume
    assert boards(runs[:1])[0].hypervolume == {}
    assert "Hypervolume of the fronts: ms 0.250, params 0.312" in markdown([board])
    for row in board.rows:
        assert len(cells(board, row)) == len(header(board))


def test_fronts_follow_the_direction_of_the_metric():
    runs = [result(name, value=value, higher=False) for name, value in (("a", 0.2), ("b", 0.4))]
    (board,) = boards(runs)
    assert {row.decoder: row.pareto != [] for row in board.rows} == {"a": True, "b": False}


def test_memory_is_a_column_where_it_was_measured():
    (board,) = boards([priced("a", 0.5, 1, 1, peak_memory_mb=12.5), priced("b", 0.4, 2, 1)])
    assert [row.memory_mb for row in board.rows] == [12.5, None]
    assert board.rows[0].pareto == ["latency", "params", "macs", "memory"]
    assert "12.5" in cells(board, board.rows[0])
    assert "MB" in header(board)
    assert "MB" not in header(boards([result()])[0])
    for row in board.rows:
        assert len(cells(board, row)) == len(header(board))


def test_the_protocol_of_most_rows_comes_first_and_is_the_main_one():
    runs = [result("a", protocol="a"), result("a", protocol="z"), result("b", protocol="z")]
    first, second = boards(runs)
    assert (first.protocol[0], first.main) == ("z", True)
    assert (second.protocol[0], second.main) == ("a", False)
    assert "never ranked together" in markdown([first, second])
    other = boards([*runs, result("a", protocol="a", device="gpu B")])
    assert [board.main for board in other] == [True, False, True]


def test_failed_runs_stay_on_their_device():
    failed = result("broken", status="failed", error="no", protocol="", metrics={}, device="gpu B")
    here, there = boards([result(), result(device="gpu B"), failed])
    assert [row.decoder for row in here.rows] == ["fcn"]
    assert [(row.decoder, row.unranked) for row in there.rows] == [
        ("fcn", None), ("broken", "failed")
    ]  # fmt: skip
    assert len(boards([result(), failed])) == 2
    failed.environment["device"], failed.environment["threads"] = "cpu A", 8
    assert len(boards([result(), failed])) == 2


def test_failed_runs_stand_with_those_of_their_size():
    small = {"image_size": (32, 32)}
    failed = result("broken", status="failed", error="no", protocol="", metrics={}, options=small)
    runs = [result("a"), result("b"), result("a", protocol="q", options=small), failed]
    first, second = boards(runs)
    assert [row.decoder for row in first.rows] == ["a", "b"]
    assert [row.decoder for row in second.rows] == ["a", "broken"]


def test_a_folder_of_ones_own_is_named_where_it_says_more():
    def title(dataset, data):
        (board,) = boards([result(options={"dataset": dataset, "data": data})])
        return board.title

    assert title("image-masks", "/x/davis_foreground") == (
        "segmentation on image-masks (davis_foreground)"
    )
    assert title("image-masks", "/x/davis.h5") == "segmentation on image-masks (davis)"
    assert title("seven-scenes", "/x/seven_scenes") == "segmentation on seven-scenes"
    assert title("camvid", "/x/other") == "segmentation on camvid"


def test_the_same_seed_twice_is_told_and_counted_once():
    twice = [result(key="1"), result(key="2", value=0.9, options={"data": "elsewhere"})]
    with pytest.warns(UserWarning, match="2: left out: the same run as 1"):
        (board,) = boards(twice)
    assert board.rows[0].seeds == [0]
    assert board.rows[0].metrics["m"] == 0.5


def test_the_order_of_reading_changes_nothing():
    runs = [result("a", seed=s, value=0.1 * s + 0.3) for s in range(3)]
    runs += [result("b", value=0.4), result("c", value=0.4), result("a", protocol="q")]
    runs.append(result("x", status="failed", error="no", protocol="", metrics={}))
    assert markdown(boards(runs)) == markdown(boards(reversed(runs)))


def test_one_wiring_under_two_paths_is_one_row():
    wiring = {"strides": [2], "stages": {"1": ["E1"]}}
    runs = [
        result(
            seed=seed, options={"decoder": f"connectivity:{folder}/found.json", "wiring": wiring}
        )
        for seed, folder in enumerate("ab")
    ]
    (board,) = boards(runs)
    assert [(row.label, row.seeds) for row in board.rows] == [("found", [0, 1])]


def test_a_result_of_a_version_with_fewer_metrics():
    old = result("old", columns=["m"], higher_is_better={"m": True}, metrics={"m": 0.9}, seed=0)
    (board,) = boards([old, result("new", seed=1)])
    assert board.columns == ["m", "other"]
    assert [row.metrics for row in board.rows] == [{"m": 0.9}, {"m": 0.5, "other": 0.25}]
    for row in board.rows:
        assert len(cells(board, row)) == len(header(board))
    assert "0.900" in markdown([board])


def test_a_terminal_shows_the_first_rows_of_a_long_board():
    (board,) = boards([result(f"d{n}", value=n / 1000) for n in range(250)])
    table = rich_table(board, 120)
    assert table.row_count == 200
    assert "51 more rows: leaderboard.csv" in str(table.caption)
    assert list(table.columns[1].cells)[-1] == "best constant"
