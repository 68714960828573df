import dataclasses

import pytest
import torch

from mibench.data import Examples, Population
from mibench.errors import NotMeasurableError
from mibench.leaderboard.scoring import score
from mibench.metrics.agreed_accuracy import AgreedAccuracy
from mibench.metrics.attack_accuracy import AttackAccuracy
from mibench.nn.verification import calibrated
from mibench.optim.perturbation import towards
from mibench.tasks.base import Reconstruction


def test_the_judge_lets_no_more_strangers_pass_than_promised(digits8):
    """Its threshold is the wanted quantile of the real pairs, and nine tenths of the true ones lie below it."""
    private = digits8.private
    distance = calibrated(private, 0.5).distances(private.test.x)
    own = private.test.y[:, None] == torch.arange(5)
    for share in (0.01, 0.05):
        threshold = calibrated(private, share).threshold
        assert share - 0.005 < float((distance[~own] < threshold).double().mean()) <= share
        assert float((distance[own] < threshold).double().mean()) > 0.9


def test_the_judge_is_blind_to_brightness_and_contrast_and_not_to_the_class(digits8):
    private = digits8.private
    judge = calibrated(private, 0.01)
    dull = 0.3 + 0.4 * private.test.x
    assert torch.equal(judge.accepts(dull, private.test.y), judge.accepts(private.test.x, private.test.y))
    assert float(judge.accepts(private.test.x, (private.test.y + 1) % 5).double().mean()) < 0.03


def test_both_have_to_accept(nearest_evaluator, class_truth):
    """Three answers for class 0: its image; another class's; one that the evaluator takes for it and the judge not."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.rand(4, 1, 8, 8, generator=draw), torch.arange(4)
    truth = class_truth(x, y, [nearest_evaluator(x)], public=None)
    inverted = 1 - x[:1]
    deceived = dataclasses.replace(truth, evaluators=[nearest_evaluator(torch.cat([inverted, x[1:]]))])
    result = Reconstruction(torch.cat([x[:2], inverted]), torch.zeros(3).long())
    for one, agreed in ((truth, [1, 0, 0]), (deceived, [0, 0, 0])):
        assert AgreedAccuracy().measure(result, one)[0].values.tolist() == agreed
    assert AttackAccuracy().measure(result, deceived)[0].values.tolist() == [0, 0, 1]


def test_noise_made_against_the_victim_passes_the_vote_and_not_the_judge(audited, mean_of):
    """Pixel noise driven to each class: the vote of MLP and CNN says 1.00, agreed accuracy 0.03, real images 0.99."""
    noise = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    target = torch.arange(5).repeat_interleave(20)
    result = Reconstruction(towards(audited.victim, noise, target, 0.5, 100), target)
    test = audited.private.test
    assert mean_of(AttackAccuracy(), result, audited, "top1", "vote") > 0.9
    assert mean_of(AgreedAccuracy(), result, audited) < 0.15
    assert mean_of(AgreedAccuracy(), Reconstruction(test.x, test.y), audited) > 0.95


def test_false_positives_are_those_public_images_that_pass(audited):
    """Of the digits 5-9 0.07 pass for one of 0-4: more than the judge's 1 %, for the vote chooses the class."""
    test = audited.private.test
    rows = score(AgreedAccuracy(), Reconstruction(test.x, test.y), None, audited)
    false = next(row for row in rows if row.variant == "false_positives")
    assert 0.01 < false.value < 0.15
    assert (false.n, false.higher_is_leakier) == (448, None)  # every second of 896
    true = next(row for row in rows if row.variant == "true_accepts")
    assert true.value == pytest.approx(rows[0].value)


def test_the_judge_alone_has_its_rate_of_true_accepts(audited, nearest_evaluator, digits8):
    """It is that of the judge's threshold, however wrong the vote is; the card names it as the judge's power."""
    test, wrong = audited.private.test, audited.private.train.x[:5].flip(0)
    truth = dataclasses.replace(audited, evaluators=[nearest_evaluator(wrong)])
    rows = {row.variant: row for row in score(AgreedAccuracy(), Reconstruction(test.x, test.y), None, truth)}
    (number, power), *_ = AgreedAccuracy.card.confirms
    passed = calibrated(digits8.private, 0.01).accepts(test.x, test.y).double()
    expected = torch.stack([passed[test.y == label].mean() for label in range(5)]).mean()
    assert (number, power) == ("judge", "judge_true_accepts")
    assert rows[power].value == pytest.approx(float(expected)) and rows[power].value > rows["true_accepts"].value + 0.1
    assert (rows[power].evaluator, rows[power].higher_is_leakier) == (rows[number].evaluator, None)


def test_without_public_images_the_rate_is_missing_with_a_reason(audited):
    test = audited.private.test
    alone = dataclasses.replace(audited, public=None)
    rows = score(AgreedAccuracy(), Reconstruction(test.x, test.y), None, alone)
    assert [row.status for row in rows] == ["ok", "ok", "ok", "skipped", "ok"]
    assert "public" in rows[3].reason


def test_missing_samples_are_failures(audited, mean_of):
    test = audited.private.test
    nothing = Reconstruction(test.x, test.y, valid=torch.zeros(len(test), dtype=torch.bool))
    assert mean_of(AgreedAccuracy(), nothing, audited) == 0
    assert mean_of(AgreedAccuracy(), nothing, audited, "judge") == 0


def test_one_class_cannot_be_judged(digits8, audited):
    only = Population(*(part[part.y == 0] for part in (digits8.private.train, digits8.private.test)))
    truth = dataclasses.replace(audited, private=only)
    with pytest.raises(NotMeasurableError, match="calibrated"):
        AgreedAccuracy().measure(Reconstruction(only.test.x, only.test.y), truth)


def test_classes_without_training_images_are_never_accepted(digits8):
    train = digits8.private.train
    judge = calibrated(Population(train[train.y != 2], digits8.private.test), 0.01)
    twos = digits8.private.test[digits8.private.test.y == 2]
    assert not bool(judge.accepts(twos.x, twos.y).any())
    assert isinstance(twos, Examples)
