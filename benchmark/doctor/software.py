"""Checks of the installation: packages, and whether what they offer works here."""

import importlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from benchmark.doctor.checks import Found
from common.closing import Closing
from common.errors import UserError, reason
from common.paths import ROOT

if TYPE_CHECKING:
    import torch

DEVELOPMENT = ("test", "lint", "type")
"""Extras that nobody needs to use the benchmark."""
USES = {
    "tensorboard": "--tensorboard", "serve": "serve", "ray": "sweep --executor ray",
    "slurm": "sweep --executor slurm", "export": "export and speed --onnx",
    "hub": "push-to-hub and from-hub",
}  # fmt: skip
MODULES = ("torch", "torchvision", "timm", "kornia", "h5py", "skimage",
           "segmentation_models_pytorch", "scipy", "safetensors", "matplotlib")  # fmt: skip


def project() -> Mapping[str, Any]:
    """The table [project] of pyproject.toml, where packages and their lower bounds stand."""
    table: Mapping[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    found: Mapping[str, Any] = table["project"]
    return found


def python() -> Found:
    """The version of Python, against the one that the project asks for."""
    from packaging.specifiers import SpecifierSet

    asked = str(project()["requires-python"])
    seen = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if not SpecifierSet(asked).contains(platform.python_version(), prereleases=True):
        return Found("warn", seen, f"tested with {asked}: make an environment of such a Python")
    return Found("ok", seen, f"any Python {asked} will do")


def packages() -> Found:
    """The packages that everything needs, and their versions."""
    there, missing, old = sorted_out(project()["dependencies"])
    remedy = "pip install -e ."
    if missing:
        return Found("fail", f"not installed: {', '.join(missing)}", remedy)
    if old:
        return Found("warn", f"too old: {', '.join(old)}", remedy)
    return Found("ok", ", ".join(there), "every result.json tells the versions that made it")


def extras() -> list[str]:
    """What can be installed besides, but for what only developers need."""
    try:
        names: Mapping[str, Any] = project()["optional-dependencies"]
    except (ImportError, OSError, ValueError, KeyError):
        return []  # ``packages`` tells
    return [name for name in names if name not in DEVELOPMENT]


def extra(name: str) -> Found:
    """The packages of an extra. That one is not installed is nobody's fault."""
    there, missing, old = sorted_out(project()["optional-dependencies"][name])
    remedy = f"pip install -e .[{name}]"
    if old:
        return Found("warn", f"too old: {', '.join(old)}", remedy)
    if missing:
        return Found("ok", f"not installed: {', '.join(missing)}", f"if needed: {remedy}")
    return Found("ok", ", ".join(there), f"for {USES.get(name, name)}")


def sorted_out(requirements: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """What ``requirements`` name: there, with versions; missing; there but below the bound."""
    from packaging.requirements import Requirement

    there, missing, old = [], [], []
    for text in requirements:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            missing.append(wanted.name)
            continue
        if wanted.specifier.contains(found, prereleases=True):
            there.append(f"{wanted.name} {found}")
        else:
            old.append(f"{wanted.name} {found} (asked: {wanted.specifier})")
    return there, missing, old


def imports() -> Found:
    """Whether the packages can be imported together."""
    start = time.perf_counter()
    for name in MODULES:
        try:
            importlib.import_module(name)
        except Exception as error:  # of packages that do not fit, anything
            why = " ".join(str(error).split())
            remedy = "pip install -e ."
            if not isinstance(error, ModuleNotFoundError):
                remedy = f"install torch and torchvision from one place, then {remedy}"
            return Found("fail", f"import {name}: {type(error).__name__}: {why}", remedy)
    seconds = time.perf_counter() - start
    return Found(
        "ok",
        f"{len(MODULES)} packages in {seconds:.1f} s",
        "a start takes as long",
    )


class Probes(Closing):
    """Functions of ``benchmark.doctor.probes``, each in a process of its own, all at once."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.running: dict[str, subprocess.Popen[str]] = {}
        self.folder, self.why = "", ""

    def open(self) -> None:
        try:
            self.folder = tempfile.mkdtemp(prefix="doctor-")
            for name in self.names:
                self.start(name)
        except OSError as error:  # no temporary folder, no process: ``result`` tells
            self.why = reason(error)

    def start(self, name: str) -> None:
        """Start a process that nothing compiled before serves, and that leaves nothing."""
        fresh = {"TORCHINDUCTOR_CACHE_DIR": self.folder, "PYTHONWARNINGS": "ignore"}
        self.running[name] = subprocess.Popen(
            [sys.executable, "-m", "benchmark.doctor.probes", name],
            cwd=ROOT,
            env={**os.environ, **fresh},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that it can be ended with its children
        )

    def close(self) -> None:
        for process in self.running.values():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)

    def result(self, name: str) -> dict[str, Any]:
        """What the function has found. Raises UserError with why it has not."""
        if name not in self.running:
            raise UserError(f"no process was started: {self.why}")
        out, said = self.running[name].communicate()
        if self.running[name].returncode == 0:
            found: dict[str, Any] = json.loads(out.splitlines()[-1])
            return found
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        # the error's own line, not the advice that follows it
        told = [line for line in lines if "Error: " in line or "not found" in line.lower()]
        ended = f"its process ended with {self.running[name].returncode}"
        raise UserError((told or lines or [ended])[-1][:300])


def compiles(probes: Probes) -> Found:
    """torch.compile of a small function, which needs a C++ compiler."""
    try:
        found = probes.result("compile")
    except UserError as error:
        lacks = any(word in str(error).lower() for word in ("compiler", "g++"))
        remedy = ", or install a C++ compiler (apt-get install g++)" if lacks else ""
        return Found("fail", str(error), f"leave --compile out{remedy}")
    return Found("ok", f"works; a first compilation took {found['seconds']:.1f} s",
                 "speed --compile")  # fmt: skip


def exports(probes: Probes) -> Found:
    """ONNX export of a small network, and the exported network run."""
    missing = [n for n in ("onnx", "onnxscript") if importlib.util.find_spec(n) is None]
    if missing:
        return Found("ok", f"not tried: no {' and no '.join(missing)}",
                     f"if needed: {install_of('onnx')}")  # fmt: skip
    try:
        found = probes.result("onnx")
    except UserError as error:
        return Found("fail", str(error), f"reinstall: {install_of('onnx')}")
    if found["error"] is None:
        remedy = f"to run what was exported: {install_of('onnxruntime')}"
        return Found("ok", "a small network can be exported", remedy)
    seen = f"a small network exported and run: {found['error']:.0e} off torch"
    return Found("ok" if found["error"] < 1e-3 else "fail", seen, "runs without this project too")


def starts_ray(probes: Probes) -> Found:
    """Ray, started with one worker."""
    if importlib.util.find_spec("ray") is None:
        return Found("warn", "not installed", install_of("ray"))
    try:
        found = probes.result("ray")
    except UserError as error:
        return Found("fail", str(error), f"reinstall: {install_of('ray')}")
    return Found("ok", f"starts, and a worker answered after {found['seconds']:.1f} s",
                 "for many runs on many machines")  # fmt: skip


def install_of(package: str) -> str:
    """The command that installs an optional package."""
    from packaging.requirements import Requirement

    for name in extras():
        wanted = project()["optional-dependencies"][name]
        if package in [Requirement(text).name for text in wanted]:
            return f"pip install -e .[{name}]"
    return f"pip install {package}"


def mixed_precision() -> Found:
    """Training steps of the default backbone, in half precision and in single."""
    import torch

    from benchmark.experiment.network import NetworkSpec
    from benchmark.experiment.numerics import autocast

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = NetworkSpec("mobilenetv2_050", "fcn", {"depth": 1}).build().to(device)
    model.to(memory_format=torch.channels_last)
    images = torch.rand(8, 3, 96, 96, device=device)

    def step(amp: bool) -> float:
        with autocast(amp, device):
            loss = model(images)["depth"].float().square().mean()
        loss.backward()
        return float(loss.detach())

    slow, fast = best_times([lambda: step(False), lambda: step(True)])
    finite = all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    kind = "float16" if device == "cuda" else "bfloat16"
    ratio = slow / fast
    seen = f"{kind} on {device}: a training step takes {1 / ratio:.2f} times that of float32"
    if not finite:
        return Found("fail", f"{kind} on {device}: gradients are not finite", "leave --amp out")
    if ratio < 1:
        return Found("ok", seen, "works, but is slower here: leave --amp out")
    if ratio < 1.2:
        return Found("ok", seen, "works, but hardly pays here: leave --amp out")
    return Found("ok", seen, "--amp pays")


def best_times(calls: Sequence[Callable[[], object]], budget: float = 1.5) -> list[float]:
    """The shortest of several times of each call, in turns, after one for warming up."""
    best = [float("inf")] * len(calls)
    for call in calls:
        call()
    end = time.perf_counter() + budget
    while time.perf_counter() < end:
        for index, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[index] = min(best[index], time.perf_counter() - start)
    return best


def same_bits() -> Found:
    """Gradients of what dense prediction is made of, computed twice, with deterministic kernels."""
    import torch

    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    said, odd = [], False
    strict = torch.are_deterministic_algorithms_enabled()
    for device in devices:
        torch.use_deterministic_algorithms(True)
        try:
            same = torch.equal(gradient(device), gradient(device))
            said.append(f"{device}: {'alike' if same else 'NOT alike'}")
            odd |= not same and device == "cpu"
        except RuntimeError as error:  # of a kernel that torch has in no deterministic form
            said.append(f"{device}: {str(error).split(',')[0].split('. ')[0]}")
        finally:
            torch.use_deterministic_algorithms(strict)
    if odd:
        return Found("warn", "; ".join(said), "the same command may not give the same weights")
    remedy = "the same command gives the same bits on the CPU"
    return Found("ok", "; ".join(said), f"{remedy}, not on CUDA" if len(said) > 1 else remedy)


def gradient(device: str) -> "torch.Tensor":
    """Of convolution, pooling, bilinear upsampling and a loss over pixels; all from one seed."""
    import torch
    from torch.nn import functional as F

    numbers = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 32, 32, generator=numbers).to(device)
    weight = torch.rand(8, 3, 3, 3, generator=numbers).to(device).requires_grad_()
    target = torch.randint(8, (2, 32, 32), generator=numbers).to(device)
    x = F.max_pool2d(F.conv2d(images, weight, padding=1), 2)
    x = x + F.adaptive_avg_pool2d(x, 1)
    x = F.interpolate(x, (32, 32), mode="bilinear", align_corners=True)
    F.cross_entropy(x, target).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    return weight.grad.cpu()


def self_test() -> Found:
    """A tiny network trained on the built-in rooms, twice from one seed; in memory."""
    losses, weights, speed, score = trained()
    again = trained()
    seen = (
        f"loss {losses[0]:.3f} → {losses[-1]:.3f}, AbsRel {score:.3f}, "
        f"{max(speed, again[2]):.0f} images/s in training"
    )
    if not losses[-1] < losses[0]:
        return Found("fail", seen, "training does not lower the loss: reinstall the packages")
    if losses != again[0] or any(not w.equal(again[1][name]) for name, w in weights.items()):
        remedy = "results of one seed will differ: see docs/reproducibility.md"
        return Found("fail", f"{seen}; two runs from one seed differ", remedy)
    return Found("ok", f"{seen}; two runs from one seed are alike", "run may start")


def trained() -> tuple[list[float], "dict[str, torch.Tensor]", float, float]:
    """Losses of the epochs, the weights, images a second, and the score on what was not seen."""
    from benchmark.experiment.config import make_config
    from benchmark.experiment.network import build_model
    from benchmark.experiment.plan import make_tasks, resolve
    from benchmark.scoring.evaluate import evaluate, metrics_of
    from benchmark.training.network_training import NetworkTraining
    from common.progress import Silent
    from datasets.pipeline import Resized, open_splits

    asked = {"task": "depth", "limit": 24, "image_size": 64, "batch_size": 8, "epochs": 4,
             "validate_every": 4, "backbone": "test_resnet", "decoder": "sparsemask"}  # fmt: skip
    config = resolve(make_config(asked))
    tasks = make_tasks(config)
    splits = open_splits(config.dataset, None, [tasks[0].target], config.image_size, config.limit)
    data = {
        name: Resized(splits[name], config.image_size, tasks[0].target, targets=name == "train")
        for name in ("train", "test")
    }
    for index in range(len(data["train"])):  # what is drawn once is not timed
        data["train"][index]

    def scores(network: "torch.nn.Module") -> dict[str, float]:
        accumulator = tasks[0].validator()
        evaluate(config, network, {tasks[0]: accumulator}, data["test"])
        return metrics_of(accumulator)

    model = build_model(config, tasks)
    start = time.perf_counter()
    ends: list[float] = []

    def validate(network: "torch.nn.Module") -> dict[str, float]:
        ends.append(time.perf_counter())
        return scores(network)

    training = NetworkTraining(config, model, tasks, data["train"], validate, lambda *_: None)
    history = training.fit(lambda *_: None, Silent())
    speed = history.steps * config.batch_size / (ends[0] - start)
    last = history.epochs[-1]
    return ([row["loss"] for row in history.epochs], dict(model.state_dict()), speed,
            last[f"val/{tasks[0].main}"])  # fmt: skip
