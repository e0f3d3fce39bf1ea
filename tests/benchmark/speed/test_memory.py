"""Peak memory of a forward, in a process that nothing else has touched."""

import os
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from benchmark.experiment.network import NetworkSpec
from benchmark.speed import memory
from benchmark.speed.fresh import FreshProcess
from benchmark.speed.latency import Setup
from benchmark.speed.memory import fresh_process, peak_memory
from common.errors import UserError, first_line

MIB = 2**20
TINY = NetworkSpec("test_resnet", "fcn", {"classes": 3})


@pytest.fixture(scope="module")
def process() -> Iterator[FreshProcess]:
    with fresh_process() as opened:
        yield opened


def pid() -> int:
    return os.getpid()


def broken() -> None:
    raise ValueError("one line\nand another")


def killed() -> None:
    print("noise")  # noqa: T201
    os.kill(os.getpid(), 9)


def test_each_call_has_a_process_of_its_own_and_errors_come_back(process):
    pids = {process.call(pid), process.call(pid), os.getpid()}
    assert len(pids) == 3
    with pytest.raises(UserError, match=r"ValueError: one line$"):
        process.call(broken)
    with pytest.raises(UserError, match="SIGKILL: memory may have run out"):
        process.call(killed)
    assert process.call(pid) not in pids


def test_the_server_ends_with_its_block():
    with FreshProcess() as process:
        assert process.call(first_line, error="text") == "text"
        server = process.server
    assert server is not None
    assert server.poll() is not None


class Doubling(nn.Module):
    """Holds its input's copies, 64 MiB each for 2048×2048 with four channels, two at once."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x[:, :1].expand(-1, 4, -1, -1)
        first = wide + 1
        return first + 1


def doubling_peak() -> int:
    x = torch.rand(1, 3, 2048, 2048)
    model = Doubling()
    scratch = torch.ones(100 * MIB)  # an earlier peak, which must not count
    del scratch
    with torch.inference_mode():
        model(x)  # loads code, as the product's first forward does
        return memory._peak_of_process(lambda: model(x), "cpu")


def test_the_peak_is_what_a_forward_holds_at_once(process):
    assert process.call(doubling_peak) / MIB == pytest.approx(128, rel=0.05)


def test_networks_in_fresh_processes(process):
    small = peak_memory(TINY, (64, 64), setup=Setup(fused=False), threads=1, process=process)
    large = peak_memory(TINY, (512, 512), threads=1, process=process)
    wrong = peak_memory(NetworkSpec("test_resnet", "nope", {"x": 1}), (64, 64), process=process)
    assert small["error"] is large["error"] is None
    # the logits alone take 3 MiB
    assert large["forward_bytes"] > 3 * MIB
    assert large["forward_bytes"] > small["forward_bytes"]
    plain = TINY.build()
    for found, model in ((small, plain), (large, plain.fuse())):
        assert found["weights_bytes"] == sum(
            t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())
        )
    assert small["weights_bytes"] > large["weights_bytes"]
    assert wrong["forward_bytes"] is None
    assert "unknown decoder 'nope'" in wrong["error"]


def test_separate_decoders_and_a_wiring_that_is_known():
    wiring = {"strides": [2, 4, 8, 16, 32], "stages": {"1": ["E1", "G"]}}
    heads = {"depth": 1, "edges": 1}
    one, each = (
        NetworkSpec(
            "test_resnet", "connectivity:gone.json", heads, wiring=wiring, **options
        ).build()
        for options in ({}, {"separate_decoders": True})
    )
    weights = [sum(p.numel() for p in model.decoder.parameters()) for model in (one, each)]
    assert weights[1] == 2 * weights[0] > 0
    assert list(each.heads) == list(heads)


def test_a_system_that_does_not_tell_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "RESET", tmp_path / "nothing" / "here")

    class Here:
        def call(self, function, **arguments):
            return function(**arguments)

    found = peak_memory(TINY, (32, 32), process=Here())  # type: ignore[arg-type]
    assert found["forward_bytes"] is None
    assert "does not report a forward's peak memory" in found["error"]
