"""Pareto fronts of accuracy against a cost, and their hypervolume."""

from collections.abc import Sequence

Point = tuple[float, float]
"""Accuracy, larger is better; cost, smaller is better."""


def front(points: Sequence[Point]) -> list[int]:
    """Sorted indices of the points that no other point dominates.

    A point dominates another if it is at least as accurate and as cheap, and better in one of the
    two. Equal points do not dominate each other.
    """
    indices: list[int] = []
    best: Point | None = None
    # in order of cost, then accuracy: a point on the front is more accurate than all before it
    for index in sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0])):
        if best is None or points[index][0] > best[0] or points[index] == best:
            indices.append(index)
            best = points[index]
    return sorted(indices)


def hypervolume(points: Sequence[Point], worst: float) -> float | None:
    """Share, in 0…1, of a box that ``points`` dominate; None if the box is empty.

    The box spans from the reference point (accuracy ``worst``, the largest cost of ``points``) to
    the ideal point (the best accuracy of ``points``, cost 0). It is empty if no point is better
    than ``worst`` or all costs are 0. Source: Zitzler and Thiele 1998.
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
