"""A sweep file: what it stands for, and what is said of a wrong one. Nothing is run here."""

import re
from pathlib import Path

import pytest

from benchmark.experiment.plan import DEFAULT_DECODERS, plan, run_key
from benchmark.sweep.file import BUILT_IN, read_sweep
from benchmark.sweep.report import label
from common.errors import DataError, UsageError
from tests.datasets.own.folder import YAML, discs
from tests.support import line

LAST = "splits: {val: 0.3, test: 0.3}\n"
SMALL = "backbone: test_resnet, decoders: fcn"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return path


def swept(tmp_path, text, **given):
    return read_sweep(str(write(tmp_path, text))).plan(**given)


def chosen(runs):
    return [(r.task, r.dataset, r.backbone, r.decoder, r.seed) for r in runs]


def test_a_block_is_a_product_in_order(tmp_path):
    text = """
    runs:
      - tasks: [depth, saliency]
        dataset: scenes
        backbones: [test_resnet, mobilenetv2_050]
        decoder: [fcn, sparsemask]
        seeds: [0, 1]
    """
    runs = swept(tmp_path, text).runs
    assert chosen(runs) == [
        (task, "scenes", backbone, decoder, seed)
        for task in ("depth", "saliency")
        for backbone in ("test_resnet", "mobilenetv2_050")
        for decoder in ("fcn", "sparsemask")
        for seed in (0, 1)
    ]


def test_runs_are_those_of_run(tmp_path):
    text = "runs: [{task: depth, epochs: 2, image-size: 64x96, seed: 3, lr: 1e-3}]"
    values = {"task": "depth", "epochs": 2, "image_size": "64x96", "lr": 0.001}
    expected = plan(values, {"decoder": DEFAULT_DECODERS, "seed": [3]})
    assert list(map(run_key, swept(tmp_path, text).runs)) == list(map(run_key, expected))


def test_blocks_that_overlap_give_each_run_once(tmp_path):
    text = f"runs: [{{{SMALL}, seeds: [0, 1]}}, {{{SMALL}, seeds: [1, 2]}}]"
    assert [run.seed for run in swept(tmp_path, text).runs] == [0, 1, 2]


def test_the_stronger_wins(tmp_path):
    text = """
    defaults: {backbone: test_resnet, lr: 0.1, epochs: 1, seeds: [0, 1], batch-size: 2}
    runs:
      - {tasks: [depth, saliency], decoders: [fcn, hed], epochs: 2}
    overrides:
      - when: {decoder: hed}
        set: {lr: 0.2, epochs: 3}
      - when: {decoders: [hed, fcn], task: depth, seed: 1}
        set: {lr: 0.3}
    """
    runs = swept(tmp_path, text, settings={"batch-size": 4}).runs
    found = {(r.task, r.decoder, r.seed): (r.lr, r.epochs, r.batch_size) for r in runs}
    assert found["depth", "fcn", 0] == (0.1, 2, 4)
    assert found["depth", "hed", 0] == (0.2, 3, 4)
    assert found["depth", "hed", 1] == (0.3, 3, 4)
    assert found["depth", "fcn", 1] == (0.3, 2, 4)
    assert found["saliency", "hed", 1] == (0.2, 3, 4)
    assert len(found) == 8


def test_an_override_knows_the_backbone_by_default(tmp_path):
    text = """
    runs: [{decoders: fcn}]
    overrides: [{when: {backbone: mobilenetv2_050}, set: {lr: 0.5}}]
    """
    assert swept(tmp_path, text).runs[0].lr == 0.5


def test_nothing_leaves_an_option_open(tmp_path):
    text = f"defaults: {{epochs: 9, seeds: 4}}\nruns: [{{{SMALL}, epochs: null, seeds: ~}}]"
    (run,) = swept(tmp_path, text).runs
    assert (run.epochs, run.seed) == (3, 0)  # those of scenes, and of run


def test_pairs_that_do_not_exist_are_left_out_and_told(tmp_path):
    text = f"runs: [{{tasks: [segmentation, depth], datasets: [camvid, scenes], {SMALL}}}]"
    found = swept(tmp_path, text)
    assert [(r.task, r.dataset) for r in found.runs] == [
        ("segmentation", "camvid"), ("segmentation", "scenes"), ("depth", "scenes"),
    ]  # fmt: skip
    assert found.skipped == ["camvid has no depth"]


