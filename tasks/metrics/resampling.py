"""How far a metric depends on the choice of images: replicates of it, and intervals from them.

The replicates of a metric are one array: the metric itself; ``SAMPLES`` replicates in which every
image has a random positive weight (Bayesian bootstrap, Rubin 1981), so that no class vanishes; and
the metric without each image in turn, or without each of ``GROUPS`` groups (jackknife). What is
computed from metrics element by element, such as a difference, has the same layout. The weights
give the interval its shape, the jackknife its length, for replicates alone come out short where few
images have a class (``python -m tests.studies.coverage``).

Files of earlier versions hold ``SAMPLES`` replicates of images drawn with replacement, no more.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]
SAMPLES, GROUPS = 1000, 500
LEFT_OUT = 1e-6
"""Weight of an image that is left out: with none, a class of that image alone would vanish."""
WEIGHTED = slice(1, 1 + SAMPLES)
"""Where the replicates with random weights are."""


def image_weights(images: int, seed: int = 0) -> Floats:
    """Weights of the images in each replicate, shape (replicates, images).

    They depend on the arguments alone, so that two networks scored on the same images can be
    compared replicate by replicate.
    """
    random = np.random.default_rng(seed)
    groups = min(images, GROUPS) if images > 1 else 0
    weights = np.ones((WEIGHTED.stop + groups, images))
    drawn = weights[WEIGHTED]
    random.standard_exponential(out=drawn)
    drawn *= images / drawn.sum(axis=1, keepdims=True)
    if groups:
        places = WEIGHTED.stop + random.permutation(images) % groups
        weights[places, np.arange(images)] = LEFT_OUT
    return weights


def is_drawn(replicates: Floats) -> bool:
    """Whether they are of an earlier version: of images drawn with replacement."""
    return len(replicates) <= SAMPLES


def paired(*replicates: Floats | None) -> bool:
    """Whether all are there and of the same images and version, so that they are paired."""
    shapes = {None if one is None else one.shape for one in replicates}
    return len(shapes) == 1 and None not in shapes


def standard_error(replicates: Floats) -> tuple[float, float] | None:
    """Standard error over the choice of images, and its degrees of freedom; None: not known.

    By the jackknife (Miller 1974). Its degrees of freedom are those of a variance (Satterthwaite
    1946) whose terms scatter as these do: few where few images decide.
    """
    if is_drawn(replicates):
        known = replicates[np.isfinite(replicates)]
        return (float(known.std(ddof=1)), math.inf) if len(known) > 1 else None
    without = replicates[WEIGHTED.stop :]
    without = without[np.isfinite(without)]
    count = len(without)
    if count < 2 or not np.isfinite(replicates[0]):
        return None
    squares = np.square(without - without.mean())
    total = float(squares.sum())
    if total == 0:
        return 0.0, count - 1.0
    kurtosis = count * float(np.square(squares).sum()) / total**2
    freedom = 2 * count / (kurtosis - 1) if kurtosis > 1 else math.inf
    return math.sqrt((count - 1) / count * total), min(max(freedom, 1.0), count - 1.0)


def t_quantile(level: float, freedom: float) -> float:
    """Student's t that the central share ``level`` lies within."""
    return float(stdtrit(min(freedom, 1e9), 0.5 + level / 2))


def interval(replicates: Floats, level: float = 0.95) -> tuple[float, float] | None:
    """The interval of ``level`` over the choice of images; None where nothing is known of it.

    From the percentiles of the weighted replicates, about the metric, made as long as the standard
    error asks for. Of an earlier version's replicates: their percentiles.
    """
    weighted = replicates if is_drawn(replicates) else replicates[WEIGHTED]
    scored = weighted[np.isfinite(weighted)]
    if not scored.size:
        return None
    tail = 50 * (1 - level)
    low, high = map(float, np.percentile(scored, [tail, 100 - tail]))
    if is_drawn(replicates):
        return low, high
    if (error := standard_error(replicates)) is None:
        return None
    value, reach = float(replicates[0]), t_quantile(level, error[1]) * error[0]
    if high == low:
        return value - reach, value + reach
    factor = max(1.0, 2 * reach / (high - low))
    return value - factor * max(0.0, value - low), value + factor * max(0.0, high - value)
