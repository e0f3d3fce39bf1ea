"""Fronts of accuracy against a cost, and the area that a front dominates."""

from collections.abc import Sequence

Point = tuple[float, float]
"""Accuracy, larger is better; cost, smaller is better."""


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other one beats, in order of ``points``.

    A point is beaten by one that is at least as accurate and as cheap, and better in one of both.
    Equal points are beaten by none of each other.
    """
    kept: list[int] = []
    best: Point | None = None
    # from the cheapest on, of one cost the most accurate first: each must be more accurate than all
    for index in sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0])):
        if best is None or points[index][0] > best[0] or points[index] == best:
            kept.append(index)
            best = points[index]
    return sorted(kept)


def hypervolume(points: Sequence[Point], worst: float) -> float | None:
    """Share of a box that ``points`` dominate, in 0…1; None where there is no box.

    The box goes from the reference point (accuracy ``worst``, the largest cost of ``points``) to
    the ideal one (the best accuracy of ``points``, no cost). Points less accurate than ``worst``
    add nothing, nor do those of the largest cost. There is no box if no point is
    better than ``worst`` or if nothing costs anything. Source: Zitzler and Thiele 1998.
    """
    best = max((accuracy for accuracy, _ in points), default=worst)
    dearest = max((cost for _, cost in points), default=0.0)
    if best <= worst or dearest <= 0:
        return None
    area, reached = 0.0, worst
    for accuracy, cost in sorted((points[i] for i in front(points)), key=lambda p: p[1]):
        if accuracy > reached:
            area += (accuracy - reached) * (dearest - cost)
            reached = accuracy
    return area / ((best - worst) * dearest)