def test_several_tasks_in_one_network(tmp_path):
    text = f"""
    runs:
      - {{tasks: [segmentation+depth, depth], dataset: scenes, {SMALL}}}
      - {{task: segmentation+depth, loss-weighting: dwa, task-weight: {{depth: 0.5}}, {SMALL}}}
    """
    runs = swept(tmp_path, text).runs
    assert [r.task for r in runs] == ["segmentation+depth", "depth", "segmentation+depth"]
    assert runs[2].task_weights == {"depth": 0.5}


def test_places(tmp_path, monkeypatch):
    text = f"""
    data: {{camvid: "${{HERE}}/camvid", voc2012: "${{NOWHERE}}"}}
    runs:
      - {{task: segmentation, datasets: [camvid, voc2012], {SMALL}}}
    """
    monkeypatch.setenv("HERE", "/data")
    monkeypatch.delenv("NOWHERE", raising=False)
    runs = swept(tmp_path, text).runs
    assert [str(r.data) for r in runs] == ["/data/camvid", "${NOWHERE}"]  # told when it is needed
    runs = swept(tmp_path, text, data={"voc2012": "voc"}).runs
    assert [str(r.data) for r in runs] == ["/data/camvid", "voc"]


def test_the_command_line_wins_over_a_block(tmp_path):
    text = f"runs: [{{{SMALL}, dataset: camvid, task: segmentation, data: /block}}]"
    assert [str(run.data) for run in swept(tmp_path, text).runs] == ["/block"]
    given = swept(tmp_path, text, data={"camvid": "/mine"}).runs
    assert [str(run.data) for run in given] == ["/mine"]


def test_weights_of_a_backbone_stand_in_for_pretrained(tmp_path):
    from safetensors.torch import save_file

    save_file({}, tmp_path / "w.safetensors")
    text = f"""
    defaults: {{pretrained: true}}
    weights: {{test_resnet: "{tmp_path}/w.safetensors"}}
    runs: [{{backbones: [test_resnet, mobilenetv2_050], decoders: fcn}}]
    """
    with_file, without = swept(tmp_path, text).runs
    assert with_file.weights_sha256
    assert not with_file.pretrained
    assert without.pretrained
    with pytest.raises(DataError, match=r"sweep\.yaml:4: .*none\.pth: no such weights file"):
        swept(tmp_path, text, weights={"test_resnet": "none.pth"})
    with pytest.raises(UsageError, match=r"NOWHERE is not set: .*--weights test_resnet=FILE"):
        swept(tmp_path, text, weights={"test_resnet": "${NOWHERE}"})


