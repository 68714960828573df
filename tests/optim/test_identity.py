import pytest
import torch

from mibench.optim.identity import cross_entropy, identity_loss, logit, max_margin, negative_log_likelihood, poincare

LOGITS = torch.tensor([[3.0, 1.0, 2.0]])
NAMES = ("cross_entropy", "max_margin", "poincare", "logit")


def test_the_margin_leaves_the_class_itself_out():
    assert max_margin(LOGITS, torch.tensor([0])).item() == -1
    assert max_margin(LOGITS, torch.tensor([2])).item() == 1


def test_the_poincare_distance_is_that_of_its_formula_and_blind_to_the_scale_of_logits():
    u = LOGITS[0].double() / 6
    v = torch.tensor([1 - 1e-4, 0, 0]).double()
    expected = torch.arccosh(1 + 2 * ((u - v) ** 2).sum() / ((1 - (u**2).sum()) * (1 - (v**2).sum())))
    assert poincare(LOGITS, torch.tensor([0])).item() == pytest.approx(expected.item(), rel=1e-3)
    assert poincare(7 * LOGITS, torch.tensor([0])).item() == pytest.approx(poincare(LOGITS, torch.tensor([0])).item())


def test_logits_count_as_they_are_and_cross_entropy_only_their_differences():
    raised = LOGITS + 5
    assert (logit(raised, torch.tensor([0])) - logit(LOGITS, torch.tensor([0]))).item() == -5
    assert cross_entropy(raised, torch.tensor([0])).item() == pytest.approx(
        cross_entropy(LOGITS, torch.tensor([0])).item()
    )


@pytest.mark.parametrize("margin", [20.0, 50.0])
def test_where_the_target_is_sure_only_the_cross_entropy_has_no_gradient_left(margin):
    def slope(name):
        logits = torch.tensor([[margin, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(identity_loss(name)(logits, torch.tensor([0])).sum(), logits)
        return gradient.norm().item()

    assert slope("cross_entropy") < 1e-6
    assert slope("logit") == 1 and slope("max_margin") > 1


def test_the_poincare_gradient_lives_while_the_class_leads_by_far():
    logits = torch.tensor([[20.0, 1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(poincare(logits, torch.tensor([0])).sum(), logits)
    assert 1e-3 < gradient.norm().item() < 1e3


@pytest.mark.parametrize("name", NAMES)
def test_every_sample_has_its_own_loss(name):
    draws = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 4, generator=draws), torch.tensor([0, 1, 2, 3, 0, 1])
    together = identity_loss(name)(logits, labels)
    alone = torch.cat([identity_loss(name)(logits[i : i + 1], labels[i : i + 1]) for i in range(6)])
    assert together.shape == (6,) and torch.allclose(together, alone)


def test_an_exactly_certain_answer_is_finite():
    assert torch.isfinite(poincare(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))).all()
    assert torch.isfinite(negative_log_likelihood(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))).all()
