#!/usr/bin/env bash
# Software: pillow 13.0.0, rasterio 1.4.4 (GDAL), tifffile 2026.3.3, numpy 2.4.6.
#
# Behaviour: Pillow opens a TIFF of red, green, blue and a fourth band that the file does not call
# alpha (near infrared) as mode RGB: three bands, the fourth is gone, without a warning. The same
# four bands with the tag "alpha" open as RGBA; and the file that rasterio writes by default calls
# any fourth band alpha, so that near infrared becomes transparency.
#
# Expected: four bands, an error as for a TIFF of five bands ("cannot identify image file"), or a
# word.
#
# Upstream: the release notes of Pillow 5.1.0 (2018) say that up to six 8-bit channels are opened and
# those tagged as unspecified discarded; nothing is said when it happens (looked up in November
# 2026).
#
# Output seen:
#   file                                  Pillow           tifffile         rasterio
#   fourth band unspecified               RGB (3 bands)    4 bands          4 bands
#   fourth band alpha                     RGBA (4 bands)   4 bands          4 bands
#   rasterio, 4 bands, default            RGBA (4 bands)   4 bands          4 bands
#   rasterio, photometric RGB, no alpha   RGB (3 bands)    4 bands          4 bands
#
# For a dense-prediction benchmark: a loader that opens images by Pillow trains a network of four
# input channels on what convert("RGB") or a missing band leave, or one of three channels on images
# whose fourth band decides the class. Count the samples of a TIFF before Pillow opens it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install -q --disable-pip-version-check \
    tifffile==2026.3.3 pillow==13.0.0 rasterio==1.4.4 numpy==2.4.6

env/bin/python - <<'PYTHON'
import warnings

import numpy as np
import rasterio
import tifffile
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

warnings.simplefilter("error")  # a word of warning would be a change
warnings.simplefilter("ignore", NotGeoreferencedWarning)  # of coordinates, not of bands

bands = np.random.default_rng(0).integers(0, 256, (96, 128, 4), dtype=np.uint8)
shape = {"width": 128, "height": 96, "count": 4, "dtype": "uint8"}


def by_rasterio(path, **options):
    with rasterio.open(path, "w", driver="GTiff", **shape, **options) as file:
        file.write(bands.transpose(2, 0, 1))


tifffile.imwrite("unspecified.tif", bands, photometric="rgb", extrasamples=["unspecified"])
tifffile.imwrite("alpha.tif", bands, photometric="rgb", extrasamples=["unassalpha"])
by_rasterio("default.tif")
by_rasterio("no-alpha.tif", photometric="RGB", alpha="NO")

print(f"{'file':<38}{'Pillow':<17}{'tifffile':<17}rasterio")
for title, path, mode in (
    ("fourth band unspecified", "unspecified.tif", "RGB"),
    ("fourth band alpha", "alpha.tif", "RGBA"),
    ("rasterio, 4 bands, default", "default.tif", "RGBA"),
    ("rasterio, photometric RGB, no alpha", "no-alpha.tif", "RGB"),
):
    with Image.open(path) as picture, rasterio.open(path) as file:
        seen, pixels, count = picture.mode, np.asarray(picture), file.count
        assert np.array_equal(file.read().transpose(1, 2, 0), bands), "GDAL reads other bands"
    with tifffile.TiffFile(path) as file:
        samples = file.pages[0].samplesperpixel
    print(f"{title:<38}{f'{seen} ({pixels.shape[2]} bands)':<17}{f'{samples} bands':<17}{count} bands")
    assert seen == mode, f"Pillow opens {path} as {seen}"
    assert samples == count == 4
    assert np.array_equal(pixels, bands[..., : len(mode)])
PYTHON
