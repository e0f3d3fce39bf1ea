"""Checks of the machine: processor, memory, disks, graphics cards."""

import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from benchmark.doctor.checks import Outcome
from common.errors import UserError

PROC = Path("/proc")
GROUPS = Path("/sys/fs/cgroup")
SHARED = Path("/dev/shm")
GB = 1e9
NETWORK = {"9p", "afs", "beegfs", "ceph", "cifs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs",
           "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"}  # fmt: skip


def load() -> Outcome:
    """Load of the machine by other processes."""
    try:
        now = os.getloadavg()[0]
    except (AttributeError, OSError):
        return Outcome("ok", "this system does not report its load", "timings need a quiet machine")
    cores = os.cpu_count() or 1  # of the whole machine, as the load is
    seen = f"{now:.1f} processes on {cores} cores in the last minute"
    if now > cores / 4:
        return Outcome("warn", seen, "timings need a quiet machine: here trust only their ratios")
    return Outcome("ok", seen, "quiet enough for timings")


def memory() -> Outcome:
    """Available memory of the machine or of this process' control group."""
    lines = (PROC / "meminfo").read_text().splitlines() if (PROC / "meminfo").is_file() else []
    facts = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    if "MemTotal" not in facts:
        return Outcome(
            "ok", "this system does not report its memory", "halve --batch-size where it runs out"
        )
    total, free = facts["MemTotal"], facts.get("MemAvailable", facts.get("MemFree", 0))
    seen = f"{free / GB:.1f} GB available of {total / GB:.1f} GB"
    for limit, used in group_memory():
        if limit < total:
            total, free = limit, max(0, min(free, limit - used))
            seen = f"{free / GB:.1f} GB available of the {total / GB:.1f} GB of this control group"
    if free < 2 * GB:
        remedy = "a small run takes about 1 GB: use a small --batch-size and --workers 0"
        return Outcome("warn", seen, remedy)
    return Outcome("ok", seen, "halve --batch-size where it runs out")


def shared_memory() -> Outcome:
    """Free shared memory, through which ``--workers`` hand over images."""
    if not SHARED.is_dir():
        return Outcome("ok", f"no {SHARED} on this system", "--workers 0 (the default) needs none")
    usage = shutil.disk_usage(SHARED)
    seen = f"{SHARED}: {usage.free / GB:.2f} GB free of {usage.total / GB:.2f} GB"
    if usage.free < 0.5 * GB:
        remedy = "use --workers 0, or make it larger (docker run --shm-size 2g)"
        return Outcome("warn", seen, remedy)
    return Outcome("ok", seen, "--workers N may be used")


def results_folder(folder: Path) -> Outcome:
    """Whether results can be written, how much fits, and how long a safe write takes."""
    there = existing(folder)
    if not there.is_dir():
        return Outcome("fail", f"{there}: a file, not a folder", "name another with --results")
    try:
        milliseconds = write_time(there) * 1e3
    except OSError as error:
        why = error.strerror or str(error)
        return Outcome("fail", f"{there}: cannot be written ({why})", "name another with --results")
    free, kind = shutil.disk_usage(there).free, file_system(there)
    seen = f"{folder}: {free / GB:.1f} GB free, {kind}, a safe write takes {milliseconds:.0f} ms"
    if free < 0.05 * GB:
        return Outcome("fail", seen, "make room, or name another with --results")
    if free < GB:
        return Outcome(
            "warn", seen, "a run takes 10 to 300 MB: make room, or name another --results"
        )
    if kind in NETWORK:
        remedy = "a network file system: a local --results is faster, and copied when done"
        return Outcome("warn", seen, remedy)
    if milliseconds > 200:
        return Outcome("warn", seen, "a slow disk: every checkpoint waits for it; try another")
    return Outcome("ok", seen, "--results names another")


