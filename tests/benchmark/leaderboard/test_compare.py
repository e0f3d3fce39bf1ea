"""`compare`: pairs of runs, paired intervals, configurations, exit codes, commits."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from scipy.stats import t as student

from benchmark.leaderboard.compare import compare
from benchmark.leaderboard.over_seeds import interval_over
from benchmark.leaderboard.sides import Side
from benchmark.results.replicates import REPLICATES, save_replicates
from benchmark.results.store import save
from common.errors import UsageError, UserError
from tasks.metrics.resampling import image_weights
from tests.support import line, result

IMAGES = {"train": {"fingerprint": "t"}, "test": {"fingerprint": "i"}}
NOISE = np.random.default_rng(0).normal(size=1000)


def put(folder, run, shift=0.0, noise=NOISE, replicates=True):
    """Write a run with replicates around its score; the same ``noise`` as another's is paired."""
    save(folder, run)
    if replicates:
        drawn = run.metrics["m"] + shift + 0.05 * noise
        save_replicates(folder, {run.config.task: {"m": drawn, "other": drawn}})
    return run.model_copy(update={"folder": folder})


def run(decoder="fcn", seed=0, value=0.5, **values):
    return result(decoder, seed, value, **{"data": IMAGES, **values})


def side(name, *runs, single=False):
    return Side(name, list(runs), [], single)


def only(a, b):
    (row,) = compare(side("A", a, single=True), side("B", b, single=True)).rows
    return row


def test_the_interval_is_that_of_the_paired_difference(tmp_path):
    small = 0.01 * np.random.default_rng(1).normal(size=1000)
    a = put(tmp_path / "a", run(value=0.5))
    b = put(tmp_path / "b", run(value=0.52), noise=NOISE + small)
    main = only(a, b).main
    assert main.difference == pytest.approx(0.02)
    assert main.relative == pytest.approx(4)
    # each scatters by 0.05, their difference by 0.05 · 0.01 only: 1.96 standard deviations
    low, high = main.interval
    assert (low, high) == pytest.approx((0.02 - 0.00098, 0.02 + 0.00098), abs=2e-4)
    assert main.verdict == "better"
    unpaired = put(
        tmp_path / "c", run(value=0.52), noise=np.random.default_rng(2).permutation(NOISE)
    )
    assert only(a, unpaired).main.verdict == "undecided"


def test_the_verdict_follows_the_metrics_direction(tmp_path):
    a = put(tmp_path / "a", run(value=0.5, higher=False))
    b = put(tmp_path / "b", run(value=0.6, higher=False))
    row = only(a, b)
    assert row.main.verdict == "worse"
    assert row.main.relative == pytest.approx(-20)
    assert only(b, a).main.verdict == "better"
    assert only(a, a).main.verdict == "equal"
    assert [part.metric for part in row.differences] == ["m", "other"]


def test_without_replicates_there_is_no_interval(tmp_path):
    a = put(tmp_path / "a", run(value=0.5), replicates=False)
    b = put(tmp_path / "b", run(value=0.6))
    row = only(a, b)
    assert (row.main.interval, row.main.verdict) == (None, "unknown")
    assert row.main.difference == pytest.approx(0.1)
    assert any("no interval" in note for note in row.notes)


def test_a_metric_that_one_seed_lacks_is_left_out():
    older = run(seed=1)
    older.columns, older.metrics = ["m"], {"m": 0.5}
    (row,) = compare(side("A", run(seed=0), older), side("B", run(seed=0), run(seed=1))).rows
    assert [part.metric for part in row.differences] == ["m"]


def test_seeds_are_paired(tmp_path):
    left = [put(tmp_path / f"a{s}", run(seed=s, value=v)) for s, v in enumerate((0.5, 0.7))]
    right = [put(tmp_path / f"b{s}", run(seed=s, value=v)) for s, v in enumerate((0.6, 0.6))]
    (row,) = compare(side("A", *left), side("B", *right[::-1])).rows
    assert row.seeds == [(0, 0), (1, 1)]
    assert row.main.difference == pytest.approx(0, abs=1e-9)
    assert row.main.sd == pytest.approx(0.1 * 2**0.5)
    # by Student's t of one degree of freedom: images add nothing, replicates are paired
    assert row.main.interval == pytest.approx((-1.2706, 1.2706), abs=1e-3)
    assert (row.main.verdict, row.main.seeds_to_decide) == ("undecided", None)
    assert "undecided, and 50 seeds would not tell: it takes more images" in row.notes


