"""What ``from benchmark import …`` and ``torch.hub`` give, and the documents that show it."""

import copy
import json
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import benchmark
import hubconf
from benchmark import create_model, list_decoders, load_model, load_results
from benchmark.results.checkpoint import open_checkpoint
from benchmark.results.records import Results
from benchmark.results.store import read_all
from common.errors import DataError, UsageError, UserError
from models.connectivity import preset
from models.decoders.base import DECODERS
from models.predictor import TaskPredictor
from tests.support import ROOT

RUNS = ROOT / "tests" / "compatibility" / "written_by_0858ab1" / "runs"
(ONE,) = RUNS.glob("segmentation_scenes_*")
(SEVERAL,) = RUNS.glob("segmentation+depth_*")
(FAILED,) = RUNS.glob("depth_*")
IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def python(code: str, *arguments: object, folder: Path = ROOT) -> str:
    """What ``code`` prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def blocks(document: str) -> list[str]:
    """The Python in ``document``, block by block."""
    text = (ROOT / document).read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with what the documents name, and timm without its hub.

    ``asked`` in it gets the models whose weights would be downloaded.
    """
    (tmp_path / "found").mkdir()
    wiring = preset("unet-connectivity", (2, 4, 8, 16, 32)).to_json()
    (tmp_path / "found" / "found.json").write_text(json.dumps(wiring))
    (tmp_path / "results").symlink_to(ROOT / "results")
    (tmp_path / "RUN").symlink_to(ONE)
    create = timm.create_model

    def without_download(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            with (tmp_path / "asked").open("a") as file:
                file.write(f"{name}\n")
        net: nn.Module = create(name, pretrained=False, **options)
        return net

    monkeypatch.setattr("timm.create_model", without_download)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_does_what_it_says(place: Path) -> None:
    """The block runs as it stands; its first model is taken before the second replaces it."""
    (code,) = (c for c in blocks("README.md") if "from benchmark import create_model" in c)
    first, second = code.split("model = create_model(")[1:]
    lines = code[: code.index("model =")]
    names: dict[str, Any] = {}
    exec(f"{lines}model = create_model({first}", names)
    assert names["model"](IMAGES).shape == (2, 21, 64, 96)
    exec(f"model = create_model({second}", names)
    assert names["model"](IMAGES).shape == (2, 1, 64, 96)
    assert names["model"].decoder.connectivity.name == "unet-connectivity"
    assert set((place / "asked").read_text().split()) == {"mobilenetv2_100"}
    committed = list(read_all(ROOT / "results"))
    assert [row.key for row in names["rows"]] == [row.key for row in committed]
    assert len(names["rows"].to_records()) >= len(committed)
    assert names["list_decoders"]() == DECODERS.names()


def test_the_document_on_python_does_what_it_says(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    networks, trained, decoder, results, hub = blocks("docs/python.md")
    exec(networks, names)
    assert capsys.readouterr().out.startswith("['smp-")
    assert names["logits"].shape == (2, 21, 97, 131)
    assert names["depth"].shape == (2, 1, 97, 131)
    exec(trained, names)
    assert names["logits"].shape[-2:] == (96, 96)
    exec(decoder, names)
    assert names["logits"].shape == (2, 21, 48, 64)
    exec(results, names)
    assert {r["metric"] for r in names["records"] if r["task"] == "segmentation"} == {"miou"}
    scores = [r["score"] for r in names["records"] if r["dataset"] == "camvid"]
    assert names["best"].metrics["miou"] == max(scores)
    exec(hub.replace("PATH/OF/THIS/CHECKOUT", str(ROOT)), names)
    with torch.no_grad():
        assert torch.equal(names["model"](IMAGES), load_model(ONE)(IMAGES))


def test_importing_the_front_door_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'timm', 'pydantic', 'numpy', 'kornia'} & sys.modules.keys()"
    assert python(f"import sys, benchmark; print({heavy})") == "set()\n"
    code = f"import sys, benchmark; benchmark.load_results('results'); print({heavy})"
    assert python(code) == "{'pydantic'}\n"


def test_every_name_is_there_and_documented() -> None:
    assert set(benchmark.__all__) == set(benchmark._MODULES) < set(dir(benchmark))
    for name in benchmark.__all__:
        assert getattr(benchmark, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'create_modell'"):
        benchmark.create_modell  # noqa: B018
    with pytest.raises(ImportError, match="create_modell"):
        exec("from benchmark import create_modell")


def test_decoders_are_listed_by_name() -> None:
    assert list_decoders() == DECODERS.names()
    assert list_decoders("smp-*") == [n for n in DECODERS.names() if n.startswith("smp-")]
    assert "unet-connectivity" in list_decoders("connect")
    assert list_decoders("nothing like it") == []


@pytest.mark.parametrize(
    ("task", "classes", "channels"),
    [("segmentation", 5, 5), ("depth", None, 1), ("saliency", None, 1), ("edges", None, 1)],
)
def test_a_model_of_one_task_returns_its_logits(
    task: str, classes: int | None, channels: int
) -> None:
    model = create_model("sparsemask", "test_resnet", task=task, classes=classes)
    assert model.training
    logits = model(IMAGES)
    assert logits.shape == (2, channels, 64, 96)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.heads.parameters())
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(IMAGES), model.outputs(IMAGES)[task])


