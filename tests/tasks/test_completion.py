import dataclasses

import pytest
import torch

from mibench.attacks.base import AttackResult
from mibench.data import Examples, Population
from mibench.errors import NotStoredError
from mibench.knowledge import Knowledge
from mibench.leaderboard.scoring import score
from mibench.metrics.label_accuracy import LabelAccuracy
from mibench.metrics.psnr import Psnr
from mibench.running.notes import NO_STRANGERS
from mibench.tasks.base import Reconstruction
from mibench.tasks.completion import CompletionTask, hole_mask

TASK = CompletionTask()
NOTHING = Knowledge(None, None, {}, ())


@pytest.fixture
def case(digits8, make_case):
    return make_case(digits8, targets=7)


def filled(goal, value, labels=None):
    """The masked images with ``value`` in the hole."""
    return Reconstruction(torch.where(goal.hole, value, goal.images), goal.target, labels)


def test_the_centre_is_the_middle_half_of_each_side():
    mask = hole_mask("centre", 16, 8)
    assert mask.shape == (1, 1, 16, 8) and int(mask.sum()) == 8 * 4
    assert bool(mask[..., 4:12, 2:6].all())


def test_the_t_of_a_face_has_secretgens_pixels():
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[25:40, 10:52] = True
    mask[40:63, 26:38] = True
    assert torch.equal(hole_mask("face_t", 64, 64)[0, 0], mask)


def known_pixels(images, hole):
    return images[:, :, ~hole[0, 0]]


def test_the_goal_is_private_training_images_without_their_hole(digits8, case):
    goal = TASK.goal(case)
    assert goal.images.shape == (7, 1, 8, 8)
    assert bool((goal.images[..., goal.hole[0, 0]] == 0).all())
    known = {row.numpy().tobytes() for row in known_pixels(digits8.private.train.x, goal.hole)}
    assert all(row.numpy().tobytes() in known for row in known_pixels(goal.images, goal.hole))


def test_what_is_hidden_has_no_influence_on_the_goal(digits8, make_case):
    """Other pixels in the hole of every private image, the very same goal; other pixels elsewhere, another one."""
    hole = hole_mask("centre", 8, 8)

    def goal(change):
        train = digits8.private.train
        private = Population(Examples(change(train.x), train.y), digits8.private.test)
        return TASK.goal(make_case(dataclasses.replace(digits8, private=private), targets=7))

    same = goal(lambda x: torch.where(hole, torch.rand_like(x), x))
    other = goal(lambda x: torch.where(hole, x, torch.rand_like(x)))
    plain = goal(lambda x: x)
    assert torch.equal(plain.images, same.images)
    assert not torch.equal(plain.images, other.images)
    assert TASK.held(plain) == TASK.held(same) != TASK.held(other)


def test_no_class_comes_twice_before_every_class_had_its_turn(case):
    labels = TASK.labels(case)
    assert len(labels[:5].unique()) == 5 and len(labels[5:].unique()) == 2


def test_the_images_are_drawn_by_seed(digits8, make_case):
    goals = [TASK.goal(make_case(digits8, targets=7, seed=seed)).images for seed in (0, 0, 1)]
    assert torch.equal(goals[0], goals[1])
    assert not torch.equal(goals[0], goals[2])


def test_the_truth_is_the_whole_images_in_the_goals_order(case):
    goal = TASK.goal(case)
    truth = TASK.truth(case, goal)
    assert torch.equal(known_pixels(truth.x, goal.hole), known_pixels(goal.images, goal.hole))
    assert torch.equal(truth.y, TASK.labels(case))
    assert truth.target.tolist() == list(range(7))
    answer = filled(goal, 0.3)
    assert TASK.align(answer, truth) is answer


def test_the_truth_cuts_out_the_hole_and_the_box_around_it(case, digits8):
    truth = TASK.truth(case, TASK.goal(case))
    assert torch.equal(truth.inside(truth.x), truth.x[..., 2:6, 2:6].flatten(2))
    assert torch.equal(truth.cropped(truth.x), truth.x[..., 2:6, 2:6])
    bar = dataclasses.replace(truth, hole=torch.zeros(1, 1, 8, 8, dtype=torch.bool))
    bar.hole[..., 1, 2] = bar.hole[..., 5, 7] = True
    assert bar.inside(bar.x).shape == (7, 1, 2)
    assert torch.equal(bar.cropped(bar.x), bar.x[..., 1:6, 2:8])
    assert torch.equal(truth.masked(digits8.spec)[..., 2:6, 2:6], torch.full((7, 1, 4, 4), 0.5))


def test_a_blank_answer_has_a_grey_hole_and_passes_the_checks(case, digits8):
    goal = TASK.goal(case)
    blank = TASK.blank(goal, digits8.spec)
    assert bool(blank.missing.all())
    assert bool((blank.values[..., 2:6, 2:6] == 0.5).all())
    TASK.check(blank, goal, digits8.spec)


def test_an_answer_that_changes_a_known_pixel_is_refused(case, digits8):
    goal = TASK.goal(case)
    TASK.check(filled(goal, 0.3), goal, digits8.spec)
    changed = filled(goal, 0.3)
    changed.values[3, 0, 0, 0] = (changed.values[3, 0, 0, 0] + 1e-6).clamp(0, 1)
    with pytest.raises(ValueError, match="outside the hole"):
        TASK.check(changed, goal, digits8.spec)


