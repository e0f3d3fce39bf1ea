import pytest

from common import progress
from common.progress import Lines


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test sets by hand."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_what_takes_long_has_a_line_and_then_one_a_minute(clock):
    said = []
    lines = Lines(said.append)
    lines.begin("read", 500)
    for _ in range(500):
        clock[0] += 0.5
        lines.step("0.png")
    assert said == [f"read: {done} of 500 (0.png)" for done in (20, 140, 260, 380)]
    assert progress.EVERY == 120 * 0.5


def test_what_is_short_has_none_but_many_short_pieces_have_one_a_minute(clock):
    said = []
    lines = Lines(said.append)
    for piece in range(40):
        lines.begin(f"piece {piece}", 2)
        clock[0] += 3
        lines.step()
        lines.step()
    assert said == ["piece 19: 1 of 2", "piece 39: 1 of 2"]


def test_lines_say_whose_they_are_and_details_only_if_asked(clock):
    said = []
    for verbose in (False, True):
        lines = Lines(said.append, verbose)
        lines.prefix = "fcn: "
        lines.begin("train", 9)
        clock[0] += 60
        lines.step()
        lines.message("resuming")
        lines.detail("loss 1")
    assert said == ["fcn: train: 1 of 9", "resuming"] * 2 + ["loss 1"]