def test_a_model_of_several_tasks_returns_them_by_name() -> None:
    model = create_model("fcn", "test_resnet", task="segmentation+depth", classes=3)
    shapes = {name: tuple(logits.shape) for name, logits in model(IMAGES).items()}
    assert shapes == {"segmentation": (2, 3, 64, 96), "depth": (2, 1, 64, 96)}


def test_side_outputs_are_beside_the_logits() -> None:
    model = create_model("hed", "test_resnet", task="edges")
    assert isinstance(model(IMAGES), Tensor)
    outputs = model.outputs(IMAGES)
    assert [name for name in outputs if name.startswith("edges/side")]
    assert outputs["edges"].shape == (2, 1, 64, 96)


def test_a_model_is_copied_pickled_and_fused() -> None:
    model = create_model("sparsemask", "test_resnet", task="depth").eval()
    with torch.no_grad():
        logits = model(IMAGES)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(IMAGES), logits)
        fused = model.fuse()
        assert isinstance(fused, TaskPredictor)
        torch.testing.assert_close(fused(IMAGES), logits)


def test_width_and_backbone_arguments_arrive() -> None:
    small = create_model(
        "unet-connectivity", "resnet18", task="depth", width=8, backbone_args={"output_stride": 16}
    )
    assert small.decoder.out_channels == 8
    assert max(f.stride for f in small.backbone.features) == 16
    assert hubconf.sparsemask("test_resnet", "depth", width=8).decoder.out_channels == 8


