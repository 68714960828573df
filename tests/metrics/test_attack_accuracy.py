import dataclasses

import pytest
import torch
from sklearn.metrics import top_k_accuracy_score

from mibench.data import Examples
from mibench.leaderboard.scoring import score
from mibench.metrics.attack_accuracy import AttackAccuracy
from mibench.metrics.base import answers
from mibench.model import Classifier
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
    measured = AttackAccuracy().measure(result, logits_truth(6))
    assert {one.evaluator for one in measured if not one.reason} == {"reader"}


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


def test_evaluation_models_without_a_vote_stand_singly(logits_truth, linear_evaluator, mean_of):
    """The outvoted two of before, one of which does not vote: the sure one decides."""
    odds = torch.tensor(1 / 9).log(), torch.tensor(3.0).log()
    sober = linear_evaluator(torch.eye(2) * odds[1] / odds[0], name="sober")
    result = Reconstruction(as_images(torch.tensor([[odds[0], 0.0]])), torch.tensor([0]))
    truth = logits_truth(2, sober, dataclasses.replace(sober, name="weak", votes=False))
    names = ["reader", "sober", "weak", "vote"]
    values = {name: mean_of(AttackAccuracy(), result, truth, "top1", name) for name in names}
    assert values == {"reader": 0, "sober": 1, "weak": 1, "vote": 0}
    assert list(answers(truth.evaluators, result.values)) == names


class Sure(Classifier):
    """A victim whose probabilities are the pixels."""

    def predict_proba(self, x, batch_size=512):
        return x.flatten(1)


@pytest.fixture
def tried(linear_evaluator, class_truth):
    """Six public images for two of three classes: what the evaluator reads of them, and what the victim is sure of.

    The evaluator reads pixels 3 to 5, the victim 0 to 2.
    """
    read = torch.tensor([0, 0, 0, 1, 2, 2])
    sure = torch.tensor([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.3, 0.7, 0], [0.6, 0.4, 0], [0.1, 0.5, 0.4], [0.0, 0.2, 0.8]])
    public = Examples(torch.cat([sure, torch.eye(3)[read]], 1)[:, None, None], torch.zeros(6).long())
    reader = linear_evaluator(torch.cat([torch.zeros(3, 3), torch.eye(3)], 1), name="reader")
    return class_truth(public.x[:1], torch.zeros(1).long(), [reader], public=public, victim=Sure())


def yardsticks(truth, target):
    result = Reconstruction(torch.zeros(len(target), 1, 1, 6), torch.tensor(target))
    return {one.variant: one for one in score(AttackAccuracy(), result, result, truth) if "strangers" in one.variant}


def test_strangers_are_the_public_images_that_a_class_gets(tried):
    """Of six images class 0 gets three and class 1 one: the mean over both targets is 2/6."""
    one = yardsticks(tried, [0, 1])["strangers"]
    assert (one.value, one.evaluator, one.higher_is_leakier) == (pytest.approx(2 / 6), "reader", None)
    assert one.control != one.control and yardsticks(tried, [0])["strangers"].value == pytest.approx(3 / 6)


def test_the_best_strangers_are_those_that_the_victim_is_surest_of(tried):
    """As class 0 it is surest of images 0 and 3 (read 0 and 1), as class 1 of 1 and 2 (read 0): 1 of 4 is accepted."""
    two = yardsticks(tried, [0, 0, 1, 1])["strangers_best"]
    assert (two.value, two.samples, two.evaluator) == (pytest.approx(0.25), 4, "reader")
    one = yardsticks(tried, [0, 1])["strangers_best"]
    assert (one.value, one.samples) == (pytest.approx(0.5), 2)
    assert yardsticks(tried, [0] * 9)["strangers_best"].samples == 6, "there are no more"


def test_without_public_images_or_a_victim_the_yardsticks_say_so(tried):
    alone = yardsticks(dataclasses.replace(tried, public=None), [0])
    assert {one.status for one in alone.values()} == {"skipped"} and "public" in alone["strangers"].reason
    blind = yardsticks(dataclasses.replace(tried, victim=None), [0])
    assert (blind["strangers"].status, blind["strangers_best"].status) == ("ok", "skipped")
    assert "victim" in blind["strangers_best"].reason
