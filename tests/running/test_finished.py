"""The order of the classes: what another one must do to be named."""

import torch

from mibench.running.finished import another_order

NAMES = ["B", "a", "c", "d", "e"]


def answers(order, count=6, wrong=0.0, seed=0):
    """Classes of ``count`` examples each, and the outputs of a model that knows them in another order."""
    y = torch.arange(len(order)).repeat_interleave(count)
    answered = torch.tensor(order)[y]
    draws = torch.Generator().manual_seed(seed)
    noise = torch.rand(len(y), generator=draws) < wrong
    return torch.where(noise, torch.randint(len(order), (len(y),), generator=draws), answered), y


def test_two_swapped_classes_are_named_with_the_order():
    said = another_order(*answers([1, 0, 2, 3, 4]), NAMES, True)
    assert "right on 100% of the private data instead of 60%" in said
    assert "a, B, c, d, e in this order; set dataset.order=[a,B,c,d,e]" in said
    assert "permute its outputs" in another_order(*answers([1, 0, 2, 3, 4]), NAMES, False)


def test_a_permutation_is_named_the_right_way_round():
    """Output 0 is the class whose examples get it."""
    said = another_order(*answers([1, 2, 0, 3, 4], wrong=0.1), NAMES, True)
    assert "dataset.order=[c,B,a,d,e]" in said


def test_two_of_many_classes_are_noticed():
    order = list(range(60))
    order[7], order[9] = 9, 7
    said = another_order(*answers(order), [f"n{one}" for one in range(60)], True)
    assert "outputs are 'n9' instead of 'n7', 'n7' instead of 'n9' and so on for 2 of them" in said


def test_the_right_order_and_mistakes_are_left_alone():
    assert not another_order(*answers([0, 1, 2, 3, 4]), NAMES, True)
    assert not another_order(*answers([0, 1, 2, 3, 4], wrong=0.5), NAMES, True)
    y = torch.arange(5).repeat_interleave(6)
    assert not another_order(torch.zeros_like(y), y, NAMES, True), "one answer for all"
    assert not another_order(*answers([1, 0], count=3), ["a", "b"], True), "too few to tell"


def test_random_answers_name_no_order():
    named = [bool(another_order(*answers([0] * 0 + list(range(5)), 6, 1.0, seed), NAMES, True)) for seed in range(200)]
    assert sum(named) <= 2


def test_classes_that_fit_no_output_are_named():
    """Of a natural order read by name, two folders are of classes that the model does not know."""
    answered, y = answers([0, 1, 3, 2, 4], count=12)
    answered[y == 4] = torch.arange(12) % 4
    said = another_order(answered, y, NAMES, True)
    assert "B, a, d, c, ? in this order" in said and "whether it was trained on e at all" in said
