#!/usr/bin/env bash
# Software: tifffile 2026.3.3, pillow 13.0.0, rasterio 1.4.4 (GDAL), numpy 2.4.6.
#
# Behaviour: tifffile.imwrite(path, array) of an image [height, width, 5] writes no image of five
# bands but one page for each row: `height` pages of `width` x 5 pixels. tifffile's own imread puts
# the array together again, from a shape that it noted in the file. Pillow and rasterio open the
# first page: a picture of 5 x `width` pixels that is the first row of the image, without a warning.
#
# Expected: one image of five bands, as an array of three or four uint8 bands becomes one image; or a
# word of warning.
#
# Upstream: tifffile's documentation of imwrite says that the color space and the storage of samples
# are inferred from the shape, and advises to give `photometric` where a warning is logged for what
# it takes for RGB; here none is logged (looked up in November 2026).
#
# Output seen:
#   written     (96, 128, 5)
#   tifffile    (96, 128, 5)
#   Pillow      width 5, height 128, 96 frames; its first row is [0, 1, 2, 3, 4]
#   rasterio    1 band, height 128, width 5; its first row is [0, 1, 2, 3, 4]
#   with photometric="minisblack", planarconfig="contig": rasterio has 5 bands of 96 x 128
#
# For a dense-prediction benchmark: images of several bands that were written in this way open
# without an error in a loader built on Pillow or GDAL, at another size. Nothing says that the rest
# of the image is missing, and a network trains on strips.
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
warnings.simplefilter("ignore", NotGeoreferencedWarning)  # of coordinates, not of the shape

array = np.arange(96 * 128 * 5, dtype=np.uint16).reshape(96, 128, 5)
tifffile.imwrite("bands.tif", array)
print("written    ", array.shape)
print("tifffile   ", tifffile.imread("bands.tif").shape)
assert np.array_equal(tifffile.imread("bands.tif"), array)

with Image.open("bands.tif") as picture:
    row = np.asarray(picture)[0].tolist()
    print(f"Pillow      width {picture.width}, height {picture.height}, {picture.n_frames} frames; "
          f"its first row is {row}")
    assert (picture.width, picture.height, picture.n_frames) == (5, 128, 96)
    assert row == [0, 1, 2, 3, 4]
with rasterio.open("bands.tif") as file:
    row = file.read(1)[0].tolist()
    print(f"rasterio    {file.count} band, height {file.height}, width {file.width}; "
          f"its first row is {row}")
    assert (file.count, file.height, file.width) == (1, 128, 5)
    assert row == [0, 1, 2, 3, 4]

tifffile.imwrite("right.tif", array, photometric="minisblack", planarconfig="contig")
with rasterio.open("right.tif") as file:
    print('with photometric="minisblack", planarconfig="contig": '
          f"rasterio has {file.count} bands of {file.height} x {file.width}")
    assert np.array_equal(file.read().transpose(1, 2, 0), array)
PYTHON
