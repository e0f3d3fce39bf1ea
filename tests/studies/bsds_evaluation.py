"""Seconds to score BSDS500's test images: 99 thresholds, all annotators.

    python -m tests.studies.bsds_evaluation --data BSDS500 [--images 200] [--ridges FOLDER]

The predictions are gradient maps made beforehand (tests/oracles/freeze_edges.py): after suppression
some 20,000 pixels of an image are above the lowest threshold. With --ridges they are the ridge maps
of a network in NAME.npz files: shape, at [N, 2] (row, column) and value [N], elsewhere 0.
Wall time depends on what else the machine does, processor time hardly. The plain way thins with
scikit-image and pairs anew at each threshold, with SciPy's sparse assignment; it takes a few images
only, in turns with ours, and the estimate for all is a multiple of it.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial import cKDTree
from skimage.morphology import thin

from tasks.metrics._edge_matching import boundary_counts
from tasks.metrics._edge_ridges import suppress
from tasks.metrics.edges import TOLERANCE, split_scores
from tests.oracles.freeze_edges import boundaries, names, prediction

LEVELS = np.arange(1, 100) / 100


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds of ``work``."""
    wall, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - used


def plain(ridges: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Counts [99, 4] of one image, without a shortcut."""
    reach = TOLERANCE * np.hypot(*ridges.shape)
    trees = [cKDTree(np.argwhere(each)) for each in marks]
    rows = []
    for level in LEVELS:
        pixels = np.argwhere(thin(ridges >= level))
        hit, recalled = np.zeros(len(pixels), dtype=bool), 0
        for tree in trees if len(pixels) else ():
            near = cKDTree(pixels).sparse_distance_matrix(tree, reach, output_type="ndarray")
            # a pixel without a mark takes a column of its own, at more than all pairs cost; SciPy
            # would drop a cost of 0
            alone = np.arange(len(pixels))
            cost = np.concatenate([near["v"] + 1, np.full(len(pixels), 1e6)])
            row = np.concatenate([near["i"], alone])
            column = np.concatenate([near["j"], tree.n + alone])
            size = (len(pixels), tree.n + len(pixels))
            costs = csr_array((cost, (row, column)), shape=size)
            paired = min_weight_full_bipartite_matching(costs)[1] < tree.n
            hit |= paired
            recalled += np.count_nonzero(paired)
        rows.append([recalled, sum(tree.n for tree in trees), hit.sum(), len(pixels)])
    return np.array(rows)


def ridges_of(file: Path) -> np.ndarray:
    """A ridge map (H, W) from its pixels."""
    with np.load(file) as pixels:
        ridges = np.zeros(pixels["shape"])
        ridges[tuple(pixels["at"].T)] = pixels["value"]
    return ridges


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="BSDS500's folder")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--ridges", type=Path, help="folder of a network's ridge maps")
    parser.add_argument("--plain", type=int, default=2, help="images for the plain way")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    files = sorted(arguments.ridges.glob("*.npz")) if arguments.ridges else []
    chosen = [file.stem for file in files] or names(arguments.data)
    chosen = chosen[: arguments.images]
    if not chosen:
        parser.error(f"{arguments.data}: no groundTruth/test/*.mat")
    pairs = [
        (
            ridges_of(files[k]) if files else suppress(prediction(name, arguments.data) / 255),
            boundaries(name, arguments.data),
        )
        for k, name in enumerate(chosen)
    ]

    def score(ridges: np.ndarray, marks: np.ndarray) -> np.ndarray:
        return boundary_counts(ridges, marks, LEVELS, TOLERANCE)

    score(*pairs[0])  # compiles, or reads what was compiled
    rows: list[np.ndarray] = []
    wall, used = timed(lambda: rows.extend(score(*pair) for pair in pairs))
    scores = split_scores(np.array(rows), np.ones((1, len(rows)), dtype=np.int64))
    facts = {
        "images": len(pairs),
        "annotators": sum(len(marks) for _, marks in pairs),
        "wall_s": round(wall, 1),
        "processor_s": round(used, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "scores": {name: round(float(value[0]), 6) for name, value in scores.items()},
    }
    ours, slow = 0.0, 0.0
    for pair, mine in zip(pairs[: arguments.plain], rows, strict=False):
        counts: list[np.ndarray] = []
        ours += timed(lambda pair=pair: score(*pair))[1]
        slow += timed(lambda pair=pair, counts=counts: counts.append(plain(*pair)))[1]
        # which pixels are paired at equal distance is a matter of choice, not how many
        assert (mine[:, [0, 1, 3]] == counts[0][:, [0, 1, 3]]).all()
        assert np.allclose(mine[:, 2], counts[0][:, 2], rtol=0.005, atol=5)
    if slow:
        facts["plain_images"] = min(arguments.plain, len(pairs))
        facts["plain_processor_s"] = round(slow, 1)
        facts["plain_over_ours"] = round(slow / ours, 1)
    print(json.dumps(facts, indent=1))  # noqa: T201
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
