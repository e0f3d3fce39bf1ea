"""Paths and options that several test modules use."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
WEIGHTS = SHARED / "weights" / "mobilenetv2_100_same_imagenet.safetensors"
TINY = ("--backbone", "test_efficientnet")  # a timm model made for tests: 0.4 M parameters
