"""Freezes pyEdgeEval's scores of gradient maps against the marks of 20 BSDS500 test images.

pyEdgeEval compiles the BSDS matcher (C++) when it is installed, so it has an environment of its
own; twenty images take it about ten minutes of processor time:

    uv venv .tox/edges && VIRTUAL_ENV=.tox/edges uv pip install \\
        pyEdgeEval scipy scikit-image opencv-python-headless matplotlib tqdm prettytable pillow
    .tox/edges/bin/python tests/oracles/freeze_edges.py

This rewrites edges.json beside the script. Predictions are made of whole numbers, so they are the
same everywhere; their checksums are frozen with the scores. pyEdgeEval does all the rest:
non-maximum suppression, thinning, matching, scores. What it calls AUC is the benchmark's AP (its
own AP is another one, of maxima); R50 comes from the function behind its plots.
"""

import hashlib
import json
import math
from importlib.metadata import version
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FROZEN = Path(__file__).with_name("edges.json")
BSDS = Path(__file__).parents[2].parent / "shared" / "data" / "bsds500"
THRESHOLDS = 99


def names(root: Path = BSDS) -> list[str]:
    """The test images of BSDS500, in order."""
    return sorted(path.stem for path in (root / "groundTruth" / "test").glob("*.mat"))


def boundaries(name: str, root: Path = BSDS) -> NDArray[np.bool_]:
    """The annotators' marks (A, H, W) of a test image."""
    from scipy.io import loadmat

    cells = loadmat(root / "groundTruth" / "test" / f"{name}.mat")["groundTruth"][0]
    return np.stack([cell["Boundaries"][0, 0] for cell in cells]).astype(bool)


def blur(grey: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums over 3×3 pixels; the border pixel is repeated."""
    height, width = grey.shape
    padded = np.pad(grey, 1, mode="edge")
    return sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3))


def prediction(name: str, root: Path = BSDS) -> NDArray[np.uint8]:
    """Length of the grey image's gradient after two blurs, (H, W), 255 for 127.5 levels or more."""
    image = Image.open(root / "images" / "test" / f"{name}.jpg").convert("RGB")
    grey = blur(blur(np.asarray(image).astype(np.int64) @ np.array([299, 587, 114])))
    padded = np.pad(grey, 1, mode="edge")
    dy, dx = padded[2:, 1:-1] - padded[:-2, 1:-1], padded[1:-1, 2:] - padded[1:-1, :-2]
    # squares stay below 2^53 and IEEE square roots are rounded correctly: the same everywhere
    length = np.sqrt((dy**2 + dx**2).astype(np.float64))
    return np.minimum(length * 2 / 81_000, 255).astype(np.uint8)


def checksum(*maps: NDArray[np.generic]) -> str:
    """First half of the SHA-256 of the maps' bytes."""
    return hashlib.sha256(b"".join(m.tobytes() for m in maps)).hexdigest()[:32]


def rows(name: str) -> list[list[int]]:
    """pyEdgeEval's counts of one image: matched marks, marks, matched pixels, pixels [4][99]."""
    from pyEdgeEval.common.binary_label import (
        evaluate_boundaries_threshold_multiple_gts as evaluate,
    )
    from pyEdgeEval.common.utils import check_thresholds

    thresholds = check_thresholds(THRESHOLDS)
    counts = evaluate(thresholds, prediction(name) / 255, boundaries(name), apply_nms=True)
    return [column.astype(int).tolist() for column in counts]


def scores(counts: list[list[list[int]]]) -> dict[str, float | None]:
    """pyEdgeEval's scores of images with these counts; None for NaN."""
    from pyEdgeEval.common.binary_label import calculate_metrics
    from pyEdgeEval.visualization.pr_curve import _calc_r50

    samples = [{"name": str(k), "counts": np.array(each, float)} for k, each in enumerate(counts)]
    _, curve, overall = calculate_metrics(
        lambda sample: tuple(sample["counts"]), THRESHOLDS, samples, nproc=1
    )
    points = np.array([[p["threshold"], p["recall"], p["precision"], p["f1"]] for p in curve])
    r50 = _calc_r50(points[points[:, 1] >= 1e-3])  # as its loader drops them
    values = {"ods": overall["ODS_f1"], "ois": overall["OIS_f1"], "ap": overall["AUC"], "r50": r50}
    return {
        name: None if math.isnan(value) else round(float(value), 9)
        for name, value in values.items()
    }


if __name__ == "__main__":
    chosen = names()[::10]
    with Pool(2) as pool:
        counts = pool.map(rows, chosen, chunksize=1)
    frozen = {
        "made_by": "tests/oracles/freeze_edges.py, whose docstring says how",
        "pyEdgeEval": version("pyEdgeEval"),
        "numpy": np.__version__,
        "images": {
            name: {"checksum": checksum(prediction(name), boundaries(name)), **scores([each])}
            for name, each in zip(chosen, counts, strict=True)
        },
        "split": scores(counts),
        "counts": np.sum(counts, axis=0).tolist(),
    }
    text = json.dumps(frozen, indent=1, ensure_ascii=False)
    FROZEN.write_text(text + "\n")
