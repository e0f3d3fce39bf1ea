"""The allocator: what is freed is used again, instead of being mapped anew."""

import platform
import subprocess
import sys

import pytest

from tests.support import ROOT

FAULTS = """
import resource, sys
import numpy as np
from common.memory import keep_freed_memory, keeps_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keep":
    assert keep_freed_memory()
assert keeps_freed_memory() == (sys.argv[1] == "keep")
np.ones(48 * 2**20, np.uint8).sum()
before = faults()
for _ in range(10):
    np.ones(48 * 2**20, np.uint8).sum()
print(faults() - before)
"""


def faults(mode: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, mode], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc's allocator")
def test_freed_memory_is_used_again() -> None:
    """48 MiB, ten times: 12,288 pages each, unless they are huge ones."""
    assert faults("keep") < 100
    assert faults("default") > 100
