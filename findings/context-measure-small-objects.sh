#!/usr/bin/env bash
# Software: pysodmetrics 1.6.2 (ContextMeasure, default settings), numpy 2.3.4,
# opencv-python-headless 4.14.0.94.
#
# Behaviour: the Context-measure of a prediction equal to its ground truth depends on the size of
# the object: 0.15 for a square of 4x4 pixels, 0.83 for one of 32x32. For small objects a map that
# is one pixel too large on every side scores higher than the ground truth itself. No warning.
#
# Expected: a perfect map gets the measure's best value, the same for every object, and a worse map
# gets less. S-measure and weighted F-measure of the same package do so.
#
# Cause: the ground truth is blurred by a kernel whose size does not follow the object's, and
# precision is read from the blurred map. A perfect map of a small object lies on values far below
# 1; a larger map loses little precision and gains more completeness.
#
# Upstream: neither the class's documentation nor its issues speak of it (looked up in November
# 2026). The file says that it agrees with the original implementation.
#
# Output seen:
#   side   Context-measure          S-measure      weighted F
#          exact   1 px too large   exact  large   exact  large
#      4   0.1486  0.1734           1.000  0.631   1.000  0.584
#      8   0.3996  0.4138           1.000  0.809   1.000  0.758
#     16   0.6713  0.6646           1.000  0.893   1.000  0.869
#     32   0.8298  0.8217           1.000  0.920   1.000  0.932
#
# For a dense-prediction benchmark: the mean over a data set has no known ceiling, so values of two
# data sets, or of two image sizes, cannot be compared; where objects are small, a network that
# dilates its masks ranks above one that is right.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install -q --disable-pip-version-check \
    pysodmetrics==1.6.2 numpy==2.3.4 opencv-python-headless==4.14.0.94

env/bin/python - <<'PYTHON'
import warnings

import numpy as np
from py_sod_metrics import ContextMeasure, Smeasure, WeightedFmeasure

warnings.simplefilter("error")  # a word of warning would be a change


def square(first, side):
    mask = np.zeros((64, 64), np.uint8)
    mask[first : first + side, first : first + side] = 255
    return mask


def score(measure, prediction, truth):
    measure.step(pred=prediction, gt=truth)
    (value,) = measure.get_results().values()
    return float(value)


print("side   Context-measure          S-measure      weighted F")
print("       exact   1 px too large   exact  large   exact  large")
perfect, gain = {}, {}
for side in (4, 8, 16, 32):
    truth, large = square(16, side), square(15, side + 2)
    context, structure, weighted = (
        [score(kind(), prediction, truth) for prediction in (truth, large)]
        for kind in (ContextMeasure, Smeasure, WeightedFmeasure)
    )
    print(
        f"{side:4}   {context[0]:.4f}  {context[1]:.4f}           {structure[0]:.3f}  "
        f"{structure[1]:.3f}   {weighted[0]:.3f}  {weighted[1]:.3f}"
    )
    perfect[side], gain[side] = context[0], context[1] - context[0]
    for exact, larger in (structure, weighted):
        assert abs(exact - 1) < 1e-3 and larger < exact, "the other measures have changed"

assert abs(perfect[4] - 0.1486) < 1e-3, "a perfect map of 4x4 pixels scores otherwise"
assert abs(perfect[32] - 0.8298) < 1e-3, "a perfect map of 32x32 pixels scores otherwise"
assert gain[4] > 0.01 and gain[8] > 0.01, "a map that is too large no longer scores higher"
PYTHON