WRONG = [
    ("runs:\n  - decodrs: fcn", 2, "decodrs: unknown option: did you mean decoders?"),
    ("runs:\n  - epoch: 3", 2, "epoch: unknown option: did you mean epochs?"),
    ("defaults:\n  batchsize: 3\nruns: [{seed: 0}]", 2, "did you mean batch-size?"),
    ("runs:\n  - seed: 0\n    lr: .nan", 3, "lr: .*finite number"),
    ("runs:\n  - seed: 0\n    std: [.5, .inf, .5]", 3, "std: .*finite number"),
    ("runs:\n  - seed: 0\n    backbone-arg: {a: {b: .inf}}", 3, "a: inf is not a finite number"),
    ("runs:\n  - wiring: {}", 2, "wiring: unknown option"),
    ("run:\n  - seed: 0", 1, "run: unknown key: did you mean runs?"),
    ("results: here", 1, "runs: is missing"),
    ("runs: []", 1, "runs: "),
    ("runs: fcn", 1, "runs: "),
    ("runs:\n  - fcn", 2, "runs: "),
    ("cache: allways\nruns: [{seed: 0}]", 1, "cache: .*allways"),
    ("runs:\n  - seed: 0\n    epochs: many", 3, "epochs: .*many"),
    ("defaults:\n  epochs: many\nruns: [{seed: 0}]", 2, "epochs: .*many"),
    ("runs:\n  - seeds: [0, one]", 2, "seeds: .*one"),
    ("runs:\n  - seeds: []", 2, "seeds: is an empty list"),
    ("runs:\n  - decoders: [fcn, 3]", 2, "decoders: 3 is no name"),
    ("runs:\n  - seed: 0\n    decoders: [fcn,\n      sparsmask]", 3, "did you mean sparsemask"),
    ("runs:\n  - tasks: [depth, dept]", 2, "tasks: unknown task 'dept': did you mean depth"),
    ("runs:\n  - datasets: scene", 2, "did you mean scenes"),
    ("runs:\n  - backbones: [resnet81]", 2, "did you mean resnet"),
    ("runs:\n  - task: depth\n    dataset: camvid", 2, "nothing to run: camvid has no depth"),
    ("runs:\n  - task: [depth, edges]", 2, r"write tasks: \[a, b\]"),
    ("runs:\n  - decoder: fcn\n    decoders: hed", 3, "given twice"),
    ("runs:\n  - zoom: 2,1", 2, "zoom: .*LOW"),
    ("runs:\n  - seed: 0\n    seed: 1", 3, "seed: stands in line 2 already"),
    ("runs:\n  - {seed: 0, loss: mse}", 2, "unknown .*loss|mse"),
    ("runs: [{seed: 0}]\noverrides:\n  - when: {decodr: fcn}\n    set: {lr: 1}", 3, "decoder"),
    ("runs: [{seed: 0}]\noverrides:\n  - when: {decoder: fcn}\n    set: {lrr: 1}", 4, "lr"),
    ("runs: [{seed: 0}]\noverrides:\n  - when: {decoder: fcn}\n    st: {lr: 1}", 4, "mean set"),
    ("runs: [{seed: 0}]\noverrides:\n  - when: {lr: 1}\n    set: {lr: 1}", 3, "when takes task"),
    ("runs: [{seed: 0}]\noverrides:\n  - when: {seed: 0}\n    set: {seed: 1}", 4, "a product over"),
    ("runs: [{decoder: fcn}]\noverrides:\n  - when: {decoder: hed}\n    set: {lr: 1}", 3,
     "hed: no run is meant"),
    ("data: {camvidd: x}\nruns: [{seed: 0}]", 1, "did you mean camvid"),
    ("data: {camvid: 3}\nruns: [{seed: 0}]", 1, "camvid: .*3"),
    ("runs:\n  - seed: [0", None, "not YAML"),
    ("runs:\n\t- seed: 0", 2, "not YAML"),
    ("runs:\n  - task: depth+depth", 2, "task: depth.depth names a task twice"),
    ("\x00", None, "not YAML"),
    ("just text", 1, "key: value"),
    ("", 1, "key: value"),
    ("a: &a [*a]", None, "stands within what it stands for"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "number", "part"), WRONG)
