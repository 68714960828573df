import torch

from mibench.optim.compression import largest


def test_every_row_keeps_its_own_largest_magnitudes():
    values = torch.tensor([[1.0, -4.0, 3.0, 0.5], [10.0, -20.0, 0.0, 30.0]])
    expected = torch.tensor([[0.0, -4.0, 3.0, 0.0], [0.0, -20.0, 0.0, 30.0]])
    assert torch.equal(largest(values, 0.5), expected)
    assert torch.equal(largest(values, 0.3), expected)  # 1.2 entries are two


def test_at_least_one_entry_is_kept_and_ties_make_no_more():
    assert largest(torch.ones(100), 0.001).sum() == 1
    assert largest(torch.ones(100), 0.07).sum() == 7
