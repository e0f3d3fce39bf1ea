"""Checks of the installation: packages, and whether their features work here."""

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

from benchmark.doctor.checks import Outcome
from common.closing import Closing
from common.errors import UserError, reason
from common.paths import ROOT
from common.words import quantity

if TYPE_CHECKING:
    import torch

DEVELOPMENT = ("test", "lint", "type")
"""Extras that only developers need."""
USES = {
    "tensorboard": "--tensorboard", "serve": "serve", "ray": "sweep --executor ray",
    "slurm": "sweep --executor slurm", "export": "export and speed --onnx",
    "hub": "push-to-hub and from-hub",
}  # fmt: skip
MODULES = ("torch", "torchvision", "timm", "kornia", "h5py", "skimage",
           "segmentation_models_pytorch", "scipy", "safetensors", "matplotlib")  # fmt: skip


def project() -> Mapping[str, Any]:
    """The table [project] of pyproject.toml, with packages and their lower bounds."""
    table: Mapping[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    result: Mapping[str, Any] = table["project"]
    return result


def python() -> Outcome:
    """The version of Python, against the one that the project requires."""
    from packaging.specifiers import SpecifierSet

    required = str(project()["requires-python"])
    seen = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if not SpecifierSet(required).contains(platform.python_version(), prereleases=True):
        return Outcome(
            "warn", seen, f"tested with {required}: make an environment of such a Python"
        )
    return Outcome("ok", seen, f"any Python {required} will do")


def packages() -> Outcome:
    """The packages that every command needs, and their versions."""
    present, missing, old = compare_versions(project()["dependencies"])
    remedy = "pip install -e ."
    if missing:
        return Outcome("fail", f"not installed: {', '.join(missing)}", remedy)
    if old:
        return Outcome("warn", f"too old: {', '.join(old)}", remedy)
    return Outcome("ok", ", ".join(present), "every result.json names the versions of its run")


def extras() -> list[str]:
    """Optional extras, without those that only developers need."""
    try:
        names: Mapping[str, Any] = project()["optional-dependencies"]
    except (ImportError, OSError, ValueError, KeyError):
        return []  # ``packages`` reports it
    return [name for name in names if name not in DEVELOPMENT]


def extra(name: str) -> Outcome:
    """The packages of an extra; a missing one is no failure."""
    present, missing, old = compare_versions(project()["optional-dependencies"][name])
    remedy = f"pip install -e .[{name}]"
    if old:
        return Outcome("warn", f"too old: {', '.join(old)}", remedy)
    if missing:
        return Outcome("ok", f"not installed: {', '.join(missing)}", f"if needed: {remedy}")
    return Outcome("ok", ", ".join(present), f"for {USES.get(name, name)}")


def compare_versions(requirements: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """The packages of ``requirements``: present, with versions; missing; out of their bounds."""
    from packaging.requirements import Requirement

    present, missing, old = [], [], []
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            missing.append(requirement.name)
            continue
        package = f"{requirement.name} {installed}"
        if requirement.specifier.contains(installed, prereleases=True):
            present.append(package)
        else:
            old.append(f"{package} (asked: {requirement.specifier})")
    return present, missing, old


def imports() -> Outcome:
    """Whether the packages can be imported together."""
    start = time.perf_counter()
    for name in MODULES:
        try:
            importlib.import_module(name)
        except Exception as error:  # packages that do not fit each other raise anything
            why = " ".join(str(error).split())
            remedy = "pip install -e ."
            if not isinstance(error, ModuleNotFoundError):
                remedy = f"install torch and torchvision from one place, then {remedy}"
            return Outcome("fail", f"import {name}: {type(error).__name__}: {why}", remedy)
    seconds = time.perf_counter() - start
    return Outcome(
        "ok",
        f"{len(MODULES)} packages in {seconds:.1f} s",
        "a command takes as long to start",
    )


class Probes(Closing):
    """Runs functions of ``benchmark.doctor.probes`` all at once, each in its own process."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.running: dict[str, subprocess.Popen[str]] = {}
        self.folder, self.why = "", ""
        self.lifeline: tuple[int, ...] = ()  # a pipe, the probes' input: they end when it closes

    def open(self) -> None:
        try:
            self.folder = tempfile.mkdtemp(prefix="doctor-")
            self.lifeline = os.pipe()
            for name in self.names:
                self.start(name)
        except OSError as error:  # no temporary folder or no process: ``result`` raises it
            self.why = reason(error)

    def start(self, name: str) -> None:
        """Start a process with an empty compilation cache, which ``close`` removes."""
        fresh = {"TORCHINDUCTOR_CACHE_DIR": self.folder, "PYTHONWARNINGS": "ignore"}
        self.running[name] = subprocess.Popen(
            [sys.executable, "-m", "benchmark.doctor.probes", name],
            cwd=ROOT,
            env={**os.environ, **fresh},
            stdin=self.lifeline[0],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that one signal ends it with its children
        )

    def close(self) -> None:
        for process in self.running.values():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        for end in self.lifeline:
            os.close(end)
        shutil.rmtree(self.folder, ignore_errors=True)

    def result(self, name: str) -> dict[str, Any]:
        """The result of the function. Raises UserError with the reason where there is none."""
        if name not in self.running:
            raise UserError(f"no process was started: {self.why}")
        out, err = self.running[name].communicate()
        if self.running[name].returncode == 0:
            result: dict[str, Any] = json.loads(out.splitlines()[-1])
            return result
        lines = [line.strip() for line in err.splitlines() if line.strip()]
        # the error's own line, not the advice that follows it
        errors = [line for line in lines if "Error: " in line or "not found" in line.lower()]
        ended = f"its process ended with {self.running[name].returncode}"
        raise UserError((errors or lines or [ended])[-1][:300])


def compiles(probes: Probes) -> Outcome:
    """torch.compile of a small function, which needs a C++ compiler."""
    try:
        result = probes.result("compile")
    except UserError as error:
        lacks = any(word in str(error).lower() for word in ("compiler", "g++"))
        remedy = ", or install a C++ compiler (apt-get install g++)" if lacks else ""
        return Outcome("fail", str(error), f"leave --compile out{remedy}")
    return Outcome("ok", f"works; a first compilation took {result['seconds']:.1f} s",
                 "speed --compile")  # fmt: skip


def exports(probes: Probes) -> Outcome:
    """ONNX export of a small network, and a run of the exported network."""
    missing = [n for n in ("onnx", "onnxscript") if importlib.util.find_spec(n) is None]
    if missing:
        return Outcome("ok", f"not tried: no {' and no '.join(missing)}",
                     f"if needed: {install_of('onnx')}")  # fmt: skip
    try:
        result = probes.result("onnx")
    except UserError as error:
        return Outcome("fail", str(error), f"reinstall: {install_of('onnx')}")
    if result["error"] is None:
        remedy = f"to run the exported file: {install_of('onnxruntime')}"
        return Outcome("ok", "a small network can be exported", remedy)
    seen = f"a small network exported and run: {result['error']:.0e} off torch"
    return Outcome(
        "ok" if result["error"] < 1e-3 else "fail", seen, "runs without this project too"
    )


def starts_ray(probes: Probes) -> Outcome:
    """Start of Ray with one worker."""
    if importlib.util.find_spec("ray") is None:
        return Outcome("warn", "not installed", install_of("ray"))
    try:
        result = probes.result("ray")
    except UserError as error:
        return Outcome("fail", str(error), f"reinstall: {install_of('ray')}")
    return Outcome("ok", f"starts, and a worker answered after {result['seconds']:.1f} s",
                 "for many runs on many machines")  # fmt: skip


def install_of(package: str) -> str:
    """The command that installs an optional package."""
    from packaging.requirements import Requirement

    for name in extras():
        requirements = project()["optional-dependencies"][name]
        if package in [Requirement(text).name for text in requirements]:
            return f"pip install -e .[{name}]"
    return f"pip install {package}"


def mixed_precision() -> Outcome:
    """Time of a training step of the default backbone in mixed precision, against float32."""
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
        return Outcome("fail", f"{kind} on {device}: gradients are not finite", "leave --amp out")
    if ratio < 1:
        return Outcome("ok", seen, "works, but is slower here: leave --amp out")
    if ratio < 1.2:
        return Outcome("ok", seen, "works, but hardly pays here: leave --amp out")
    return Outcome("ok", seen, "--amp pays")


def best_times(calls: Sequence[Callable[[], object]], budget: float = 1.5) -> list[float]:
    """Shortest seconds of each call; all take turns for ``budget`` seconds after a warm-up."""
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


def same_bits() -> Outcome:
    """Whether gradients repeat to the bit with deterministic kernels."""
    import torch

    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    lines, odd = [], False
    strict = torch.are_deterministic_algorithms_enabled()
    for device in devices:
        torch.use_deterministic_algorithms(True)
        try:
            same = torch.equal(gradient(device), gradient(device))
            lines.append(f"{device}: {'alike' if same else 'NOT alike'}")
            odd |= not same and device == "cpu"
        except RuntimeError as error:  # torch has no deterministic form of a kernel
            lines.append(f"{device}: {str(error).split(',')[0].split('. ')[0]}")
        finally:
            torch.use_deterministic_algorithms(strict)
    if odd:
        return Outcome("warn", "; ".join(lines), "the same command may not give the same weights")
    remedy = "the same command gives the same bits on the CPU"
    return Outcome("ok", "; ".join(lines), f"{remedy}, not on CUDA" if len(lines) > 1 else remedy)


def gradient(device: str) -> "torch.Tensor":
    """Gradient of convolution, pooling, bilinear upsampling and a loss over pixels, from a seed."""
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


def self_test() -> Outcome:
    """Train a tiny network on the built-in rooms twice from one seed; write no file."""
    losses, weights, speed, score = trained()
    again = trained()
    seen = (
        f"loss {losses[0]:.3f} → {losses[-1]:.3f}, AbsRel {score:.3f}, "
        f"{quantity(max(speed, again[2]), 0)} images/s in training"
    )
    if not losses[-1] < losses[0]:
        return Outcome("fail", seen, "training does not lower the loss: reinstall the packages")
    if losses != again[0] or any(not w.equal(again[1][name]) for name, w in weights.items()):
        remedy = "results of one seed will differ: see docs/reproducibility.md"
        return Outcome("fail", f"{seen}; two runs from one seed differ", remedy)
    return Outcome("ok", f"{seen}; two runs from one seed are alike", "run may start")


def trained() -> tuple[list[float], "dict[str, torch.Tensor]", float, float]:
    """Losses of the epochs, the weights, images per second, and the score on test images."""
    from benchmark.experiment.config import make_config
    from benchmark.experiment.network import build_model
    from benchmark.experiment.plan import make_tasks, resolve
    from benchmark.scoring.evaluate import evaluate, metrics_of
    from benchmark.training.network_training import NetworkTraining
    from common.progress import Silent
    from datasets.pipeline import Resized, open_splits

    options = {"task": "depth", "limit": 24, "image_size": 64, "batch_size": 8, "epochs": 4,
               "validate_every": 4, "backbone": "test_resnet", "decoder": "sparsemask"}  # fmt: skip
    config = resolve(make_config(options))
    tasks = make_tasks(config)
    splits = open_splits(config.dataset, None, [tasks[0].target], config.image_size, config.limit)
    data = {
        name: Resized(splits[name], config.image_size, tasks[0].target, targets=name == "train")
        for name in ("train", "test")
    }
    for index in range(len(data["train"])):  # renders them, which is not to be timed
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
