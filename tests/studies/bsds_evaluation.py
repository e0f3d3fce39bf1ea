"""Seconds to score BSDS500's test images: 99 thresholds, all annotators.

    python -m tests.studies.bsds_evaluation --data BSDS500 [--images 200] [--processes 2]

The predictions are gradient maps made beforehand (tests/oracles/freeze_edges.py): after suppression
some 20,000 pixels of an image are above the lowest threshold.
Wall time depends on what else the machine does, processor time hardly. The plain way thins with
scikit-image and finds the pairs anew with a kd-tree at each threshold; it takes a few images only,
and the estimate for all is a multiple of it.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_flow
from scipy.spatial import cKDTree
from skimage.morphology import thin

from common.annotators import pack
from tasks.metrics._edge_matching import suppress
from tasks.metrics.edges import EdgeMetrics
from tests.oracles.freeze_edges import boundaries, names, prediction


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds of ``work``, those of its ended child processes included."""

    def processor() -> float:
        each = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in each)

    wall, used = time.perf_counter(), processor()
    work()
    return time.perf_counter() - wall, processor() - used


def plain(p: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Counts [99, 4] of one image, without a shortcut."""
    ridges, reach = suppress(p), 0.0075 * np.hypot(*p.shape)
    trees = [cKDTree(np.argwhere(each)) for each in marks]
    rows = []
    for level in np.arange(1, 100) / 100:
        pixels = np.argwhere(thin(ridges >= level))
        hit, recalled = np.zeros(len(pixels), dtype=bool), 0
        for tree in trees if len(pixels) else ():
            near = cKDTree(pixels).sparse_distance_matrix(tree, reach, output_type="coo_matrix")
            source, first, last = len(pixels), len(pixels) + 1, len(pixels) + 1 + tree.n
            tails = [near.row, np.full(len(pixels), source), first + np.arange(tree.n)]
            heads = [first + near.col, np.arange(len(pixels)), np.full(tree.n, last)]
            ends = np.concatenate(tails), np.concatenate(heads)
            units = np.ones(len(ends[0]), dtype=np.int32)
            network = coo_array((units, ends), shape=(last + 1, last + 1)).tocsr()
            flow = maximum_flow(network, source, last)
            hit |= flow.flow[[source]].toarray()[0, : len(pixels)] > 0
            recalled += flow.flow_value
        rows.append([recalled, sum(tree.n for tree in trees), hit.sum(), len(pixels)])
    return np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="BSDS500's folder")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--plain", type=int, default=2, help="images for the plain way")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    chosen = names(arguments.data)[: arguments.images]
    if not chosen:
        parser.error(f"{arguments.data}: no groundTruth/test/*.mat")
    pairs = [
        (prediction(name, arguments.data) / 255, boundaries(name, arguments.data))
        for name in chosen
    ]
    metrics = EdgeMetrics(processes=arguments.processes)

    def score() -> None:
        for p, marks in pairs:
            metrics.update(torch.from_numpy(p), pack(torch.from_numpy(marks)))
        metrics.compute()

    wall, used = timed(score)
    facts = {
        "images": len(pairs),
        "annotators": sum(len(marks) for _, marks in pairs),
        "processes": arguments.processes,
        "wall_s": round(wall, 1),
        "processor_s": round(used, 1),
        "scores": metrics.compute(),
    }
    few = pairs[: arguments.plain]
    if few:
        counts: list[np.ndarray] = []
        _, slow = timed(lambda: counts.extend(plain(*pair) for pair in few))
        for mine, theirs in zip(metrics._rows, counts, strict=False):
            # which pixels of a largest pairing are paired is a matter of choice, not how many
            assert (mine[:, [0, 1, 3]] == theirs[:, [0, 1, 3]]).all()
        facts["plain_images"] = len(few)
        facts["plain_processor_s"] = round(slow, 1)
        facts["plain_processor_s_extrapolated"] = round(slow * len(pairs) / len(few))
    print(json.dumps(facts, indent=1))  # noqa: T201
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
