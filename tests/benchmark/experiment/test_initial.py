"""``--init``: what of another run's network a new one begins with."""

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmark.experiment import initial
from benchmark.experiment.config import RunConfig, SearchConfig
from benchmark.experiment.network import build_model
from benchmark.experiment.plan import command_of, make_tasks, resolve, run_key
from benchmark.results import layout
from benchmark.results.checkpoint import open_checkpoint, save_checkpoint
from benchmark.results.result import Result
from benchmark.results.store import read, save
from benchmark.wiring.search import build_relaxed
from common import stopping
from common.errors import DataError, UsageError
from common.progress import Silent
from models.connected_decoder import ConnectedDecoder
from models.predictor import DensePredictor
from tests.support import TINY, folder_of, line, run_plan

BACKBONE = "test_efficientnet"
STATISTICS = {"mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.3)}


def config_of(task: str = "segmentation", decoder: str = "unet-connectivity", **more: Any) -> Any:
    return RunConfig(task=task, decoder=decoder, **{"backbone": BACKBONE, **more})


def run_of(folder: Path, config: RunConfig) -> Path:
    """The folder of a run that was not trained; its numbers are nobody else's."""
    resolved = resolve(config)
    model = build_model(resolved, make_tasks(resolved))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(1)
    save(folder, Result(key=run_key(resolved), status="failed", config=resolved, command="x"))
    save_checkpoint(folder, "last", model, {})
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(tmp_path_factory.mktemp("runs") / "a", config_of(seed=5, **STATISTICS))


def started(init: Path, config: RunConfig) -> tuple[DensePredictor, str, set[str]]:
    """A network, the line about its start, and the names of its tensors that are the run's."""
    resolved = resolve(config.model_copy(update={"init": init}))
    model = build_model(resolved, make_tasks(resolved))
    theirs = load_file(init / "last.safetensors")
    own = {name: t for name, t in model.state_dict().items() if "num_batches" not in name}
    same = {n for n, t in own.items() if n in theirs and torch.equal(t, theirs[n])}
    return model, model.backbone.note, same


def names(state: dict[str, Tensor], *starts: str) -> set[str]:
    return {n for n in state if n.startswith(starts) and "num_batches" not in n}


def test_the_file_has_one_name() -> None:
    assert initial.RECORD == layout.FILE


def test_the_same_network_is_taken_whole(run: Path) -> None:
    model, note, same = started(run, config_of(backbone=None))
    assert same >= names(model.state_dict(), "backbone.", "decoder.", "heads.")
    assert note == (
        f"init: {run} (last weights of unet-connectivity for segmentation on scenes): backbone; "
        "decoder: 13 of 13 connections; head of segmentation"
    )
    resolved = resolve(config_of(backbone=None, init=run))
    assert (resolved.backbone, resolved.mean) == (BACKBONE, STATISTICS["mean"])
    assert resolve(config_of(init=run, mean=(0.1,))).mean == (0.1, 0.1, 0.1)


def test_another_task_takes_all_but_the_head(run: Path) -> None:
    model, note, same = started(run, config_of("depth"))
    assert note.endswith("13 of 13 connections; head of depth not taken: the run has none")
    assert same >= names(model.state_dict(), "backbone.", "decoder.")
    assert not same & names(model.state_dict(), "heads.")


def test_a_head_of_other_classes_is_not_taken(run: Path, tmp_path: Path) -> None:
    """Also of as many: the first class of one is not the first of the other."""
    folder = tmp_path / "b"
    shutil.copytree(run, folder)
    content = json.loads((folder / "result.json").read_text())
    content["config"] |= {"dataset": "camvid", "data": "x"}
    (folder / "result.json").write_text(json.dumps(content))
    model, note, same = started(folder, config_of())
    assert note.endswith("head of segmentation not taken: its classes are 11 others")
    assert not same & names(model.state_dict(), "heads.")


def test_another_wiring_takes_the_connections_of_both(run: Path) -> None:
    model, note, same = started(run, config_of(decoder="sparsemask"))
    old = open_checkpoint(run).model.decoder
    new = model.decoder
    assert isinstance(new, ConnectedDecoder)
    assert isinstance(old, ConnectedDecoder)
    both = 0
    for source, users in new.consumers.items():
        weight: Any = new.convs[source].weight
        for stage, rows in zip(users, weight.split(new.width), strict=True):
            if stage in old.consumers.get(source, []):
                before: Any = old.convs[source].weight
                there = before.split(old.width)[old.consumers[source].index(stage)]
                assert torch.equal(rows, there)
                both += 1
    count = sum(map(len, new.consumers.values()))
    assert 0 < both < count
    assert f"decoder: {both} of {count} connections" in note
    assert same >= names(model.state_dict(), "backbone.", "heads.")


def test_another_decoder_takes_the_backbone_alone(run: Path) -> None:
    model, note, same = started(run, config_of(decoder="smp-fpn"))
    assert "backbone; decoder not taken: the run has another; head of segmentation not" in note
    assert same == names(model.state_dict(), "backbone.")


def test_a_neck_comes_with_the_backbone_if_the_run_has_one(tmp_path: Path) -> None:
    plain, neck = config_of(backbone="test_vit"), {"neck": "vitdet"}
    learned = config_of(backbone="test_vit", backbone_args=neck)
    folders = [run_of(tmp_path / name, x) for name, x in (("a", plain), ("b", learned))]
    model, note, same = started(folders[1], config_of("depth", backbone=None))
    assert same == names(model.state_dict(), "backbone.", "decoder.")
    assert any(name.startswith("backbone.neck.") for name in same)
    assert ": backbone; decoder: " in note
    model, note, same = started(folders[0], learned)
    assert ": backbone; neck not taken: the run has none; decoder" in note
    assert same >= names(model.state_dict(), "backbone.net.")
    assert not same & names(model.state_dict(), "backbone.neck.")


def test_decoders_of_several_tasks(tmp_path: Path) -> None:
    several = config_of("segmentation+depth", separate_decoders=True)
    folder = run_of(tmp_path / "a", several)
    theirs = load_file(folder / "last.safetensors")
    model, note, _ = started(folder, config_of("depth"))
    state = model.state_dict()
    for name in names(state, "decoder."):
        assert torch.equal(state[name], theirs[name.replace("decoder.", "decoder.decoders.depth.")])
    assert note.endswith("decoder: 13 of 13 connections; head of depth")
    single = run_of(tmp_path / "b", config_of("depth"))
    _, note, _ = started(single, several)
    assert "decoder of segmentation: 13 of 13" in note
    assert "decoder of depth: 13 of 13" in note


def test_a_search_begins_with_a_run(run: Path) -> None:
    config = resolve(SearchConfig(init=run))
    model = build_relaxed(config, make_tasks(config))
    theirs = load_file(run / "last.safetensors")
    own = model.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in names(own, "backbone."))
    assert config.backbone == BACKBONE