def temporary_folder() -> Outcome:
    """Where torch.compile and the tests write."""
    folder = Path(tempfile.gettempdir())
    write_time(folder, 1)
    free = shutil.disk_usage(folder).free
    seen = f"{folder}: {free / GB:.1f} GB free"
    if free < 0.5 * GB:
        return Outcome("warn", seen, "set TMPDIR to a folder with room: torch.compile writes there")
    return Outcome("ok", seen, "TMPDIR names another")


def data(path: Path) -> Outcome:
    """Whether a data set's folder or packed file can be read."""
    remedy = "check --data and the permissions"
    try:
        if path.is_dir():
            entries = sum(1 for _ in path.iterdir())
            if not entries:
                return Outcome("fail", f"{path}: an empty folder", remedy)
            seen = f"{path}: {entries} files and folders"
        else:
            with path.open("rb") as file:
                file.read(1)
            seen = f"{path}: {path.stat().st_size / 1e6:.1f} MB"
    except OSError as error:
        return Outcome("fail", f"{path}: cannot be read ({error.strerror or error})", remedy)
    return Outcome("ok", seen, "data check DATASET --data PATH reads every file")


def processor() -> Outcome:
    """Cores that this process may use, against the threads that torch takes."""
    import torch

    from benchmark.experiment.environment import cpu_name

    usable, threads = usable_cores(), torch.get_num_threads()
    number, variable = f"{usable:.3g}", os.environ.get("OMP_NUM_THREADS")
    seen = f"{cpu_name()}: {number} of {os.cpu_count()} cores, torch takes {threads} threads"
    seen += f" (OMP_NUM_THREADS={variable})" if variable else ""
    best = max(1, int(usable))
    if threads > max(1, usable):
        return Outcome("warn", seen, f"more threads than cores slow down much: --threads {best}")
    if threads < usable / 2:
        remedy = f"most cores idle: --threads {best}"
        return Outcome("warn", seen, f"{remedy}, or unset OMP_NUM_THREADS" if variable else remedy)
    return Outcome("ok", seen, "--threads N takes another number; its results are another board")


def cuda() -> Outcome:
    """Graphics cards, and whether torch can use them."""
    import torch

    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
    if not there:
        card = Path("/dev/nvidia0").exists() or (PROC / "driver/nvidia/version").exists()
        if not card:
            apple = torch.backends.mps.is_available()
            seen = "no CUDA device" + (" (Apple's MPS is not used)" if apple else "")
            return Outcome("ok", seen, "everything runs on the CPU")
        if torch.version.cuda is None:
            return Outcome(
                "warn", "a CUDA device, but a torch without CUDA", "install PyPI's torch"
            )
        why = str(messages[0].message).split(". ")[0] if messages else "torch does not say why"
        seen = f"a CUDA device that torch (CUDA {torch.version.cuda}) cannot use: {why}"
        return Outcome("warn", seen, "update the driver, or install a torch for an older CUDA")
    known = {name.rpartition("_")[2].rstrip("af") for name in torch.cuda.get_arch_list()}
    rows, odd = [], ""
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        free, total = torch.cuda.mem_get_info(index)
        rows.append(
            f"cuda:{index} {torch.cuda.get_device_name(index)}, {free / GB:.0f} GB free of "
            f"{total / GB:.0f} GB, capability {major}.{minor}"
        )
        # kernels of a capability run on later ones of the same major number
        if not any(k[:-1] == str(major) and int(k[-1]) <= minor for k in known if k.isdigit()):
            odd = f"this torch has no kernels for capability {major}.{minor}: install another"
        x = torch.ones(64, 64, device=f"cuda:{index}")
        assert float((x @ x).sum()) == 64**3
    tf32 = {
        "convolutions": torch.backends.cudnn.allow_tf32,
        "matrix products": torch.backends.cuda.matmul.allow_tf32,
    }
    fast = [name for name, on in tf32.items() if on]
    rows.append(f"TF32: {' and '.join(fast) or 'off'}")
    if odd:
        return Outcome("warn", "; ".join(rows), odd)
    return Outcome("ok", "; ".join(rows), "use --device cuda, and --amp")


