import itertools

import pytest
import torch

from mibench.data import Examples
from mibench.knowledge import Knowledge
from mibench.metrics.label_accuracy import LabelAccuracy
from mibench.metrics.mse import Mse
from mibench.metrics.psnr import Psnr
from mibench.metrics.ssim import Ssim
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceTask

TASK = InstanceTask()
NOTHING = Knowledge(None, None, {}, ())
MESSAGES, BATCH = 3, 4
TOTAL = MESSAGES * BATCH


@pytest.fixture
def case(digits8, make_case):
    train = digits8.private.train  # sorted by class: every twelfth part of it
    secret = train[torch.arange(TOTAL) * (len(train) // TOTAL)]
    return make_case(digits8, targets=MESSAGES, batch_size=BATCH, secret=secret)


@pytest.fixture
def truth(case):
    return TASK.truth(case, TASK.goal(case))


def noisy(truth, strength=0.3):
    draw = torch.Generator().manual_seed(0)
    x = (truth.x + strength * torch.randn(truth.x.shape, generator=draw)).clamp(0, 1)
    valid = torch.arange(TOTAL) % 5 != 0
    return Reconstruction(x, truth.target, truth.y.clone(), valid)


def permuted(result, order):
    return Reconstruction(result.values[order], result.target, result.labels[order], result.valid[order])


def within_messages(seed):
    draw = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randperm(BATCH, generator=draw) + BATCH * message for message in range(MESSAGES)])


def test_the_goal_counts_messages_and_inputs(case):
    goal = TASK.goal(case)
    assert TASK.messages(goal) == MESSAGES
    assert goal.target.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_there_are_at_least_two_messages_so_that_each_has_a_control(digits8, make_case):
    assert TASK.messages(TASK.goal(make_case(digits8, targets=1, batch_size=1))) == 2


def test_matching_finds_the_order_of_every_batch(truth):
    result = noisy(truth, strength=0.0)
    shuffled = permuted(result, within_messages(1))
    aligned = TASK.align(shuffled, truth)
    assert not torch.equal(shuffled.values, truth.x)
    assert torch.equal(aligned.values, truth.x)
    assert torch.equal(aligned.labels, truth.y)
    assert torch.equal(aligned.valid, result.valid)
    assert torch.equal(aligned.target, truth.target)


def test_matching_is_the_best_of_all_assignments(truth):
    """Checked against every permutation of a batch whose reconstructions are poor, where taking the nearest fails."""
    draw = torch.Generator().manual_seed(3)
    guess = Reconstruction(torch.rand(truth.x.shape, generator=draw), truth.target)
    aligned = TASK.align(guess, truth)
    for message in range(MESSAGES):
        rows = slice(message * BATCH, (message + 1) * BATCH)
        x, found, given = truth.x[rows], aligned.values[rows], guess.values[rows]
        totals = [float((given[list(order)] - x).square().sum()) for order in itertools.permutations(range(BATCH))]
        assert float((found - x).square().sum()) == pytest.approx(min(totals), rel=1e-5)
    nearest = torch.cdist(truth.x[:BATCH].flatten(1), guess.values[:BATCH].flatten(1)).argmin(1)
    assert len(nearest.unique()) < BATCH  # the nearest, with replacement, is no assignment here


def test_inputs_are_never_matched_across_messages(truth):
    swapped = Reconstruction(truth.x.roll(BATCH, 0), truth.target)
    aligned = TASK.align(swapped, truth)
    for message in range(MESSAGES):
        rows = slice(message * BATCH, (message + 1) * BATCH)
        given = {tuple(row.tolist()) for row in swapped.values[rows].flatten(1)}
        assert {tuple(row.tolist()) for row in aligned.values[rows].flatten(1)} == given


METRICS = [Mse(), Psnr(), Ssim(), LabelAccuracy()]


def total(metric, result, truth):
    return [float(one.values.double().mean()) for one in metric.measure(result, truth)]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.card.name)
def test_permuting_a_batch_changes_no_metric(metric, truth):
    result = noisy(truth)
    expected = total(metric, TASK.align(result, truth), truth)
    for seed in range(3):
        again = total(metric, TASK.align(permuted(result, within_messages(seed)), truth), truth)
        assert again == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("metric", METRICS[:3], ids=lambda metric: metric.card.name)
def test_without_matching_it_would(metric, truth):
    result = noisy(truth)
    shuffled = total(metric, permuted(result, within_messages(1)), truth)
    assert shuffled[0] != pytest.approx(total(metric, result, truth)[0], rel=0.05)


def test_the_control_is_what_was_made_of_the_next_clients_update(case, truth):
    result = noisy(truth)
    control = TASK.control(case, TASK.goal(case), NOTHING, result)
    for message in range(MESSAGES):
        here = truth.target == message
        there = truth.target == (message + 1) % MESSAGES
        assert torch.equal(control.values[here], result.values[there])
        assert torch.equal(control.labels[here], result.labels[there])
        assert torch.equal(control.missing[here], result.missing[there])
    assert torch.equal(control.target, result.target)


def test_the_control_of_a_perfect_attack_is_far_from_perfect(case, truth):
    result = noisy(truth, strength=0.0)
    control = TASK.align(TASK.control(case, TASK.goal(case), NOTHING, result), truth)
    assert total(Mse(), TASK.align(result, truth), truth) == [0]
    assert total(Mse(), control, truth)[0] > 0.05


def test_labels_and_validity_may_be_absent(case, truth):
    bare = Reconstruction(truth.x.flip(0), truth.target)
    control = TASK.control(case, TASK.goal(case), NOTHING, TASK.align(bare, truth))
    assert control.labels is None
    assert control.valid is None


def test_the_truth_is_the_secret_batch(case, truth):
    assert torch.equal(truth.x, case.secret.x)
    assert torch.equal(truth.y, case.secret.y)
    assert isinstance(case.secret, Examples)


def test_the_data_around_the_batch_and_the_victim_are_the_truths_alone(digits8, case, truth):
    assert truth.private is digits8.private and truth.public is digits8.public
    assert truth.victim is case.victim
    assert vars(TASK.goal(case)) == {"messages": MESSAGES, "batch_size": BATCH}


def test_a_blank_answer_is_missing_and_scores_no_exact_image(case, truth, digits8):
    goal = TASK.goal(case)
    blank = TASK.blank(goal, digits8.spec)
    TASK.check(blank, goal, digits8.spec)
    assert bool(blank.missing.all())
    decibels, exact = total(Psnr(), TASK.align(blank, truth), truth)
    assert decibels < 15
    assert exact == 0
    assert total(LabelAccuracy(), TASK.align(blank, truth), truth) == [0]
