"""Names of runtimes and precisions."""

RUNTIMES = ("eager", "compiled", "onnxruntime", "openvino")
PRECISIONS = ("f32", "bf16", "int8")
FILES = ("onnxruntime", "openvino")
"""Runtimes of files that ``export`` writes."""