def test_images_need_not_be_rgb() -> None:
    model = create_model("fcn", "test_resnet", task="depth", in_channels=5)
    assert model.in_channels == 5
    assert model(torch.rand(2, 5, 64, 96)).shape == (2, 1, 64, 96)
    assert model.mean.shape == model.std.shape == (1, 5, 1, 1)
    by_task = hubconf.sparsemask("test_resnet", "depth", in_channels=1)
    assert by_task(torch.rand(2, 1, 64, 96))["depth"].shape == (2, 1, 64, 96)


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    source = timm.create_model("test_resnet", pretrained=False)
    save_file(source.state_dict(), file, {"mean": "0.25", "std": "0.5"})
    model = create_model("fcn", "test_resnet", task="depth", weights=str(file))
    own = {name.replace(".", "_"): t for name, t in source.state_dict().items()}
    for name, tensor in model.backbone.net.state_dict().items():
        assert torch.equal(tensor, own[name.replace(".", "_").removeprefix("model_")]), name
    assert model.mean.flatten().tolist() == [0.25] * 3
    assert model.std.flatten().tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("sparsemsk", "resnet18"), {"classes": 3}, "unknown decoder 'sparsemsk': did you mean"),
        (("fcn", "resnet81"), {"classes": 3}, "unknown backbone 'resnet81': did you mean"),
        (("fcn", "resnet18"), {"task": "dept"}, "unknown task 'dept': did you mean depth"),
        (("fcn", "resnet18"), {}, "task segmentation: say how many classes .* classes=21"),
        (("fcn", "resnet18"), {"task": "depth+segmentation"}, "say how many classes"),
        (("fcn", "resnet18"), {"classes": 0}, "classes=0: expected at least one"),
        (("fcn", "resnet18"), {"classes": 3, "in_channels": 0}, "in_channels=0: expected 1 to"),
        (("fcn", "resnet18"), {"task": "depth", "classes": 3}, "task depth has no classes"),
        (("fcn", "resnet18"), {"task": "depth+depth"}, "depth\\+depth: names a task twice"),
        (("connectivity:no.json", "resnet18"), {"classes": 3}, r"no\.json: no such connectivity"),
        (("fcn", "test_vit"), {"classes": 3, "backbone_args": {"depths": 9}}, "has 6 blocks"),
        (("fcn", "resnet18"), {"classes": 3, "weights": "w.pth", "pretrained": True}, "not both"),
        (("fcn", "resnet18"), {"classes": 3, "backbone_args": {"nope": 1}}, "does not take"),
    ],
)
def test_what_cannot_be_built_is_said(
    names: tuple[str, str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        create_model(*names, **options)


def test_weights_that_are_not_there_are_said() -> None:
    with pytest.raises(DataError, match=r"none\.pth: no such weights file"):
        create_model("fcn", "test_resnet", task="depth", weights="none.pth")


def test_nothing_is_downloaded_for_a_decoder_that_is_none(place: Path) -> None:
    for decoder in ("sparsemsk", "connectivity:none.json"):
        with pytest.raises(UsageError):
            create_model(decoder, "resnet18", task="depth", pretrained=True)
    assert not (place / "asked").exists()


def test_a_run_comes_back_as_it_was_trained() -> None:
    trained, run = load_model(ONE), open_checkpoint(ONE)
    assert not trained.training
    with torch.no_grad():
        logits = trained(IMAGES)
        assert torch.equal(logits, run.model(IMAGES)["segmentation"])
        assert torch.equal(logits, load_model(str(ONE / "last.safetensors"))(IMAGES))
    config = run.config
    model = create_model(
        config.decoder, str(config.backbone), task=config.task, classes=logits.shape[1],
        backbone_args=config.backbone_args,
    )  # fmt: skip
    model.load_state_dict(load_file(ONE / "last.safetensors"))
    with torch.no_grad():
        assert torch.equal(model.eval()(IMAGES), logits)
        several = load_model(SEVERAL)(IMAGES)
    assert sorted(several) == ["depth", "segmentation"]


def test_a_folder_without_a_network_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        load_model(tmp_path / "none")
    with pytest.raises(UserError, match=f"{FAILED.name}.*that run failed"):
        load_model(FAILED)


def test_records_are_flat_and_say_what_the_results_say() -> None:
    rows = load_results(ROOT / "results")
    assert list(rows) == list(read_all(ROOT / "results"))
    records = rows.to_records()
    assert len(records) == sum(len(row.tasks) or 1 for row in rows)
    by_key = {row.key: row for row in rows}
    for record in records:
        row = by_key[record["key"]]
        view = row.by_task()[record["task"]]
        assert record["score"] == record[record["metric"]] == view.metrics[view.columns[0]]
        assert record["interval_low"] <= record["score"] <= record["interval_high"]
        assert record["params"] == sum(row.params.values())
        assert row.speed is None or record["latency_ms"] == row.speed["median_ms"]
        assert record["config.lr"] == row.config.lr
        assert record["label"] in record["decoder"]
        hash(tuple(record.items()))  # a table groups by it
        json.dumps(record)


def test_a_run_of_several_tasks_is_a_record_each_and_a_failed_one_is_there() -> None:
    rows = load_results(RUNS)
    several = [r for r in rows.to_records() if r["folder"] == str(SEVERAL)]
    assert [r["task"] for r in several] == ["segmentation", "depth"]
    assert [r["metric"] for r in several] == ["miou", "abs_rel"]
    assert len({r["key"] for r in several}) == 1
    (failed,) = (r for r in rows.to_records() if r["status"] == "failed")
    assert failed["error"]
    assert failed["score"] is None
    assert failed["latency_ms"] is None
    chosen = Results(r for r in rows if r.status == "failed")
    assert chosen.to_records() == [failed]


def test_one_runs_folder_is_read_alone() -> None:
    (row,) = load_results(str(ONE))
    assert ONE.name.endswith(row.key)
    assert load_results(ONE / ".." / ONE.name) == [row]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none: no such folder"):
        load_results(tmp_path / "none")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_results(tmp_path) == []
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "result.json").write_text("{")
    with pytest.warns(UserWarning, match=r"damaged.result\.json: left out") as caught:
        assert load_results(tmp_path) == []
    assert caught[0].filename == __file__


def test_torch_hub_lists_entry_points_only() -> None:
    """By its own rule: what can be called, and does not start with an underscore."""
    entries = [n for n in dir(hubconf) if callable(getattr(hubconf, n)) and n[0] != "_"]
    assert set(entries) == {*benchmark.__all__, "sparsemask"} - {"load_results"}
    for entry in entries:
        assert getattr(hubconf, entry).__doc__


def test_torch_hub_gives_the_same_beside_packages_of_the_same_names(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("ours = False\n")
    (tmp_path / "models.py").write_text("ours = False\n")
    code = (
        "import datasets, models, torch, sys\n"
        "load = lambda *a, **k: torch.hub.load(sys.argv[1], *a, source='local', **k)\n"
        "images = torch.rand(1, 3, 32, 64)\n"
        "net = load('create_model', 'sparsemask', 'test_resnet', task='depth').eval()\n"
        "print(tuple(net.fuse()(images).shape))\n"
        "net = load('sparsemask', task='depth', backbone='test_resnet')\n"
        "print(tuple(net.fuse()(images)['depth'].shape))\n"
        "print(datasets.ours, models.ours, sys.argv[1] in sys.path)\n"
    )
    lines = python(code, ROOT, folder=tmp_path).splitlines()
    assert lines == ["(1, 1, 32, 64)", "(1, 1, 32, 64)", "False False False"]


def test_torch_hub_gives_what_the_front_door_gives() -> None:
    def load(name: str, *arguments: Any, **options: Any) -> Any:
        return torch.hub.load(str(ROOT), name, *arguments, source="local", **options)

    assert load("list_decoders", "fc") == list_decoders("fc")
    assert load("create_decoder", "fcn", [(8, 4), (16, 8)]).out_channels == 16
    with torch.no_grad():
        logits = load_model(ONE)(IMAGES)
        assert torch.equal(load("load_model", str(ONE))(IMAGES), logits)
        by_task = load("sparsemask", checkpoint=str(ONE))(IMAGES)
    assert torch.equal(by_task["segmentation"], logits)


@pytest.mark.parametrize("task", ["depth", "segmentation", "segmentation+depth"])
def test_sparsemask_of_torch_hub_returns_logits_by_task(task: str) -> None:
    net = hubconf.sparsemask("test_resnet", task)
    assert not net.training
    channels = {"depth": 1, "segmentation": 21}
    with torch.no_grad():
        shapes = {name: logits.shape[1] for name, logits in net(IMAGES).items()}
    assert shapes == {name: channels[name] for name in task.split("+")}