def test_a_typo_is_told_with_its_line_in_one_line(cli, tmp_path, text, number, part):
    path = write(tmp_path, text)
    done = cli("sweep", path, "--dry-run")
    assert done.exit_code == 2
    told = line(done)
    assert re.search(part, told), told
    if number is not None:
        assert f"{path}:{number}: " in told


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("dmo",), "dmo: no such sweep file \\(did you mean demo"),
        (("x/y.yaml",), "no such sweep file"),
        (("demo", "--set", "epoch=1"), "--set epoch: unknown option: did you mean epochs?"),
        (("demo", "--set", "epochs=many"), "--set epochs: .*many"),
        (("demo", "--set", "seeds=1"), "--set seeds: the runs are a product"),
        (("demo", "--set", "epochs"), "--set epochs: expected NAME=VALUE"),
        (("demo", "--set", "epochs=[1"), r"--set epochs=\[1: not a value"),
        (("demo", "--set", "lr=.nan"), "--set lr=.nan: nan is not a finite number"),
        (("demo", "--data", "scene=x"), "--data scene: unknown dataset .*did you mean scenes"),
        (("demo", "--data", "camvid=x"), "--data camvid: no run has it"),
        (("demo", "--weights", "resnet18=x"), "--weights resnet18: no run has it"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(cli, tmp_path, arguments, part):
    done = cli("sweep", *arguments, "--dry-run", "--results", tmp_path)
    assert done.exit_code == 2
    assert re.search(part, line(done)), done.stderr


def test_a_file_wins_over_a_built_in_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text(f"runs: [{{{SMALL}}}]")
    assert len(read_sweep("demo").plan().runs) == 1


def test_built_in_files():
    assert {path.stem for path in BUILT_IN.glob("*.yaml")} == {"demo", "leaderboard", "paper"}
    runs = read_sweep("demo").plan().runs
    assert {run.dataset for run in runs} == {"scenes"}
    assert len({run.task for run in runs}) == 4


def test_the_paper_s_protocol_is_in_the_plan():
    runs = read_sweep("paper").plan().runs
    tables = {}
    for run in runs:
        tables.setdefault((run.dataset, run.backbone), []).append(run.decoder)
    assert {place: len(decoders) for place, decoders in tables.items()} == {
        ("voc2012-aug", "mobilenetv2_100"): 6, ("voc2012-aug", "resnet101"): 4,
        ("ade20k", "resnet101"): 4,
        ("msra-b", "mobilenetv2_100"): 4, ("bsds500", "vgg16"): 2,
    }  # fmt: skip
    for run in runs:
        ours = "sparsemask-stride1" if run.backbone == "vgg16" else "sparsemask"
        assert ours in tables[run.dataset, run.backbone]
    voc = next(run for run in runs if run.dataset == "voc2012-aug")
    assert (voc.lr, voc.decoder_lr_factor, voc.momentum) == (0.005, 10, 0.9)
    assert (voc.weight_decay, voc.epochs, voc.batch_size) == (4e-5, 50, 16)
    assert (voc.image_size, voc.zoom, voc.schedule) == ((513, 513), (0.5, 2), "poly")
    second = [run for run in runs if (run.dataset, run.backbone) == ("voc2012-aug", "resnet101")]
    assert {run.decoder: (run.width, run.backbone_args) for run in second} == {
        "sparsemask": (512, {}),
        **dict.fromkeys(("smp-pspnet", "smp-deeplabv3", "encnet"), (None, {"output_stride": 8})),
    }
    assert {(run.lr, run.epochs, run.image_size) for run in second} == {(0.01, 50, (513, 513))}
    ade = next(run for run in runs if run.dataset == "ade20k")
    assert (ade.lr, ade.epochs) == (0.01, 120)


OWN = "runs: [{tasks: [saliency, edges], datasets: [own, scenes], " + SMALL + "}]"


def test_targets_of_own_data_are_those_of_its_description(tmp_path, monkeypatch):
    root = discs(tmp_path / "discs", 3, YAML.replace(YAML[YAML.index("  edges") :], LAST))
    plan = swept(tmp_path, f"data: {{own: {root}}}\n{OWN}")
    pairs = [("saliency", "own"), ("saliency", "scenes"), ("edges", "scenes")]
    assert [(run.task, run.dataset) for run in plan.runs] == pairs
    assert plan.skipped == ["own has no edges"]
    assert plan.runs[0].description["name"] == "discs"
    for text, given in ((OWN, {"data": {"own": str(root)}}), (OWN, {"settings": {"data": root}})):
        assert [r.dataset for r in swept(tmp_path, text, **given).runs] == ["own", *["scenes"] * 2]
    text = "data: {own: '${OWN_DATA}'}\n" + OWN
    with pytest.raises(UsageError, match=r"sweep.yaml:1: .*variable OWN_DATA is not set: set it"):
        swept(tmp_path, text)
    monkeypatch.setenv("OWN_DATA", str(root))
    assert len(swept(tmp_path, text).runs) == 3
    (root / "dataset.yaml").unlink()
    with pytest.raises(DataError, match=r"sweep.yaml:1: data: own: .*the description is missing"):
        swept(tmp_path, text)


def test_two_folders_of_own_data_in_two_blocks(tmp_path):
    one = discs(tmp_path / "a", 3)
    other = discs(tmp_path / "b", 3, YAML.replace("name: discs", "name: rings"))
    block = "{{task: edges, dataset: own, data: {}, " + SMALL + "}}"
    runs = swept(tmp_path, f"runs: [{block.format(one)}, {block.format(other)}]").runs
    assert [run.description["name"] for run in runs] == ["discs", "rings"]
    assert [label(run).partition(":")[0] for run in runs] == [
        "edges on own (discs)", "edges on own (rings)"
    ]  # fmt: skip
    assert run_key(runs[0]) != run_key(runs[1])
