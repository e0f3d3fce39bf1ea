"""Other work is noticed while something is timed, and the timing repeated or marked."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from benchmark.speed import disturbance, latency
from benchmark.speed.disturbance import Reading, Watch
from benchmark.speed.latency import time_calls
from tests.support import FakeTime

CPU = torch.device("cpu")


def reading(wall=0.0, own=0.0, busy=0.0, stolen=(0.0, 0.0), waits=None):
    return Reading(wall, own, busy, list(stolen), waits or {})


@pytest.mark.parametrize(
    ("later", "lost"),
    [
        (reading(wall=2, own=4, busy=4), 0.0),
        (reading(wall=2, own=2, busy=3), 0.25),  # another one was busy for 1 of 2 × 2 seconds
        (reading(wall=2, own=2, busy=1.9), 0.0),  # ticks
        (reading(wall=2, stolen=(0.1, 0.6)), 0.3),
        (reading(wall=2, waits={"a": 0.2, "b": 1.0}), 0.5),  # the last thread counts
        (reading(wall=2, waits={"a": 3.0}), 1.0),
    ],
)
def test_the_largest_share_counts(later, lost):
    assert reading().lost_until(later) == pytest.approx(lost)


def test_of_a_gpu_only_waiting_counts_of_the_processors():
    later = reading(wall=2, own=1, busy=3, stolen=(1.0, 1.0), waits={"a": 0.1})
    assert reading().lost_until(later, of_machine=False) == pytest.approx(0.05)


def test_waits_are_those_since_the_first_reading():
    first = reading(wall=1, waits={"a": 5.0, "gone": 9.0})
    assert first.lost_until(reading(wall=2, waits={"a": 5.1, "new": 0.2})) == pytest.approx(0.2)


def spin(seconds=0.005):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.fixture
def one_processor():
    """This process and those it starts run on one processor."""
    if not disturbance.THREADS.is_dir():
        pytest.skip("this system does not tell who waits")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def busy(one_processor):
    """Another process that computes on the processor of this one."""
    code = "import sys\nprint(flush=True)\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    yield
    process.kill()
    process.communicate()


def test_another_process_is_noticed(busy):
    timed = time_calls({"a": spin}, CPU, min_time=0.3, min_calls=5, warmup_time=0, repeats=1.5)
    assert 0.3 < timed["a"].disturbed <= 1.0


class Laps(FakeTime):
    """Stretches of ten calls, the lost share of each, and the pauses between."""

    def __init__(self, *shares):
        self.shares, self.pauses, self.log = list(shares), [], []

    def __call__(self, device):
        self.restart()
        return self

    def restart(self):
        self.start = self.now

    @property
    def age(self):
        return self.now - self.start

    def lap(self):
        self.restart()
        return self.shares.pop(0)

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds

    def call(self):
        self.log.append(self.now)
        self.now += 1 / 16 if len(self.shares) > 1 else 1 / 32


def laps(monkeypatch, *shares, **protocol):
    clock = Laps(*shares)
    monkeypatch.setattr(latency, "time", clock)
    monkeypatch.setattr(latency, "Watch", clock)
    timed = time_calls(
        {"a": clock.call}, CPU, min_time=0.5, min_calls=4, warmup_time=0, block=0.5, **protocol
    )
    return timed["a"], clock


def test_disturbed_stretches_are_timed_again(monkeypatch):
    """The first stretch has calls of 1/16 s, the second of 1/32 s."""
    timed, clock = laps(monkeypatch, 0.5, 0.02)
    assert timed.disturbed == 0.0
    assert timed.median_ms == timed.p95_ms == 1000 / 32
    assert timed.calls == 16
    assert clock.pauses == [0.5]


def test_time_for_repeating_is_limited(monkeypatch):
    timed, clock = laps(monkeypatch, *[0.5, 0.3, 0.4] * 9)
    assert timed.disturbed == pytest.approx(0.4)
    assert timed.calls == 16  # twice the 9/16 s of the first nine calls hold one more
    assert clock.now <= 2 * 9 / 16 + 3 / 16 + 9 / 16
    timed, clock = laps(monkeypatch, 0.5, 0.0, repeats=1.0)
    assert (timed.disturbed, timed.calls, clock.pauses) == (0.5, 8, [0.0])


def test_what_the_system_does_not_tell_is_none(monkeypatch):
    timed, _ = laps(monkeypatch, None)
    assert timed.disturbed is None
    monkeypatch.setattr(disturbance.psutil, "cpu_times", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # a defect is no answer
        Reading.now()

    def refused(**_):
        raise NotImplementedError

    monkeypatch.setattr(disturbance.psutil, "cpu_times", refused)
    assert Reading.now() is None
    watch = Watch(CPU)
    watch.start -= 1
    assert watch.lap() is None


def test_too_short_a_stretch_is_not_judged():
    watch = Watch(CPU)
    assert watch.lap() is None
    time.sleep(0.26)
    assert watch.lap() is not None


class Driver(SimpleNamespace):
    """Stands for pynvml: reasons for clocks of 1 of 2 GHz, shares by process number."""

    class NVMLError(Exception):
        pass

    NVML_CLOCK_SM = 1
    nvmlClocksEventReasonHwSlowdown = 8
    nvmlClocksEventReasonSwThermalSlowdown = 32
    nvmlClocksEventReasonHwThermalSlowdown = 64
    nvmlClocksEventReasonHwPowerBrakeSlowdown = 128

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, name):
        return name

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        assert handle == "GPU-u"
        return self.reasons

    def nvmlDeviceGetClockInfo(self, handle, kind):
        return 1000

    def nvmlDeviceGetMaxClockInfo(self, handle, kind):
        return 2000

    def nvmlDeviceGetProcessUtilization(self, handle, since):
        if not self.shares:
            raise self.NVMLError
        return [SimpleNamespace(pid=pid, smUtil=share) for pid, share in self.shares]


@pytest.mark.parametrize(
    ("reasons", "shares", "lost"),
    [
        (0, (), 0.0),
        (4, [(1, 90)], 0.0),  # a cap of power, and this process only
        (64, [(1, 90)], 0.5),
        (0, [(1, 60), (2, 30), (2, 20)], 0.3),
        (0, [(os.getpid(), 30), (2, 60)], 0.6),
    ],
)
def test_a_gpu_is_watched_by_its_driver(monkeypatch, reasons, shares, lost):
    monkeypatch.setitem(sys.modules, "pynvml", Driver(reasons=reasons, shares=shares))
    facts = SimpleNamespace(uuid="u")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: facts)
    watch = Watch(torch.device("cuda"))
    assert watch.gpu(1.0) == pytest.approx(lost)


def test_without_the_drivers_package_nothing_is_known_of_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    watch = Watch(torch.device("cuda"))
    assert watch.gpu is None
    for waited, lost in ((0.1, None), (5.0, 0.5)):  # of 10 seconds
        readings = iter([reading(), reading(wall=10, waits={"a": waited}), reading()])
        monkeypatch.setattr(disturbance.Reading, "now", lambda r=readings: next(r))
        watch.restart()
        watch.start -= 10
        assert watch.lap() == lost
