import pytest
import torch
from sklearn.metrics import top_k_accuracy_score

from mibench.metrics.attack_accuracy import AttackAccuracy
from mibench.tasks.base import Evaluator, Reconstruction


@pytest.fixture
def logits_truth(linear_evaluator, class_truth):
    """A truth whose one evaluator reads the logits off the pixels."""

    def make(classes, *more):
        x = torch.zeros(1, 1, 1, classes)
        return class_truth(x, torch.zeros(1).long(), [linear_evaluator(torch.eye(classes), name="reader"), *more])

    return make


def as_images(logits):
    return logits.float()[:, None, None]


def test_reference_value(logits_truth, mean_of):
    """Three targets with two samples each, hits [1, 1], [1, 0], [0, 0]."""
    named = torch.tensor([0, 0, 1, 2, 0, 1])
    result = Reconstruction(as_images(torch.eye(3)[named]), torch.tensor([0, 0, 1, 1, 2, 2]))
    assert mean_of(AttackAccuracy(), result, logits_truth(3), variant="top1") == pytest.approx(0.5)


@pytest.mark.parametrize("rank", [1, 5])
def test_agrees_with_sklearn(rank, logits_truth):
    draw = torch.Generator().manual_seed(0)
    logits, target = torch.randn(60, 12, generator=draw), torch.randint(12, (60,), generator=draw)
    measured = AttackAccuracy().measure(Reconstruction(as_images(logits), target), logits_truth(12))
    (one,) = [m for m in measured if m.variant == f"top{rank}"]
    expected = top_k_accuracy_score(target, logits, k=rank, labels=range(12))
    assert float(one.values.mean()) == pytest.approx(expected)


def test_top_5_of_five_classes_is_no_measurement(logits_truth):
    result = Reconstruction(as_images(torch.eye(5)), torch.arange(5))
    (top5,) = [m for m in AttackAccuracy().measure(result, logits_truth(5)) if m.variant == "top5"]
    assert "always right" in top5.reason
    assert len(top5.values) == 0


def test_the_vote_averages_probabilities(logits_truth, linear_evaluator, mean_of):
    """A sure evaluator outweighs one that is barely of another mind; a count of heads would be a tie."""
    doubter = linear_evaluator(0.01 * torch.tensor([[0.0, 1.0], [1.0, 0.0]]), name="doubter")
    result = Reconstruction(as_images(torch.tensor([[4.0, 0.0]])), torch.tensor([0]))
    truth = logits_truth(2, doubter)
    values = {name: mean_of(AttackAccuracy(), result, truth, "top1", name) for name in ("reader", "doubter", "vote")}
    assert values == {"reader": 1, "doubter": 0, "vote": 1}


def test_a_sure_minority_is_outvoted(logits_truth, linear_evaluator, mean_of):
    """0.1, 0.75 and 0.75 for the target: its mean is 0.53, although the surest evaluator names the other class."""
    odds = torch.tensor(1 / 9).log(), torch.tensor(3.0).log()
    sober = [linear_evaluator(torch.eye(2) * odds[1] / odds[0], name=f"sober{i}") for i in range(2)]
    result = Reconstruction(as_images(torch.tensor([[odds[0], 0.0]])), torch.tensor([0]))
    truth = logits_truth(2, *sober)
    values = {name: mean_of(AttackAccuracy(), result, truth, "top1", name) for name in ("reader", "sober0", "vote")}
    assert values == {"reader": 0, "sober0": 1, "vote": 1}


def test_a_single_evaluator_has_no_vote(logits_truth):
    result = Reconstruction(as_images(torch.eye(6)), torch.arange(6))
    assert {one.evaluator for one in AttackAccuracy().measure(result, logits_truth(6))} == {"reader"}


def test_missing_samples_count_as_failures(logits_truth, mean_of):
    valid = torch.tensor([True, False, True, False, True, False])
    result = Reconstruction(as_images(torch.eye(6)), torch.arange(6), valid=valid)
    assert mean_of(AttackAccuracy(), result, logits_truth(6), variant="top1") == 0.5
    assert mean_of(AttackAccuracy(), result, logits_truth(6), variant="top5") == 0.5


def test_the_order_of_samples_does_not_matter(logits_truth, mean_of):
    draw = torch.Generator().manual_seed(0)
    logits, target = torch.randn(30, 6, generator=draw), torch.arange(30) % 6
    order = torch.randperm(30, generator=draw)
    straight, shuffled = (
        Reconstruction(as_images(logits), target),
        Reconstruction(as_images(logits[order]), target[order]),
    )
    for variant in ("top1", "top5"):
        value = mean_of(AttackAccuracy(), straight, logits_truth(6), variant=variant)
        assert value == pytest.approx(mean_of(AttackAccuracy(), shuffled, logits_truth(6), variant=variant))


def test_private_test_images_score_the_evaluators_test_accuracy(digits8, trained_cnn, class_truth):
    """The oracle: a perfect attack scores what the evaluator can; images of other digits score chance."""
    test, public = digits8.private.test, digits8.public
    accuracy = float((trained_cnn.predict_proba(test.x).argmax(1) == test.y).double().mean())
    truth = class_truth(digits8.private.train.x, digits8.private.train.y, [Evaluator("cnn", trained_cnn, accuracy)])

    def top1(x, y):
        return float(AttackAccuracy().measure(Reconstruction(x, y), truth)[0].values.mean())

    assert top1(test.x, test.y) == pytest.approx(accuracy)
    assert accuracy > 0.95
    chance = top1(public.x, torch.arange(len(public)) % 5)
    assert 0.1 < chance < 0.3
