import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from mibench.metrics.knn_distance import KnnDistance
from mibench.tasks.base import Evaluator, Reconstruction


def image(*pixels):
    return torch.tensor(pixels).reshape(1, 1, 1, -1)


def test_reference_value(linear_evaluator, class_truth, mean_of):
    """(0, 0) against {(3, 4), (1, 1)}: squared, and to the nearest."""
    truth = class_truth(
        torch.cat([image(3.0, 4.0), image(1.0, 1.0)]), torch.zeros(2).long(), [linear_evaluator(torch.eye(2))]
    )
    result = Reconstruction(image(0.0, 0.0), torch.tensor([0]))
    assert mean_of(KnnDistance(), result, truth) == pytest.approx(2.0, abs=1e-9)


def test_only_images_of_the_target_class_count(linear_evaluator, class_truth, mean_of):
    truth = class_truth(
        torch.cat([image(3.0, 4.0), image(1.0, 1.0)]), torch.tensor([0, 1]), [linear_evaluator(torch.eye(2))]
    )
    result = Reconstruction(image(0.0, 0.0), torch.tensor([0]))
    assert mean_of(KnnDistance(), result, truth) == pytest.approx(25.0, abs=1e-9)


def test_agrees_with_sklearn_on_a_trained_evaluator(digits8, trained_cnn, class_truth):
    private = digits8.private
    samples, labels = private.test.x[:40], private.test.y[:40]
    truth = class_truth(private.train.x, private.train.y, [Evaluator("cnn", trained_cnn, 1.0)])
    (one,) = KnnDistance().measure(Reconstruction(samples, labels), truth)
    with torch.no_grad():
        known, asked = trained_cnn.features(private.train.x).double(), trained_cnn.features(samples).double()
    for label in labels.unique():
        nearest = NearestNeighbors(n_neighbors=1).fit(known[private.train.y == label])
        expected = nearest.kneighbors(asked[labels == label])[0][:, 0] ** 2
        assert one.values[labels == label].numpy() == pytest.approx(expected, rel=1e-4)
    assert one.evaluator == "cnn"


class NearestOfAnyClass(KnnDistance):
    """The stub: how near to any private image, whatever its class."""

    def measure(self, result, truth):
        everything = Reconstruction(result.values, torch.zeros_like(result.target))
        whole = truth.private.train
        pooled = type(truth)(
            correct=truth.correct,
            chance=truth.chance,
            private=type(truth.private)(type(whole)(whole.x, torch.zeros_like(whole.y)), truth.private.test),
            evaluators=truth.evaluators,
        )
        return super().measure(everything, pooled)


@pytest.mark.parametrize(("metric", "tells_classes_apart"), [(KnnDistance(), True), (NearestOfAnyClass(), False)])
def test_test_images_are_much_nearer_to_their_own_class(metric, tells_classes_apart, digits8, trained_cnn, class_truth):
    """The distance to the next class is 33 times the own one (77.7 and 2.35); for the stub the two are equal."""
    private = digits8.private
    truth = class_truth(private.train.x, private.train.y, [Evaluator("cnn", trained_cnn, 1.0)])
    (own,) = metric.measure(Reconstruction(private.test.x, private.test.y), truth)
    (other,) = metric.measure(Reconstruction(private.test.x, (private.test.y + 1) % 5), truth)
    assert (float(other.values.mean() / own.values.mean()) > 10) == tells_classes_apart
