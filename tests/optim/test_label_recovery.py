from typing import get_args

import pytest
import torch
from hydra.utils import get_class

from mibench.errors import UserError
from mibench.optim.label_recovery import (
    LABEL_RULES,
    LabelRule,
    bias_corrected,
    bias_sign,
    evolved_counts,
    inner_product,
    lowest_rows,
    row_sum,
    steadiest_ranks,
)
from mibench.planning.catalogue import entries

#: Attacks that read labels off a message.
READERS = [one for one in entries("attack") if "label_rule" in one.node]

SINGLE = [bias_sign, row_sum, inner_product]


def message(features, labels, classes=5, seed=0):
    """Returns the cross-entropy's gradient in a small linear head for a batch of features ``(n, F)``."""
    draws = torch.Generator().manual_seed(seed)
    weight = (torch.randn(classes, features.shape[1], generator=draws) / features.shape[1]).requires_grad_(True)
    bias = torch.zeros(classes, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(features @ weight.T + bias, torch.tensor(labels))
    gradients = torch.autograd.grad(loss, (weight, bias))
    return dict(zip(("head.weight", "head.bias"), gradients, strict=True))


@pytest.mark.parametrize(
    "attack", [one for one in entries("attack") if "label_rule" in one.node], ids=lambda one: one.name
)
def test_an_unknown_rule_is_refused(attack):
    assert set(get_args(LabelRule)) == set(LABEL_RULES)
    with pytest.raises(UserError, match=r"attack\.label_rule"):
        get_class(attack.node["_target_"])(label_rule="guess")


def test_of_a_head_of_several_layers_the_last_one_is_read():
    sent = message(features(1), [2])
    nested = {f"head.classifier.{name.split('.')[1]}": one for name, one in sent.items()}
    nested = {"head.encoder.weight": -torch.ones(9, 4), "head.encoder.bias": -torch.ones(9), **nested}
    assert bias_sign(nested, 1).tolist() == row_sum(nested, 1).tolist() == [2]
    del nested["head.classifier.bias"]
    with pytest.raises(UserError, match=r"'head\.classifier\.bias'"):
        bias_sign(nested, 1)


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


def evolved(counts, seed=0, **options):
    """Returns the class ids found among 100 where class 10 c is there ``counts[c]`` times, and the true ones."""
    labels = [10 * position for position, count in enumerate(counts) for _ in range(count)]
    sent = message(features(len(labels), seed=seed), labels, classes=100, seed=seed)
    ranks, means = steadiest_ranks(features(40, seed=100 + seed), 20)
    return evolved_counts(sent, len(labels), ranks, means, torch.Generator().manual_seed(seed), **options), labels


def test_evolution_counts_repeated_classes_among_many():
    found = [evolved((5, 3, 3, 1), seed) for seed in range(10)]
    assert sum(one.tolist() == labels for one, labels in found) >= 8
    blind = [evolved((5, 3, 3, 1), seed, population=1, generations=1) for seed in range(10)]  # the stub: no selection
    assert sum(one.tolist() == labels for one, labels in blind) <= 2


@pytest.mark.parametrize("counts", [(1,), (7,), (1, 1, 1)])
def test_evolution_is_exact_where_there_is_nothing_to_choose(counts):
    found, labels = evolved(counts)
    assert found.tolist() == labels


def test_evolution_names_no_more_classes_than_examples():
    sent = message(features(2), [0, 1], classes=100)
    turned = {name: -value for name, value in sent.items()}  # nearly all rows are negative
    ranks, means = steadiest_ranks(features(40), 20)
    found = evolved_counts(turned, 2, ranks, means, torch.Generator().manual_seed(0))
    assert found.shape == (2,) and len(found.unique()) == 2


def test_the_steadiest_ranks_vary_least_and_are_not_always_zero():
    one = features(40)
    one[:, :10] = 0
    ranks, means = steadiest_ranks(one, 5)
    ranked = one.sort(1).values
    variation = ranked.std(0) / ranked.mean(0)
    assert float(means.min()) > 0
    assert float(variation[ranks].max()) <= float(variation[10:].sort().values[4])