def test_how_many_more_seeds_would_decide(tmp_path):
    """Of the luck of training it takes a mean of more; of the images no number of seeds."""

    def pair(values, noise=0.0):
        left = [put(tmp_path / f"a{s}", run(seed=s, value=0.5)) for s in range(len(values))]
        other = NOISE + noise * np.random.default_rng(3).normal(size=1000)
        right = [put(tmp_path / f"b{s}", run(seed=s, value=v), noise=other)
                 for s, v in enumerate(values)]  # fmt: skip
        (row,) = compare(side("A", *left), side("B", *right)).rows
        return row

    row = pair((0.51, 0.53, 0.52))  # sd 0.01, mean 0.02: t of 2 is 4.303, 0.0248 half
    assert row.main.verdict == "undecided"
    assert row.main.interval == pytest.approx((0.02 - 0.02484, 0.02 + 0.02484), abs=1e-5)
    assert row.main.seeds_to_decide == 4  # t of 3 is 3.182: 0.0159
    assert "undecided: 1 more seed would tell, if all stays as it is" in row.notes
    assert pair((0.53, 0.56, 0.545)).main.verdict == "better"
    assert pair((0.51, 0.53, 0.52), noise=0.3).main.seeds_to_decide is None
    (note,) = [n for n in pair((0.501,), noise=0.3).notes if "luck" in n]
    assert note == "one seed each: a second tells how much is the luck of training"


def test_replicates_of_two_versions_are_not_paired(tmp_path):
    """Other images are in other replicates: their differences would be of nothing."""
    a = put(tmp_path / "a", run(value=0.5))
    b = put(tmp_path / "b", run(value=0.6), noise=np.random.default_rng(0).normal(size=1041))
    row = only(a, b)
    assert (row.main.interval, row.main.verdict) == (None, "unknown")
    assert any("of an earlier version" in n and "--overwrite" in n for n in row.notes)


def test_seeds_without_replicates_among_others_leave_no_interval(tmp_path):
    left, right = (
        [put(tmp_path / f"{name}{s}", run(seed=s, value=value), replicates=s == 0) for s in (0, 1)]
        for name, value in (("a", 0.5), ("b", 0.6))
    )
    (row,) = compare(side("A", *left), side("B", *right)).rows
    assert (row.main.interval, row.main.verdict) == (None, "unknown")
    assert any("no interval" in note for note in row.notes)


def test_what_else_differs(tmp_path):
    def versions(torch):
        return {"device": "x", "threads": 2, "versions": {"torch": torch}}

    params = {"backbone": 5_002_000, "decoder": 0, "head": 0}
    a = run(options={"lr": 0.1}, environment=versions("1"))
    b = run(options={"lr": 0.2}, environment=versions("2"), params=params)
    row = only(a, b)
    assert row.changes == {"lr": (0.1, 0.2), "torch": ("1", "2")}
    assert row.costs["params"] == (2_501_000, 5_002_000)
    assert row.costs["latency_ms"] == (10, 10)
    smaller = only(a, run(options={"lr": 0.2}, params=params, deployed={"params": 7, "macs": 3}))
    assert [pair[1] for pair in smaller.costs.values()][:2] == [7, 3]
    assert smaller.costs["params"] == (2_501_000, 7)
    there = only(a, run(device="y"))
    assert "latency_ms" not in there.costs
    assert any("not on the same device" in note for note in there.notes)
    later = {"median_ms": 12.0, "fps": 83.0, "session": "other"}
    assert any(
        "other sessions" in note
        for note in only(a, run(speed=later, environment=a.environment)).notes
    )


def test_runs_of_folders_are_paired_by_what_they_are():
    left = [
        run("fcn"),
        run("a"),
        run("b", options={"lr": 0.1}),
        run("b", options={"lr": 0.2}, key="2"),
    ]
    right = [run("fcn", options={"epochs": 3}), run("b", options={"lr": 0.2}), run("c"),
             run("a", protocol="q")]  # fmt: skip
    report = compare(side("A", *left), side("B", *right))
    assert {row.name: row.changes for row in report.rows} == {
        "fcn on b": {"epochs": (None, 3)},  # one of that name on each side
        "b on b": {},  # the one of the same configuration
    }
    assert report.only_a == [
        "a on b, seed 0, segmentation on camvid", "b on b, seed 0, segmentation on camvid"
    ]  # fmt: skip
    assert len(report.only_b) == 2


def test_networks_of_one_name_are_told_apart():
    runs = [run(options={"lr": lr}, key=str(lr)) for lr in (0.1, 0.2)]
    runs.append(run(options={"dataset": "scenes", "lr": 0.3}))
    report = compare(side("A", *runs), side("B", *runs))
    names = ["fcn on b (lr=0.1)", "fcn on b (lr=0.2)", "fcn on b"]
    assert [row.name for row in report.rows] == names


