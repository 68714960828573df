import pytest
import torch

from mibench.errors import UserError
from mibench.optim.label_recovery import LABEL_RULES, bias_sign, inner_product, row_sum


def message(features, label, classes=5, seed=0):
    """Returns the cross-entropy's gradient in a linear head for one example."""
    draws = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, len(features), generator=draws).requires_grad_(True)
    bias = torch.zeros(classes, requires_grad=True)
    loss = torch.nn.functional.cross_entropy((weight @ features + bias)[None], torch.tensor([label]))
    gradients = torch.autograd.grad(loss, (weight, bias))
    return dict(zip(("head.weight", "head.bias"), gradients, strict=True))


def right(rule, features):
    return sum(int(rule(message(features, label, seed=label))) == label for label in range(5))


@pytest.mark.parametrize("rule", LABEL_RULES.values())
def test_every_rule_holds_for_non_negative_features(rule):
    assert right(rule, torch.rand(12, generator=torch.Generator().manual_seed(0))) == 5


def test_the_row_sum_fails_where_features_are_negative_and_the_others_hold():
    features = -torch.rand(12, generator=torch.Generator().manual_seed(0))
    assert right(bias_sign, features) == right(inner_product, features) == 5
    assert right(row_sum, features) == 0


def test_a_head_without_bias_is_said():
    gradient = message(torch.ones(3), 1)
    del gradient["head.bias"]
    with pytest.raises(UserError, match=r"head\.bias.*row_sum or inner_product"):
        bias_sign(gradient)
