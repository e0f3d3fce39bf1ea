"""Files of a leaderboard, `report` and what it makes of bad results and filters."""

import csv
import io
import json

import pytest
from jsonschema import Draft202012Validator

from benchmark.leaderboard.boards import boards
from benchmark.leaderboard.overall import overall
from benchmark.leaderboard.reported import add_reported
from benchmark.leaderboard.runtimes import with_runtimes
from benchmark.report.files import (
    BEGIN,
    END,
    as_json,
    markdown,
    update_between_markers,
    write_reports,
)
from benchmark.report.latex import escape, latex
from benchmark.results.layout import FILE
from benchmark.results.store import save
from common.errors import UsageError
from tests.benchmark.leaderboard.test_runtimes import shipped
from tests.support import ROOT, line, result

FILES = ["leaderboard.md", "leaderboard.csv", "leaderboard.json", "leaderboard.tex", "overall.csv"]


def two_boards():
    return [
        result(
            name,
            value=value,
            protocol=dataset,
            key=f"{name}-{dataset}",
            options={"dataset": dataset},
        )
        for dataset in ("camvid", "scenes")
        for name, value in (("fcn", 0.25), ("b", 0.5))
    ]


def test_tables_agree(tmp_path):
    tables = boards(two_boards())
    paths = write_reports(tables, tmp_path, overall(tables))
    assert [path.name for path in paths] == FILES
    content = json.loads(paths[2].read_text())
    assert content["format"] == 1
    rows = [row for board in content["boards"] for row in board["rows"]]
    table = list(csv.DictReader(io.StringIO(paths[1].read_text())))
    names = [row["decoder"] for row in rows]
    assert names == [row["decoder"] for row in table] == ["b", "fcn", "b", "fcn"]
    assert float(table[0]["m"]) == rows[0]["m"] == 0.5
    assert rows[0]["pareto"] == table[0]["pareto"] == "latency params macs"
    assert content["boards"][0]["main"] is True
    text = paths[0].read_text()
    assert text.index("| b |") < text.index("| fcn |")
    assert "| best constant |" in text
    assert "0.125" in text
    across = list(csv.DictReader(io.StringIO(paths[4].read_text())))
    (found,) = content["overall"]
    assert (
        [row["label"] for row in across] == [row["label"] for row in found["rows"]] == ["b", "fcn"]
    )
    assert float(across[0]["delta m %"]) == found["rows"][0]["delta_m"] == 100
    assert "All tasks" in text


def test_same_results_same_bytes(tmp_path):
    first, second = boards(two_boards()), boards(two_boards()[::-1])
    one = [path.read_bytes() for path in write_reports(first, tmp_path / "1", overall(first))]
    two = [path.read_bytes() for path in write_reports(second, tmp_path / "2", overall(second))]
    assert one == two


def test_markdown_stays_a_table_whatever_names_hold():
    odd = result("a|b", status="failed", error="x <!-- leaderboard:end -->\ny", protocol="")
    text = markdown(boards([odd, result("c|d")]))
    assert "c\\|d" in text
    assert END not in text
    assert "x &lt;!-- leaderboard:end --> y" in text


def test_latex_is_escaped():
    assert escape("a_b & 50 % #1 {x} $ ~ ^ \\") == (
        r"a\_b \& 50 \% \#1 \{x\} \$ \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )
    assert escape("δ1 ↑ 1–2 ±") == r"$\delta$1 $\uparrow$ 1--2 $\pm$"


def test_latex_tables_are_whole():
    tables = boards(
        [*two_boards(), result("a_b", status="failed", error="50 % of\n{x", protocol="")]
    )
    text = latex(tables, overall(tables))
    assert text.isascii()
    for part in ("table", "tabular"):
        assert text.count(f"\\begin{{{part}}}") == text.count(f"\\end{{{part}}}") == 3
    for rule in ("\\toprule", "\\midrule", "\\bottomrule"):
        assert text.count(rule) == 3
    assert r"a\_b on b failed: 50 \% of \{x" in text
    plain = text.replace("\\{", "").replace("\\}", "")
    assert plain.count("{") == plain.count("}")
    for block in text.split("\\begin{tabular}")[1:]:
        columns = len(block[1 : block.index("}")])
        rows = [
            row for row in block.split("\\end{tabular}")[0].splitlines() if row.endswith("\\\\")
        ]
        assert len(rows) >= 3
        assert {row.replace("\\&", "").count("&") for row in rows} == {columns - 1}


def test_update_replaces_what_stands_between_the_markers_only(tmp_path):
    path = tmp_path / "README.md"
    before, after = "# Mine\r\n\r\ntext\r\n", "\r\nmore  \r\n"
    path.write_bytes(f"{before}{BEGIN}old{END}{after}".encode())
    update_between_markers(path, "a\n\nb\n")
    assert path.read_bytes().decode() == f"{before}{BEGIN}\r\n\r\na\r\n\r\nb\r\n\r\n{END}{after}"
    once = path.read_bytes()
    update_between_markers(path, "a\n\nb\n")
    assert path.read_bytes() == once


def test_update_goes_through_a_link(tmp_path):
    path, link = tmp_path / "README.md", tmp_path / "link.md"
    path.write_text(f"{BEGIN}{END}")
    link.symlink_to(path)
    update_between_markers(link, "new")
    assert link.is_symlink()
    assert "new" in path.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "leaderboard:begin --> is not in it"),
        (BEGIN, "leaderboard:end --> is not in it"),
        (f"{BEGIN}{END}{BEGIN}", "leaderboard:begin --> is in it 2 times"),
        (f"{BEGIN}{END}{END}", "leaderboard:end --> is in it 2 times"),
        (f"{END}{BEGIN}", "end --> stands before"),
    ],
)
def test_update_of_a_file_without_its_markers(tmp_path, text, message):
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        update_between_markers(path, "new")
    assert path.read_text() == text


