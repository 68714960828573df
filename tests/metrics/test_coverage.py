import pytest
import torch

from mibench.metrics.coverage import Coverage
from mibench.nn.neighbourhoods import overlap
from mibench.tasks.base import Evaluator, Reconstruction


def test_reference_value():
    """Only 3 of {0, 1, 2, 3} has no sample within distance 1."""
    real, fakes = torch.tensor([[0.0], [1], [2], [3]]), torch.tensor([[0.4], [1.5], [10]])
    assert overlap(real, fakes, 1).coverage == 0.75


def test_repeating_a_few_likenesses_lowers_it(digits8, trained_cnn, class_truth, mean_of):
    train, test = digits8.private.train, digits8.private.test
    truth = class_truth(train.x, train.y, [Evaluator("cnn", trained_cnn, 1.0)])
    few = torch.cat([(test.y == label).nonzero()[:5, 0] for label in range(5)]).repeat(4)
    varied = mean_of(Coverage(), Reconstruction(test.x, test.y), truth, "k=3")
    repeated = mean_of(Coverage(), Reconstruction(test.x[few], test.y[few]), truth, "k=3")
    assert varied > 0.5
    assert repeated < 0.25


def test_scattered_samples_gain_nothing_unlike_in_recall():
    draw = torch.Generator().manual_seed(0)
    real, scattered = torch.randn(2, 100, 2, generator=draw)
    shares = overlap(real, 30 * scattered, 3)
    assert shares.recall > 0.7
    assert shares.coverage < 0.2


@pytest.mark.parametrize("neighbours", [1, 3, 5])
def test_all_four_are_1_for_equal_sets_and_do_not_depend_on_the_order(neighbours):
    draw = torch.Generator().manual_seed(0)
    real, fakes = torch.randn(2, 40, 6, generator=draw)
    same = overlap(real, real[torch.randperm(40, generator=draw)], neighbours)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert same.density == pytest.approx(1)
    shuffled = overlap(real[torch.randperm(40)], fakes[torch.randperm(40)], neighbours)
    assert shuffled == overlap(real, fakes, neighbours)


def test_agrees_with_sklearn():
    """The same four shares from the published definitions and another library's neighbours."""
    from sklearn.neighbors import NearestNeighbors

    draw = torch.Generator().manual_seed(1)
    real, fakes = torch.randn(60, 5, generator=draw).double(), (1.2 * torch.randn(30, 5, generator=draw) + 0.3).double()
    reach = {
        name: NearestNeighbors(n_neighbors=4).fit(x).kneighbors(x)[0][:, -1]
        for name, x in (("real", real), ("fakes", fakes))
    }
    gaps = ((real[:, None] - fakes[None]) ** 2).sum(-1).sqrt().numpy()
    inside = gaps < reach["real"][:, None]
    shares = overlap(real, fakes, 3)
    assert shares.precision == pytest.approx(inside.any(0).mean())
    assert shares.recall == pytest.approx((gaps < reach["fakes"][None]).any(1).mean())
    assert shares.density == pytest.approx(inside.sum() / (3 * 30))
    assert shares.coverage == pytest.approx((gaps.min(1) < reach["real"]).mean())
    assert 0 < shares.precision < 1
    assert 0 < shares.recall < 1
