"""The losses of a search, against numbers worked by hand and their minima."""

import math

import pytest
import torch

from models.sparse_loss import cross_entropy, l1_loss, sparse_loss


def entropy(p: float, q: float) -> float:
    return -p * math.log(q) - (1 - p) * math.log(1 - q)


def test_cross_entropy_by_hand() -> None:
    p, q = torch.tensor([0.25, 0.5]), torch.tensor([0.5, 0.1])
    expected = [entropy(0.25, 0.5), entropy(0.5, 0.1)]
    torch.testing.assert_close(cross_entropy(p, q), torch.tensor(expected))


def test_sparse_loss_by_hand() -> None:
    # two inputs: α = 0.5 (not 1); eight: α = 2/8
    stages = [torch.tensor([0.2, 0.6]), torch.full((8,), 0.25)]
    expected = (entropy(0.2, 0.2) + entropy(0.6, 0.6)) / 2 + entropy(0.5, 0.4)
    expected += entropy(0.25, 0.25) + entropy(0.25, 0.25)
    assert float(sparse_loss(stages)) == pytest.approx(expected, rel=1e-6)


def test_two_whole_inputs_of_many_are_the_least() -> None:
    def loss(values: list[float]) -> float:
        return float(sparse_loss([torch.tensor(values, dtype=torch.float)]))

    two = loss([1, 1] + [0] * 6)
    assert two == pytest.approx(entropy(0.25, 0.25), rel=1e-5)
    for worse in ([1] + [0] * 7, [1] * 3 + [0] * 5, [0.25] * 8, [1, 0.5, 0.5] + [0] * 5):
        assert loss(worse) > two + 0.01


def test_descent_from_anywhere_ends_decided_with_about_two() -> None:
    torch.manual_seed(0)
    p = torch.rand(9).requires_grad_()
    optimizer = torch.optim.Adam([p], lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        sparse_loss([p.clamp(0, 1)]).backward()
        optimizer.step()
        with torch.no_grad():
            p.clamp_(0, 1)
    assert not ((p > 0.05) & (p < 0.95)).any()
    assert int((p > 0.5).sum()) in (2, 3)


def test_the_ends_of_the_range_have_finite_gradients() -> None:
    p = torch.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    for loss in (sparse_loss([p]), l1_loss([p]), sparse_loss([p[:2] * 0])):
        (gradient,) = torch.autograd.grad(loss, p, retain_graph=True)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_l1_by_hand() -> None:
    stages = [torch.tensor([0.2, 0.6]), torch.tensor([1.0, 0.0, 0.0, 0.0])]
    assert float(l1_loss(stages)) == pytest.approx(0.4 + 0.25)
