import itertools

import torch

from mibench.data import Column
from mibench.optim.records import matched, right_columns, unlike

COLUMNS = (Column("kind", ("a", "b", "c")), Column("size"))


def test_categories_must_be_equal_and_numbers_near():
    true = torch.tensor([[1.0, 30.0]])
    made = torch.tensor([[1.0, 31.0], [1.0, 31.6], [2.0, 30.0], [0.0, 28.5]])
    right = right_columns(COLUMNS, made, true, torch.tensor([9.0, 1.5]))
    assert right.tolist() == [[True, True], [True, False], [False, True], [False, True]]


def test_a_number_weighs_as_much_as_a_category_at_the_most():
    true, spread = torch.tensor([1.0, 30.0]), torch.tensor([1.0, 10.0])
    made = torch.tensor([[1.0, 30.0], [1.0, 35.0], [2.0, 30.0], [0.0, 30.0], [1.0, 900.0]])
    assert unlike(COLUMNS, made, true, spread).tolist() == [0.0, 0.25, 0.5, 0.5, 0.5]


def test_matching_is_the_cheapest_of_all_assignments():
    costs = torch.rand(5, 5, generator=torch.Generator().manual_seed(0))
    best = min(itertools.permutations(range(5)), key=lambda order: float(costs[range(5), list(order)].sum()))
    assert matched(costs).tolist() == list(best)
