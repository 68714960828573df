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


def test_a_hole_is_measured_by_its_own_pixels_alone(completed):
    """A hole of 3 of 64 pixels, off by 0.2: the whole image dilutes it to 3/64 of that, and so does its box of 2x2."""
    x = torch.full((2, 1, 8, 8), 0.5)
    hole = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    hole[..., 2, 2:4] = hole[..., 3, 3] = True
    whole, inside = Mse().measure(*completed(x, x + 0.2 * hole, hole))
    assert (whole.variant, inside.variant) == ("", "hole")
    assert whole.values.tolist() == pytest.approx([0.04 * 3 / 64] * 2, rel=1e-5)
    assert inside.values.tolist() == pytest.approx([0.04] * 2, rel=1e-5)
