import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.leaderboard.pareto import front, hypervolume

points = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=9)


def test_front_by_hand():
    assert front([]) == []
    assert front([(0.5, 3)]) == [0]
    # cheaper and worse, dearer and better: both; dearer and worse, as dear and worse: neither
    assert front([(0.5, 3), (0.4, 2), (0.3, 4), (0.4, 3)]) == [0, 1]
    # as good and dearer is beaten, equal in both is not
    assert front([(0.5, 3), (0.5, 4), (0.5, 3)]) == [0, 2]


@given(points)
def test_front_is_what_no_other_point_beats(found):
    def beaten(p):
        return any(q[0] >= p[0] and q[1] <= p[1] and q != p for q in found)

    assert front(found) == [i for i, p in enumerate(found) if not beaten(p)]


def test_hypervolume_by_hand():
    # two steps in a box of 0.5 × 8: 0.25 × 4 of 4, then a point at the largest cost: nothing
    assert hypervolume([(0.5, 4), (0.75, 8)], 0.25) == pytest.approx(0.25)
    assert hypervolume([(0.75, 2), (0.5, 8)], 0.25) == pytest.approx(0.75)
    assert hypervolume([(0.75, 2)], 0.25) == 0
    # nothing is better than the reference, nothing costs anything, nothing there
    assert hypervolume([(0.2, 2), (0.25, 8)], 0.25) is None
    assert hypervolume([(0.5, 0)], 0.25) is None
    assert hypervolume([], 0.25) is None


@given(points, st.integers(0, 8))
def test_hypervolume_counts_the_unit_squares(found, worst):
    best = max((p[0] for p in found), default=0)
    dearest = max((p[1] for p in found), default=0)
    squares = [(a, c) for a in range(worst, best) for c in range(dearest)]
    covered = [(a, c) for a, c in squares if any(p[0] > a and p[1] <= c for p in found)]
    share = hypervolume(found, worst)
    assert share == (pytest.approx(len(covered) / len(squares)) if squares else None)
