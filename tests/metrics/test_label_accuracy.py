from collections import Counter

import pytest
import torch

from mibench.leaderboard.scoring import score
from mibench.metrics.label_accuracy import LabelAccuracy


@pytest.fixture
def batch(paired):
    """Makes messages of class ids: ``batch([[0, 1]], [[1, 0]])`` is one message of two inputs."""

    def make(true, recovered, valid=None):
        x = torch.rand(sum(map(len, true)), 1, 4, 4)
        labels = None if recovered is None else torch.tensor(recovered).flatten()
        return paired(x, x, batch=len(true[0]), y=torch.tensor(true).flatten(), labels=labels, valid=valid)

    return make


def test_reference_value(batch, mean_of):
    assert mean_of(LabelAccuracy(), *batch([[0, 0, 1, 2]], [[0, 1, 1, 2]])) == 0.75


def test_agrees_with_counting_message_by_message(batch):
    true, recovered = torch.randint(5, (2, 6, 8), generator=torch.Generator().manual_seed(0)).tolist()
    (one,) = LabelAccuracy().measure(*batch(true, recovered))
    expected = [sum((Counter(t) & Counter(r)).values()) / 8 for t, r in zip(true, recovered, strict=True)]
    assert one.values.tolist() == pytest.approx(expected)
    assert one.groups.tolist() == [0, 1, 2, 3, 4, 5]


def test_order_within_a_message_does_not_matter_but_the_message_does(batch, mean_of):
    assert mean_of(LabelAccuracy(), *batch([[0, 1, 2]], [[2, 0, 1]])) == 1
    assert mean_of(LabelAccuracy(), *batch([[0, 0], [1, 1]], [[1, 1], [0, 0]])) == 0


def test_missing_inputs_recover_no_label(batch, mean_of):
    valid = torch.tensor([True, False, False, False])
    assert mean_of(LabelAccuracy(), *batch([[0, 0, 0, 0]], [[0, 0, 0, 0]], valid)) == 0.25


def test_an_attack_without_labels_gives_a_skipped_row(batch):
    result, truth = batch([[0, 1]], None)
    (row,) = score(LabelAccuracy(), result, result, truth)
    assert (row.status, row.value != row.value) == ("skipped", True)
    assert "no class ids" in row.reason
