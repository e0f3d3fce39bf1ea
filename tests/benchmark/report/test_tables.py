"""Texts around the tables of a terminal: sentences end, units stand apart, reasons come once."""

import csv
from types import SimpleNamespace

from rich.console import Console

from benchmark.leaderboard.boards import boards
from benchmark.report.comparison import comparison_lines
from benchmark.report.files import as_csv, as_json, markdown
from benchmark.report.latex import latex
from benchmark.report.page.page import page
from benchmark.report.tables import header, notes, rich_table, table_rows
from benchmark.results.records import Results
from benchmark.speed.report import WHICH, speed_tables
from tests.page.page_data import failed, result


def shown(tables):
    console = Console(width=140)
    with console.capture() as out:
        for table in tables:
            console.print(table)
    return " ".join(out.get().split())


def speed_row(backbone="b", decoder="fcn", batch=1, **values):
    base = {"backbone": backbone, "decoder": decoder, "image_size": [32, 32], "batch": batch,
            "latency": None, "macs_exclude": "x", "error": None}  # fmt: skip
    return base | {"params": None, "macs": None} | values


def test_a_reason_ends_its_sentence():
    for reason, end in (("try it", "try it."), ("try it.", "try it.")):
        (board,) = boards([result("a"), failed(error=reason)])
        assert notes(board)[-1] == f"encnet on test_resnet failed: {end}"


def test_a_network_that_is_deployed_smaller_costs_what_is_deployed():
    other = result("a", deployed={"params": 1_054_000, "macs": 274_000_000}, bootstrap="weighted")
    (board,) = boards([other, result("b", bootstrap="weighted")])
    by_name = {row.decoder: row for row in board.rows}
    assert by_name["a"].cost("params") == 1_054_000
    assert by_name["a"].cost("macs") == 274_000_000
    assert by_name["b"].cost("params") == sum(by_name["b"].params.values())
    assert notes(board)[1:] == [
        "a on test_resnet is timed and exported re-parameterised: 1.054 M parameters, 0.274 GMACs, "
        "which count in the fronts."
    ]
    row = speed_row("m", deployed={"params": 1_054_000, "macs": 274_000_000})
    text = "m at 32x32 is timed and exported re-parameterised: 1.054 M parameters, 0.274 GMACs."
    assert text in shown(speed_tables([row, speed_row("n", deployed={})]))
    latency = {"device": "d", "threads": 1, "memory_format": "m", "fused": False, "compiled": False,
               "amp": False, "session": "s", "median_ms": 2.0, "batch": 1, "p5_ms": 2.0,
               "p95_ms": 2.0, "iqr_ms": 0.1, "fps": 500.0}  # fmt: skip
    row |= {"latency": latency, "postprocessing_ms": 0.1, "first_call_s": None}
    assert text.replace("timed and exported", "exported, not timed,") in shown(speed_tables([row]))


NECK = "neck: M params / GMACs / ms"


def test_a_neck_has_a_column_where_a_row_has_one():
    plain = result("a")
    params = plain.params | {"neck": 2_427_024}
    macs = plain.macs | {"neck": 202_833_920}
    learned = result("b", params=params, macs=macs, speed=plain.speed | {"neck_ms": 13.83})
    untimed = result("c", params=params, macs=macs)
    (board,) = boards([plain, learned, untimed])
    found = dict(zip(header(board), zip(*table_rows(board), strict=True), strict=True))
    cells = dict(zip(found["decoder"], found[NECK], strict=True))
    shown_neck = "2.427 / 0.203 / "
    assert cells == {"a": "–", "b": f"{shown_neck}13.8", "c": f"{shown_neck}–",
                     "best constant": ""}  # fmt: skip
    by_name = {row.decoder: row for row in board.rows}
    assert by_name["b"].cost("params") == by_name["a"].cost("params") + 2_427_024
    assert by_name["b"].cost("macs") == by_name["a"].cost("macs") + 202_833_920
    (line_b,) = (row for row in csv.DictReader(as_csv([board]).splitlines()) if row["label"] == "b")
    assert [line_b[name] for name in ("params neck", "neck macs", "neck ms")] == [
        "2427024", "202833920", "13.83",
    ]  # fmt: skip
    assert "of a backbone's learned neck alone" in markdown([board])
    assert "GMACs of its neck" in page([board], [])
    (before,) = boards([plain])
    texts = (markdown([before]), latex([before]), as_csv([before]), as_json([before]))
    assert not any("neck" in text for text in texts)
    assert "of its neck" not in page([before], [])


