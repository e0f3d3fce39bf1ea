"""How often 95 % intervals hold the truth: splits drawn from populations whose scores are known.

    python -m tests.studies.coverage [--repeats 2000] [--json FILE]

Depth: errors per image, log-normal. Segmentation: classes in a share of the images, with areas and
accuracies that scatter; the rarest is in so many images of a split on average. For each population
and number of images: the share of splits whose interval holds the population's score, beside that
of the percentiles of images drawn with replacement, the interval of earlier versions.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.depth import DepthMetrics
from tasks.metrics.resampling import SAMPLES, Floats, image_weights, interval
from tasks.metrics.segmentation import scores

SIZES = (50, 100, 233)
CLASSES = {
    "all classes everywhere": (1, 1, 1),
    "classes in 100 to 10 % of the images": (1, 1, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.2, 0.1),
    "a class in 5 % of the images": (1, 0.9, 0.6, 0.3, 0.05),
    "a class in 2 % of the images": (1, 0.5, 0.02),
}
"""Shares of the images that the classes are in."""
ERROR, SCATTER = -2.0, 0.6
"""Mean and standard deviation of the logarithm of an image's error."""
POPULATION = 200_000
"""Images that a population's mIoU is computed of."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [*depth(arguments.repeats), *segmentation(arguments.repeats)]
    titles = ["population", "images", "rarest in", "holds the truth", "drawn", "mean length"]
    print("| " + " | ".join(titles) + " |\n" + "| --- " * len(titles) + "|")  # noqa: T201
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")  # noqa: T201
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def depth(repeats: int) -> Iterator[dict[str, Any]]:
    """Means over images: the accumulator's own resampling, fed with the errors of each image."""
    random = np.random.default_rng(0)
    truth = float(np.exp(ERROR + SCATTER**2 / 2))
    for images in (16, *SIZES):
        weights = both_weights(images)
        metrics = DepthMetrics(1e-3, 10)
        metrics._images, metrics._pixels = images, [1] * images
        found = []
        for _ in range(repeats):
            errors = np.exp(random.normal(ERROR, SCATTER, images)).tolist()
            metrics._rows = {"abs_rel": errors, "rmse": errors}
            found.append([metrics.resample(w)["abs_rel"] for w in weights])
        yield row("depth, log-normal errors", images, images, truth, found)


def segmentation(repeats: int) -> Iterator[dict[str, Any]]:
    for name, present in CLASSES.items():
        random = np.random.default_rng(1)
        truth = float(scores(counts(random, POPULATION, present).sum(0)[None])["miou"][0])
        for images in SIZES:
            weights = both_weights(images)
            found = []
            for _ in range(repeats):
                drawn = counts(random, images, present).reshape(images, -1)
                found.append([scores((w @ drawn).reshape(len(w), 3, -1))["miou"] for w in weights])
            yield row(f"mIoU, {name}", images, images * min(present), truth, found)


def both_weights(images: int) -> tuple[Floats, Floats]:
    """Those of replicates, and of the images drawn with replacement by earlier versions."""
    share = np.full(images, 1 / images)
    drawn = np.random.default_rng(0).multinomial(images, share, size=SAMPLES)
    return image_weights(images), drawn.astype(np.float64)


def counts(random: np.random.Generator, images: int, present: tuple[float, ...]) -> Floats:
    """Intersection, prediction and truth of each image and class, [images, 3, classes], in shares
    of an image; what is missed is predicted as other classes, mostly as those that are there."""
    number = len(present)
    there = random.random((images, number)) < present
    area: NDArray[np.float64] = there * random.gamma(1.0, 1.0, (images, number))
    area /= np.maximum(area.sum(1, keepdims=True), 1e-9)
    hit = area * random.beta(6, 2, (images, number))
    other = random.dirichlet(np.ones(number), images) * (0.15 + there)
    other /= other.sum(1, keepdims=True)
    predicted = hit + (area - hit).sum(1, keepdims=True) * other
    return np.stack([hit, predicted, area], axis=1)


def row(
    name: str, images: int, rarest: float, truth: float, found: list[list[Floats]]
) -> dict[str, Any]:
    """Shares of the splits whose intervals hold the ``truth``. found: replicates of each split."""
    held, lengths = np.zeros(2), []
    for split in found:
        ends = [interval(replicates) for replicates in split]
        held += [end is not None and end[0] <= truth <= end[1] for end in ends]
        if ends[0] is not None:
            lengths.append(ends[0][1] - ends[0][0])
    shares = [round(float(share), 3) for share in held / len(found)]
    return {
        "population": name,
        "images": images,
        "rarest": round(rarest, 1),
        "weighted": shares[0],
        "drawn": shares[1],
        "length": round(float(np.mean(lengths)), 4),
    }


if __name__ == "__main__":
    main()
