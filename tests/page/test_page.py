"""The page: the same bytes, nothing that a name could inject, small, whole without its script."""

import html
import json
import math
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from benchmark.leaderboard.boards import boards
from benchmark.leaderboard.overall import overall
from benchmark.report.page.details import POINTS, difference
from benchmark.report.page.page import LIMIT, TEMPLATES, page
from benchmark.report.page.strips import OVERHEAD
from benchmark.report.page.wirings import wiring_of
from benchmark.results.light import Lightener
from benchmark.results.store import save
from benchmark.wiring.figure import KINDS
from benchmark.wiring.svg import wiring_svg
from common.limits import printable
from common.words import number
from models.connectivity import Connectivity, preset
from tests.page.page_data import (
    HOSTILE,
    failed,
    hash_of,
    in_pair,
    many,
    result,
    strips,
    views,
)

FIVE = (2, 4, 8, 16, 32)


class Reader(HTMLParser):
    """Elements with their attributes, and the cells' texts of every table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.rows and self.rows[-1] and ("td" in self.open or "th" in self.open):
            self.rows[-1][-1] += data


def island(text: str) -> list:
    return json.loads(text.split('id="data">')[1].split("</script>")[0])


def test_same_results_same_bytes(tmp_path):
    runs = [result("a"), result("b", score=0.7), failed()]
    for run in runs[:2]:
        run.folder = tmp_path / run.key
        strips(run.folder, "segmentation")
    first, second = (page(views(list(order)), []) for order in (runs, runs))
    assert first == second
    assert str(tmp_path) not in first


def test_table_is_there_without_the_script():
    text = page(views([result("a"), result("b", score=0.71)]), [])
    rows = {row[1]: row for row in Reader(text).rows if len(row) > 5}
    assert [row[0] for row in (rows["a"], rows["b"])] == ["2", "1"]
    assert rows["b"][2] == "0.7100.690–0.730"
    assert rows["Decoder"][2] == "mIoU\u00a0↑"
    assert rows["best constantwhat any network must beat"][2] == "0.100"
    assert "10.0◆ on the Pareto front" in rows["b"]  # its latency; a's is the same at lower mIoU
    assert "10.0" in rows["a"]


def test_rank_1_in_a_sentence():
    def short(*runs):
        return re.findall('<p class="short">(.*?)</p>', page(boards(runs), []))[0]

    a, b = result("a", score=0.5, cost=3), result("b", score=0.49)
    assert short(a, b, result("c", score=0.2)) == (
        "Rank 1, intervals overlap: a, b; of these b is the fastest (10.0 ms) and the smallest "
        "(2.06 M parameters)."
    )
    small = b.model_copy(update={"speed": None}), a
    assert short(*small).endswith(
        "a is the fastest (12.0 ms), b is the smallest (2.06 M parameters)."
    )
    assert short(a) == "Rank 1: a."
    other = result("a", score=0.49, backbone="test_efficientnet")
    assert short(result("a"), other).startswith(
        "Rank 1, intervals overlap: a on test_resnet, a on test_efficientnet; "
    )


def test_numbers_keep_three_digits():
    values = {None: "–", 0.0: "0.00", 0.01234: "0.0123", 1.999: "2.00", 12345.6: "12346"}
    assert {value: number(value, None) for value in values} == values
    assert number(float("nan")) == "–"


@pytest.mark.parametrize("where", ["decoder", "dataset", "error", "command", "backbone", "device"])
def test_a_hostile_name_stays_text(where):
    """It is shown, and neither the markup nor the data of the page has an element more for it."""

    def text_with(value):
        runs = [result("a"), failed("encnet"), result("b", score=0.6)]
        if where in ("error", "command"):
            runs[1] = runs[1].model_copy(update={where: value})
        elif where == "device":
            environment = {**runs[0].environment, "device": value}
            runs = [run.model_copy(update={"environment": environment}) for run in runs]
        elif where == "dataset":
            config = {"dataset": value}
            runs = [
                r.model_copy(update={"config": r.config.model_copy(update=config)}) for r in runs
            ]
        else:
            config = runs[0].config.model_copy(update={where: value})
            runs[0] = runs[0].model_copy(update={"config": config})
        return page(views(runs), [])

    hostile, tame = text_with(HOSTILE), text_with("tame")
    tags = [[tag for tag, _ in Reader(text).elements] for text in (hostile, tame)]
    assert tags[0] == tags[1]
    shown = html.escape(printable(HOSTILE)).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
    assert shown in hostile
    assert HOSTILE not in hostile
    data = hostile.split('id="data">')[1].split("</script>")[0]
    assert not set("<>&\u2028\u2029") & set(data)
    if where != "error":
        assert HOSTILE in json.dumps(json.loads(data), ensure_ascii=False).replace('\\"', '"')


def test_policy_admits_this_style_and_script_only():
    text = page(views([result("a")]), [])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        digest = b64encode(sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_nothing_is_loaded_from_elsewhere():
    two = views([result("a"), result("a", task="depth", dataset="scenes")])
    text = page(two, overall(two))
    for _, attributes in Reader(text).elements:
        for name in ("src", "href", "action", "srcset"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:")) or not value
        assert "style" not in attributes
    scripts = "".join((TEMPLATES / p.name).read_text() for p in TEMPLATES.glob("*.js"))
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "fetch(", "import("):
        assert word not in scripts


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "copies"), [(5, 1), (1, 5)])
def test_500_runs_fit(tmp_path, seeds, copies):
    runs = []
    for copy in range(copies):
        for run in many(tmp_path if not copy else None, seeds, epochs=100):
            config = run.config.model_copy(update={"lr": 0.01 * (copy + 1)})
            key = f"{hash_of(run.key, copy):010x}"
            runs.append(run.model_copy(update={"config": config, "key": key}))
    assert len(runs) >= 500
    text = page(views(runs), [])
    assert len(text.encode()) < LIMIT < 1_500_000
    assert "are left out to keep the page small" in text


def test_pictures_keep_to_the_budget_best_rows_first(tmp_path, monkeypatch):
    runs = [result(name, score=score) for name, score in (("a", 0.3), ("b", 0.7), ("c", 0.5))]
    for run in runs:
        run.folder = tmp_path / run.key
        strips(run.folder, "segmentation")
    tables = views(runs)

    def shown(text):
        images = [a for tag, a in Reader(text).elements if tag == "img"]
        alts = {a["alt"].removeprefix("prediction of ") for a in images}
        return [name for name in "abc" if f"{name} on test_resnet" in alts], len(images)

    # an image and its truth once, however many rows predict it
    assert shown(page(tables, [])) == (["a", "b", "c"], 3 * (2 + 3))
    files = (runs[1].folder / "samples").iterdir()
    budget = sum(len(b64encode(file.read_bytes())) + OVERHEAD for file in files)
    monkeypatch.setattr("benchmark.report.page.page.PICTURES", budget)
    text = page(tables, [])
    assert shown(text) == (["b"], 3 * 3)
    assert "Pictures of 2 more rows are left out" in text


def test_a_score_that_is_no_number_is_a_dash():
    runs = [result("a"), result("b", score=float("nan")), result("c", score=float("inf"))]
    text = page(boards(runs), [])
    rows = {row[1]: row for row in Reader(text).rows if row[1] in list("abc")}
    assert [rows[name][2][0] for name in "abc"] == ["0", "–", "–"]
    assert text.count('<svg class="range"') == 1
    assert all(row["values"][2] is None for row in island(text)[0]["rows"] if row["decoder"] != "a")


def test_boards_without_a_finished_run():
    text = page(boards([failed(error="out of memory")]), [])
    assert any("out of memory" in row for row in Reader(text).rows)
    assert "No results." in page([], [])


def test_a_failed_run_that_noted_nothing():
    """Neither a device to choose, nor a dot without a word, nor an empty environment."""
    run = failed(error="out of memory", environment={})
    text = page(boards([run]), [])
    assert island(text)[0]["place"][2] == ""
    assert '<p class="place"><code>no finished run</code></p>' in text
    assert 'id="environment' not in text
    both = page(boards([result("a", task="depth", dataset="scenes"), run]), [])
    assert re.findall('id="environment-([0-9])"', both) == ["0"]


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("depth", "Near is bright"),
        ("segmentation", "the data set&#39;s colour"),
        ("saliency", "white is certainly salient"),
        ("edges", "white is certainly an edge"),
    ],
)
def test_colours_of_predictions_are_explained(tmp_path, task, words):
    run = result("a", task=task)
    assert words not in page(boards([run]), [])
    run.folder = tmp_path
    strips(tmp_path, task)
    assert page(boards([run]), []).count(words) == 1


@pytest.mark.parametrize(
    ("task", "score", "worse"),
    [("segmentation", 0.1, 1), ("segmentation", 0.11, 0), ("depth", 0.11, 1), ("depth", 0.09, 0)],
)
def test_rows_no_better_than_the_best_constant_say_so(task, score, worse):
    text = page(boards([result("a", task=task, score=score)]), [])
    assert text.count('<small class="worse">no better than the best constant</small>') == worse
    (row,) = island(text)[0]["rows"]
    assert "latency" in row["pareto"]  # the front is of what was measured


def test_a_long_backbone_may_break_after_its_parts():
    runs = [result("a"), result("a", backbone="tiny_<b>.in1k")]
    assert "<div>tiny_<wbr>&lt;b&gt;.<wbr>in1k</div>" in page(boards(runs), [])


def test_rows_of_other_sessions_are_marked():
    speeds = [{"median_ms": 10.0 + i, "fps": 90.0, "session": s} for i, s in enumerate("aab")]
    runs = [result(n, score=0.5, speed=s) for n, s in zip("xyz", speeds, strict=True)]
    text = page(boards(runs), [])
    marked = {row[1]: "*" in "".join(row) for row in Reader(text).rows if row[1] in list("xyz")}
    assert marked == {"x": False, "y": False, "z": True}
    assert "timed in another session" in text
    assert "timed in another session" not in page(boards(runs[:2]), [])


def test_disturbed_timings_are_marked():
    base = {"fps": 90.0, "session": "s"}
    speeds = [{**base, "median_ms": 10.0}, {**base, "median_ms": 9.0, "disturbed": 0.25}]
    runs = [result(n, score=0.5, speed=s) for n, s in zip("xy", speeds, strict=True)]
    text = page(boards(runs), [])
    marked = {row[1]: "†" in "".join(row) for row in Reader(text).rows if row[1] in ("x", "y")}
    assert marked == {"x": False, "y": True}
    assert "while other work took up to 25% of the processors" in text
    assert "of the processors" not in page(boards(runs[:1]), [])


def test_published_parameters_of_a_decoder_are_not_the_networks():
    run = result("a", task="saliency", dataset="msra-b")
    (board,) = island(page(views([run]), []))
    keys = [column["key"] for column in board["columns"]]
    row = next(row for row in board["rows"] if row["decoder"] == "sparsemask")
    assert row["kind"] == "reported"
    assert row["values"][keys.index("params")] is None
    assert row["values"][keys.index("decoder_params")] == 0.56


def test_a_network_that_is_deployed_smaller_stands_where_its_front_does():
    deployed = {"params": 1_054_000, "macs": 274_000_000}
    macs = {"backbone": 10**9, "decoder": 0, "head": 10**6}
    (board,) = island(page(views([result("a", macs=macs, deployed=deployed), result("b")]), []))
    keys = [column["key"] for column in board["columns"]]
    rows = {
        row["decoder"]: dict(zip(keys, row["values"], strict=True))
        | {"params by part": row["params"]}
        for row in board["rows"]
        if row["kind"] == "measured"
    }
    assert [rows["a"][key] for key in ("params", "macs")] == [1.054, 0.274]
    assert [rows["a"][f"{key}_trained"] for key in ("params", "macs")] == [
        2.0614,
        1.001,
    ]
    assert rows["a"]["params by part"]["all as deployed"] == 1_054_000
    assert [rows["b"][f"{key}_trained"] for key in ("params", "macs")] == [None, None]
    assert rows["b"]["params"] == 2.0614
    assert "all as deployed" not in rows["b"]["params by part"]
    (plain,) = island(page(views([result("b")]), []))
    assert not [column for column in plain["columns"] if column["key"].endswith("_trained")]


def test_failed_and_reported_rows_differ_from_measured_ones():
    edges = {"task": "edges", "dataset": "bsds500"}
    runs = [result("a", **edges), failed(error="the loss is nan", **edges)]
    text = page(views(runs), [])
    classes = [a.get("class") for tag, a in Reader(text).elements if tag == "tr" and a.get("id")]
    assert classes == ["measured", "reported", "reported", "failed"]
    assert '<span class="tag">reported</span><small>Wu et al. 2019, table 6, test' in text
    assert [row["kind"] for row in island(text)[0]["rows"]] == classes


def test_several_tasks_and_devices_are_boards_that_can_be_chosen():
    runs = [result("a"), result("a", task="depth", dataset="scenes"), result("a", device="GPU B")]
    places = [tuple(board["place"]) for board in island(page(views(runs), []))]
    assert len(set(places)) == 3
    assert (
        "depth",
        "scenes",
        "CPU A (2 cores), 2 threads",
        "scenes/depth/test/abs_rel/96x96",
    ) in places
    # boards that differ in the test images only are numbered
    other = result("b", data={"test": {"fingerprint": "ff"}})
    places = [board["place"][3] for board in island(page(views([runs[0], other]), []))]
    assert places == [
        "camvid/segmentation/test/miou/96x96",
        "camvid/segmentation/test/miou/96x96 (2)",
    ]


def test_commands_of_all_seeds_come_back_from_their_differences():
    runs = [result("fcn", seed) for seed in range(3)] + [result("smp-unet", score=0.9)]
    runs[2] = runs[2].model_copy(update={"command": "python 𝔘 cli.py run"})
    (board,) = island(page(views(runs), []))
    first = board["command"]
    found = {
        first[:start] + middle + first[len(first) - end :]
        for row in board["rows"]
        for start, end, middle in row.get("commands", [])
    }
    assert found == {run.command for run in runs}


@pytest.mark.parametrize(
    ("a", "b"), [("", ""), ("aa", "aaa"), ("aaa", "aa"), ("ab", "b"), ("x", "")]
)
def test_difference(a, b):
    start, end, middle = difference(a, b)
    assert a[:start] + middle + a[len(a) - end :] == b


def test_learning_curves_are_means_over_seeds_and_thinned():
    runs = [result(seed=seed, epochs=100) for seed in (0, 1)]
    curves = island(page(views(runs), []))[0]["rows"][0]["curves"]
    epochs, mean, low, high = curves["loss"]
    assert len(epochs) <= POINTS + 1
    assert (epochs[0], epochs[-1]) == (1, 100)
    assert (mean[0], low[0], high[0]) == (2.005, 2.0, 2.01)
    assert curves["val"][0] == epochs
    single = island(page(views(runs[:1]), []))[0]["rows"][0]["curves"]
    assert len(single["loss"]) == 2


def test_a_board_of_failures_does_not_stand_for_one_with_scores():
    amp = result().config.model_copy(update={"amp": True})
    runs = [result(), result(task="depth", dataset="scenes"), failed(config=amp, key="amp")]
    tables = boards(runs)
    assert len({board.title for board in tables}) < len(tables)
    html = page(tables, overall(tables, None))
    assert html.count('href="#board-') >= 2


def test_a_curve_leaves_out_what_is_at_no_epoch():
    history = [{"epoch": math.nan, "loss": 3.0}, {"loss": 2.0}, {"epoch": 3.0, "loss": 1.0},
               {"epoch": 4.0, "loss": math.inf}]  # fmt: skip
    text = page(views([result(history=history)]), [])
    assert island(text)[0]["rows"][0]["curves"] == {"loss": [[3], [1.0]]}


def test_curve_of_a_joint_run_is_its_own_tasks():
    scores = {}
    for task, dataset in (("segmentation", "scenes"), ("depth", "scenes")):
        alone = result("a", task=task, dataset=dataset)
        scores[task] = {name: getattr(alone, name) for name in
                        ("protocol", "columns", "higher_is_better", "metrics", "counts", "constant")}  # fmt: skip  # noqa: E501
    history = [{"epoch": 1.0, "loss": 1.0, "val/segmentation/miou": 0.25, "val/depth/abs_rel": 0.5}]
    config = result("a").config.model_copy(
        update={"task": "segmentation+depth", "dataset": "scenes"}
    )
    joint = result("a", config=config, tasks=scores, history=history)
    found = {
        b["place"][0]: b["rows"][0]["curves"]["val"][1] for b in island(page(boards([joint]), []))
    }
    assert found == {"segmentation": [0.25], "depth": [0.5]}


def test_each_wiring_is_drawn_once_and_named_for_its_rows():
    runs = [result("sparsemask"), result("unet-connectivity", score=0.6), result("fcn", score=0.7),
            result("sparsemask", task="depth", dataset="scenes")]  # fmt: skip
    text = page(views(runs), [])
    assert text.count('<svg class="wiring" role="img"') == 2
    wired = {row["decoder"]: row.get("wiring") for b in island(text) for row in b["rows"]}
    assert wired["fcn"] is None
    assert f'id="wiring-{wired["sparsemask"]}"' in text
    assert "sparsemask on test_resnet" in text


def test_a_wiring_that_cannot_be_drawn_leaves_the_row():
    unknown = result("sparsemask", backbone="no_such_model")
    assert wiring_of(unknown.config) is None
    for odd in ({"strides": [2, 4], "stages": {"1": ["E9"]}},
                {"strides": [math.inf, 4], "stages": {"1": ["E2"]}}):  # fmt: skip
        update = {"decoder": "connectivity:x.json", "wiring": odd}
        config = result().config.model_copy(update=update)
        assert wiring_of(config) is None
    assert "x" in page(views([result(config=config)]), [])
    good = {"strides": list(FIVE), "stages": {"1": ["E5", "G"]}}
    found = wiring_of(config.model_copy(update={"wiring": good}))
    assert found is not None
    assert (found.name, dict(found.stages)) == ("x", {1: ("E5", "G")})


def test_a_wiring_on_a_dilated_backbone_is_drawn_as_the_run_had_it():
    config = result("sparsemask").config.model_copy(update={"backbone_args": {"output_stride": 8}})
    before, now = (wiring_of(config.model_copy(update={"match_undilated": x})) for x in (0, 1))
    assert set(before.stages) == {1}
    assert set(now.stages) == {5, 4, 1}
    assert now.connections == 10


def test_drawing_a_wiring_reads_no_file(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("torch.load", lambda *a, **_: seen.append(a))
    arguments = {"checkpoint_path": str(tmp_path / "x.pth")}
    (tmp_path / "x.pth").write_bytes(b"")
    config = result("sparsemask").config.model_copy(update={"backbone_args": arguments})
    assert wiring_of(config) is not None
    assert seen == []


def test_wiring_has_an_arrow_for_each_connection_by_kind():
    svg = wiring_svg(preset("fully-dense", FIVE), "")
    count = {kind: len(re.findall(rf'<path class="{kind}"', svg)) for kind in "EGDx"}
    assert count == {"E": 15, "G": 5, "D": 10, "x": 0}
    dead = wiring_svg(Connectivity("d", FIVE, {1: ("E1",), 3: ("E3",)}), "")
    assert (dead.count('<path class="E"'), dead.count('<path class="x"')) == (1, 1)
    css = (TEMPLATES / "page.css").read_text()
    for kind, (_, colour, _) in KINDS.items():
        assert f"--{kind}: {colour.lower()}" in css


def test_overall_links_to_its_boards():
    depth = {"task": "depth", "dataset": "scenes"}
    tables = views([result(), result("a", score=0.6), result(**depth), result("a", 0, 0.4, **depth),
                    result("b")])  # fmt: skip
    text = page(tables, overall(tables))
    rows = [row for row in Reader(text).rows if row[2:3] == ["test_resnet"]]
    # depth is first, and lower is better there: gains of 20 % on both boards
    assert rows[0] == ["1", "a", "test_resnet", "+20.0", "1.0", "0.400", "0.600"]
    assert rows[2] == ["–", "b", "test_resnet", "–", "–", "–", "0.500"]
    assert across(text) == [["#board-1", "#board-2"]]


def across(text: str) -> list[list[str]]:
    """The links of every table across boards."""
    sections = text.split('<section class="overall"')[1:]
    return [re.findall('<th scope="col"><a href="(.*?)"', section) for section in sections]


def test_overall_links_to_the_main_boards_with_its_threads():
    places = [{}, {"task": "depth", "dataset": "scenes"}]
    runs = [result(threads=threads, **place) for place in places for threads in (2, 1)]
    smaller = {"protocol": "camvid/segmentation/test/miou/48x48", "threads": 2}
    runs += [result("a", threads=2), result(**smaller)]
    tables = views(runs)
    text = page(tables, overall(tables))
    assert [board["place"][2:] for board in island(text)] == [
        ["CPU A (2 cores), 1 thread", "scenes/depth/test/abs_rel/96x96"],
        ["CPU A (2 cores), 2 threads", "scenes/depth/test/abs_rel/96x96"],
        ["CPU A (2 cores), 1 thread", "camvid/segmentation/test/miou/96x96"],
        ["CPU A (2 cores), 2 threads", "camvid/segmentation/test/miou/96x96"],
        ["CPU A (2 cores), 2 threads", "camvid/segmentation/test/miou/48x48"],
    ]
    assert "Across boards: CPU A (2 cores), 1 thread<" in text.split('<section class="overall"')[1]
    assert across(text) == [["#board-1", "#board-3"], ["#board-2", "#board-4"]]


def test_report_writes_it(cli, tmp_path):
    from benchmark.results.store import save

    run = result("a")
    save(tmp_path / "results" / "run", run)
    done = cli("report", "--results", tmp_path / "results", "--html", tmp_path / "page")
    assert done.exit_code == 0
    written = tmp_path / "page" / "index.html"
    assert f"wrote {written}" in done.stderr
    assert written.read_bytes().startswith(b"<!doctype html>")
    (tmp_path / "file").write_text("")
    done = cli("report", "--results", tmp_path / "results", "--html", tmp_path / "file")
    assert done.exit_code == 1
    assert "--html" in done.stderr


def test_a_row_for_each_runtime_and_precision(tmp_path):
    """With its own scores and time, read from the run's file; pictures and curves once a run."""
    run = result("a", score=0.6)
    run.pairs = [in_pair(run, "openvino", "int8", 0.55, 3.0)]
    save(tmp_path / "a", run)
    strips(tmp_path / "a", "segmentation")
    light = Lightener()(run).model_copy(update={"folder": tmp_path / "a"})
    text = page(views([light, result("b", score=0.5), failed()]), [])
    rows = {(row[1], *row[2:4]): row for row in Reader(text).rows if len(row) > 5}
    place = rows["Decoder", "Runtime", "Precision"].index("ms\u00a0↓")
    assert rows["a", "openvino", "int8"][4].startswith("0.5500.530–0.570")
    assert rows["a", "openvino", "int8"][place].startswith("3.00◆")
    assert rows["a", "eager", "f32"][place].startswith("10.0◆")
    assert rows["a", "eager", "f32"][4].startswith("0.6000.580")
    (failure,) = [row for row in Reader(text).rows if row[1:2] == ["encnet failed"]]
    assert failure[2:] == ["", "", "the loss is nan at step 2"]
    (board,) = island(text)
    own, shipped, other, _ = board["rows"]
    assert (shipped["runtime"], shipped["precision"]) == ("openvino", "int8")
    assert len({row["key"] for row in board["rows"]}) == 4
    assert shipped["seeds"][0][3:5] == [3.0, 0.55]
    assert shipped["commands"][0][2].endswith(" --runtime openvino --precision int8")
    assert ["interleaved with", "all"] in shipped["speed"]
    assert "curves" in own
    assert "curves" in other
    assert "curves" not in shipped
    assert text.count('alt="prediction of a in eager f32 on test_resnet"') == 3
    assert "prediction of a in openvino" not in text
