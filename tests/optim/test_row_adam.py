"""The noise of a batched Adam."""

import torch

from mibench.optim.problems import Dropping, Found, Problems
from mibench.optim.row_adam import Adam
from mibench.seeding import generator


def ends(messages, dropping, langevin=0.5):
    """Returns where searches from 1, 2 ... end whose every gradient is the noise alone."""

    def objective(rows, x):
        flat = (x * 0).sum(1)
        return flat, flat + rows.double()

    problems = Problems(messages, 1, at_once=8)
    start = torch.arange(1.0, messages + 1).double()[:, None].repeat(1, 3)
    draws = [generator(number) for number in range(messages)]
    descent = Adam(3, 0.1, langevin=langevin, dropping=dropping)
    return descent.minimise(objective, [start], Found(problems), range(3), draws=draws)[0]


def test_the_noise_of_a_problem_is_its_own_whoever_else_is_searched_or_has_ended():
    several = ends(4, Dropping())
    assert torch.equal(several[:1], ends(1, Dropping()))
    assert torch.equal(several[:3], ends(3, Dropping()))
    ended = ends(4, Dropping(tolerance=1.5, look=1))  # the first two end after one step
    assert torch.equal(ended[2:], several[2:]) and not torch.equal(ended[:2], several[:2])
    moved = several - torch.arange(1.0, 5.0).double()[:, None]
    assert len({tuple(row.tolist()) for row in moved}) == 4 and not ends(4, Dropping(), langevin=0.0)[0, 0] - 1
