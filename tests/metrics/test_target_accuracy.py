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
    rows = {(row.variant, row.evaluator): row.value for row in score(TargetAccuracy(), NOTHING, None, truth, seed=0)}
    assert rows == {("victim", ""): 0.75, ("evaluator", "cnn"): pytest.approx(0.96), ("chance", ""): pytest.approx(0.3)}


def test_it_is_no_leak_and_has_no_control(truth):
    for row in score(TargetAccuracy(), NOTHING, NOTHING, truth, seed=0):
        assert row.higher_is_leakier is None
        assert row.control != row.control
        assert row.lift != row.lift