def test_the_control_is_the_same_attack_on_the_held_out_data(digits8, make_case):
    case = make_case(digits8, targets=7)
    goal = TASK.goal(case)
    result, other = filled(goal, 0.3, labels=TASK.labels(case)), filled(goal, 0.9, labels=torch.full((7,), 3))
    assert TASK.control(case, goal, NOTHING, result) is digits8.held_out
    assert torch.equal(TASK.controlled(other, case, result).values, other.values)
    assert TASK.controlled(other, case, filled(goal, 0.3)).labels is None


def test_the_control_of_the_class_is_the_most_frequent_one(digits8, make_case):
    """The ids of other people, which the control victim names, count for nothing."""
    train = digits8.private.train
    lopsided = train[torch.cat([torch.nonzero(train.y == 3).flatten(), torch.arange(0, len(train), 9)])]
    split = dataclasses.replace(digits8, private=Population(lopsided, digits8.private.test))
    case = make_case(split, targets=5)
    goal = TASK.goal(case)
    right, other = (filled(goal, value, labels=TASK.labels(case)) for value in (0.3, 0.9))
    (row,) = score(LabelAccuracy(), right, TASK.controlled(other, case, right), TASK.truth(case, goal))
    assert (row.value, row.control) == (1.0, pytest.approx(0.2))


def test_without_held_out_data_there_is_no_control(digits8, make_case):
    case = make_case(dataclasses.replace(digits8, held_out=None))
    assert TASK.control(case, TASK.goal(case), NOTHING, None) is None


def test_the_null_has_the_public_mean_in_the_hole_and_what_the_victim_names_of_it(digits8, make_case, trained_cnn):
    """Inside the hole of 8x8 digits about 8 dB."""
    case = make_case(digits8, targets=40, victim=trained_cnn)
    goal = TASK.goal(case)
    null = TASK.nulls(case, goal, NOTHING)["public_mean"]
    TASK.check(null, goal, digits8.spec)
    mean = digits8.public.x.mean(0)
    torch.testing.assert_close(null.values, torch.where(goal.hole, mean, goal.images))
    assert torch.equal(null.labels, trained_cnn.predict_proba(null.values).argmax(1))
    (row,) = [one for one in score(Psnr(), null, None, TASK.truth(case, goal)) if one.variant == "hole"]
    assert 6 < row.value < 10


def test_strangers_are_as_many_test_images_of_the_same_classes_with_the_same_hole(digits8, make_case):
    test = digits8.private.test
    case = make_case(digits8, targets=20)
    goal, truth = TASK.goal(case), TASK.truth(case, TASK.goal(case))
    other, their = TASK.strangers(case, goal)
    assert torch.equal(their.y, truth.y) and torch.equal(other.hole, goal.hole)
    assert torch.equal(other.images, their.x.masked_fill(goal.hole, 0.0)) and not other.images[..., 2:6, 2:6].any()
    rows = [int(((test.x == one).flatten(1).all(1)).nonzero()[0]) for one in their.x]
    assert torch.equal(test.y[rows], truth.y)
    assert len(set(rows)) == 20, "no test image twice before all of its class had their turn"
    perfect = Reconstruction(their.x, other.target)
    null = {"non_members": (perfect, their)}
    zero = filled(goal, 0.3)
    row = next(one for one in score(Psnr(), zero, None, truth, strangers=null) if one.variant == "hole")
    plain = next(one for one in score(Psnr(), zero, None, truth) if one.variant == "hole")
    assert (row.null_name, row.value) == ("non_members", plain.value) and row.null > 50 > row.value
    assert row.null_lift == pytest.approx(row.value - row.null)


def test_the_cell_runs_the_same_attack_on_strangers(make_cell, monkeypatch):
    cell = make_cell("attack=gmi_masked", "dataset.size=16", "metric=[psnr]", "budget.targets=6", "evaluation.count=0")
    met = []

    def attack(victim, population, label, seen=None, other=None):
        met.append((label, other))
        goal = cell.goal if other is None else other
        images = torch.where(goal.hole, 0.25 if other is None else 0.75, goal.images)
        return AttackResult(Reconstruction(images, goal.target), {}, 0.0, 0.0)

    monkeypatch.setattr(cell, "attack", attack)
    ((name, (found, truth)),) = cell.strangers.items()
    assert name == "non_members" and met[-1][0] == "attack on non-members" and not cell.remarks
    assert torch.equal(met[-1][1].images, truth.masked(cell.split.spec) * ~truth.hole)
    assert (found.values[..., truth.hole[0, 0]] == 0.75).all()

    def gone(*args, **more):
        raise NotStoredError("gone")

    again = make_cell("attack=gmi_masked", "dataset.size=16", "metric=[psnr]", "budget.targets=6")
    monkeypatch.setattr(again, "attack", gone)
    assert again.strangers == {} and again.remarks == [NO_STRANGERS]


def test_nulls_need_public_images_and_ask_a_victim_where_there_is_one(digits8, make_case, trained_cnn):
    case = make_case(dataclasses.replace(digits8, public=None), victim=trained_cnn)
    assert TASK.nulls(case, TASK.goal(case), NOTHING) == {}
    case = make_case(digits8)
    ((name, null),) = TASK.nulls(case, TASK.goal(case), NOTHING).items()
    assert name == "public_mean" and null.labels is None


def test_a_class_without_a_test_image_has_no_strangers(digits8, make_case, trained_cnn):
    test = digits8.private.test
    split = dataclasses.replace(digits8, private=Population(digits8.private.train, test[test.y != 2]))
    case = make_case(split, targets=7, victim=trained_cnn)
    assert TASK.strangers(case, TASK.goal(case)) is None
