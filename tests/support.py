"""Paths, options and helpers that several test modules use."""

from pathlib import Path

from click.testing import Result
from hypothesis import strategies as st

from models.connectivity import Connectivity, candidates

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
WEIGHTS = SHARED / "weights" / "mobilenetv2_100_same_imagenet.safetensors"
TINY = ("--backbone", "test_efficientnet")  # a timm model made for tests: 0.4 M parameters


def line(result: Result) -> str:
    """The one line that a user's mistake ends in."""
    text = result.stderr.strip()
    assert "Traceback" not in text
    assert text.startswith("error: "), text
    assert "\n" not in text, text
    return text


@st.composite
def wirings(draw: st.DrawFn, strides: tuple[int, ...]) -> Connectivity:
    """Any wiring of features of ``strides``, dead stages included."""
    count = len(strides)
    stages: dict[int, tuple[str, ...]] = {}
    for stage in range(count, 0, -1):
        if stage == 1 or draw(st.integers(0, 2)):
            possible = [c for c in candidates(stage, count) if c[0] != "D" or int(c[1:]) in stages]
            chosen = draw(st.lists(st.sampled_from(possible), min_size=1, unique=True))
            stages[stage] = tuple(chosen)
    return Connectivity("drawn", strides, stages)
