import dataclasses

import pytest
import torch

from mibench.knowledge import Knowledge
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
