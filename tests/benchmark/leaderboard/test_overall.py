import pytest

from benchmark.leaderboard.boards import boards
from benchmark.leaderboard.overall import overall
from benchmark.report.tables import overall_cells, overall_header, overall_notes, rich_overall
from common.errors import UsageError
from tests.support import result

WIRINGS = {"camvid": ["E1"], "scenes": ["G"]}


def run(decoder, dataset, value, higher=True, **options):
    return result(
        decoder,
        value=value,
        higher=higher,
        protocol=dataset,
        options={"dataset": dataset, **options},
    )


def both(decoder, camvid, scenes, **options):
    """Scores on a rising and on a falling metric."""
    return [
        run(decoder, "camvid", camvid, **options),
        run(decoder, "scenes", scenes, False, **options),
    ]


def found(name, dataset, value, higher=True):
    wiring = {"strides": [2], "stages": {"1": WIRINGS[name.partition("-")[2]]}}
    return run(f"connectivity:folder/{name}.json", dataset, value, higher, wiring=wiring)


RUNS = [*both("fcn", 0.5, 0.4), *both("a", 0.6, 0.3), *both("b", 0.7, 0.5)]


def test_gain_and_mean_rank_by_hand():
    (table,) = overall(boards(RUNS))
    assert table.baseline == "fcn on b"
    assert table.boards == ["segmentation on camvid", "segmentation on scenes"]
    rows = {row.label: (row.rank, row.mean_rank, row.delta_m) for row in table.rows}
    assert rows["a"] == (1, 1.5, pytest.approx(100 * (0.1 / 0.5 + 0.1 / 0.4) / 2))
    assert rows["b"] == (2, 2.0, pytest.approx(100 * (0.2 / 0.5 - 0.1 / 0.4) / 2))
    assert rows["fcn"] == (3, 2.5, 0)
    assert [row.label for row in table.rows] == ["a", "b", "fcn"]


def test_equal_scores_share_the_mean_of_their_places():
    (table,) = overall(boards([*both("fcn", 0.5, 0.4), *both("a", 0.5, 0.5), *both("b", 0.4, 0.3)]))
    rows = {row.label: row.mean_rank for row in table.rows}
    assert rows == {"fcn": 1.75, "a": 2.25, "b": 2}


def test_incomplete_rows_are_unranked_and_say_what_they_lack():
    (table,) = overall(boards([*RUNS, run("c", "camvid", 0.9)]))
    last = table.rows[-1]
    assert (last.label, last.rank, last.mean_rank, last.delta_m) == ("c", None, None, None)
    assert last.missing == ["segmentation on scenes"]
    assert {row.label: row.mean_rank for row in table.rows}["a"] == 1.5  # c takes nobody's place
    assert "No score of c in: segmentation on scenes." in overall_notes(table)
    assert len(overall_cells(table, last)) == len(overall_header(table))
    rich_overall(table)


def test_the_baseline_can_be_named():
    tables = boards([*RUNS, run("c", "camvid", 0.9)])
    (table,) = overall(tables, "b")
    assert table.baseline == "b on b"
    assert {row.label: row.delta_m for row in table.rows}["b"] == 0
    assert overall(tables, "a on b")[0].baseline == "a on b"
    with pytest.raises(UsageError, match="--baseline c: those with a score in every board are"):
        overall(tables, "c")
    with pytest.raises(UsageError, match="--baseline fcn: no device has several boards"):
        overall(boards(RUNS[::2]), "fcn")


def test_without_fcn_the_first_complete_row_is_the_baseline():
    (table,) = overall(boards([*both("b", 0.5, 0.4), *both("a", 0.6, 0.3), RUNS[0]]))
    assert table.baseline == "a on b"
    none = [run("a", "camvid", 0.5), run("b", "scenes", 0.4, False)]
    assert overall(boards(none))[0].baseline == ""


def test_devices_and_other_protocols_are_apart():
    there = [r.model_copy(update={"environment": {"device": "gpu", "threads": 2}}) for r in RUNS]
    tables = overall(boards([*RUNS, *there]))
    assert [table.title for table in tables] == ["cpu A, 2 threads", "gpu, 2 threads"]
    other = RUNS[0].model_copy(update={"protocol": "other"})
    assert overall(boards([*RUNS[:4], other]))[0].boards == tables[0].boards
    assert overall(boards(RUNS[::2])) == []  # one board needs no table across boards


def test_another_backbone_is_another_row():
    runs = [*RUNS, *both("fcn", 0.8, 0.2, backbone="c")]
    (table,) = overall(boards(runs))
    assert {(row.label, row.backbone) for row in table.rows if row.label == "fcn"} == {
        ("fcn", "b"), ("fcn", "c")
    }  # fmt: skip
    assert overall(boards(runs), "fcn on c")[0].baseline == "fcn on c"


def test_a_wiring_for_each_data_set_is_one_row():
    runs = [
        *RUNS,
        found("found-camvid", "camvid", 0.55),
        found("found-scenes", "scenes", 0.45, False),
    ]
    (table,) = overall(boards(runs))
    labels = {row.label: row for row in table.rows}
    assert "found-camvid" not in labels
    assert list(labels["found-*"].scores.values()) == [0.55, 0.45]
    assert labels["found-*"].rank is not None
    assert any(note.startswith("found-*: of each board") for note in overall_notes(table))


def test_of_several_wirings_the_data_sets_own_stands_for_the_family():
    here = [found("found-camvid", "camvid", 0.55), found("found-scenes", "camvid", 0.9)]
    there = [found("found-camvid", "scenes", 0.2, False),
             found("found-scenes", "scenes", 0.45, False)]  # fmt: skip
    (table,) = overall(boards([*RUNS, *here, *there]))
    rows = {row.label: list(row.scores.values()) for row in table.rows}
    assert rows["found-*"] == [0.55, 0.45]
    assert rows["found-camvid"] == [0.55, 0.2]  # complete alone: a row of its own besides
    # names that say nothing of the data set: unclear, no common row
    runs = [r.model_copy(update={"config": r.config.model_copy(update={
        "decoder": r.config.decoder.replace("camvid", "one").replace("scenes", "two")})})
        for r in (*here, *there)]  # fmt: skip
    (table,) = overall(boards([*RUNS, *runs]))
    assert "found-*" not in {row.label for row in table.rows}
