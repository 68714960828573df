import dataclasses

import pytest
import torch

from mibench.access import Ledger
from mibench.attacks.nearest_public import NearestPublic
from mibench.data import Examples
from mibench.knowledge import Knowledge
from mibench.tasks import class_
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassGoal, ClassTask

TASK = ClassTask()
NOTHING = Knowledge(None, None, {}, ())


def test_the_goal_is_the_first_classes_with_their_samples_side_by_side(digits8, make_case):
    goal = TASK.goal(make_case(digits8, targets=3, samples=2))
    assert goal.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert TASK.messages(goal) == 0


def test_no_more_classes_than_there_are(digits8, make_case):
    assert TASK.goal(make_case(digits8, targets=300)).targets.tolist() == [0, 1, 2, 3, 4]


def test_no_more_classes_than_the_control_has(digits8, make_case):
    """A class without a control class could not be compared."""
    part = digits8.held_out.train
    two = dataclasses.replace(digits8.held_out, train=part[part.y < 2])
    split = dataclasses.replace(digits8, held_out=two)
    assert TASK.goal(make_case(split, targets=300)).targets.tolist() == [0, 1]


def test_the_truth_is_the_private_images_and_the_evaluators(digits8, make_case):
    case = make_case(digits8, utility={"correct": torch.ones(2), "chance": 0.5, "evaluators": ["evaluator"]})
    truth = TASK.truth(case, TASK.goal(case))
    train = digits8.private.train
    assert torch.equal(truth.images_of(2), train.x[train.y == 2])
    assert list(truth.evaluators) == ["evaluator"]
    assert truth.public is digits8.public
    assert (truth.chance, len(truth.correct)) == (0.5, 2)


def test_the_victim_is_there_for_metrics(digits8, make_case):
    case = make_case(digits8, victim="victim")
    assert TASK.truth(case, TASK.goal(case)).victim == "victim"


def test_the_control_is_the_same_attack_on_the_held_out_data(digits8, make_case):
    answer, case = Reconstruction(torch.zeros(6, 1, 8, 8), torch.arange(6)), make_case(digits8)
    assert TASK.control(case, TASK.goal(case), NOTHING, answer) is digits8.held_out
    assert TASK.controlled(answer, case, answer) is answer and TASK.retrains


def test_without_held_out_data_there_is_no_control(digits8, make_case):
    case = make_case(dataclasses.replace(digits8, held_out=None))
    assert TASK.control(case, TASK.goal(case), NOTHING, None) is None


def test_a_blank_answer_is_grey_and_missing_and_passes_the_checks(digits8):
    goal = ClassGoal(torch.arange(2), 3)
    blank = TASK.blank(goal, digits8.spec)
    assert blank.values.shape == (6, 1, 8, 8)
    assert bool((blank.values == 0.5).all())
    assert bool(blank.missing.all())
    TASK.check(blank, goal, digits8.spec)


GOOD = Reconstruction(torch.rand(6, 1, 8, 8), torch.tensor([0, 0, 0, 1, 1, 1]))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"values": torch.rand(5, 1, 8, 8)}, "shape"),
        ({"values": torch.rand(6, 1, 9, 9)}, "shape"),
        ({"target": torch.tensor([0, 1, 0, 1, 0, 1])}, "targets"),
        ({"values": GOOD.values * 2 - 1}, r"\[0, 1\]"),
        ({"values": GOOD.values.index_fill(0, torch.tensor([2]), float("nan"))}, "NaN"),
    ],
)
def test_wrong_answers_are_refused(wrong, said, digits8):
    goal = ClassGoal(torch.arange(2), 3)
    TASK.check(GOOD, goal, digits8.spec)
    with pytest.raises(ValueError, match=said):
        TASK.check(dataclasses.replace(GOOD, **wrong), goal, digits8.spec)


def test_the_order_of_the_answer_is_given(digits8, make_case):
    case = make_case(digits8)
    assert TASK.align(GOOD, TASK.truth(case, TASK.goal(case))) is GOOD


