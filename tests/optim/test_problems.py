from functools import partial

import torch

from mibench.optim.gradient_distance import squared
from mibench.optim.input_space import Pixels
from mibench.optim.problems import Dropping, Found, Problems, Sent, at_once
from mibench.optim.row_adam import Adam
from mibench.optim.row_lbfgs import Lbfgs
from mibench.targets.lenet import LeNet
from mibench.targets.mlp import Mlp
from mibench.targets.resnet18 import ResNet18

GOALS = torch.tensor([[3.0, -1.0], [0.5, 2.0], [-2.0, 0.0]])


def bowl(rows, x):
    """A quartic with its minimum of 0 at the goal of each row."""
    value = ((x - GOALS[rows]) ** 4).sum(1) + ((x - GOALS[rows]) ** 2).sum(1)
    return value, value


def minimise(descent, objective=bowl, problems=None):
    problems = problems or Problems(3, 1, 2)
    found = Found(problems)
    descent.minimise(objective, [torch.zeros(len(problems.rows), 2)], found, range(descent.iterations))
    return found


LBFGS = Lbfgs(iterations=10, inner=10, lr=1.0, history=5)
ADAM = Adam(iterations=600, lr=0.1, decay_at=(0.8,))


def test_every_row_reaches_its_own_minimum():
    for descent in (LBFGS, Lbfgs(10, 10, 1.0, 5, line_search=True), ADAM):
        found = minimise(descent)
        torch.testing.assert_close(found.values[0], GOALS, atol=5e-3, rtol=0)


def test_batched_lbfgs_goes_where_torchs_own_does():
    def rosenbrock(rows, x):
        value = (1 - x[:, 0]) ** 2 + 20 * (x[:, 1] - x[:, 0] ** 2) ** 2
        return value, value

    found = minimise(Lbfgs(1, 12, 0.5, 4), rosenbrock, Problems(1, 1, 1))
    x = torch.zeros(2, requires_grad=True)
    theirs = torch.optim.LBFGS([x], lr=0.5, max_iter=13, max_eval=100, history_size=4)
    met = []

    def closure():
        loss = rosenbrock(None, x[None])[0].sum()
        met.append(loss.item())
        (x.grad,) = torch.autograd.grad(loss, x)
        return loss

    theirs.step(closure)
    torch.testing.assert_close(float(found.scores), min(met), rtol=1e-3, atol=1e-7)
    assert min(met) < 0.2


def test_the_best_is_kept_and_never_a_nan():
    met = iter([torch.nan, 5.0, torch.nan, 3.0, 4.0, 6.0, 7.0])

    def noisy(rows, x):
        score = torch.full((1,), next(met))
        return x.sum(1), score

    problems = Problems(1, 1, 1)
    found = Found(problems)
    Adam(6, lr=1.0).minimise(noisy, [torch.zeros(1, 2)], found, range(6))
    assert float(found.scores) == 3.0
    assert found.values[0].tolist() == [[-3.0, -3.0]] or float(found.values[0][0, 0]) < -2


def test_what_an_objective_keeps_of_the_variables_is_the_result():
    def objective(rows, x):
        value, _ = bowl(rows, x)
        return value, value, x.sum(1), rows

    for descent in (LBFGS, ADAM):
        totals, rows = minimise(descent, objective).values
        torch.testing.assert_close(totals, GOALS.sum(1), atol=1e-2, rtol=0)
        assert rows.tolist() == [0, 1, 2]


def test_a_row_that_is_no_longer_finite_ends_and_the_others_go_on():
    asked = []

    def objective(rows, x):
        asked.append(rows.tolist())
        value = bowl(rows, x)[0] + torch.where(rows == 1, torch.nan, 0.0)
        return value, value

    found = minimise(LBFGS, objective, Problems(3, 1, 3))
    assert not bool(found.scores[1].isfinite())
    torch.testing.assert_close(found.values[0][[0, 2]], GOALS[[0, 2]], atol=5e-3, rtol=0)
    assert [0, 1, 2] in asked and asked[-1] in ([0, 2], [0], [2])


