import pytest
import torch

from mibench.data import Examples
from mibench.errors import NotMeasurableError
from mibench.metrics import kes as module
from mibench.metrics.kes import Kes
from mibench.tasks.base import Reconstruction

SHORT = {"width": 8, "epochs": 5, "min_steps": 100}


@pytest.fixture
def private_truth(digits8, class_truth):
    train = digits8.private.train
    return class_truth(train.x, train.y, [], test=digits8.private.test)


def test_a_student_of_real_images_knows_the_classes_and_one_of_wrong_labels_does_not(digits8, private_truth, mean_of):
    """Ten real images per class 0.96, class means 0.86, the ten under mixed labels 0.14, public images 0.26."""
    train, public = digits8.private.train, digits8.public
    ten = torch.cat([(train.y == label).nonzero()[:10, 0] for label in range(5)])
    means = torch.stack([train.x[train.y == label].mean(0) for label in range(5)])
    mixed = (torch.arange(50) // 10 + torch.arange(50) % 10) % 5
    arms = {
        "ten": Reconstruction(train.x[ten], train.y[ten]),
        "means": Reconstruction(means, torch.arange(5)),
        "mixed": Reconstruction(train.x[ten], mixed),
        "public": Reconstruction(public.x[:50], torch.arange(50) % 5),
    }
    known = {name: mean_of(Kes(**SHORT), arm, private_truth, "test") for name, arm in arms.items()}
    assert known["ten"] > 0.9
    assert known["means"] > 0.7
    assert max(known["mixed"], known["public"]) < 0.45


class Peeking(Kes):
    """The stub: its student sees the private training images."""

    def measure(self, result, truth):
        train = truth.private.train
        return super().measure(Reconstruction(train.x, train.y), truth)


@pytest.mark.parametrize(("metric", "blind"), [(Kes(**SHORT), True), (Peeking(**SHORT), False)])
def test_the_student_learns_from_the_reconstructions_alone(metric, blind, private_truth, mean_of, monkeypatch):
    seen, training = [], module.Training

    def watched(model, data, *rest, **more):
        seen.append(data)
        return training(model, data, *rest, **more)

    monkeypatch.setattr(module, "Training", watched)
    noise = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    value = mean_of(metric, Reconstruction(noise, torch.arange(20) % 5), private_truth, "test")
    assert (seen[0].x.shape[0] == 20 and bool(torch.isin(seen[0].x, noise).all())) == blind
    assert (value < 0.5) == blind


def test_only_attacked_classes_are_asked_for(digits8, private_truth):
    train = digits8.private.train
    two = train[(train.y == 1) | (train.y == 3)]
    for one in Kes(**SHORT).measure(Reconstruction(two.x, two.y), private_truth):
        assert one.groups.unique().tolist() == [1, 3]
        assert float(one.values.mean()) > 0.9


def test_a_seed_gives_the_same_score_in_any_order(digits8, private_truth):
    train = digits8.private.train[torch.arange(0, 676, 17)]
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    first, again, shuffled = (
        Kes(**SHORT).measure(Reconstruction(part.x, part.y), private_truth)[0].values
        for part in (train, train, Examples(train.x[order], train.y[order]))
    )
    assert torch.equal(first, again)
    assert torch.equal(first, shuffled)


def test_one_class_is_no_measurement(digits8, private_truth):
    train = digits8.private.train
    ones = train[train.y == 1]
    with pytest.raises(NotMeasurableError, match="always right"):
        Kes().measure(Reconstruction(ones.x, ones.y), private_truth)
