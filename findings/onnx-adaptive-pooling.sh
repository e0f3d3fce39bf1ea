#!/usr/bin/env bash
# Software: torch 2.13.0, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.32.0. It installs torch:
# several GB on Linux, where pip brings the build for CUDA.
#
# Behaviour: torch.onnx.export(dynamo=True) with dynamic height and width writes adaptive average
# pooling into k > 1 bins as an AveragePool whose kernel is a constant, right for the size of the
# example only. In pyramid pooling (PSPNet, UPerNet) the bins are resized to the map, so that the
# file takes every size and returns a map of the right shape with wrong values. No warning names the
# pooling, verify=True passes (it compares at the example's size), and the ExportedProgram that the
# file was made from is right at every size.
#
# Expected: a file whose axes are dynamic is right at all their sizes, or the export fails. From an
# example that the bins do not divide, a file is written too; onnxruntime refuses some sizes then.
#
# Upstream: no issue about this exporter was found, and the documentation of torch.onnx does not
# speak of it (looked up in November 2026). With dynamo=False the same torch refuses the layer when
# height and width are dynamic. torch 2.15.0 writes the same constant kernel.
#
# Output seen (values of the map lie in 0...1):
#   kernel [4, 4], written from an example of 24x24
#   size    largest error of   torch.export   the ONNX file
#   24x24                           0.0e+00         1.2e-07
#   48x48                           0.0e+00         1.7e-01
#   36x48                           0.0e+00         1.8e-01
#   30x42                           0.0e+00         2.2e-01
# (lines on standard error about torchvision, which is not installed, have nothing to do with it)
#
# For a dense-prediction benchmark: the latency and the accuracy of an exported network with
# pyramid pooling hold for one size only. Compare the file with the network at sizes other than the
# example's, or replace the pooling before the export.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install -q --disable-pip-version-check \
    torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0

env/bin/python - <<'PYTHON'
import warnings

import onnxruntime
import torch
import torch.nn.functional as F
from torch import nn


class Pyramid(nn.Module):
    """One branch of pyramid pooling: 6 x 6 means, resized to the map."""

    def forward(self, x):
        bins = F.adaptive_avg_pool2d(x, 6)
        return F.interpolate(bins, size=x.shape[2:], mode="bilinear", align_corners=False)


torch.manual_seed(0)
branch = Pyramid().eval()
example = torch.rand(2, 8, 24, 24)
dynamic = torch.export.Dim.DYNAMIC
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    program = torch.export.export(
        branch, (example,), dynamic_shapes=(dict.fromkeys((0, 2, 3), dynamic),)
    )
    file = torch.onnx.export(program, (), dynamo=True, verify=True, verbose=False)
assert not any("pool" in str(one.message).lower() for one in caught), "the export warns now"

(pool,) = (node for node in file.model_proto.graph.node if node.op_type == "AveragePool")
(kernel,) = (list(one.ints) for one in pool.attribute if one.name == "kernel_shape")
axes = file.model_proto.graph.input[0].type.tensor_type.shape.dim
assert all(axes[axis].dim_param for axis in (0, 2, 3)), "the file's axes are no longer dynamic"
assert kernel == [4, 4], f"the kernel is {kernel}"

session = onnxruntime.InferenceSession(
    file.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
)
name = session.get_inputs()[0].name
print(f"kernel {kernel}, written from an example of 24x24")
print("size    largest error of   torch.export   the ONNX file")
for height, width in ((24, 24), (48, 48), (36, 48), (30, 42)):
    x = torch.rand(1, 8, height, width)
    wanted = branch(x)
    exported = (program.module()(x) - wanted).abs().max().item()
    (output,) = session.run(None, {name: x.numpy()})
    assert output.shape == tuple(wanted.shape), f"the map's shape is {output.shape}"
    error = (torch.from_numpy(output) - wanted).abs().max().item()
    print(f"{height}x{width}{exported:34.1e}{error:16.1e}")
    assert exported < 1e-5, "torch.export has changed"
    if (height, width) == (24, 24):
        assert error < 1e-5, "the file is wrong at the example's size"
    else:
        assert error > 0.05, "the file is right at another size"
PYTHON