def test_a_matched_message_ends_and_a_settled_one_goes_on_with_one_start():
    asked = []

    def objective(rows, x):
        asked.append(rows.tolist())
        value = ((x - GOALS[rows // 2]) ** 2).sum(1)
        return value, value

    problems = Problems(2, 2, 4)
    for dropping, last in ((Dropping(tolerance=0.5, look=10), []), (Dropping(settled=0.5, look=10), [0, 2])):
        asked.clear()
        found = Found(problems)
        start = torch.tensor([[2.0, -1.0], [0.0, 0.0], [1.5, 2.0], [0.0, 0.0]])
        Adam(200, lr=0.05, dropping=dropping).minimise(objective, [start], found, range(200))
        assert asked[0] == [0, 1, 2, 3]
        assert asked[-1] == last or (not last and len(asked) < 100)


def test_halving_keeps_the_better_half_of_every_message():
    asked = []

    def objective(rows, x):
        asked.append(rows.tolist())
        value = (x.sum(1) - torch.tensor([0.0, 3, 2, 1, 5, 6, 7, 4])[rows]) ** 2 + rows % 4
        return value, (rows % 4).float()

    problems = Problems(2, 4, 8)
    found = Found(problems)
    descent = Adam(40, lr=0.01, dropping=Dropping(halve_at=(0.25, 0.5)))
    descent.minimise(objective, [torch.zeros(8, 1)], found, range(40))
    assert asked[0] == list(range(8))
    assert asked[15] == [0, 1, 4, 5]
    assert asked[-1] == [0, 4]


def test_schedules():
    decayed = Adam(100, lr=1.0, decay_at=(0.5, 0.9))
    assert [round(decayed.rate(step), 4) for step in (0, 49, 50, 90)] == [1.0, 1.0, 0.1, 0.01]
    warm = Adam(100, lr=1.0, warmup=10, cosine=True)
    assert warm.rate(0) == 0.1 and warm.rate(9) == 1.0 and warm.rate(55) == 0.5 and warm.rate(99) < 0.001
    ramps = Adam(100, lr=1.0, rise=0.05, fall=0.75)
    rates = [round(ramps.rate(step), 6) for step in (0, 4, 5, 25, 62, 63, 99)]
    assert rates[:4] == [0.0, 0.8, 1.0, 1.0] and rates[4] > 0.5 > rates[5] and 0 < rates[6] < 0.001


def test_several_problems_at_once_are_those_one_by_one(digits8, digits_view):
    view, _ = digits_view(partial(LeNet, channels=4), 2, batch=2)
    problems = Problems(2, 2, 4)
    sent = Sent(view.messages, problems)
    x = torch.rand(4, 2, *digits8.spec.shape).requires_grad_(True)
    y = torch.tensor([[0, 1], [2, 3], [4, 0], [1, 1]])
    together = squared(view.gradients(x, y), sent.of(problems.rows))
    alone = torch.cat(
        [squared(view.gradients(x[i : i + 1], y[i : i + 1]), sent.of(torch.tensor([i]))) for i in range(4)]
    )
    torch.testing.assert_close(together, alone)
    for one, other in zip(torch.autograd.grad(together.sum(), x), torch.autograd.grad(alone.sum(), x), strict=True):
        torch.testing.assert_close(one, other)
    assert view.ledger.queries == view.ledger.gradient_evals == 16


def test_small_models_are_batched_and_large_ones_are_not_and_asking_costs_nothing(digits_view):
    small, _ = digits_view(partial(LeNet, channels=4), 2, batch=2)
    assert at_once(small) > 1
    assert small.ledger.queries == 0
    large, _ = digits_view(ResNet18, 1, batch=64)
    large.ledger.budget = 1
    assert at_once(large) == 1
    assert large.ledger.queries == 0 and large.ledger.budget == 1


def test_pixels_are_the_models_own_inputs(digits8, digits_view):
    view, _ = digits_view(ResNet18, 1)
    view.model.normalise.mean = torch.full((1, 1, 1, 1), 0.5)
    view.model.normalise.std = torch.full((1, 1, 1, 1), 0.25)
    pixels = Pixels.of(view)
    u = torch.tensor([[-3.0, 0.0, 3.0]]).reshape(1, 1, 1, 3)
    assert pixels.to_inputs(pixels.project(u)).flatten().tolist() == [0.0, 0.5, 1.0]
    torch.testing.assert_close(pixels.inputs(pixels.to_inputs(u)), u)
    flat = Pixels.of(digits_view(Mlp, 1)[0])
    assert flat.to_inputs(torch.zeros(1, *digits8.spec.shape)).unique().tolist() == [0.5]
    plain = Pixels.of(digits_view(LeNet, 1)[0])
    assert plain.to_inputs(plain.project(u)).flatten().tolist() == [0.0, 0.0, 1.0]
