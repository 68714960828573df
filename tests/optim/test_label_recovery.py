import pytest
import torch

from mibench.errors import UserError
from mibench.optim.label_recovery import LABEL_RULES, bias_corrected, bias_sign, inner_product, lowest_rows, row_sum

SINGLE = [bias_sign, row_sum, inner_product]


def message(features, labels, classes=5, seed=0):
    """Returns the cross-entropy's gradient in a small linear head for a batch of features ``(n, F)``."""
    draws = torch.Generator().manual_seed(seed)
    weight = (torch.randn(classes, features.shape[1], generator=draws) / features.shape[1]).requires_grad_(True)
    bias = torch.zeros(classes, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(features @ weight.T + bias, torch.tensor(labels))
    gradients = torch.autograd.grad(loss, (weight, bias))
    return dict(zip(("head.weight", "head.bias"), gradients, strict=True))


def features(n, sign=1.0, seed=0):
    return sign * torch.rand(n, 64, generator=torch.Generator().manual_seed(seed))


def right(rule, one):
    return sum(int(rule(message(one, [label], seed=label), 1)) == label for label in range(5))


@pytest.mark.parametrize("rule", LABEL_RULES.values())
def test_every_rule_reads_one_label_from_non_negative_features(rule):
    assert right(rule, features(1)) == 5


def test_the_row_sum_fails_where_features_are_negative_and_the_others_hold():
    negative = features(1, sign=-1.0)
    assert right(bias_sign, negative) == right(inner_product, negative) == right(bias_corrected, negative) == 5
    assert right(row_sum, negative) == 0


def batches(classes, size, unique, count=20):
    """Yields messages with the labels behind them."""
    for seed in range(count):
        draws = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(classes, generator=draws)[:size] if unique else None
        labels = drawn if unique else torch.randint(classes, (size,), generator=draws)
        yield message(features(size, seed=seed), labels.tolist(), classes, seed), sorted(labels.tolist())


def exact(rule, **of):
    return sum(rule(sent, len(labels)).tolist() == labels for sent, labels in batches(**of))


def test_batches_without_a_repeated_class_are_read_by_the_lowest_rows():
    assert exact(lowest_rows, classes=10, size=4, unique=True) == 20
    assert exact(lambda sent, size: torch.arange(size), classes=10, size=4, unique=True) <= 2  # a guess


def test_repeated_classes_are_counted_by_the_corrected_bias_alone():
    assert exact(bias_corrected, classes=10, size=8, unique=False) >= 18
    assert exact(lowest_rows, classes=10, size=8, unique=False) <= 4


def test_a_head_without_bias_is_said():
    gradient = message(features(1), [1])
    del gradient["head.bias"]
    with pytest.raises(UserError, match=r"head\.bias.*row_sum or inner_product"):
        bias_sign(gradient, 1)


@pytest.mark.parametrize("rule", SINGLE)
def test_rules_for_one_example_refuse_a_batch(rule):
    with pytest.raises(UserError, match=r"batch has 2; set attack\.label_rule"):
        rule(message(features(2), [1, 2]), 2)


def test_more_examples_than_classes_cannot_all_differ():
    with pytest.raises(UserError, match="batch of 6 over 5 classes"):
        lowest_rows(message(features(6), [0, 1, 2, 3, 4, 0]), 6)
