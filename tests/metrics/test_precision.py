import pytest
import torch

from mibench.metrics.precision import Precision
from mibench.nn.neighbourhoods import overlap
from mibench.tasks.base import Evaluator, Reconstruction

REAL, FAKE = torch.tensor([[0.0], [1], [2], [3]]), torch.tensor([[0.4], [1.5], [10]])


def test_reference_value():
    """Of 0.4, 1.5 and 10, two lie in a ball of {0, 1, 2, 3}."""
    assert overlap(REAL, FAKE, 1).precision == pytest.approx(2 / 3)


def test_the_ball_of_any_real_image_counts():
    """The nearest real point has a narrow ball, a farther one a wide one: PPA's form looks at the nearest only."""
    real, fakes = torch.tensor([[0.0], [0.1], [5]]), torch.tensor([[1.0], [1.1]])
    assert overlap(real, fakes, 1).precision == 1
    nearest = torch.cdist(fakes, real).argmin(1)
    assert nearest.tolist() == [1, 1]  # whose ball reaches no farther than 0.1


@pytest.fixture
def digits_truth(digits8, trained_cnn, class_truth):
    train = digits8.private.train
    return class_truth(train.x, train.y, [Evaluator("cnn", trained_cnn, 1.0)])


def test_test_images_look_real_and_those_of_another_class_do_not(digits_truth, digits8, mean_of):
    """0.9 and 0.0."""
    test = digits8.private.test
    own = mean_of(Precision(), Reconstruction(test.x, test.y), digits_truth, "k=3")
    other = mean_of(Precision(), Reconstruction(test.x, (test.y + 1) % 5), digits_truth, "k=3")
    assert own > 0.8
    assert other < 0.05


def test_duplicates_change_nothing(digits_truth, digits8, mean_of):
    test = digits8.private.test
    twice = Reconstruction(torch.cat([test.x, test.x]), torch.cat([test.y, test.y]))
    once = mean_of(Precision(), Reconstruction(test.x, test.y), digits_truth, "k=3")
    assert mean_of(Precision(), twice, digits_truth, "k=3") == pytest.approx(once)


def test_too_few_samples_are_a_reason_and_no_number(digits_truth, digits8):
    test = digits8.private.test
    four = torch.cat([(test.y == label).nonzero()[:4, 0] for label in range(5)])
    (one,) = Precision().measure(Reconstruction(test.x[four], test.y[four]), digits_truth)
    assert "No class has 5 private images and 5 samples" in one.reason


def test_classes_with_too_few_samples_are_left_out_and_counted(digits_truth, digits8):
    test = digits8.private.test
    kept = (test.y != 2) | ((test.y == 2).cumsum(0) <= 4)
    (one,) = Precision().measure(Reconstruction(test.x[kept], test.y[kept]), digits_truth)
    assert one.groups.tolist() == [0, 1, 3, 4]
