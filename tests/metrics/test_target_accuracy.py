import dataclasses

import pytest
import torch

from mibench.leaderboard.scoring import score
from mibench.metrics.target_accuracy import TargetAccuracy
from mibench.tasks.base import Evaluator, Reconstruction, Truth


@pytest.fixture
def truth(trained_cnn):
    correct = torch.tensor([True, True, True, False])
    return Truth(correct=correct, chance=0.3, evaluators=[Evaluator("cnn", trained_cnn, 0.96)])


NOTHING = Reconstruction(torch.zeros(1, 1, 8, 8), torch.zeros(1).long())


def test_reports_victim_evaluators_and_chance(truth):
    rows = {(row.variant, row.evaluator): row.value for row in score(TargetAccuracy(), NOTHING, None, truth)}
    assert rows == {("victim", ""): 0.75, ("evaluator", "cnn"): pytest.approx(0.96), ("chance", ""): pytest.approx(0.3)}


def test_it_is_no_leak_and_has_no_control(truth):
    for row in score(TargetAccuracy(), NOTHING, NOTHING, truth):
        assert row.higher_is_leakier is None
        assert row.control != row.control
        assert row.lift != row.lift


def test_the_vote_has_an_accuracy_of_its_own(linear_evaluator, class_truth):
    """Of three test images the first model names the second alone; the surer second one turns it into the others."""
    x = torch.eye(3)[:, None, None]
    first = linear_evaluator(torch.tensor([[1.0, 0, 0], [2, 1, 2], [0, 0, 1]]), name="first")
    second = linear_evaluator(torch.tensor([[9.0, 9.5, 0], [0, 0, 0], [0, 0, 9]]), name="second")
    truth = class_truth(x, torch.arange(3), [first, second])

    def votes(truth):
        rows = score(TargetAccuracy(), NOTHING, None, truth)
        return [(row.value, row.n) for row in rows if (row.variant, row.evaluator) == ("evaluator", "vote")]

    assert votes(truth) == [(pytest.approx(2 / 3), 3)]
    without = dataclasses.replace(second, votes=False)
    assert votes(dataclasses.replace(truth, evaluators=[first, without])) == [(pytest.approx(1 / 3), 3)]
    assert not votes(dataclasses.replace(truth, evaluators=[first]))
