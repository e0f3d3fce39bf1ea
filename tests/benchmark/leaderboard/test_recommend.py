"""`recommend`: budgets, neighbours, ties, several data sets and devices, other timings."""

import json

import pytest

from benchmark.leaderboard.boards import boards
from benchmark.leaderboard.recommend import choose_board, parse_budget, recommend, with_latencies
from benchmark.results.store import save
from common.errors import UsageError, UserError
from tests.support import line, result

# decoder: score, ms, parameters
NETWORKS = {"tiny": (0.2, 1, 1e6), "small": (0.4, 5, 2e6), "odd": (0.3, 6, 9e6),
            "large": (0.6, 20, 4e6), "huge": (0.8, 50, 8e6)}  # fmt: skip


def run(decoder, value, ms, params, **values):
    speed = None if ms is None else {"median_ms": ms, "fps": 1000 / ms, "session": "s"}
    base = {
        "speed": speed,
        "params": {"backbone": int(params), "decoder": 0, "head": 0},
        "intervals": {"m": (value - 0.04, value + 0.04)},
    }
    return result(decoder, value=value, **{**base, **values})


def runs(**values):
    return [run(name, *numbers, **values) for name, numbers in NETWORKS.items()]


def found(budgets, networks=None):
    (board,) = boards(networks or runs())
    answer = recommend(board, budgets)
    rows = (answer.best, answer.cheaper, answer.dearer)
    return tuple(row.decoder if row else None for row in rows)


def test_the_best_within_with_its_neighbours():
    assert found({"latency": 30}) == ("large", "small", "huge")
    assert found({"latency": 20}) == ("large", "small", "huge")  # just within
    assert found({"latency": 19.9}) == ("small", "tiny", "large")
    assert found({"latency": 6}) == ("small", "tiny", "large")  # odd is dearer and worse
    assert found({"latency": 1}) == ("tiny", None, "small")
    assert found({"latency": 1000}) == ("huge", "large", None)
    assert found({}) == ("huge", "large", None)


def test_budgets_combine():
    assert found({"latency": 30, "params": 3e6}) == ("small", "tiny", "large")
    assert found({"params": 3e6, "latency": 2}) == ("tiny", None, "small")


def test_a_metric_that_falls():
    networks = [run("good", 0.2, 5, 1e6, higher=False), run("bad", 0.4, 2, 1e6, higher=False)]
    assert found({"latency": 9}, networks) == ("good", "bad", None)


def test_nothing_within_names_the_cheapest():
    (board,) = boards(runs())
    answer = recommend(board, {"latency": 0.5})
    assert answer.best is None
    assert answer.cheapest.decoder == "tiny"


def test_ties_are_told_cheapest_first():
    networks = [run("a", 0.50, 9, 1e6), run("b", 0.47, 5, 1e6), run("c", 0.45, 3, 1e6),
                run("d", 0.3, 1, 1e6), run("e", 0.52, 30, 1e6)]  # fmt: skip
    (board,) = boards(networks)
    answer = recommend(board, {"latency": 10})
    assert answer.best.decoder == "a"
    assert [row.decoder for row in answer.tied] == ["c", "b"]


def test_rows_without_the_cost_are_left_out():
    (board,) = boards([*runs(), run("untimed", 0.9, None, 1e6)])
    answer = recommend(board, {"latency": 30})
    assert answer.best.decoder == "large"
    assert [row.decoder for row in answer.unknown] == ["untimed"]
    assert recommend(board, {"params": 1e6}).best.decoder == "untimed"
    with pytest.raises(UserError, match="memory was not measured"):
        recommend(board, {"memory": 10})


def test_disturbed_latencies_are_left_out_unless_asked_for(cli, tmp_path):
    loud = {"median_ms": 20, "fps": 50, "session": "s", "disturbed": 0.3}
    networks = [run("quiet", 0.5, 20, 1e6), run("loud", 0.6, 20, 1e6, speed=loud)]
    for number, one in enumerate(networks):
        save(tmp_path / "runs" / str(number), one)
    asked = ["recommend", "--task", "segmentation", "--results", tmp_path / "runs"]
    done = cli(*asked, "--latency", "30ms")
    assert "take quiet on b" in done.stdout
    assert "Left out because its latency was timed while other work ran" in done.stdout
    assert "loud on b" in done.stdout
    small = cli(*asked, "--params", "2M").stdout
    assert "take loud on b" in small
    unbounded = cli(*asked).stdout.splitlines()
    assert unbounded[0].endswith("without a budget take loud on b: m 0.600 (0.560–0.640).")
    assert unbounded[1] == "Its latency was timed while other work ran."
    taken = cli(*asked, "--latency", "30ms", "--disturbed").stdout
    assert "take loud on b" in taken
    assert "Left out" not in taken
    (board,) = boards(networks[1:])
    with pytest.raises(UserError, match="measured only while other work took the processors"):
        recommend(board, {"latency": 30})


