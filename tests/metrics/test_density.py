import pytest
import torch

from mibench.metrics.density import Density
from mibench.nn.neighbourhoods import overlap
from mibench.tasks.base import Evaluator, Reconstruction


def test_reference_value():
    """0.4 and 1.5 lie in two unit balls each, 10 in none: 4/3, over the samples and not over the real images."""
    real, fakes = torch.tensor([[0.0], [1], [2], [3]]), torch.tensor([[0.4], [1.5], [10]])
    assert overlap(real, fakes, 1).density == pytest.approx(4 / 3)


def test_duplicates_change_nothing(digits8, trained_cnn, class_truth, mean_of):
    train, test = digits8.private.train, digits8.private.test
    truth = class_truth(train.x, train.y, [Evaluator("cnn", trained_cnn, 1.0)])
    twice = Reconstruction(torch.cat([test.x, test.x]), torch.cat([test.y, test.y]))
    once = mean_of(Density(), Reconstruction(test.x, test.y), truth, "k=3")
    assert mean_of(Density(), twice, truth, "k=3") == pytest.approx(once)


def test_real_images_have_about_1_and_a_crowd_in_the_middle_more():
    draw = torch.Generator().manual_seed(0)
    real, other = torch.randn(2, 400, 4, generator=draw)
    assert overlap(real, other, 5).density == pytest.approx(1, abs=0.15)
    assert overlap(real, other / 4, 5).density > 1.2
