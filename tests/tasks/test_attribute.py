import dataclasses

import pytest
import torch

from mibench.data import Column, Examples, InputSpec, Population, Split
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.metrics.attribute_accuracy import AttributeAccuracy
from mibench.tasks.attribute import AttributeTask

TASK = AttributeTask()
NOTHING = Knowledge(None, None, {}, ())
AGE, JOB, MARITAL = range(3)


def people(n, seed):
    """Records whose job is told by the age, and whose marital status depends on nothing."""
    draw = torch.Generator().manual_seed(seed)
    age = 20 + 40 * torch.rand(n, generator=draw)
    job = ((age - 20) / 40 * 4).floor()
    marital = torch.randint(2, (n,), generator=draw).float()
    return Examples(torch.stack([age, job, marital], 1), torch.randint(2, (n,), generator=draw))


@pytest.fixture
def table():
    columns = (Column("age"), Column("job", ("a", "b", "c", "d")), Column("marital", ("single", "married")))
    return Split(
        spec=InputSpec("tabular", (3,), 2, columns),
        private=Population(people(300, 0), people(100, 1)),
        public=people(400, 2),
        sensitive="job",
    )


def test_the_goal_hides_the_sensitive_column_and_nothing_else(table, make_case):
    goal = TASK.goal(make_case(table, records=50))
    assert goal.records.shape == (50, 3)
    assert (goal.column, goal.choices) == (JOB, 4)
    assert bool(goal.records[:, JOB].isnan().all())
    assert not bool(goal.records[:, [AGE, MARITAL]].isnan().any())


def test_columns_the_attacker_does_not_know_are_hidden_too(table, make_case):
    goal = TASK.goal(make_case(table, known_columns=["marital"]))
    assert bool(goal.records[:, [AGE, JOB]].isnan().all())
    assert not bool(goal.records[:, MARITAL].isnan().any())


def test_goal_and_truth_are_about_the_same_training_records(table, make_case):
    case = make_case(table, records=80)
    goal = TASK.goal(case)
    truth = TASK.truth(case, goal)
    # Age tells the job in these data, so each hidden job can be checked against the age that is shown.
    assert torch.equal(truth.values, ((goal.records[:, AGE] - 20) / 40 * 4).floor().long())
    rows = {tuple(row) for row in table.private.train.x[:, [AGE, MARITAL]].tolist()}
    assert all(tuple(row) in rows for row in goal.records[:, [AGE, MARITAL]].tolist())


def test_the_records_depend_on_the_seed_alone(table, make_case):
    one, same, other = (TASK.goal(make_case(table, seed=seed)).records[:, AGE] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_goal_leaves_the_private_table_untouched(table, make_case):
    TASK.goal(make_case(table))
    assert bool(table.private.train.x.isfinite().all())


def accuracy_of_control(case):
    goal = TASK.goal(case)
    result = TASK.control(case, goal, NOTHING, TASK.blank(goal, case.split.spec))
    truth = TASK.truth(case, goal)
    return float(AttributeAccuracy().measure(result, truth)[0].values.mean())


def test_the_control_guesses_what_public_records_tell_and_no_more(table, make_case):
    """Age gives the job away without any model; the marital status cannot be known; neither is a leak."""
    assert accuracy_of_control(make_case(table, records=200)) > 0.9
    assert accuracy_of_control(make_case(table, records=200, known_columns=["marital"])) < 0.45
    assert accuracy_of_control(make_case(dataclasses.replace(table, sensitive="marital"), records=200)) < 0.65


def test_without_public_records_there_is_no_control(table, make_case):
    case = make_case(dataclasses.replace(table, public=None))
    goal = TASK.goal(case)
    assert TASK.control(case, goal, NOTHING, TASK.blank(goal, table.spec)) is None


def test_a_blank_answer_is_missing_throughout_and_scores_nothing(table, make_case):
    case = make_case(table, records=40)
    goal = TASK.goal(case)
    blank = TASK.blank(goal, table.spec)
    TASK.check(blank, goal, table.spec)
    assert bool(blank.missing.all())
    truth = TASK.truth(case, goal)
    assert 0 in truth.values  # the blank's category is the right one for some
    assert all(float(one.values.sum()) == 0 for one in AttributeAccuracy().measure(blank, truth))


@pytest.mark.parametrize(
    ("changes", "known", "said"),
    [
        ({"sensitive": "age"}, None, "choose one of job, marital"),
        ({"sensitive": "income"}, None, "dataset.sensitive='income'"),
        ({}, ["age", "income"], "names income"),
        ({}, ["age", "job"], "may not name the sensitive column"),
    ],
)
def test_mistakes_are_told(changes, known, said, table, make_case):
    with pytest.raises(UserError, match=said):
        TASK.goal(make_case(dataclasses.replace(table, **changes), known_columns=known))
