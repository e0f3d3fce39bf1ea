"""Probes of ``doctor`` that may crash, hang or write caches, so each has its own process.

    python -m benchmark.doctor.probes compile|onnx|ray

prints the result as a line of JSON; an error ends it with a traceback.
"""

import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.stopping import end_with_parent


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(images))
        return nn.functional.interpolate(x, (32, 32), mode="bilinear", align_corners=True)


def compile_() -> dict[str, Any]:
    """Compile a function. seconds: of the first call, with compilation."""
    x = torch.linspace(-1, 1, 1000)
    start = time.perf_counter()
    y = torch.compile(lambda x: torch.sin(x) * x + 1)(x)
    seconds = time.perf_counter() - start
    assert torch.allclose(y, torch.sin(x) * x + 1), "the compiled function is wrong"
    return {"seconds": seconds}


def onnx() -> dict[str, Any]:
    """Export a network. error: largest difference from torch; None without onnxruntime."""
    model, images = _Small().eval().requires_grad_(False), torch.rand(1, 3, 16, 16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.onnx"
        torch.onnx.export(model, (images,), path, dynamo=True, external_data=False, verbose=False)
        if importlib.util.find_spec("onnxruntime") is None:
            return {"error": None}
        import onnxruntime

        session = onnxruntime.InferenceSession(
            path.read_bytes(), providers=["CPUExecutionProvider"]
        )
        output = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    return {"error": float((model(images) - torch.from_numpy(output)).abs().max())}


def ray() -> dict[str, Any]:
    """Start Ray. seconds: until a worker has answered."""
    import ray

    start = time.perf_counter()
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        assert ray.get(ray.remote(lambda: 7).remote(), timeout=60) == 7
        return {"seconds": time.perf_counter() - start}
    finally:
        ray.shutdown()


PROBES = {"compile": compile_, "onnx": onnx, "ray": ray}

if __name__ == "__main__":
    end_with_parent()
    answer = json.dumps(PROBES[sys.argv[1]]())
    sys.stdout.write(f"{answer}\n")
