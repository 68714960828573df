import pytest
import torch

from mibench.metrics.recall import Recall
from mibench.nn.neighbourhoods import overlap
from mibench.tasks.base import Evaluator, Reconstruction


def test_reference_value():
    """The balls of 0.4 and 1.5 reach 1.1, that of 10 reaches 8.5: all of {0, 1, 2, 3} lie in some."""
    real, fakes = torch.tensor([[0.0], [1], [2], [3]]), torch.tensor([[0.4], [1.5], [10]])
    assert overlap(real, fakes, 1).recall == 1
    assert overlap(real, fakes[:2] - 1, 1).recall == 0.5  # -0.6 and 0.5 reach to 1.6


class Swapped(Recall):
    """The stub: precision under the name of recall."""

    def measure(self, result, truth):
        from mibench.metrics.precision import Precision

        return Precision(neighbours=self.neighbours).measure(result, truth)


@pytest.mark.parametrize(("metric", "sees_repetition"), [(Recall(), True), (Swapped(), False)])
def test_repeating_a_few_likenesses_lowers_it(metric, sees_repetition, digits8, trained_cnn, class_truth, mean_of):
    """Test images reach 0.94; each class's first five, four times over, 0."""
    train, test = digits8.private.train, digits8.private.test
    truth = class_truth(train.x, train.y, [Evaluator("cnn", trained_cnn, 1.0)])
    few = torch.cat([(test.y == label).nonzero()[:5, 0] for label in range(5)]).repeat(4)
    varied = mean_of(metric, Reconstruction(test.x, test.y), truth, "k=3")
    repeated = mean_of(metric, Reconstruction(test.x[few], test.y[few]), truth, "k=3")
    assert varied > 0.8
    assert (repeated < 0.3) == sees_repetition
