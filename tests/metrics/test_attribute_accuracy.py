import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from mibench.metrics.attribute_accuracy import AttributeAccuracy
from mibench.tasks.attribute import AttributeTruth
from mibench.tasks.base import Reconstruction


def case(values, guess, choices, valid=None):
    truth = AttributeTruth(correct=torch.ones(1), chance=0.5, values=values, choices=choices)
    return Reconstruction(guess, torch.arange(len(values)), valid=valid), truth


def test_agrees_with_sklearn(mean_of):
    draw = torch.Generator().manual_seed(0)
    values = torch.tensor([0] * 70 + [1] * 20 + [2] * 10)
    guess = torch.where(torch.rand(100, generator=draw) < 0.6, values, torch.randint(3, (100,), generator=draw))
    result, truth = case(values, guess, 3)
    assert mean_of(AttributeAccuracy(), result, truth) == pytest.approx(accuracy_score(values, guess))
    balanced = mean_of(AttributeAccuracy(), result, truth, variant="balanced")
    assert balanced == pytest.approx(balanced_accuracy_score(values, guess))


def test_a_constant_guess_is_seen_through_by_the_balanced_variant(mean_of):
    values = torch.tensor([0] * 9 + [1])
    result, truth = case(values, torch.zeros(10).long(), 2)
    assert mean_of(AttributeAccuracy(), result, truth) == pytest.approx(0.9)
    assert mean_of(AttributeAccuracy(), result, truth, variant="balanced") == pytest.approx(0.5)


def test_missing_records_count_as_wrong(mean_of):
    values = torch.zeros(4).long()
    valid = torch.tensor([True, False, False, False])
    assert mean_of(AttributeAccuracy(), *case(values, values, 2, valid)) == 0.25
