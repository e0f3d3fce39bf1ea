"""Whether other work took the processors or the GPU while something was timed.

A thread that waits for a processor makes a median of many calls wrong by a factor and leaves it
precise: every call waits alike. The operating system knows who waited and who ran.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

LIMIT = 0.1
"""Share lost to other work from which a timing is disturbed.

On an idle machine of two cores 0.03 is the most that is seen; another job of two threads takes 0.5.
"""
SHORTEST = 0.25
"""Seconds that can be judged: the system counts processor time in ticks of 10 ms."""

THREADS = Path("/proc/self/task")
THROTTLED = ("HwSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown", "SwThermalSlowdown")
"""Reasons for low clocks that are not the load's own; a cap of power is."""


@dataclass(frozen=True)
class Reading:
    """Seconds, each since a start of its own.

    waits: for a processor, by thread of this process; empty where the system does not tell. own,
    busy: processor time of this process and of all. stolen: by other guests of the machine, by
    processor.
    """

    wall: float
    own: float
    busy: float
    stolen: list[float]
    waits: dict[str, float]

    @classmethod
    def now(cls) -> "Reading | None":
        """None where the system tells nothing."""
        waits = {}
        with suppress(OSError):  # only Linux has it
            for thread in THREADS.iterdir():
                with suppress(OSError):  # it has ended
                    waits[thread.name] = int((thread / "schedstat").read_text().split()[1]) / 1e9
        try:
            times = [each._asdict() for each in psutil.cpu_times(percpu=True)]
        except (OSError, NotImplementedError, psutil.Error):
            return None
        running = ("user", "nice", "system", "irq", "softirq")  # a guest's time is the user's
        return cls(
            time.perf_counter(),
            time.process_time(),
            sum(each.get(kind, 0.0) for each in times for kind in running),
            [each.get("steal", 0.0) for each in times],
            waits,
        )

    def lost_until(self, later: "Reading", of_machine: bool = True) -> float:
        """The share of the time until ``later`` that other work took, from 0 to 1.

        It is the largest of: waiting of one thread, as all wait for the last; load of other
        processes, of all processors; time of one processor that other guests stole. of_machine:
        whether the last two count.
        """
        wall = later.wall - self.wall
        shares = [(end - self.waits.get(name, 0.0)) / wall for name, end in later.waits.items()]
        if of_machine:
            others = later.busy - self.busy - (later.own - self.own)
            shares.append(others / wall / len(later.stolen))
            shares += [
                (end - start) / wall
                for start, end in zip(self.stolen, later.stolen, strict=False)  # of one hot-plugged
            ]
        return min(max(0.0, *shares), 1.0)


class Watch:
    """Tells of one stretch of time after another how much of it other work took.

    device: that computes. On a GPU other processes' load of the processors does not count; that of
    the GPU does, and a clock that heat or a power brake holds down, if ``nvidia-ml-py`` is there.
    """

    def __init__(self, device: torch.device) -> None:
        self.gpu = _gpu(device) if device.type == "cuda" else None
        self.on_cpu = device.type == "cpu"
        self.restart()

    def restart(self) -> None:
        """Begin a stretch."""
        self.start, self.before = time.perf_counter(), Reading.now()

    @property
    def age(self) -> float:
        """Seconds of the present stretch."""
        return time.perf_counter() - self.start

    def lap(self) -> float | None:
        """The share of the stretch that other work took; begins a new one.

        None if the stretch was shorter than ``SHORTEST`` or the system tells nothing.
        """
        before, age = self.before, self.age
        self.restart()
        now = self.before
        if before is None or now is None or age < SHORTEST:
            return None
        lost = before.lost_until(now, of_machine=self.on_cpu)
        if self.gpu is not None:
            return max(lost, self.gpu(age))
        return lost if self.on_cpu or lost >= LIMIT else None


def _gpu(device: torch.device) -> Callable[[float], float] | None:
    """A function of the last seconds: the share of the GPU that others took; None if unknown.

    The driver's process numbers may be of another name space, so that the busiest process of each
    sample is taken for this one.
    """
    try:
        import pynvml as driver

        driver.nvmlInit()
        identity = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = driver.nvmlDeviceGetHandleByUUID(identity)
    except Exception:  # no such package, driver or device: nothing is known
        return None

    def lost(seconds: float) -> float:
        return max(_throttled(driver, handle), _of_others(driver, handle, seconds))

    return lost


def _throttled(driver: Any, handle: Any) -> float:
    with suppress(driver.NVMLError):
        reasons = driver.nvmlDeviceGetCurrentClocksEventReasons(handle)
        if any(reasons & getattr(driver, f"nvmlClocksEventReason{name}") for name in THROTTLED):
            now, most = (
                ask(handle, driver.NVML_CLOCK_SM)
                for ask in (driver.nvmlDeviceGetClockInfo, driver.nvmlDeviceGetMaxClockInfo)
            )
            return 1.0 - float(now) / float(most)
    return 0.0


def _of_others(driver: Any, handle: Any, seconds: float) -> float:
    with suppress(driver.NVMLError):  # "not found": nobody used it
        since = int((time.time() - seconds) * 1e6)
        shares: dict[int, int] = {}
        for sample in driver.nvmlDeviceGetProcessUtilization(handle, since):
            shares[sample.pid] = max(sample.smUtil, shares.get(sample.pid, 0))
        if not shares:
            return 0.0
        own = os.getpid() if os.getpid() in shares else max(shares, key=shares.__getitem__)
        return min(1.0, sum(share for pid, share in shares.items() if pid != own) / 100)
    return 0.0
