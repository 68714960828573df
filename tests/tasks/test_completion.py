import dataclasses

import pytest
import torch

from mibench.data import Examples, Population
from mibench.knowledge import Knowledge
from mibench.leaderboard.scoring import score
from mibench.metrics.label_accuracy import LabelAccuracy
from mibench.metrics.psnr import Psnr
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


def test_non_members_are_test_images_of_the_same_classes_and_score_as_the_victim_does_on_them(digits8, make_case):
    """A victim that remembers the training images and names class 0 otherwise: right of members, seldom of others."""
    train, test = digits8.private.train, digits8.private.test
    hole = hole_mask("centre", 8, 8)
    known = {known_pixels(x[None], hole).numpy().tobytes(): int(y) for x, y in zip(train.x, train.y, strict=True)}
    asked = []

    class Memory:
        def predict_proba(self, x):
            asked.append(x)
            names = [known.get(known_pixels(one[None], hole).numpy().tobytes(), 0) for one in x]
            return torch.nn.functional.one_hot(torch.tensor(names), 5).double()

    case = make_case(digits8, targets=20, victim=Memory())
    goal = TASK.goal(case)
    truth, nulls = TASK.truth(case, goal), TASK.nulls(case, goal, NOTHING)
    TASK.check(nulls["non_members"], goal, digits8.spec)
    rows = {name: score(LabelAccuracy(), null, None, truth)[0] for name, null in nulls.items()}
    assert rows["public_mean"].value == 1.0
    assert rows["non_members"].value == pytest.approx(float((truth.y == 0).double().mean()))
    strangers = asked[1]
    torch.testing.assert_close(strangers[..., 2:6, 2:6], digits8.public.x.mean(0)[..., 2:6, 2:6].expand(20, 1, 4, 4))
    outside = {known_pixels(x[None], hole).numpy().tobytes(): int(y) for x, y in zip(test.x, test.y, strict=True)}
    shown = [known_pixels(one[None], hole).numpy().tobytes() for one in strangers]
    assert [outside[one] for one in shown] == truth.y.tolist()
    assert len(set(shown)) == 20, "no test image twice before all of its class had their turn"
    assert torch.equal(nulls["non_members"].values, nulls["public_mean"].values)


def test_nulls_need_public_images_and_ask_a_victim_where_there_is_one(digits8, make_case, trained_cnn):
    case = make_case(dataclasses.replace(digits8, public=None), victim=trained_cnn)
    assert TASK.nulls(case, TASK.goal(case), NOTHING) == {}
    case = make_case(digits8)
    ((name, null),) = TASK.nulls(case, TASK.goal(case), NOTHING).items()
    assert name == "public_mean" and null.labels is None


def test_a_class_without_a_test_image_has_no_non_members(digits8, make_case, trained_cnn):
    test = digits8.private.test
    split = dataclasses.replace(digits8, private=Population(digits8.private.train, test[test.y != 2]))
    case = make_case(split, targets=7, victim=trained_cnn)
    assert list(TASK.nulls(case, TASK.goal(case), NOTHING)) == ["public_mean"]
