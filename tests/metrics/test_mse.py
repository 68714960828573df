import pytest
import torch
from sklearn.metrics import mean_squared_error

from mibench.metrics.mse import Mse


def test_reference_values_of_the_patterns(patterns, paired, mean_of):
    a, b, c = patterns
    assert mean_of(Mse(), *paired(a, b)) == pytest.approx(0.00244254985, abs=1e-11)
    assert mean_of(Mse(), *paired(a, c)) == pytest.approx(0.221063746, abs=1e-9)


def test_one_value_per_image_that_agrees_with_sklearn(paired):
    x, guess = torch.rand(2, 5, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    (one,) = Mse().measure(*paired(x, guess))
    expected = mean_squared_error(x.flatten(1).T.double(), guess.flatten(1).T.double(), multioutput="raw_values")
    assert one.values.numpy() == pytest.approx(expected, rel=1e-9)
    assert one.groups.tolist() == [0, 1, 2, 3, 4]


def test_one_exact_image_is_not_hidden_by_the_others(paired):
    x = torch.rand(4, 1, 5, 5)
    guess = torch.cat([x[:1], 1 - x[1:]])
    (one,) = Mse().measure(*paired(x, guess, batch=4))
    assert one.values[0] == 0
    assert (one.values[1:] > 0).all()
