"""Paths, options and helpers that several test modules use."""

from pathlib import Path

from click.testing import Result

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