@pytest.fixture
def nulls(digits8, make_case, trained_cnn):
    """Returns the nulls of a case with a victim, by name: ``nulls(samples=4)``; ``split`` replaces the digits."""

    def made(split=digits8, **words):
        case = make_case(split, victim=trained_cnn, **words)
        goal = TASK.goal(case)
        found = TASK.nulls(case, goal, NOTHING)
        for null in found.values():
            TASK.check(null, goal, split.spec)
        return found

    return made


def test_the_nearest_public_null_is_the_attack_of_that_name(nulls, digits8, trained_cnn, white_box):
    view = white_box(trained_cnn, digits8).narrow()
    goal = ClassGoal(torch.arange(3), 4)
    attacked = NearestPublic()(view, Knowledge(digits8.public), goal, seed=0).reconstruction
    null = nulls(targets=3, samples=4)["nearest_public"]
    assert torch.equal(null.values, attacked.values) and torch.equal(null.target, attacked.target)


def test_the_nearest_public_null_asks_about_a_bounded_number_of_examples(nulls, digits8, monkeypatch):
    """Every k-th of all, not the first ones, which may be of one class."""
    monkeypatch.setattr(class_, "PUBLIC_EXAMPLES", 20)
    step = -(-len(digits8.public) // 20)
    asked = {image.numpy().tobytes() for image in digits8.public.x[::step]}
    taken = nulls(samples=4)["nearest_public"].values
    assert len(asked) <= 20 and all(image.numpy().tobytes() in asked for image in taken)


def test_the_transfer_floor_is_public_examples_that_the_victim_takes_for_the_class(nulls, digits8, trained_cnn):
    """On 8x8 digits 0.92 of them; before they were moved a fifth, as chance has it."""
    null = nulls(targets=5, samples=40)["transfer_floor"]
    away = torch.cdist(null.values.flatten(1), digits8.public.x.flatten(1), p=float("inf"))
    nearest = away.argmin(1)
    assert float(away.min(1).values.max()) <= 0.1 + 1e-6
    assert len(nearest.unique()) == 200, "each begins at another public example"

    def taken(images):
        return float((trained_cnn.predict_proba(images).argmax(1) == null.target).double().mean())

    assert taken(null.values) > taken(digits8.public.x[nearest]) + 0.4 > 0.5
    assert torch.equal(null.values, nulls(targets=5, samples=40)["transfer_floor"].values)
    assert not torch.equal(null.values, nulls(targets=5, samples=40, seed=1)["transfer_floor"].values)


def test_the_transfer_floor_moves_within_a_share_of_the_range(digits8, make_case, trained_cnn):
    """The same digits in [-80, 0] move by up to 8."""
    public = Examples(80 * digits8.public.x - 80, digits8.public.y)
    spec = dataclasses.replace(digits8.spec, low=-80.0, high=0.0)
    case = make_case(dataclasses.replace(digits8, spec=spec, public=public), victim=trained_cnn)
    null = TASK.nulls(case, TASK.goal(case), NOTHING)["transfer_floor"]
    TASK.check(null, TASK.goal(case), spec)
    away = torch.cdist(null.values.flatten(1), public.x.flatten(1), p=float("inf")).min(1).values
    assert 7 < float(away.max()) <= 8 + 1e-4


def test_nulls_leave_the_victim_and_the_ledger_as_they_are(nulls, digits8, trained_cnn, white_box):
    view, before = white_box(trained_cnn, digits8), torch.random.get_rng_state()
    trained_cnn.zero_grad()
    nulls()
    assert view.ledger.queries == Ledger().queries
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in trained_cnn.parameters())


def test_without_a_victim_or_public_data_there_is_no_null(digits8, make_case, nulls):
    case = make_case(digits8)
    assert TASK.nulls(case, TASK.goal(case), NOTHING) == {}
    assert nulls(dataclasses.replace(digits8, public=None)) == {}
