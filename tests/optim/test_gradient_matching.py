import torch

from mibench.optim.gradient_matching import Lbfgs, squared_distance
from mibench.optim.selection import Best

DESCENT = Lbfgs(iterations=50, inner=20, lr=1.0, history=100, tolerance=1e-10)


def test_squared_distance_sums_over_all_entries_of_all_tensors():
    ours = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]]), "unsent": torch.tensor(9.0)}
    theirs = {"a": torch.tensor([0.0, 0.0]), "b": torch.tensor([[1.0]])}
    assert float(squared_distance(ours, theirs)) == 1 + 4 + 4


def test_best_keeps_the_lowest_and_never_a_nan():
    best = Best()
    for value, loss in ((1.0, torch.nan), (2.0, 5.0), (3.0, torch.nan), (4.0, 3.0), (5.0, 4.0)):
        best.offer([torch.tensor([value])], torch.tensor(loss))
    assert best.values[0].item() == 4.0
    assert best.loss.item() == 3.0


def test_descent_finds_a_minimum_and_stops_at_the_tolerance():
    goal = torch.tensor([3.0, -1.0])
    x = torch.zeros(2, requires_grad=True)
    evaluations = []

    def objective():
        evaluations.append(1)
        return ((x - goal) ** 4).sum() + ((x - goal) ** 2).sum()

    best = Best()
    DESCENT.minimise(objective, [x], best)
    torch.testing.assert_close(best.values[0], goal, atol=1e-4, rtol=0)
    assert len(evaluations) < 60


def test_descent_ends_where_the_objective_is_not_finite():
    x = torch.ones(1, requires_grad=True)
    evaluations = []

    def objective():
        evaluations.append(1)
        return (x * torch.nan).sum()

    best = Best()
    DESCENT.minimise(objective, [x], best)
    assert len(evaluations) <= DESCENT.inner
    assert not bool(best.loss.isfinite())


def test_only_the_variables_get_gradients():
    weight = torch.ones(2, requires_grad=True)
    x = torch.zeros(2, requires_grad=True)
    DESCENT.minimise(lambda: ((weight * x - 1) ** 2).sum(), [x], Best())
    assert weight.grad is None