def fresh_processes() -> Outcome:
    """Whether the peak memory of a forward can be measured here."""
    from benchmark.speed.memory import reset_peak, resident

    remedy = "runs and speed leave out MB; all else works"
    if not hasattr(os, "fork"):
        return Outcome("warn", "this system cannot fork", remedy)
    try:
        reset_peak()
    except UserError as error:
        return Outcome("warn", str(error).split(":")[0], remedy)
    before, size = resident("VmRSS"), 64 * 2**20
    block = bytearray(size)
    block[::4096] = b"\1" * (size // 4096)
    del block
    grown = resident("VmHWM") - before
    seen = f"a block of {size / 1e6:.0f} MB shows as a peak of {grown / 1e6:.0f} MB"
    # memory that the process holds free already does not show
    if not size / 2 < grown < size * 2:
        return Outcome("warn", seen, f"peak memory cannot be measured here: {remedy}")
    return Outcome("ok", f"can be started; {seen}", "peak memory of a forward is measured")


def usable_cores() -> float:
    """Cores that this process may use: those of its affinity, or the quota of its group."""
    try:
        cores = float(len(os.sched_getaffinity(0)))
    except AttributeError:  # a system without affinity
        cores = float(os.cpu_count() or 1)
    for folder in group_folders("cpu"):
        with suppress(OSError, ValueError):  # "max" means no quota
            quota, period = (folder / "cpu.max").read_text().split()
            cores = min(cores, int(quota) / int(period))
        with suppress(OSError, ValueError):
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
            if int(quota) > 0:
                cores = min(cores, int(quota) / int(period))
    return cores


def group_memory() -> Iterator[tuple[int, int]]:
    """(limit, used) bytes of each control group around this process that has a limit."""
    for folder in group_folders("memory"):
        for limit, used in (("memory.max", "memory.current"),
                            ("memory.limit_in_bytes", "memory.usage_in_bytes")):  # fmt: skip
            with suppress(OSError, ValueError):
                most, now = (int((folder / name).read_text()) for name in (limit, used))
                cached = 0
                with suppress(OSError):  # cached files are freed when memory is short
                    for line in (folder / "memory.stat").read_text().splitlines():
                        if line.startswith("inactive_file "):
                            cached = int(line.split()[1])
                yield most, max(0, now - cached)


def group_folders(controller: str) -> Iterator[Path]:
    """Folders of this process' control group and of those around it, of version 2 and 1."""
    try:
        lines = (PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = GROUPS / controllers if controllers else GROUPS
        folder = root / path.lstrip("/")
        # in a container the path may be the host's, where only the root exists
        for place in (folder, *folder.parents):
            if place.is_relative_to(root) and place.is_dir():
                yield place


def existing(path: Path) -> Path:
    """``path``, or the nearest parent that exists."""
    path = path.expanduser().absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def write_time(folder: Path, times: int = 3) -> float:
    """Median seconds until 1 MB is safely on the disk; leaves no file."""
    seconds = []
    for _ in range(times):
        with tempfile.TemporaryFile(dir=folder) as file:
            start = time.perf_counter()
            file.write(os.urandom(2**20))
            file.flush()
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def file_system(path: Path) -> str:
    """The type of the file system that holds ``path``, as the system names it."""
    try:
        lines = (PROC / "self/mountinfo").read_text().splitlines()
    except OSError:
        return "file system unknown"
    path, best, kind = path.resolve(), Path(), "file system unknown"
    for line in lines:
        before, _, after = line.partition(" - ")
        place = Path(before.split()[4].replace("\\040", " "))
        # of several mounts in one place the last one counts
        if path.is_relative_to(place) and len(place.parts) >= len(best.parts):
            best, kind = place, after.split()[0]
    return kind