@pytest.mark.parametrize(
    ("cost", "text", "value"),
    [
        ("latency", "30ms", 30), ("latency", "0.03s", 30), ("latency", "30", 30),
        ("latency", " 30 MS ", 30), ("latency", "500us", 0.5), ("latency", "1e1ms", 10),
        ("params", "1M", 1e6), ("params", "1.5m", 1.5e6), ("params", "800k", 8e5),
        ("params", "5000", 5000), ("macs", "2G", 2e9), ("macs", "0.5g", 5e8),
        ("memory", "200MB", 200), ("memory", "2GB", 2000), ("memory", "200", 200),
    ],
)  # fmt: skip
def test_budgets_are_read(cost, text, value):
    assert parse_budget(cost, text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "ms", "fast", "0", "-3ms", "30 minutes", "nan", "inf", "1e999"]
)
def test_what_is_no_budget(text):
    with pytest.raises(UsageError, match=r"--latency .*not a budget such as 30ms"):
        parse_budget("latency", text)


def test_one_board_is_chosen():
    tables = boards([
        result(protocol="a"), result(protocol="b", options={"dataset": "scenes"}),
        result(protocol="a", device="gpu B"), result(protocol="q"),
        result(protocol="d", options={"dataset": "scenes", "task": "depth"}),
    ])  # fmt: skip
    assert choose_board(tables, "depth", None, None).dataset == "scenes"
    assert choose_board(tables, "segmentation", "camvid", "GPU").device == "gpu B"
    for arguments, message in (
        (("edges", None, None), "--task edges: no result: there are depth, segmentation"),
        (("segmentation", None, None), "several data sets: add --dataset, one of camvid, scenes"),
        (("segmentation", "voc", None), "--dataset voc: no result: there are camvid, scenes"),
        (("segmentation", "camvid", None), "several devices: add --device, a part of one of cpu A"),
        (("segmentation", "camvid", "tpu"), "--device tpu: no result: there are cpu A"),
    ):
        with pytest.raises(UsageError, match=message):
            choose_board(tables, *arguments)


def test_a_devices_whole_name_means_no_longer_one():
    tables = boards([result(), result(options={"amp": True})])
    assert not choose_board(tables, "segmentation", None, "CPU A, 2 threads").amp
    with pytest.raises(UsageError, match="several devices"):
        choose_board(tables, "segmentation", None, "2 threads")


def test_neighbours_within_several_budgets():
    """What is cheap in one cost and outside another budget is no cheaper choice."""
    networks = [run("fcn", 0.5, 20, 4e6), run("heavy", 0.9, 10, 100e6), run("near", 0.6, 32, 4e6)]
    assert found({"latency": 30, "params": 5e6}, networks) == ("fcn", None, "near")


def test_without_a_budget_the_best_need_not_be_timed():
    networks = [run("best", 0.9, None, 1e6), run("timed", 0.5, 10, 1e6)]
    assert found({}, networks) == ("best", "timed", None)


def timing(decoder, ms, arguments=None, batch=1, threads=1, **values):
    latency = {"median_ms": ms, "fps": 1000 / ms, "batch": batch, "hardware": "cpu T",
               "threads": threads, "memory_format": "channels_last", "fused": True,
               "compiled": False, "amp": False}  # fmt: skip
    return {"backbone": "b", "backbone_args": arguments or {}, "decoder": decoder,
            "image_size": [64, 64], "batch": batch, "params": {"head": 0},
            "latency": latency, **values}  # fmt: skip


def test_latencies_of_the_target_machine(tmp_path):
    sized = {"image_size": (64, 64)}
    (board,) = boards(runs(options=sized))
    path = tmp_path / "speed.json"
    rows = [timing("large", 2), timing("huge", 900), timing("tiny", 1, batch=8),
            timing("small", 1, image_size=[32, 32]), timing("odd", 1, latency=None),
            timing("small", 1, {"pad_type": "same"}),
            timing("small", 1, params={"head": 21})]  # fmt: skip
    path.write_text(json.dumps(rows))
    moved = with_latencies(board, path)
    answer = recommend(moved, {"latency": 3})
    assert answer.best.decoder == "large"
    assert moved.machine == "cpu T, 1 thread"
    assert {row.decoder for row in answer.unknown} == {"tiny", "small", "odd"}
    assert board.rows[0].latency_ms == 50  # the results stay as they are
    path.write_text(json.dumps([timing("large", 2), timing("tiny", 1, threads=2)]))
    with pytest.raises(UsageError, match="timings of 2 devices or setups"):
        with_latencies(board, path)
    path.write_text(json.dumps([timing("other", 1)]))
    with pytest.raises(UsageError, match="time them with speed --image-size 64x64"):
        with_latencies(board, path)
    loud = timing("large", 2)
    loud["latency"]["disturbed"] = 0.5
    path.write_text(json.dumps([loud, timing("tiny", 1)]))
    large = next(row for row in with_latencies(board, path).rows if row.decoder == "large")
    assert (large.latency_ms, large.cost("latency")) == (2, None)
    (large,) = [r for r in with_latencies(board, path, True).rows if r.decoder == "large"]
    assert large.cost("latency") == 2
    of_bands = {**sized, "mean": [0.5] * 5, "std": [0.5] * 5}
    (bands,) = boards(runs(options=of_bands))
    path.write_text(json.dumps([timing("large", 2), timing("tiny", 1, in_channels=5)]))
    timed = [row.decoder for row in with_latencies(bands, path).rows if row.latency_ms]
    assert timed == ["tiny"]
    path.write_text(json.dumps([timing("large", 2)]))
    with pytest.raises(UsageError, match="--image-size 64x64 --in-channels 5"):
        with_latencies(bands, path)
    (wide,) = boards(runs(options={**sized, "width": 96}))
    with pytest.raises(UsageError, match="--image-size 64x64 --width 96"):
        with_latencies(wide, path)
    path.write_text(json.dumps([timing("large", 2), timing("tiny", 1, width=96)]))
    timed = [row.decoder for row in with_latencies(wide, path).rows if row.latency_ms]
    assert timed == ["tiny"]
    for text in ("{", "{}", "[1]", '[{"latency": 1}]'):
        path.write_text(text)
        with pytest.raises(UsageError, match="--speed"):
            with_latencies(board, path)
    with pytest.raises(UsageError, match="cannot be read"):
        with_latencies(board, tmp_path / "none.json")


