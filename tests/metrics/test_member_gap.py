import itertools

import pytest
import torch

from mibench.data import Examples
from mibench.errors import NotMeasurableError
from mibench.metrics import member_gap as module
from mibench.metrics.member_gap import MemberGap, nearest_of
from mibench.tasks.base import Evaluator, Reconstruction


def test_reference_value(linear_evaluator, class_truth, mean_of):
    """(0, 0) against the member (1, 0) and the held-out (0, 3): 1 - 9; swapped, 9 - 1."""
    member, other, zero = (torch.tensor(point).reshape(1, 1, 1, 2) for point in ([1.0, 0.0], [0.0, 3.0], [0.0, 0.0]))
    label = torch.zeros(1, dtype=torch.long)
    evaluators = [linear_evaluator(torch.eye(2))]
    for near, far, gap in ((member, other, -8), (other, member, 8)):
        truth = class_truth(near, label, evaluators, test=Examples(far, label))
        assert mean_of(MemberGap(), Reconstruction(zero, label), truth) == pytest.approx(gap)
        assert mean_of(MemberGap(), Reconstruction(zero, label), truth, "relative") == pytest.approx(gap / 10)


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_the_expectation_is_that_over_all_subsets(count):
    distance = torch.rand(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    subsets = [distance[:, list(chosen)].amin(1) for chosen in itertools.combinations(range(6), count)]
    assert nearest_of(distance, count).tolist() == pytest.approx(torch.stack(subsets).mean(0).tolist())


def nearest_of_all(distance, _count):
    """The stub: the nearest of all images, however many there are."""
    return distance.amin(1)


@pytest.mark.parametrize(("nearest", "is_fair"), [(nearest_of, True), (nearest_of_all, False)])
def test_fresh_images_have_no_gap_and_copies_of_members_have(
    nearest, is_fair, digits8, trained_cnn, class_truth, monkeypatch
):
    """Members are four fifths of the training images, the rest is held out, and the evaluator knows neither better.

    In units of a fresh image's distance to the nearest: fresh ones -0.07, copies of members -0.21, copies of held-out
    ones 0.82; the stub says -0.39 of fresh ones.
    """
    monkeypatch.setattr(module, "nearest_of", nearest)
    known, fresh = digits8.private.train, digits8.private.test
    held_out = torch.arange(len(known)) % 5 == 0
    members, others = known[~held_out], known[held_out]
    truth = class_truth(members.x, members.y, [Evaluator("cnn", trained_cnn, 1.0)], test=others)

    def gap(examples):
        plain, _ = MemberGap().measure(Reconstruction(examples.x, examples.y), truth)
        return float(plain.values.mean())

    spread = float(
        module.distances(*(module.penultimate(trained_cnn, x) for x in (fresh.x, others.x))).square().amin(1).mean()
    )
    assert (abs(gap(fresh) / spread) < 0.12) == is_fair
    assert gap(members) / spread < -0.18
    assert gap(others) / spread > 0.5


def test_a_test_image_that_is_a_training_image_is_left_out(linear_evaluator, class_truth, mean_of):
    points = torch.tensor([[1.0, 0.0], [0.0, 3.0]]).reshape(2, 1, 1, 2)
    label = torch.zeros(2, dtype=torch.long)
    evaluators = [linear_evaluator(torch.eye(2))]
    truth = class_truth(points[:1], label[:1], evaluators, test=Examples(points, label))
    zero = Reconstruction(torch.zeros(1, 1, 1, 2), label[:1])
    assert mean_of(MemberGap(), zero, truth) == pytest.approx(-8)
    with pytest.raises(NotMeasurableError, match="no test image"):
        MemberGap().measure(zero, class_truth(points, label, evaluators))