def test_other_test_images_are_no_pair():
    other = run(data={"test": {"fingerprint": "else"}})
    with pytest.raises(UserError, match="nothing to compare: A has fcn on b, seed 0"):
        compare(side("A", run()), side("B", other))


def described(**facts):
    values = {"name": "pipes", "images": ["a/*.png"], "targets": facts}
    return run(options={"dataset": "own", "description": values}, key=str(facts))


def test_own_data_of_other_facts_is_no_pair_and_no_row():
    """The same images with other classes, as in another dataset.yaml, are another data set."""
    one, other = described(classes=["a", "b"]), described(classes=["b", "a"])
    both = side("A", one, other)
    report = compare(both, side("B", one, other))
    assert [row.title for row in report.rows] == ["segmentation on own (pipes)"] * 2
    assert [row.seeds for row in report.rows] == [[(0, 0)]] * 2
    with pytest.raises(UserError, match="nothing to compare"):
        compare(side("A", one), side("B", other))
    with pytest.raises(UsageError, match="A and B were scored on own data whose"):
        compare(side("A", one, single=True), side("B", other, single=True))


def test_a_row_is_of_one_data_set():
    runs = [run(options={"dataset": "image-masks", "task": "saliency", "data": name}, key=name)
            for name in ("davis", "pipes")]  # fmt: skip
    report = compare(side("A", *runs), side("B", *runs))
    titles = [f"saliency on image-masks ({name})" for name in ("davis", "pipes")]
    assert [row.title for row in report.rows] == titles


@pytest.fixture
def two(tmp_path):
    """Two results folders with one better, one worse network in the second."""
    for name, fcn, unet in (("a", 0.5, 0.5), ("b", 0.51, 0.49)):
        put(tmp_path / name / "one", run("fcn", value=fcn))
        put(tmp_path / name / "two", run("unet", value=unet))
    return tmp_path


def test_guard(cli, two):
    def code(*limit, order="ab"):
        return cli("compare", two / order[0], two / order[1], "--fail-if-worse", *limit)

    assert cli("compare", two / "a", two / "b").exit_code == 0
    done = code("1.9")
    assert done.exit_code == 1
    assert "worse by more than 1.9 %: unet on b, segmentation on camvid" in done.stderr
    assert "fcn" not in done.stderr
    assert code("2.1").exit_code == 0
    assert code("0", order="aa").exit_code == 0
    assert code("-1").exit_code == 2


def test_the_guard_sees_runs_that_fail_now(cli, two):
    path = two / "b" / "two"
    save(path, run("unet", status="failed", error="the loss is nan", protocol="", columns=[]))
    done = cli("compare", two / "a", two / "b", "--fail-if-worse", "5")
    assert done.exit_code == 1
    assert "unet on b, seed 0, segmentation on camvid: the loss is nan" in done.stderr
    assert "failed in B: unet" in done.stdout


def test_the_guard_does_not_pass_what_it_cannot_read(cli, two):
    assert cli("compare", two / "a", two / "b", "--fail-if-worse", "90").exit_code == 0
    (two / "b" / "two" / "result.json").write_text('{"format": 1')
    done = cli("compare", two / "a", two / "b", "--fail-if-worse", "90")
    assert done.exit_code == 1
    assert "1 results of" in done.stderr


def test_the_guard_at_a_score_of_nothing():
    def worse(higher, value):
        a, b = (side(n, run(value=v, higher=higher)) for n, v in (("A", 0.0), ("B", value)))
        return compare(a, b).worse_than(50)

    assert worse(True, 0.0) == worse(True, 0.1) == []
    assert worse(True, -0.1) == worse(False, 0.1) == ["fcn on b, segmentation on camvid"]


def test_json_and_metrics(cli, two):
    done = cli("compare", two / "a", two / "b", "--json", "-")
    found = json.loads(done.stdout)
    assert found["format"] == 1
    assert [row["name"] for row in found["rows"]] == ["fcn on b", "unet on b"]
    assert found["rows"][0]["differences"][0]["verdict"] == "better"
    shown = cli("compare", two / "a", two / "b").stdout
    assert "other" not in shown
    assert "other" in cli("compare", two / "a", two / "b", "--all").stdout
    assert "other" in cli("compare", two / "a" / "one", two / "b" / "one").stdout
    cli("compare", two / "a", two / "b", "--json", two / "out.json")
    assert json.loads((two / "out.json").read_text()) == found


def test_a_run_against_a_folder_and_by_its_file(cli, two):
    one = two / "a" / "one"
    done = cli("compare", one, two / "b")
    assert done.exit_code == 0
    assert "only in B: unet on b" in done.stdout
    assert cli("compare", one / "result.json", two / "b" / "two").exit_code == 0