def test_the_width_follows_to_a_decoder_of_the_same_kind(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "a", config_of(width=8))
    trained = open_checkpoint(folder).model.decoder
    assert isinstance(trained, ConnectedDecoder)
    assert trained.width == 8
    for decoder in ("unet-connectivity", "sparse-acn"):
        model, note, same = started(folder, config_of(decoder=decoder))
        assert model.decoder.out_channels == 8
        assert same >= names(model.state_dict(), "heads.")
    assert resolve(config_of(init=folder)).width == 8
    assert "--width 8" in command_of(resolve(config_of(init=folder)))
    assert resolve(config_of(decoder="dss", init=folder)).width is None
    assert resolve(config_of(decoder="smp-fpn", init=folder)).width is None
    relaxed = build_relaxed(resolve(SearchConfig(init=folder)), make_tasks(config_of()))
    assert relaxed.decoder.out_channels == 8
    model, note, same = started(folder, config_of(width=4))
    assert note.endswith(
        "backbone; decoder not taken: its width is 4, the run's 8; head of segmentation not "
        "taken: it has another shape"
    )
    assert same == names(model.state_dict(), "backbone.")


def test_a_run_of_before_keeps_the_connections_of_its_dilated_strides(tmp_path: Path) -> None:
    """Matched by 2, 4, 8, 8, 8: of the authors' wiring D1 ← G, E1 is left."""
    dilated = {"backbone": "test_resnet", "backbone_args": {"output_stride": 8}}
    plain = run_of(tmp_path / "plain", config_of(decoder="sparsemask", backbone="test_resnet"))
    resolved = resolve(config_of(decoder="sparsemask", **dilated))
    before = resolved.model_copy(update={"match_undilated": False})
    model = build_model(before, make_tasks(before))
    folder = tmp_path / "before"
    save(folder, Result(key=run_key(before), status="failed", config=before, command="x"))
    content = json.loads((folder / "result.json").read_text())
    del content["config"]["match_undilated"], content["config"]["width"]
    (folder / "result.json").write_text(json.dumps(content))
    save_checkpoint(folder, "last", model, {})
    opened = open_checkpoint(folder)
    assert run_key(opened.config) == run_key(before)
    assert isinstance(opened.model.decoder, ConnectedDecoder)
    assert {s: set(i) for s, i in opened.model.decoder.connectivity.stages.items()} == {
        1: {"G", "E1"}
    }
    for init, taken in ((folder, 2), (plain, 10)):
        model, note, _ = started(init, config_of(decoder="sparsemask", **dilated))
        assert f"decoder: {taken} of 10 connections" in note


