"""The interval of a difference over seeds and images."""

import math
import statistics
from collections.abc import Sequence

from tasks.metrics.resampling import Floats, interval, standard_error, t_quantile

MOST_SEEDS = 50
"""Seeds beyond which nobody would wait for a difference to be decided."""


def interval_over(
    each: Sequence[float], resampled: Sequence[Floats], images: Floats | None
) -> tuple[tuple[float, float] | None, int | None]:
    """95 % interval of the mean of the differences of ``each`` seed; how many seeds would decide.

    resampled: each seed's replicates; images: those of the mean. With several seeds their variance
    is added to the part of that over images that all seeds share, with Welch's degrees of freedom:
    the rest of it, which differs from seed to seed, is in the variance over seeds already.
    """
    error = None if images is None else standard_error(images)
    if images is None or error is None:
        return None, None
    if len(each) == 1:
        return interval(images), None
    scatter, mean, seeds = statistics.variance(each), statistics.fmean(each), len(each)
    alone = [found[0] ** 2 for one in resampled if (found := standard_error(one)) is not None]
    own = max(0.0, statistics.fmean(alone) - error[0] ** 2) * seeds / (seeds - 1)
    shared = max(0.0, error[0] ** 2 - own / seeds)

    def reach(count: int) -> float:
        parts = ((shared, error[1]), (scatter / count, count - 1.0))
        total = sum(part for part, _ in parts)
        if total == 0:
            return 0.0
        share = sum((part / total) ** 2 / freedom for part, freedom in parts)
        return t_quantile(0.95, 1 / share if share else math.inf) * math.sqrt(total)

    half = reach(seeds)
    enough = (n for n in range(seeds + 1, MOST_SEEDS + 1) if reach(n) < abs(mean))
    return (mean - half, mean + half), next(enough, None)
