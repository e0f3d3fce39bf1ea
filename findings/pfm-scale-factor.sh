#!/usr/bin/env bash
# Software: opencv-python-headless 5.0.0.93, pillow 13.0.0, numpy 2.4.6.
#
# Behaviour: the third line of a PFM file (float maps: disparity, depth) holds a scale factor, its
# sign the byte order. OpenCV divides every value by that factor, Pillow leaves the values as they
# are. Both open the file without a warning, and what they return differs by the factor.
#
# Expected: two readers of one float map return the same numbers. Where a factor is applied, one
# would multiply: Netpbm's description of the format calls it the unit of the samples.
#
# Upstream: Pillow documents the factor as info["scale"], and not that it is left to the caller;
# OpenCV's documentation of imread lists PFM and says nothing of the factor. No issue about it was
# found (looked up in November 2026). OpenCV 4.14.0.94 does the same. Both write a factor of -1, so
# a test that reads what it wrote never sees it.
#
# Output seen:
#   factor    stored  Pillow  OpenCV
#   -1          10.0    10.0    10.0
#   -0.5        10.0    10.0    20.0
#   -4          10.0    10.0     2.5
#   -0.003922   10.0    10.0  2549.7
#
# For a dense-prediction benchmark: ground truth read by OpenCV is 255 times too large where the
# factor is 1/255. By its source, pfmLib, C++ code by an author of the Middlebury stereo data,
# writes that factor by default and ignores it when it reads. Absolute errors change by that much;
# scale-invariant ones and pictures of the map do not show it. Read the third line, and apply it or
# not as the data set says, rather than as the library does.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install -q --disable-pip-version-check \
    opencv-python-headless==5.0.0.93 pillow==13.0.0 numpy==2.4.6

env/bin/python - <<'PYTHON'
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

warnings.simplefilter("error")  # a word of warning would be a change

stored = np.array([[10, 20, 30], [40, 50, 60]], "<f4")
print("factor    stored  Pillow  OpenCV")
for factor in ("-1", "-0.5", "-4", "-0.003922"):
    # rows from bottom to top; a negative factor: little-endian
    Path("map.pfm").write_bytes(f"Pf\n3 2\n{factor}\n".encode() + stored[::-1].tobytes())
    with Image.open("map.pfm") as image:
        pillow, scale = np.asarray(image), image.info["scale"]
    opencv = cv2.imread("map.pfm", cv2.IMREAD_UNCHANGED)
    print(f"{factor:<10}{stored[0, 0]:6.1f}{pillow[0, 0]:8.1f}{opencv[0, 0]:8.1f}")
    assert scale == abs(float(factor)), "Pillow no longer gives the factor"
    assert np.array_equal(pillow, stored), "Pillow's values have changed"
    assert np.allclose(opencv, stored / scale, rtol=1e-6), "OpenCV's values have changed"

cv2.imwrite("opencv.pfm", stored)
Image.fromarray(stored).save("pillow.pfm")
for name in ("opencv.pfm", "pillow.pfm"):
    factor = float(Path(name).read_bytes().split(b"\n", 3)[2])
    assert factor == -1, f"{name} has a factor of {factor}"
PYTHON
