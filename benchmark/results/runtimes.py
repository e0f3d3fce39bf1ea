"""Names of runtimes and precisions."""

Pair = tuple[str, str]
"""A runtime and a precision."""

RUNTIMES = ("eager", "compiled", "onnxruntime", "openvino")
PRECISIONS = ("f32", "bf16", "int8")
FILES = ("onnxruntime", "openvino")
"""Runtimes of files that ``export`` writes."""


def pair_of(device: str, amp: bool, compiled: bool = False) -> Pair:
    """How PyTorch runs a network on ``device``, with mixed precision or without."""
    half = "f16" if device.startswith("cuda") else "bf16"
    return "compiled" if compiled else "eager", half if amp else "f32"
