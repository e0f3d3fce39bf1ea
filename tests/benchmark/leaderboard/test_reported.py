import json

import pytest

from benchmark.leaderboard.boards import boards
from benchmark.leaderboard.overall import overall
from benchmark.leaderboard.reported import FILE, add_reported, reported_rows
from benchmark.report.files import as_json, markdown
from benchmark.report.latex import latex
from benchmark.report.tables import cells, header, rich_table
from datasets.base import DATASETS
from models.decoders.base import DECODERS
from tasks.base import TASKS
from tests.support import result


def measured(dataset="voc2012", columns=("miou", "macc", "aacc"), **values):
    return result(
        columns=list(columns),
        higher_is_better=dict.fromkeys(columns, True),
        metrics=dict.fromkeys(columns, 0.5),
        constant={"value": 0, "metrics": dict.fromkeys(columns, 0.1)},
        intervals={columns[0]: (0.4, 0.6)},
        options={"dataset": dataset},
        **values,
    )


def test_figures_are_as_printed():
    rows = {r.decoder: r for r in reported_rows("segmentation", "voc2012", ["miou", "macc"])}
    row = rows["sparsemask"]
    assert row.metrics == {"miou": 0.7318}
    assert row.params == {"decoder": 560_000}
    assert (row.fps, row.device, row.latency_ms) == (98, "Titan Xp", None)
    assert "Wu et al. 2019, table 1, val" in row.source
    assert {name: row.metrics["miou"] for name, row in rows.items()}["fully-dense"] == 0.7272
    (hed, sparse) = reported_rows("edges", "bsds500", ["ods", "ois", "ap", "r50"])
    assert list(hed.metrics.values()) == [0.775, 0.792, 0.826, 0.937]
    assert list(sparse.metrics.values()) == [0.775, 0.794, 0.833, 0.933]
    (*_, sparse) = reported_rows("saliency", "msra-b", ["maxf", "meanf", "mae"])
    assert sparse.metrics == {"maxf": 0.903, "mae": 0.055}
    (refinenet,) = [r for r in reported_rows("segmentation", "ade20k", ["miou", "aacc"])
                    if r.decoder == "refinenet"]  # fmt: skip
    assert refinenet.metrics == {"miou": 0.407}
    assert reported_rows("segmentation", "camvid", ["miou"]) == []
    # a table of the paper meets the data set on which the paper's protocol trains
    assert len(reported_rows("segmentation", "voc2012-aug", ["miou"])) == 7


def test_a_figure_stands_under_its_metric_whatever_the_protocol():
    (row, _) = reported_rows("edges", "bsds500", ["ods@x"])
    assert row.metrics == {"ods@x": 0.775}


def test_the_file_names_what_there_is():
    known = set(DECODERS.names()) | {"maskconnect", "segnet", "cascadenet", "refinenet", "pspnet"}
    for table in json.loads(FILE.read_text())["tables"]:
        for dataset in table["datasets"]:
            assert table["task"] in DATASETS.get(dataset).info.tasks
        columns = set(TASKS.get(table["task"]).columns)
        for row in table["rows"]:
            assert row["decoder"] in known
            assert columns & set(row)
            assert set(row) <= columns | {"decoder", "backbone", "params", "fps"}


def test_reported_rows_stand_beside_measured_ones_unranked():
    failed = result("x", status="failed", error="no", protocol="", options={"dataset": "voc2012"})
    tables = boards([measured(), measured(protocol="q", seed=1, key="2"), failed])
    before = [row.pareto for row in tables[0].measured], dict(tables[0].hypervolume)
    add_reported(tables)
    board = tables[0]
    assert [row.decoder for row in board.rows][:2] == ["fcn", "fcn"]
    assert board.rows[-1].error == "no"
    shown = [row for row in board.rows if row.source]
    assert len(shown) == 7
    assert all(row.rank is None and row.unranked == "reported" and not row.pareto for row in shown)
    assert ([row.pareto for row in board.measured], board.hypervolume) == before
    assert not any(row.source for row in tables[1].rows)  # the main board only
    assert overall(tables) == []
    for row in board.rows:
        assert len(cells(board, row)) == len(header(board))
    assert cells(board, shown[-1])[:2] == ["reported", "sparsemask"]
    assert "–+0.560+–" in cells(board, shown[-1])
    rich_table(board, 180)
    text = markdown(tables)
    assert "reported: Wu et al. 2019, table 1" in text
    assert "neither ranked nor in a front" in text
    assert "reported & sparsemask" in latex(tables)
    flags = [row["reported"] for row in json.loads(as_json(tables))["boards"][0]["rows"]]
    assert flags == [False, *[True] * 7, False]


def test_without_a_measured_board_nothing_is_reported():
    failed = result("x", status="failed", error="no", protocol="", options={"dataset": "voc2012"})
    tables = boards([failed, measured("camvid")])
    add_reported(tables)
    assert not any(row.source for board in tables for row in board.rows)


@pytest.mark.parametrize("device", ["cpu A", "gpu B"])
def test_each_devices_board_has_them(device):
    tables = boards([measured(), measured(device="gpu B")])
    add_reported(tables)
    (board,) = [b for b in tables if b.device == device]
    assert sum(row.source is not None for row in board.rows) == 7