def test_a_neck_is_in_records():
    params, macs = {"backbone": 1, "neck": 20, "decoder": 300}, {"backbone": 4, "neck": 50}
    speed = {"median_ms": 2.0, "fps": 500.0, "session": "s", "neck_ms": 0.5}
    learned, plain = Results(
        [result("b", params=params, macs=macs, speed=speed), result("a")]
    ).to_records()
    assert (learned["params"], learned["params_neck"], learned["macs"]) == (321, 20, 54)
    assert (learned["macs_neck"], learned["neck_ms"]) == (50, 0.5)
    assert not any("neck" in name for name in plain)


def test_an_impossible_backbone_is_named_once():
    rows = [speed_row("vit", d, n, error="no strides") for d in ("fcn", "hed") for n in (1, 4)]
    rows += [speed_row("b", "fcn"), speed_row("b", "hed", error="no strides")]
    assert "vit with every decoder, b + hed failed: no strides" in shown(speed_tables(rows))
    rows = [speed_row("vit", "fcn", error="no strides"), speed_row("vit", "hed", error="other")]
    text = shown(speed_tables(rows))
    assert "vit + fcn failed: no strides" in text
    assert "vit + hed failed: other" in text


def test_which_of_several_times_to_believe():
    latency = {"device": "d", "threads": 1, "memory_format": "m", "fused": True, "compiled": False,
               "amp": False, "session": "s", "median_ms": 2.0, "batch": 1, "p5_ms": 2.0,
               "p95_ms": 2.0, "iqr_ms": 0.1, "fps": 500.0}  # fmt: skip
    profile = {"peaks": {"flops_per_s": 1e9, "dtype": "fp32", "bytes_per_s": 1e9}, "sum_ms": 2.0,
               "whole_ms": 2.0, "parts": []}  # fmt: skip
    isolated = {"processes": 2, "min_ms": 1.0, "median_ms": 1.0, "max_ms": 1.0}
    timed = {"latency": latency, "postprocessing_ms": 0.1, "first_call_s": None}
    alone = timed | {"isolated": isolated, "isolated_error": None}
    both = [speed_row(decoder=name, **alone, profile=profile) for name in ("fcn", "hed")]
    assert shown(speed_tables(both)).count(WHICH) == 1
    assert shown(speed_tables(both)).endswith(WHICH)
    assert WHICH not in shown(speed_tables([speed_row(**timed, profile=profile)]))
    assert WHICH not in shown(speed_tables([speed_row(**alone)]))


SLOW = {"median_ms": 2512.0, "fps": 0.398, "session": "s"}


def test_a_slow_network_has_a_rate_wherever_it_is_shown():
    slow, fast = (
        result("a", speed=SLOW),
        result("b", speed=SLOW | {"median_ms": 0.042, "fps": 23810}),
    )
    (board,) = boards([slow, fast])
    texts = {
        "terminal": shown([rich_table(board, 140)]),
        "Markdown": markdown([board]),
        "LaTeX": latex([board]),
        "page": page([board], []),
        "CSV": as_csv([board]),
    }
    for where, text in texts.items():
        assert "0.40" in text or "0.398" in text, where
        assert "0.042" in text, where  # milliseconds
        assert "23810" in text, where


def test_speed_shows_slow_and_fast_networks():
    latency = {"device": "d", "threads": 1, "memory_format": "m", "fused": True, "compiled": False,
               "amp": False, "session": "s", "median_ms": 31250.0, "batch": 1, "p5_ms": 31000.0,
               "p95_ms": 32000.0, "iqr_ms": 0.012, "fps": 0.032}  # fmt: skip
    row = speed_row(latency=latency, postprocessing_ms=0.0034, first_call_s=None)
    text = shown(speed_tables([row]))
    assert "31250.0 1.00 31000.0–32000.0 0.012 0.032 0.0034" in text
    several = [row, speed_row(batch=4, **{k: row[k] for k in ("latency", "postprocessing_ms")},
                              first_call_s=None)]  # fmt: skip
    assert "0.032 0.032 (1)" in shown(speed_tables(several))


def test_a_space_before_the_unit():
    costs = {"params": (2_784_000, 2_225_000), "macs": (5e9, 4e9), "latency_ms": (3, 2)}
    row = SimpleNamespace(name="a", title="t", costs=costs, changes={}, notes=[])
    report = SimpleNamespace(rows=[row], failed=[], only_a=[], only_b=[])
    assert list(comparison_lines(report))[1] == (
        "a, t: parameters 2.784 → 2.225 M (×0.80), MACs 5.000 → 4.000 G (×0.80), "
        "latency 3.0 → 2.0 ms (×0.67)"
    )


def test_intervals_of_an_earlier_version_are_named():
    new, old = result("a", bootstrap="weighted"), result("b")

    def said(*runs):
        return [text for text in notes(boards(runs)[0]) if "earlier version" in text]

    what = "are of an earlier version: of images drawn with replacement."
    assert said(new) == []
    assert said(new, old) == [f"Intervals of 1 rows {what}"]
    assert said(old) == [f"Intervals {what}"]
