import dataclasses

import pytest
import torch

from mibench.errors import NotMeasurableError
from mibench.leaderboard.scoring import score
from mibench.metrics.transfer_floor import TransferFloor
from mibench.optim.perturbation import towards
from mibench.tasks.base import Reconstruction


@pytest.fixture
def floor(audited):
    """The rows at one epsilon: ``floor(0.2)``, by variant and evaluator."""
    test = audited.private.test

    def measured(epsilon, truth=audited):
        rows = TransferFloor(epsilon=epsilon).measure(Reconstruction(test.x, test.y), truth)
        return {(row.variant, row.evaluator): float(row.values.mean()) for row in rows}

    return measured


def test_a_judge_of_the_victims_family_accepts_most_and_the_agreed_rule_nearly_none(floor):
    """Ball 0.3: victim 0.98, another MLP 0.95, a CNN 0.45, vote 0.90, agreed 0.03; unperturbed images 0."""
    rows = floor(0.3)
    assert rows["linf=0.3", "victim"] > 0.9
    assert rows["linf=0.3", "mlp"] > 0.8
    assert rows["linf=0.3", "cnn"] < rows["linf=0.3", "mlp"] - 0.2
    assert rows["linf=0.3", "agreed"] < 0.1
    assert max(share for (variant, _), share in rows.items() if variant == "clean") < 0.05


def test_a_wider_ball_fools_more(floor):
    shares = [floor(epsilon)[f"linf={epsilon:g}", "vote"] for epsilon in (0.1, 0.2, 0.3)]
    assert shares == sorted(shares)
    assert shares[0] < shares[2] - 0.3


def test_the_victim_as_its_own_evaluator_accepts_everything(audited, floor):
    """The stub: a harness that evaluates with the attacked model sees no floor at all."""
    itself = dataclasses.replace(audited.evaluators[0], model=audited.victim, name="itself")
    rows = floor(0.3, dataclasses.replace(audited, evaluators=[itself]))
    assert rows["linf=0.3", "itself"] == rows["linf=0.3", "victim"]


def test_the_images_show_others_and_move_no_farther_than_they_may(audited):
    metric, targets = TransferFloor(images=10), torch.arange(5)
    images, labels = metric._of_others(audited, targets)
    test = audited.private.test
    shown = test.y[[int((test.x == image).flatten(1).all(1).nonzero()[0]) for image in images]]
    assert labels.bincount().tolist() == [10] * 5
    assert not bool((shown == labels).any())
    audited.victim.zero_grad()
    moved = towards(audited.victim, images, labels, 0.2, 20)
    assert float((moved - images).abs().max()) <= 0.2 + 1e-6
    assert (float(moved.min()), float(moved.max())) >= (0, 0)
    assert float(moved.max()) <= 1
    assert all(parameter.grad is None for parameter in audited.victim.parameters())


def test_it_is_of_the_evaluation_and_has_no_control(audited):
    test = audited.private.test
    rows = score(TransferFloor(steps=2), Reconstruction(test.x, test.y), Reconstruction(test.x, test.y), audited)
    assert all(row.status == "ok" and row.higher_is_leakier is None and row.control != row.control for row in rows)


def test_without_a_victim_there_is_a_reason(audited):
    with pytest.raises(NotMeasurableError, match="no victim"):
        TransferFloor().measure(
            Reconstruction(audited.private.test.x, audited.private.test.y), dataclasses.replace(audited, victim=None)
        )