def test_update_of_no_text_file(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        update_between_markers(tmp_path / "none.md", "new")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not a readable text file"):
        update_between_markers(tmp_path / "binary", "new")
    with pytest.raises(UsageError, match="not a readable text file"):
        update_between_markers(tmp_path, "new")


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "runs"
    for run in two_boards():
        save(folder / f"run_{run.key}", run)
    return folder


def test_report_writes_all_files(cli, results, tmp_path):
    done = cli("report", "--results", results, "--output", tmp_path / "out")
    assert done.exit_code == 0
    assert "All tasks" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    assert sorted(path.name for path in results.iterdir()) == sorted(
        f"run_{run.key}" for run in two_boards()
    )


def test_report_updates_a_file_and_writes_no_other(cli, results, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"# Mine\n{BEGIN}\n{END}\nend\n")
    done = cli("report", "--results", results, "--update", path)
    assert done.exit_code == 0
    text = path.read_text()
    assert "### segmentation on camvid" in text
    assert text.startswith("# Mine\n")
    assert text.endswith(f"{END}\nend\n")
    assert not (results / "leaderboard.md").exists()
    path.write_text("# Mine\n")
    done = cli("report", "--results", results, "--update", path)
    assert done.exit_code == 2
    assert "leaderboard:begin --> is not in it" in line(done)


def test_report_filters(cli, results):
    def shown(*options):
        assert cli("report", "--results", results, *options).exit_code == 0
        found = json.loads((results / "leaderboard.json").read_text())["boards"]
        return [(b["dataset"], row["label"]) for b in found for row in b["rows"]]

    assert shown("--dataset", "camvid") == [("camvid", "b"), ("camvid", "fcn")]
    assert shown("--decoder", "F*") == [("camvid", "fcn"), ("scenes", "fcn")]
    assert len(shown("--decoder", "fcn", "--decoder", "b")) == 4
    assert len(shown("--device", "CPU", "--task", "segmentation", "--backbone", "b")) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--decoder", "unet"), "--decoder unet: no result: there are b, fcn"),
        (("--task", "depth"), "--task depth: no result: there are segmentation"),
        (("--dataset", "camvid", "--device", "gpu"), "--device gpu: no result: there are cpu A"),
        (("--baseline", "unet"), "--baseline unet: those with a score in every board are b on b"),
    ],
)
def test_no_row_for_a_filter_says_what_there_is(cli, results, options, message):
    done = cli("report", "--results", results, *options)
    assert done.exit_code == 2
    assert message in line(done)


def test_one_task_of_a_network_of_several(cli, tmp_path):
    fields = {"protocol", "columns", "higher_is_better", "metrics", "constant"}
    scores = {
        name: result(protocol=name).model_dump(include=fields) for name in ("segmentation", "depth")
    }
    joint = result(options={"task": "segmentation+depth", "dataset": "scenes"}, tasks=scores)
    save(tmp_path / "one", joint)
    assert cli("report", "--results", tmp_path, "--task", "depth").exit_code == 0
    (board,) = json.loads((tmp_path / "leaderboard.json").read_text())["boards"]
    assert board["task"] == "depth"


def damaged():
    good = result(key="x").model_dump(mode="json")
    lacking = {**good, "metrics": {}}
    return {
        "half": (json.dumps(good)[:200], "no whole JSON"),
        "binary": (b"\xff\xfe\x00", "no whole JSON"),
        "empty": ("", "no whole JSON"),
        "list": ("[1, 2]", "JSON, but not the result of a run"),
        "foreign": ('{"format": 1, "name": "package"}', "JSON, but not the result of a run"),
        "old": (json.dumps({**good, "format": 0}), "format 0, this version reads 1"),
        "new": (json.dumps({**good, "format": 2, "more": 1}), "format 2, this version reads 1"),
        "field": (json.dumps({**good, "params": "many"}), "params: expected KEY: VALUE pairs"),
        "lacking": (json.dumps(lacking), "metrics: no m"),
        "place": (json.dumps({**good, "environment": {}}), "environment: no device"),
        "untimed": (json.dumps({**good, "speed": {"fps": 1}}), "speed: no median_ms"),
        "seconds": (json.dumps({**good, "seconds": {}}), "seconds: no total"),
        "none": (json.dumps({**good, "columns": []}), "no scores of segmentation"),
    }


