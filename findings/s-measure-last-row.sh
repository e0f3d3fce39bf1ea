#!/usr/bin/env bash
# Software: pysodmetrics 1.6.2, numpy 2.3.4.
#
# Behaviour: the structure measure of an image is NaN where the object's centroid lies in the last
# row or the last column, as that of a strip of one pixel along the lower or right edge; so is then
# the mean over the data set. The measure splits the image behind the centroid's row and column, and
# averages the pixels of the parts below or to the right, of which there are none. numpy's
# RuntimeWarning is the only sign. The same strip along the upper or left edge scores 1 for the
# perfect map.
#
# Expected: a part without pixels has the weight 0 and adds nothing; a map and its mirror image
# score nearly alike (the split moves by a pixel).
#
# Upstream: no issue about it was found in the package's repository; NaN of unknown cause is an old
# question about other implementations of the measure (DengPingFan/S-measure issue 2, 2021; looked up in
# November 2026).
#
# Output seen:
#   strip   perfect map   the same with noise
#   top          1.0000                0.4720
#   left         1.0000                0.4720
#   bottom          nan                   nan
#   right           nan                   nan
#   mean of 200 images, one of them "bottom": nan
#
# For a dense-prediction benchmark: one image in a data set is enough for a board without a score, and a
# mean that skips NaN hides it and shifts the other scores' weights.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install -q --disable-pip-version-check pysodmetrics==1.6.2 numpy==2.3.4

env/bin/python - <<'PYTHON'
import math
import warnings

import numpy as np
from py_sod_metrics import Smeasure

SIDE = 64
STRIPS = {
    "top": np.s_[:1, :], "left": np.s_[:, :1], "bottom": np.s_[-1:, :], "right": np.s_[:, -1:],
}


def score(pairs):
    """The mean over pairs of a map and its ground truth, uint8 (H, W)."""
    measure = Smeasure()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of the mean of nothing
        for prediction, truth in pairs:
            measure.step(pred=prediction, gt=truth)
    return float(measure.get_results()["sm"])


noise = np.random.default_rng(0).integers(0, 60, (SIDE, SIDE))
print("strip   perfect map   the same with noise")
for name, place in STRIPS.items():
    truth = np.zeros((SIDE, SIDE), np.uint8)
    truth[place] = 255
    noisy = (truth * 0.6 + noise).astype(np.uint8)
    perfect, other = score([(truth, truth)]), score([(noisy, truth)])
    print(f"{name:<8}{perfect:>11.4f}{other:>22.4f}")
    if name in ("top", "left"):
        assert perfect > 0.999 and 0.4 < other < 0.5, "the other edges score otherwise now"
    else:
        assert math.isnan(perfect) and math.isnan(other), f"{name}: a number now"

box = np.zeros((SIDE, SIDE), np.uint8)
box[20:40, 20:40] = 255
assert score([(box, box)] * 199) > 0.999
truth = np.zeros((SIDE, SIDE), np.uint8)
truth[STRIPS["bottom"]] = 255
mean = score([*[(box, box)] * 199, (truth, truth)])
print(f'mean of 200 images, one of them "bottom": {mean}')
assert math.isnan(mean), "the mean is a number now"
PYTHON