def test_two_runs_that_cannot_be_compared(cli, tmp_path):
    put(tmp_path / "a", run())
    for name, other, message in (
        ("task", run(options={"task": "depth"}), "is a run of segmentation, "),
        ("protocol", run(protocol="q"), "different protocols: "),
        (
            "images",
            run(data={"test": {"fingerprint": "x"}}),
            "were scored on different test images",
        ),
        ("failed", run(status="failed", error="no"), "this run failed: no"),
    ):
        put(tmp_path / name, other)
        done = cli("compare", tmp_path / "a", tmp_path / name)
        assert done.exit_code == 2
        assert message in line(done)


def test_sides_that_are_none(cli, two):
    (two / "empty").mkdir()
    (two / "file").write_text("x")
    bad = two / "bad"
    bad.mkdir()
    (bad / "result.json").write_text("{")
    for name, code, message in (
        ("none", 2, "no such folder, and no commit"),
        ("file", 2, "neither a run's folder, a results folder nor a commit"),
        ("empty", 1, "no result: no result.json in it"),
        ("bad", 1, "left out: no whole JSON"),
    ):
        done = cli("compare", two / "a", two / name)
        assert done.exit_code == code
        assert message in line(done)


@pytest.fixture
def repository(two, monkeypatch):
    """Two commits, tagged, whose results/ are those of ``two``."""
    if shutil.which("git") is None:
        pytest.skip("no git")
    root = two / "project"
    root.mkdir()
    monkeypatch.chdir(root)

    def git(*arguments):
        identity = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)

    git("init")
    for name in "ab":
        if name == "b":
            git("rm", "-rq", "results")
        (two / name).rename(root / "results")
        git("add", "-A")
        git("commit", "-m", name)
        git("tag", f"tag-{name}")
    return root


def test_commits(cli, repository):
    done = cli("compare", "tag-a", "HEAD", "--fail-if-worse", "1")
    assert done.exit_code == 1
    assert "worse by more than 1 %: unet on b" in done.stderr
    assert "undecided" not in done.stdout.split("95 %: interval of")[0]
    assert "no interval" not in done.stdout
    # the working tree's folder of that name is no commit, and wins over one
    assert cli("compare", "results", "HEAD", "--fail-if-worse", "0").exit_code == 0
    assert (repository / "results" / "one" / REPLICATES).exists()


def test_commits_without_results(cli, repository):
    done = cli("compare", "tag-a", "HEAD", "--results", "runs")
    assert done.exit_code == 1
    assert "tag-a: no runs/*/result.json in this commit: give --results" in line(done)
    done = cli("compare", "tag-a", "HEAD", "--results", "/elsewhere")
    assert done.exit_code == 2
    assert "not inside" in line(done)
    done = cli("compare", "tag-a", "--output=x")
    assert done.exit_code == 2
    assert cli("compare", "tag-a", "HEAD", "--results", repository / "results").exit_code == 0


def of_images(values):
    """Replicates of a mean over images, as this version makes them."""
    weights = image_weights(len(values))
    return weights @ values / weights.sum(1)


def put_images(folder, run, values):
    run = run.model_copy(update={"metrics": {**run.metrics, "m": float(np.mean(values))}})
    save(folder, run)
    save_replicates(folder, {"segmentation": {"m": of_images(values)}})
    return run.model_copy(update={"folder": folder})


def test_the_interval_of_one_pair_is_that_of_a_paired_mean(tmp_path):
    random = np.random.default_rng(0)
    left = random.normal(0.5, 0.1, 60)
    right = left + random.normal(0.01, 0.02, 60)
    a, b = put_images(tmp_path / "a", run(), left), put_images(tmp_path / "b", run(), right)
    main = only(a, b).main
    difference = right - left
    half = student.ppf(0.975, 59) * difference.std(ddof=1) / 60**0.5
    assert main.difference == pytest.approx(difference.mean(), rel=1e-5)
    assert main.interval[1] - main.interval[0] == pytest.approx(2 * half, rel=0.1)


def test_intervals_over_seeds_and_images_hold_the_truth(tmp_path):
    """What differs by seed and image is in the variance over seeds, and not counted twice."""
    random = np.random.default_rng(1)
    held, seeds, repeats = 0, 3, 400
    for _ in range(repeats):
        common = random.normal(0, 0.02, 50)
        each = [common + random.normal(0, 0.05, 50) + random.normal(0, 0.004) for _ in range(seeds)]
        means = [float(np.mean(one)) for one in each]
        resampled = [of_images(one) for one in each]
        ends, _ = interval_over(means, resampled, np.mean(resampled, axis=0))
        held += ends[0] <= 0 <= ends[1]
    assert 0.93 <= held / repeats <= 0.975
