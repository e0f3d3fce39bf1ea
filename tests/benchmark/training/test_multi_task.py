"""One network for several tasks: losses, missing labels, results, gain over single tasks."""

import json
import math

import pytest
import torch

from benchmark.experiment.config import RunConfig, make_config
from benchmark.experiment.network import build_model
from benchmark.experiment.plan import command_of, make_tasks, plan, resolve
from benchmark.leaderboard.boards import boards
from benchmark.report.tables import cells, header
from benchmark.results.result import TaskScores
from benchmark.training.network_training import NetworkTraining, improvement
from benchmark.training.weighting import Weighting
from common.errors import DataError
from common.progress import Silent
from datasets.base import DatasetInfo, Sample
from datasets.pipeline import Resized, Split
from models.decoders.base import SeparateDecoders
from tests.support import TINY, line, result

TASKS = ("--task", "segmentation", "--task", "depth")
RUN = ("run", *TASKS, *TINY, "--image-size", "32x32", "--epochs", "1", "--limit", "4",
       "--batch-size", "2", "--decoder", "fcn")  # fmt: skip


def losses(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_fixed_weights():
    weighting = Weighting("fixed", ["a", "b"], {"b": 0.5})
    assert float(weighting(losses(a=2.0, b=6.0))) == 5.0


def test_uncertainty_learns_to_trust_the_smaller_loss():
    weighting = Weighting("uncertainty", ["a", "b"], {})
    assert float(weighting(losses(a=2.0, b=6.0)).detach()) == 8.0  # s = 0: the plain sum
    optimizer = torch.optim.SGD([weighting.log_variance], 0.05)
    for _ in range(2000):
        optimizer.zero_grad()
        weighting(losses(a=0.5, b=6.0)).backward()
        optimizer.step()
    # d/ds (exp(-s) L + s/2) = 0 at exp(-s) = 1 / 2L
    assert weighting.weights() == pytest.approx({"a": 1.0, "b": 1 / 12}, rel=1e-3)


def test_dwa_prefers_what_fell_less():
    weighting = Weighting("dwa", ["a", "b"], {})
    assert weighting.weights() == {"a": 1, "b": 1}
    weighting.end_epoch({"a": 1.0, "b": 4.0})
    assert weighting.weights() == {"a": 1, "b": 1}
    weighting.end_epoch({"a": 1.0, "b": 2.0})
    a, b = math.exp(1 / 2), math.exp(0.5 / 2)
    assert weighting.weights() == pytest.approx({"a": 2 * a / (a + b), "b": 2 * b / (a + b)})
    assert sum(weighting.weights().values()) == pytest.approx(2)


class Partly:
    """Every second image lacks its depth."""

    info = DatasetInfo("partly", "partly", {}, {})

    def __init__(self, depth: bool = True) -> None:
        self.depth = depth

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        targets = {"segmentation": torch.full((32, 32), index, dtype=torch.uint8)}
        if index % 2 and self.depth:
            targets["depth"] = torch.full((32, 32), 2.0)
        image = torch.full((3, 32, 32), 50 * index, dtype=torch.uint8)
        return Sample(image, targets, str(index))


def config_of(**values):
    base = {"task": "segmentation+depth", "dataset": "scenes", "image_size": "32", "batch_size": 2,
            "epochs": 1, "backbone": "test_efficientnet", "decoder": "fcn"}  # fmt: skip
    return resolve(make_config({**base, **values}))


def fit(config, data):
    tasks = make_tasks(config)
    model = build_model(config, tasks)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    training = NetworkTraining(
        config, model, tasks, data,
        validate=lambda _: {"segmentation/miou": 0.5, "depth/abs_rel": 0.5},
        save=lambda *_: None,
    )  # fmt: skip
    training.fit(lambda *_: None, Silent())
    return {
        part: any(not torch.equal(before[n], p) for n, p in model.named_parameters() if part in n)
        for part in ("backbone", "heads.segmentation", "heads.depth")
    }


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty", "dwa"])
def test_images_without_a_label_still_train_the_other_task(weighting):
    def data(depth):
        split = Split(Partly(depth), range(4), "train")
        return Resized(split, (32, 32), ("segmentation", "depth"), targets=True)

    config = config_of(loss_weighting=weighting, weight_decay=0)
    assert all(fit(config, data(depth=True)).values())
    moved = fit(config, data(depth=False))  # no label of depth in any batch
    assert moved["backbone"]
    assert moved["heads.segmentation"]
    assert not moved["heads.depth"]


def test_scoring_hands_out_what_is_there():
    scored = Resized(Split(Partly(), range(4), "test"), (32, 32), ("segmentation", "depth"), False)
    assert [sorted(scored[i].targets) for i in range(2)] == [
        ["segmentation"], ["depth", "segmentation"]
    ]  # fmt: skip
    with pytest.raises(DataError, match="0: no saliency: only segmentation"):
        Resized(Split(Partly(), range(4), "test"), (32, 32), "saliency", targets=False)


def test_shared_and_separate_decoders():
    config = config_of(decoder="sparsemask")
    shared = build_model(config, make_tasks(config))
    separate = config.model_copy(update={"separate_decoders": True})
    apart = build_model(separate, make_tasks(config))
    assert isinstance(apart.decoder, SeparateDecoders)
    count = sum(p.numel() for p in shared.decoder.parameters())
    assert sum(p.numel() for p in apart.decoder.parameters()) == 2 * count
    x = torch.rand(2, 3, 40, 56)
    for model in (shared, apart):
        out = model.eval()(x)
        assert {name: y.shape[1] for name, y in out.items()} == {"segmentation": 11, "depth": 1}
        fused = model.fuse()(x)
        for name, y in out.items():
            torch.testing.assert_close(fused[name], y, rtol=1e-3, atol=1e-4)
    depth = apart.eval()(x)["depth"].sum()
    depth.backward()
    touched = {n.split(".")[1] for n, p in apart.decoder.named_parameters() if p.grad is not None}
    assert touched == {"depth"}


def test_the_best_epoch_is_that_of_the_largest_mean_gain():
    tasks = make_tasks(config_of())
    first = {"segmentation/miou": 0.2, "depth/abs_rel": 0.4}
    assert improvement(tasks, first, first) == 0
    # mIoU +50 %, AbsRel 25 % down
    gain = improvement(tasks, first, {"segmentation/miou": 0.3, "depth/abs_rel": 0.3})
    assert gain == pytest.approx((1.5 - 0.75) / 2)


def test_run_and_report(cli, tmp_path):
    results = tmp_path / "runs"
    joint = cli(*RUN, "--loss-weighting", "uncertainty", "--results", results)
    assert joint.exit_code == 0, joint.stderr
    (path,) = results.glob("segmentation+depth_scenes_*/result.json")
    record = json.loads(path.read_text())
    assert list(record["tasks"]) == ["segmentation", "depth"]
    assert record["metrics"] == {}
    assert record["tasks"]["depth"]["protocol"] == "scenes/depth/test/abs_rel/32x32/first4"
    assert record["tasks"]["segmentation"]["counts"]["images"] == 4
    assert {"val/depth/abs_rel", "loss/depth", "weight/segmentation"} <= set(record["history"][0])
    for task in ("segmentation", "depth"):
        single = [part for part in RUN if part not in ("segmentation", "depth", "--task")]
        assert cli(*single, "--task", task, "--results", results).exit_code == 0
    report = cli("report", "--results", results)
    assert report.exit_code == 0
    found = json.loads((results / "leaderboard.json").read_text())["boards"]
    rows = [row for board in found for row in board["rows"]]
    gains = [row["delta m %"] for row in rows]
    assert len(rows) == 4
    assert len({gain for gain in gains if gain is not None}) == 1
    assert sum(gain is not None for gain in gains) == 2
    again = cli(*RUN, "--loss-weighting", "uncertainty", "--results", results)
    assert "already finished" in again.stderr


def test_delta_m_by_hand():
    def single(task, value, higher):
        config = RunConfig(task=task, dataset="scenes", backbone="b", decoder="fcn")
        return result(protocol=task, value=value, higher=higher, config=config)

    def scores(task, value, higher):
        flat = single(task, value, higher)
        return TaskScores(**{name: getattr(flat, name) for name in TaskScores.model_fields})

    config = RunConfig(
        task="segmentation+depth", dataset="scenes", backbone="b", decoder="fcn",
        loss_weighting="dwa",
    )  # fmt: skip
    tasks = {"segmentation": scores("segmentation", 0.55, True),
             "depth": scores("depth", 0.24, False)}  # fmt: skip
    joint = result(config=config, tasks=tasks, metrics={}, columns=[])
    alone = [single("segmentation", 0.5, True), single("depth", 0.2, False)]
    # mIoU +10 %, error +20 %: mean -5 %
    for board in boards([joint, *alone]):
        row = next(row for row in board.rows if "dwa" in row.settings)
        assert row.delta_m == pytest.approx(-5)
        assert "-5.0" in cells(board, row)
        assert len(cells(board, row)) == len(header(board))
    # another machine's networks are compared among themselves
    other = {"device": "B", "threads": 2}
    there = [r.model_copy(update={"environment": other}) for r in (joint, *alone)]
    there[1] = there[1].model_copy(update={"metrics": {"m": 0.55, "other": 0.25}})
    gains = {
        (board.protocol, row.delta_m and round(row.delta_m, 6))
        for board in boards([joint, *alone, *there])
        for row in board.rows
    }
    assert {gain for protocol, gain in gains if "cpu A" in protocol} == {None, -5}
    assert {gain for protocol, gain in gains if ", B" in protocol} == {None, -10}
    incomplete = boards([joint, alone[0]])
    assert all(row.delta_m is None for board in incomplete for row in board.rows)


def test_wrong_options(cli, tmp_path):
    for options, part in (
        (("--loss", "ce"), "--loss: ce: give it with one --task, not 2"),
        (("--task-weight", "saliency=2"), "--task-weight: saliency is none of the tasks"),
        (("--task-weight", "depth=0"), "--task-weight: depth=0 is not above 0"),
        (("--task-weight", "depth"), "--task-weight depth: expected KEY=VALUE"),
        (("--task", "dept"), "did you mean depth"),
        (("--task", "depth"), "--task: segmentation+depth+depth names a task twice"),
        (("--task-weight", "depth=abc"), "--task-weight: "),
    ):
        done = cli(*RUN, "--results", tmp_path / "runs", *options)
        assert done.exit_code == 2
        assert part in line(done)
    assert not (tmp_path / "runs").exists()


def test_one_task_has_nothing_to_weigh(cli):
    for option in (("--loss-weighting", "dwa"), ("--task-weight", "depth=2"),
                   ("--separate-decoders",)):  # fmt: skip
        done = cli("run", "--task", "depth", *option, "--dry-run")
        assert done.exit_code == 2
        assert "for several --task only" in line(done)


def test_the_command_repeats_a_joint_run():
    config = config_of(task_weights={"depth": 0.5}, separate_decoders=True)
    text = command_of(config)
    assert "--task segmentation --task depth" in text
    assert "--task-weight depth=0.5" in text
    assert "--separate-decoders" in text
    assert plan(config.model_dump(), {})[0] == config