@pytest.fixture
def results(tmp_path):
    for number, one in enumerate(runs(options={"image_size": (64, 64)})):
        save(tmp_path / "runs" / str(number), one)
    return tmp_path / "runs"


def test_recommend_answers_in_a_sentence_and_a_table(cli, results):
    done = cli("recommend", "--task", "segmentation", "--latency", "30ms", "--results", results)
    assert done.exit_code == 0
    first = done.stdout.splitlines()[0]
    assert "within 30.0 ms latency take large on b: m 0.600 (0.560–0.640), 20.0 ms." in first
    table = done.stdout.split("recommended")
    assert "next cheaper   small" in table[0]
    assert "for more       huge" in table[1]
    assert "odd" not in done.stdout
    assert "scores better" not in done.stdout
    best = cli("recommend", "--task", "segmentation", "--latency", "1s", "--results", results)
    assert "No other row scores better, at any cost." in best.stdout


def test_recommend_nothing_within(cli, results):
    done = cli("recommend", "--task", "segmentation", "--latency", "0.1ms", "--results", results)
    assert done.exit_code == 1
    assert "nothing within 0.1 ms latency: the cheapest is tiny on b with 1.0 ms" in line(done)


def test_recommend_says_when_others_do_as_well(cli, tmp_path):
    networks = [run("a", 0.12, 9, 1e6), run("b", 0.11, 5, 1e6), run("c", 0.10, 5.5, 1e6)]
    for number, one in enumerate(networks):
        save(tmp_path / str(number), one)
    done = cli("recommend", "--task", "segmentation", "--results", tmp_path)
    assert (
        "Its interval overlaps that of b (no better than the best constant) on b (and of 1 more), "
        "the cheapest of them" in done.stdout
    )
    assert "It is not better than the best constant prediction, 0.125." in done.stdout
    other = cli("recommend", "--task", "segmentation", "--latency", "5ms", "--results", tmp_path)
    assert "overlap" not in other.stdout


def test_recommend_with_timings_of_another_machine(cli, results):
    path = results / "speed.json"
    path.write_text(json.dumps([timing("huge", 3), timing("large", 2)]))
    done = cli("recommend", "--task", "segmentation", "--latency", "30ms", "--speed", path,
               "--results", results)  # fmt: skip
    assert "take huge on b" in done.stdout
    assert f"Latencies: {path}." in done.stdout


def test_recommend_wrong_use(cli, results, tmp_path):
    assert cli("recommend", "--results", results).exit_code == 2
    done = cli("recommend", "--task", "depth", "--results", results)
    assert done.exit_code == 2
    assert "there are segmentation" in line(done)
    done = cli("recommend", "--task", "depth", "--results", tmp_path / "none")
    assert done.exit_code == 2
    assert "no such folder" in line(done)
    done = cli("recommend", "--task", "segmentation", "--params", "many", "--results", results)
    assert "--params many: not a budget such as 5M" in line(done)


def test_what_a_constant_beats_is_not_advised_beside_what_it_does_not(tmp_path, cli):
    """The best constant is 0.125."""
    (board,) = boards([run("good", 0.16, 20, 1e6), run("bad", 0.12, 5, 1e6)])
    choice = recommend(board, {"latency": 30})
    assert (choice.best.decoder, choice.tied) == ("good", [])
    for place, one in enumerate([run("good", 0.16, 20, 1e6), run("bad", 0.12, 5, 1e6)]):
        save(tmp_path / str(place), one)
    done = cli("recommend", "--task", "segmentation", "--results", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "bad (no better than the best constant)" in " ".join(done.stdout.split())
