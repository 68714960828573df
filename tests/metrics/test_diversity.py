import pytest
import torch

from mibench.errors import NotMeasurableError
from mibench.leaderboard.scoring import score
from mibench.metrics.diversity import Diversity
from mibench.tasks.base import Evaluator, Reconstruction


def test_reference_value(linear_evaluator, class_truth, mean_of):
    """A triangle of sides 3, 4 and 5, and two equal points."""
    points = torch.tensor([[0.0, 0], [3, 0], [3, 4], [7, 7], [7, 7]]).reshape(5, 1, 1, 2)
    target = torch.tensor([0, 0, 0, 1, 1])
    truth = class_truth(points, target, [linear_evaluator(torch.eye(2))])
    assert mean_of(Diversity(), Reconstruction(points, target), truth) == pytest.approx(2.0)


class AcrossClasses(Diversity):
    """The stub: pairs of any two samples."""

    def measure(self, result, truth):
        return super().measure(Reconstruction(result.values, torch.zeros_like(result.target)), truth)


@pytest.mark.parametrize(("metric", "sees_collapse"), [(Diversity(), True), (AcrossClasses(), False)])
def test_one_image_per_class_has_none(metric, sees_collapse, digits8, trained_cnn, class_truth, mean_of):
    train, test = digits8.private.train, digits8.private.test
    truth = class_truth(train.x, train.y, [Evaluator("cnn", trained_cnn, 1.0)])
    first = torch.stack([test.x[test.y == label][0] for label in test.y.tolist()])
    collapsed = mean_of(metric, Reconstruction(first, test.y), truth)
    varied = mean_of(metric, Reconstruction(test.x, test.y), truth)
    assert varied > 1
    assert (collapsed < 1e-9) == sees_collapse


def test_real_images_are_as_diverse_as_their_yardstick(digits8, trained_cnn, class_truth, mean_of):
    """3.5 of test images and 3.3 of training images."""
    train, test = digits8.private.train, digits8.private.test
    truth = class_truth(train.x, train.y, [Evaluator("cnn", trained_cnn, 1.0)])
    result = Reconstruction(test.x, test.y)
    real, yardstick = (mean_of(Diversity(), result, truth, variant) for variant in ("", "private"))
    assert real == pytest.approx(yardstick, rel=0.15)


def test_variety_is_said_beside_its_control_and_is_no_leak(digits8, trained_cnn, class_truth):
    train, test = digits8.private.train, digits8.private.test
    truth = class_truth(train.x, train.y, [Evaluator("cnn", trained_cnn, 1.0)])
    result = Reconstruction(test.x, test.y)
    own, yardstick = score(Diversity(), result, result, truth)
    assert own.control == own.value
    assert (own.higher_is_leakier, yardstick.higher_is_leakier) == (None, None)
    assert own.lift != own.lift


def test_a_single_sample_has_no_diversity(linear_evaluator, class_truth):
    x = torch.zeros(1, 1, 1, 2)
    with pytest.raises(NotMeasurableError, match="samples"):
        Diversity().measure(
            Reconstruction(x, torch.zeros(1).long()),
            class_truth(x, torch.zeros(1).long(), [linear_evaluator(torch.eye(2))]),
        )