def test_the_content_is_identity_and_the_place_is_not(run: Path, tmp_path: Path) -> None:
    plain, begun = resolve(config_of()), resolve(config_of(init=run))
    shutil.copytree(run, tmp_path / "b")
    moved = resolve(config_of(init=tmp_path / "b"))
    assert run_key(begun) == run_key(moved) != run_key(plain)
    with (tmp_path / "b" / "last.safetensors").open("ab") as file:
        file.write(b" ")
    assert run_key(resolve(config_of(init=tmp_path / "b"))) != run_key(begun)
    assert f"--init {run}" in command_of(begun)
    assert "init" not in command_of(plain)
    assert resolve(config_of(init=run / "last.safetensors")).init_sha256 == begun.init_sha256


def test_what_is_no_run_is_refused(run: Path, tmp_path: Path) -> None:
    def refusal(**values: Any) -> str:
        with pytest.raises(UsageError) as caught:
            resolve(config_of(**values))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such folder or file" in refusal(init=tmp_path / "none")
    assert "no result.json in" in refusal(init=tmp_path)
    assert "leave --backbone out" in refusal(init=run, backbone="test_resnet")
    assert "no weights there" in refusal(init=run / "result.json")
    for text in ("{", "[]", '{"config": {"lr": "x"}}', '{"config": 3}'):
        (tmp_path / "result.json").write_text(text)
        assert "result.json is no result (" in refusal(init=tmp_path)
    shutil.copy(run / "result.json", tmp_path)
    assert "no weights there" in refusal(init=tmp_path)
    (tmp_path / "last.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(DataError, match=r"last\.safetensors: not a readable weights file"):
        started_from(tmp_path)
    state = load_file(run / "last.safetensors")
    first = min(names(state, "backbone."))
    del state[first]
    save_file(state, tmp_path / "last.safetensors")
    with pytest.raises(UsageError, match=f"its backbone does not fit: {re.escape(first)} is miss"):
        started_from(tmp_path)


def started_from(init: Path) -> DensePredictor:
    config = resolve(config_of(init=init))
    return build_model(config, make_tasks(config))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--pretrained",), "--init: has a backbone of its own: give it or --pretrained"),
        (("--weights", "a.pth"), "--init: has a backbone of its own: give it or --weights"),
    ],
)
def test_init_beside_other_weights_is_refused(cli, run: Path, options: Any, message: str) -> None:
    done = cli("run", "--init", run, *options, "--dry-run")
    assert done.exit_code == 2
    assert message in line(done)


def test_a_run_says_once_what_it_begins_with(cli, run: Path, tmp_path: Path) -> None:
    """Its decoder is that of the other run; the trained network needs the other run no more."""
    first = tmp_path / "first"
    shutil.copytree(run, first)
    small = ("--epochs", 1, "--limit", 8, "--image-size", 64, "--threads", 1)
    done = cli("run", "--init", first, "--task", "depth", *small, "--results", tmp_path / "r")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("init: ") == 1
    (folder,) = (tmp_path / "r").glob("depth_*")
    shutil.rmtree(first)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.config.decoder == "unet-connectivity"
    assert (checkpoint.config.backbone, TINY[1]) == (BACKBONE, BACKBONE)


def test_a_stopped_run_goes_on_to_the_same_bits(run: Path, tmp_path: Path) -> None:
    small: Any = {"init": run, "epochs": 2, "limit": 8, "image_size": (32, 32), "threads": 1}
    config = resolve(config_of(**small))
    run_plan([config], tmp_path / "whole")

    class Stops(Silent):
        def step(self, note: str = "") -> None:
            if note.startswith("loss"):
                signal.raise_signal(signal.SIGTERM)

    with stopping.signals(), pytest.raises(stopping.Stopped):
        run_plan([config], tmp_path / "cut", Stops())
    (result,) = run_plan([config], tmp_path / "cut")
    assert result.resumed == [1]
    files = [folder_of(config, tmp_path / n) / "last.safetensors" for n in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_is_timed_without_the_one_that_it_began_with(run: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    shutil.copytree(run, first)
    small: Any = {"init": first, "epochs": 1, "limit": 8, "image_size": (32, 32), "threads": 1}
    config = resolve(config_of(**small))

    class Removes(Silent):
        def step(self, note: str = "") -> None:
            if note.startswith("loss") and first.exists():
                shutil.rmtree(first)

    run_plan([config], tmp_path / "runs", Removes())
    assert not first.exists()
    assert read(folder_of(config, tmp_path / "runs")).speed is not None
