"""The protocol of class-level evaluation: what real, public and adversarial images score when handed in as results."""

import dataclasses

import pytest
import torch

from mibench.metrics.agreed_accuracy import AgreedAccuracy
from mibench.metrics.attack_accuracy import AttackAccuracy
from mibench.metrics.coverage import Coverage
from mibench.metrics.knn_distance import KnnDistance
from mibench.metrics.precision import Precision
from mibench.metrics.transfer_floor import TransferFloor
from mibench.optim.perturbation import towards
from mibench.tasks.base import Reconstruction
from mibench.training import is_correct


@pytest.fixture
def oracle(audited):
    """Private test images as if an attack had found them."""
    test = audited.private.test
    return Reconstruction(test.x, test.y)


@pytest.fixture
def strangers(audited):
    """Public images, which show none of the classes."""
    public = audited.public
    return Reconstruction(public.x, torch.arange(len(public)) % 5)


@pytest.fixture
def perturbed(audited):
    """Test images of other classes, moved by at most 0.2 a pixel until many fool the victim, with their true class."""
    images, labels = TransferFloor()._of_others(audited, torch.arange(5))
    return Reconstruction(towards(audited.victim, images, labels, 0.2, 20), labels)


def accuracies(result, truth):
    measured = AttackAccuracy().measure(result, truth)
    return {one.evaluator: float(one.values.mean()) for one in measured if one.variant == "top1"}


def test_private_test_images_score_each_evaluators_accuracy(audited, oracle):
    test = audited.private.test
    expected = {
        one.name: float(is_correct(one.model.predict_proba, test).double().mean()) for one in audited.evaluators
    }
    scored = accuracies(oracle, audited)
    assert {name: scored[name] for name in expected} == pytest.approx(expected)
    assert min(scored.values()) > 0.95


def test_public_images_score_chance(audited, strangers, mean_of):
    """0.2 of five classes, and next to nothing where the judge has to agree."""
    assert all(0.12 < share < 0.28 for share in accuracies(strangers, audited).values())
    assert mean_of(AgreedAccuracy(), strangers, audited) < 0.05


def test_images_that_fool_the_victim_score_low_on_an_unlike_evaluator_and_lower_where_the_judge_agrees(
    audited, perturbed, mean_of
):
    """The victim takes 0.51 of them for the target, the MLP 0.43, the CNN 0.14, CNN and judge 0.01."""
    cnn = dataclasses.replace(audited, evaluators=audited.evaluators[:1])
    fooled = float((audited.victim.predict_proba(perturbed.values).argmax(1) == perturbed.target).double().mean())
    assert fooled > 0.4
    assert accuracies(perturbed, cnn)["cnn"] < 0.3
    assert mean_of(AgreedAccuracy(), perturbed, cnn) < 0.05


def test_a_harness_that_evaluates_with_the_victim_would_be_fooled(audited, perturbed):
    """The stub: the attacked model as its own evaluation model."""
    itself = dataclasses.replace(audited.evaluators[0], model=audited.victim)
    assert not accuracies(perturbed, dataclasses.replace(audited, evaluators=[itself]))["cnn"] < 0.3


def test_distances_and_shares_tell_real_images_from_public_ones(audited, oracle, strangers, mean_of):
    for metric, variant, nearer_is_less in (
        (KnnDistance(), "", True),
        (Precision(), "k=3", False),
        (Coverage(), "k=3", False),
    ):
        real, public = (mean_of(metric, result, audited, variant, "cnn") for result in (oracle, strangers))
        assert (real < public / 3) if nearer_is_less else (real > 3 * public)
