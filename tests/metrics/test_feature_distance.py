import pytest
import torch

from mibench.metrics.feature_distance import FeatureDistance
from mibench.tasks.base import Evaluator, Reconstruction


def test_reference_value(linear_evaluator, class_truth, mean_of):
    """(1, 1) against the centre of {(0, 0), (2, 0)}."""
    private = torch.tensor([[0.0, 0.0], [2.0, 0.0], [9.0, 9.0]]).reshape(3, 1, 1, 2)
    truth = class_truth(private, torch.tensor([0, 0, 1]), [linear_evaluator(torch.eye(2))])
    result = Reconstruction(torch.ones(1, 1, 1, 2), torch.tensor([0]))
    assert mean_of(FeatureDistance(), result, truth, variant="centroid") == pytest.approx(1.0, abs=1e-9)


def test_agrees_with_numpy_on_a_trained_evaluator(digits8, trained_cnn, class_truth):
    private = digits8.private
    samples, labels = private.test.x[:40], private.test.y[:40]
    truth = class_truth(private.train.x, private.train.y, [Evaluator("cnn", trained_cnn, 1.0)])
    (one,) = FeatureDistance().measure(Reconstruction(samples, labels), truth)
    with torch.no_grad():
        known, asked = trained_cnn.features(private.train.x).numpy(), trained_cnn.features(samples).numpy()
    centres = [known[(private.train.y == label).numpy()].mean(0) for label in range(5)]
    expected = [((row - centres[label]) ** 2).sum() for row, label in zip(asked, labels.tolist(), strict=True)]
    assert one.values.numpy() == pytest.approx(expected, rel=1e-3)


def test_the_centre_of_a_class_is_nearer_than_its_members(linear_evaluator, class_truth, digits8):
    """What tells it from the distance to the nearest image: members are at 0 there and the centre is not."""
    train = digits8.private.train
    truth = class_truth(train.x, train.y, [linear_evaluator(torch.zeros(5, 64))])
    zeros = train.x[train.y == 0]
    (members,) = FeatureDistance().measure(Reconstruction(zeros, torch.zeros(len(zeros)).long()), truth)
    (centre,) = FeatureDistance().measure(Reconstruction(zeros.mean(0, keepdim=True), torch.zeros(1).long()), truth)
    assert float(centre.values) == pytest.approx(0, abs=1e-9)
    assert float(members.values.min()) > 0.1
