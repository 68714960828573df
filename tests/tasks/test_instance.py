import dataclasses
import itertools

import pytest
import torch

from mibench.data import Column, Examples, InputSpec, Population, Split
from mibench.knowledge import Knowledge
from mibench.metrics.label_accuracy import LabelAccuracy
from mibench.metrics.mse import Mse
from mibench.metrics.psnr import Psnr
from mibench.metrics.ssim import Ssim
from mibench.metrics.tolerance_accuracy import ToleranceAccuracy
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


COLUMNS = (Column("kind", ("a", "b", "c")), Column("size", low=0.0, high=40.0), Column("rare", ("no", "yes")))


def people(count, seed):
    """Returns records of which hardly any bears the rare category, and whose sizes are 10 or 11."""
    draw = torch.Generator().manual_seed(seed)
    kind, rare = torch.randint(3, (count,), generator=draw), torch.rand(count, generator=draw) < 0.02
    size = 10 + torch.randint(2, (count,), generator=draw)
    return Examples(torch.stack([kind, size, rare], 1).float(), torch.zeros(count, dtype=torch.long))


@pytest.fixture
def table_case(make_case):
    spec = InputSpec("tabular", (3,), 2, COLUMNS)
    split = Split(spec=spec, private=Population(people(500, 0), people(100, 1)), public=people(500, 2))
    return make_case(split, targets=100, batch_size=4, secret=people(400, 3))


def test_records_are_matched_by_categories_and_scaled_numbers(table_case):
    """A size that is wrong by far costs no more than one category: by the squared error it would decide alone."""
    truth = TASK.truth(table_case, TASK.goal(table_case))
    x = truth.x.clone()
    x[:4] = torch.tensor([[0.0, 10.0, 0.0], [1.0, 10.0, 1.0], [2.0, 11.0, 0.0], [2.0, 11.0, 1.0]])
    truth = dataclasses.replace(truth, x=x)
    made = x.clone()
    made[:4, 1] = torch.tensor([900.0, 11.0, 10.0, 900.0])
    order = torch.tensor([2, 0, 3, 1, *range(4, len(x))])
    aligned = TASK.align(Reconstruction(made[order], truth.target), truth)
    assert torch.equal(aligned.values, made)
    costs = TASK.cost(truth, made[:4], torch.arange(4))
    assert costs.shape == (4, 4)
    assert float(costs.min()) >= 0 and float(costs.max()) <= 1
    assert float(costs[0, 0]) == pytest.approx(1 / 3)


def test_images_are_matched_by_the_squared_error_alone(case, truth):
    assert truth.columns == () and truth.spread is None
    made = noisy(truth).values[:BATCH]
    expected = (truth.x[:BATCH, None].double() - made[None].double()).square().flatten(2).sum(2)
    torch.testing.assert_close(TASK.cost(truth, made, torch.arange(BATCH)), expected)


def test_the_null_of_images_is_the_public_mean_for_every_input(case, truth, digits8):
    """On 8x8 digits about 10 dB: below any reconstruction worth the name, above a picture of one value."""
    goal = TASK.goal(case)
    ((name, null),) = TASK.nulls(case, goal, NOTHING).items()
    TASK.check(null, goal, digits8.spec)
    assert name == "public_mean" and null.labels is None
    expected = digits8.public.x.double().mean(0).float()
    torch.testing.assert_close(null.values, expected.expand(TOTAL, 1, 8, 8))
    assert float((expected - digits8.private.train.x.mean(0)).abs().max()) > 0.1, "the private mean is another one"
    decibels = total(Psnr(), TASK.align(null, truth), truth)[0]
    assert 9 < decibels < 12
    grey = Reconstruction(digits8.spec.blank(TOTAL), goal.target)
    assert decibels > total(Psnr(), TASK.align(grey, truth), truth)[0] + 1


def test_behind_an_answer_the_mean_of_the_inputs_class_is_a_null_too(case, digits8):
    answered = dataclasses.replace(case, access="scores")
    goal, test = TASK.goal(answered), digits8.private.test
    nulls = TASK.nulls(answered, goal, NOTHING)
    assert list(nulls) == ["public_mean", "class_mean"] and TASK.units(answered, goal)[0] == "answer 0"
    for x, label in zip(nulls["class_mean"].values, case.secret.y, strict=True):
        torch.testing.assert_close(x, test.x[test.y == label].mean(0))
    for access in ("gradients", "features"):  # whose messages need not name a class
        assert "class_mean" not in TASK.nulls(dataclasses.replace(case, access=access), goal, NOTHING)
    rare = case.secret.y[0]
    few = dataclasses.replace(digits8.private, test=test[torch.nonzero(test.y != rare).flatten()])
    less = dataclasses.replace(answered, split=dataclasses.replace(digits8, private=few))
    torch.testing.assert_close(TASK.nulls(less, goal, NOTHING)["class_mean"].values[0], few.test.x.mean(0))


def test_the_public_mean_of_spectrograms_is_in_their_range(case, digits8):
    """Decibels from -80 to 0, as of digits turned into such."""
    public = digits8.public
    louder = dataclasses.replace(
        digits8,
        spec=dataclasses.replace(digits8.spec, modality="audio", low=-80.0, high=0.0),
        public=Examples(80 * public.x - 80, public.y),
    )
    null = TASK.nulls(dataclasses.replace(case, split=louder), TASK.goal(case), NOTHING)["public_mean"]
    torch.testing.assert_close(null.values[0], 80 * public.x.mean(0) - 80)
    TASK.check(null, TASK.goal(case), louder.spec)


def test_records_are_guessed_without_a_message_in_three_ways(table_case):
    goal = TASK.goal(table_case)
    nulls = TASK.nulls(table_case, goal, NOTHING)
    assert list(nulls) == ["uniform", "cat_empirical", "all_empirical"]
    for null in nulls.values():
        TASK.check(null, goal, table_case.split.spec)
    rare = {name: float(null.values[:, 2].mean()) for name, null in nulls.items()}
    assert abs(rare["uniform"] - 0.5) < 0.1
    assert max(rare["cat_empirical"], rare["all_empirical"]) < 0.1
    assert set(nulls["all_empirical"].values[:, 1].tolist()) == {10.0, 11.0}
    for name in ("uniform", "cat_empirical"):
        assert 0 <= float(nulls[name].values[:, 1].min()) < 5 < 35 < float(nulls[name].values[:, 1].max()) <= 40
    first = nulls["all_empirical"].values
    assert not bool((first[:1] == first).all()), "every record is drawn anew"
    assert torch.equal(TASK.nulls(table_case, goal, NOTHING)["uniform"].values, nulls["uniform"].values)


def test_the_more_a_guess_knows_the_more_of_a_record_is_right(table_case):
    truth = TASK.truth(table_case, TASK.goal(table_case))
    right = [
        total(ToleranceAccuracy(), TASK.align(null, truth), truth)[0]
        for null in TASK.nulls(table_case, TASK.goal(table_case), NOTHING).values()
    ]
    assert right == sorted(right)
    assert right[0] < right[2] - 0.1


@pytest.mark.parametrize("kind", ["case", "table_case"])
def test_without_public_data_nothing_is_guessed(kind, request):
    table_case = request.getfixturevalue(kind)
    alone = dataclasses.replace(table_case, split=dataclasses.replace(table_case.split, public=None))
    assert TASK.nulls(alone, TASK.goal(alone), NOTHING) == {}
