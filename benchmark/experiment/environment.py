"""Versions, machine and commit behind a result.

Imports torch late: reports read environments without it.
"""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import GetPydanticSchema
from typing_extensions import TypedDict

from common.memory import keeps_freed_memory
from common.paths import ROOT

OPEN = GetPydanticSchema(lambda _, handler: handler(dict[str, Any]))
"""Marks a part of a record that is read as it is: a file from elsewhere may hold more or less than
its type says. What reports rely on is checked in ``benchmark.results.checks``."""
PACKAGES = ("torch", "timm", "kornia", "segmentation-models-pytorch", "numpy")


class Environment(TypedDict, total=False):
    """Versions, machine and commit behind a result; empty for a run that failed early.

    threads: torch's, on the CPU. commit: of this project; "" outside a repository. The fields from
    ``cuda`` on are those of runs on CUDA.
    """

    python: str
    system: str
    versions: dict[str, str]
    device: str
    threads: int
    keeps_freed_memory: bool
    commit: str
    uncommitted_changes: bool
    cuda: str | None
    cudnn: int | None
    cudnn_benchmark: bool
    tf32_convolutions: bool
    tf32_matrix_products: bool


def cpu_name() -> str:
    """The processor's name as its maker gives it, else its architecture."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
            "asimd", "asimddp", "i8mm", "bf16")  # fmt: skip


def processor_features() -> list[str]:
    """Those of ``FEATURES`` that the processor offers, as Linux names them; elsewhere none."""
    info, offered = Path("/proc/cpuinfo"), set[str]()
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith(("flags", "Features")):
                offered = set(line.partition(":")[2].split())
                break
    return [name for name in FEATURES if name in offered]


def device_name(device: str) -> str:
    """Name of the hardware behind a torch device string."""
    import torch

    if torch.device(device).type == "cuda":
        return str(torch.cuda.get_device_name(torch.device(device)))
    return f"{cpu_name()} ({os.cpu_count()} cores)"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def environment(device: str) -> Environment:
    """Versions, hardware and commit, for a result's record."""
    import torch

    facts: Environment = {
        "python": platform.python_version(),
        "system": platform.system(),
        "versions": {package: version(package) for package in PACKAGES},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "keeps_freed_memory": keeps_freed_memory(),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }
    if torch.device(device).type == "cuda":
        facts["cuda"] = torch.version.cuda
        facts["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        facts["cudnn_benchmark"] = torch.backends.cudnn.benchmark
        facts["tf32_convolutions"] = torch.backends.cudnn.allow_tf32
        facts["tf32_matrix_products"] = torch.backends.cuda.matmul.allow_tf32
    return facts