@pytest.mark.parametrize("kind", damaged())
def test_a_bad_result_is_left_out_in_one_line(cli, results, kind):
    content, message = damaged()[kind]
    folder = results / "bad"
    folder.mkdir()
    path = folder / FILE
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = cli("report", "--results", results)
    assert done.exit_code == 0
    told = [text for text in done.stderr.splitlines() if "warning" in text]
    assert len(told) == 1
    assert f"{path}: left out: {message}" in told[0]
    assert "results: 4 read, 1 left out" in done.stderr
    path.unlink()
    assert "left out" not in cli("report", "--results", results).stderr


def test_only_bad_results(cli, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / FILE).write_text("{")
    done = cli("report", "--results", tmp_path)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path}: no result in it")


@pytest.mark.parametrize(
    ("value", "how"), [(0.5, "the same as"), (0.75, "another result of the run in")]
)
def test_of_two_folders_of_one_run_the_one_named_by_its_key_is_kept(cli, tmp_path, value, how):
    save(tmp_path / "a_copy", result(key="0123456789", value=value))
    save(tmp_path / "run_0123456789", result(key="0123456789", value=0.5))
    done = cli("report", "--results", tmp_path)
    assert done.exit_code == 0
    kept, other = tmp_path / "run_0123456789", tmp_path / "a_copy"
    assert f"warning: {other}: left out: {how} {kept}" in done.stderr
    (board,) = json.loads((tmp_path / "leaderboard.json").read_text())["boards"]
    assert [row["m"] for row in board["rows"]] == [0.5]


SCHEMA = json.loads((ROOT / "docs" / "leaderboard.schema.json").read_text())


@pytest.mark.parametrize("across", [False, True])
def test_the_json_follows_its_schema(across):
    """Every kind of row: of seeds, failed, reported, shipped, with a neck, deployed smaller."""
    neck = {"params": {"backbone": 3, "neck": 1, "decoder": 2, "head": 1},
            "macs": {"backbone": 9, "neck": 2, "decoder": 1, "head": 1}}  # fmt: skip
    runs = [
        shipped("a", 0.6, 12), result("b", seed=0), result("b", seed=1), result("n", **neck),
        result("d", deployed={"params": 5, "macs": 7}), result("w", value=0.01),
        result("e", status="failed", error="no memory", metrics={}, intervals={}, speed=None),
        result("a", options={"dataset": "voc2012"}, data={"test": {"fingerprint": "ab"}}),
        result("b", options={"dataset": "voc2012"}, data={"test": {"fingerprint": "ab"}}),
    ]  # fmt: skip
    tables = [with_runtimes(board) for board in boards(runs)]
    add_reported(tables)
    content = json.loads(as_json(tables, overall(boards(runs)) if across else []))
    Draft202012Validator.check_schema(SCHEMA)
    validator = Draft202012Validator(SCHEMA)
    assert [error.message for error in validator.iter_errors(content)] == []
    assert bool(content["overall"]) == across
    content["boards"][0]["rows"][0]["latency ms"] = "12"
    content["boards"][0]["rows"][1]["rank"] = 0
    del content["boards"][0]["columns"]
    assert len([*validator.iter_errors(content)]) == 3


def test_every_key_of_a_row_is_described():
    """A key that the schema does not know would only be checked as a metric."""
    (board,) = boards([result("a")])
    metrics = {key for name in ("m", "other") for key in (name, f"{name} sd over seeds")}
    own = set(board.rows[0].flat()) - metrics
    described = SCHEMA["$defs"]["row"]["properties"]
    assert {key for key in own if not key.startswith("params ")} == set(described)


def test_rows_in_the_columns_of_timms_results(tmp_path, cli):
    runs = [shipped("a", 0.6, 12.5, options={"image_size": (64, 64)}), result("u", speed=None)]
    for place, run in enumerate(runs):
        save(tmp_path / str(place), run)
    done = cli("report", "--results", tmp_path, "--output", tmp_path, "--format", "benchmark-csv")
    assert done.exit_code == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "benchmark.csv").open()))
    assert len(rows) == 3  # without what was not timed
    eager = next(row for row in rows if row["runtime"] == "eager")
    shown = {name: eager[name] for name in list(eager)[:7]}
    assert shown == {
        "model": "b.a", "infer_samples_per_sec": "80.0", "infer_step_time": "12.5",
        "infer_batch_size": "1", "infer_img_size": "64", "infer_gmacs": "1.5",
        "param_count": "2.5",
    }  # fmt: skip
    assert (eager["metric"], eager["m"], eager["task"]) == ("m", "0.6", "segmentation")
