"""Very many results: what is kept of each, what is shown, what is not done again and again."""

import io
import subprocess
import sys
import warnings

import pytest
from rich.console import Console

from benchmark.experiment.plan import planned, run_key
from benchmark.leaderboard.boards import boards
from benchmark.leaderboard.overall import overall
from benchmark.leaderboard.rows import Overall, OverallRow
from benchmark.report.files import as_csv, as_json, markdown
from benchmark.report.latex import latex
from benchmark.report.page.page import page, share_of
from benchmark.report.tables import MOST_ROWS, rich_overall
from benchmark.results.layout import FILE
from benchmark.results.light import Lightener
from benchmark.results.store import collect, each, save
from benchmark.run.runner import Runner
from benchmark.sweep.estimate import Estimate
from benchmark.sweep.execute import Work, settled
from benchmark.sweep.report import plan_table
from tests.benchmark.sweep.test_execute import Quiet, runs_of
from tests.page.page_data import result
from tests.page.test_page import island
from tests.support import ROOT

RESULTS = ROOT / "results"


def test_reports_of_light_results_are_the_same_bytes():
    whole, light = collect(RESULTS)[0], collect(RESULTS, keep=Lightener())[0]
    assert whole[0].history
    assert not light[0].history
    for write in (markdown, as_json, latex):
        texts = [write(tables, overall(tables)) for tables in (boards(whole), boards(light))]
        assert texts[0] == texts[1]
    assert as_csv(boards(whole)) == as_csv(boards(light))


def test_pages_of_light_results_are_the_same_bytes():
    texts = []
    for keep in (lambda r: r, Lightener()):
        tables = boards(collect(RESULTS, keep=keep)[0])
        texts.append(page(tables, overall(tables)))
    assert texts[0] == texts[1]


def test_light_results_share_what_is_alike():
    lighten = Lightener()
    one, other = lighten(result("a")), lighten(result("b", seed=1))
    assert one.columns is other.columns
    assert one.constant is other.constant
    assert one.config.image_size is other.config.image_size
    assert not one.model_fields_set
    assert one.config.lr == 0.01
    assert set(one.speed) <= {"median_ms", "fps", "session", "peak_memory_mb"}
    assert set(one.seconds) == {"total"}


def test_a_page_of_many_rows_shows_the_best_and_reads_them_again(tmp_path):
    for number in range(30):
        run = result(f"d{number:02}", score=0.3 + number / 100, cost=number + 1)
        save(tmp_path / run.key, run)
    tables = boards(collect(tmp_path, keep=Lightener())[0])
    text = page(tables, [], most=8)
    assert "8 of 30 rows: those on a front, then the best." in text
    rows = island(text)[0]["rows"]
    assert len(rows) == 8
    assert rows[0]["decoder"] == "d29"
    assert all("curves" in row for row in rows)  # of the history, which light results lack
    assert len(tables[0].rows) == 30
    assert "rows: those on a front" not in page(tables, [])


def test_shares():
    assert share_of([3, 50, 40], 200) == 50
    assert share_of([3, 50, 40], 43) == 20
    assert share_of([5, 5], 4) == 2
    assert share_of([9] * 10, 3) == 1
    assert share_of([], 10) >= 0


def test_each_leaves_damaged_results_out(tmp_path):
    for name in ("b", "a"):
        save(tmp_path / name, result(name))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / FILE).write_text("{")
    (tmp_path / "d").mkdir()
    assert [r.config.decoder for r in each(tmp_path)] == ["a", "b"]
    assert list(each(tmp_path / "nowhere")) == []


def test_a_report_needs_no_torch(tmp_path):
    code = (
        "import sys; from cli import main\n"
        f"try: main(['report', '--results', {str(RESULTS)!r}, '--output', {str(tmp_path)!r},"
        " '--dataset', 'scenes'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_network_is_tried_once_however_many_runs_it_has(camvid, tmp_path, monkeypatch):
    runs = [
        r for lr in (0.1, 0.2, 0.3) for s in (0, 1) for r in runs_of(camvid, "fcn", lr=lr, seed=s)
    ]
    fixed = {"backbone": "coatnet_pico_rw_224", "backbone_args": {"img_size": 224}}
    other = [r for lr in (0.1, 0.2) for r in runs_of(camvid, "fcn", **fixed, lr=lr)]
    tried = []
    check = Runner.check
    monkeypatch.setattr(
        Runner,
        "check",
        staticmethod(lambda config: (tried.append(config.backbone), check(config))[1]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every = planned([*runs, *other], tmp_path)
        done = settled(Work(every, every, {}, {}, Runner(tmp_path), Quiet()))
    assert tried == [runs[0].backbone, "coatnet_pico_rw_224"]
    assert set(done) == {run_key(run) for run in other}
    assert all("takes images of 224×224 only" in r.error for r in done.values())


@pytest.mark.filterwarnings("ignore:.*samples in.*")
def test_long_tables_are_cut_on_a_terminal(camvid, tmp_path):
    runs = planned(runs_of(camvid, "fcn", "hed", "dss"), tmp_path)
    told = {run.key: Estimate(60, "measured") for run in runs}

    def shown(table):
        console = Console(file=io.StringIO(), width=150)
        console.print(table)
        return " ".join(console.file.getvalue().split())

    assert "2 more runs: --verbose shows all" in shown(plan_table(runs, runs, {}, told, 1))
    assert "more runs" not in shown(plan_table(runs, runs, {}, told))
    rows = [OverallRow("b", f"d{n}", "", {"t": 0.5}) for n in range(MOST_ROWS + 7)]
    text = shown(rich_overall(Overall("m", ["t"], "", rows, {"t": "miou"}, {"t": True})))
    assert "7 more rows: overall.csv" in text
    assert f"d{MOST_ROWS - 1} " in text
    assert f"d{MOST_ROWS} " not in text
