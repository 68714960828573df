import pytest
import torch
from sklearn.metrics import roc_auc_score

from mibench.errors import NotMeasurableError
from mibench.leaderboard.scoring import group_means, score
from mibench.metrics.edge_auc import EdgeAuc
from mibench.tasks.base import Reconstruction
from mibench.tasks.edges import EdgesTruth


def case(values, linked, valid=None):
    truth = EdgesTruth(correct=torch.ones(1), chance=0.5, linked=linked)
    return Reconstruction(values, torch.arange(len(values)), valid=valid), truth


def drawn(m, n, gap=1.0, seed=0):
    """Linked pairs and others, shuffled, with scores of one decimal, so that many tie."""
    draws = torch.Generator().manual_seed(seed)
    linked = (torch.arange(m + n) < m)[torch.randperm(m + n, generator=draws)]
    values = (10 * (torch.randn(m + n, generator=draws) + gap * linked)).round() / 10
    return values, linked


@pytest.mark.parametrize(("m", "n"), [(40, 40), (40, 100), (100, 40), (1, 5), (5, 1)])
def test_agrees_with_sklearn(m, n, mean_of):
    values, linked = drawn(m, n)
    assert mean_of(EdgeAuc(), *case(values, linked)) == pytest.approx(roc_auc_score(linked, values))


def test_the_unit_is_the_linked_pair():
    values, linked = drawn(30, 30)
    (measured,) = EdgeAuc().measure(*case(values, linked))
    assert torch.equal(measured.groups, linked.nonzero().flatten()) and len(measured.values) == 30


@pytest.mark.parametrize(("m", "n"), [(50, 50), (30, 120), (120, 30)])
def test_the_standard_error_of_the_values_is_that_of_the_auc(m, n):
    """Over many draws of both kinds of pairs; that of the linked pairs' shares alone is too small."""
    found, said, linked_alone = [], [], []
    for seed in range(400):
        values, linked = drawn(m, n, seed=seed)
        (measured,) = EdgeAuc().measure(*case(values, linked))
        per_unit = torch.from_numpy(group_means(measured))
        found.append(per_unit.mean())
        said.append(per_unit.var() / m)
        shares = (values[linked][:, None] > values[~linked]).double().mean(1)
        linked_alone.append(shares.var() / m)
    variance = torch.stack(found).var()
    assert float(torch.stack(said).mean() / variance) == pytest.approx(1, abs=0.25)
    assert float(torch.stack(linked_alone).mean() / torch.stack(said).mean()) < 0.9


def test_no_answer_is_chance_and_ties_with_all(mean_of):
    values, linked = torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([True, True, False, False])
    nothing = torch.zeros(4, dtype=torch.bool)
    assert mean_of(EdgeAuc(), *case(values, linked, nothing)) == 0.5
    half = torch.tensor([True, False, True, True])
    assert mean_of(EdgeAuc(), *case(values, linked, half)) == pytest.approx(0.75)
    half = torch.tensor([True, True, True, False])
    assert mean_of(EdgeAuc(), *case(values, linked, half)) == pytest.approx(0.75)


def test_a_goal_without_other_pairs_is_skipped_with_the_reason():
    result, truth = case(torch.rand(3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(NotMeasurableError, match="linked pairs and others"):
        EdgeAuc().measure(result, truth)
    (row,) = score(EdgeAuc(), result, None, truth)
    assert row.status == "skipped"
