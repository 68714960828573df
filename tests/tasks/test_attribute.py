import dataclasses

import pytest
import torch

from mibench.data import Column, Examples, InputSpec, Population, Split
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.metrics.attribute_accuracy import AttributeAccuracy
from mibench.tasks import attribute
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


def test_the_nulls_are_the_control_computed_once_and_the_most_frequent_public_value(table, make_case):
    """Here the job follows from the age, and of the public people, unlike the private ones, most have job d."""
    public = table.public
    lopsided = public[torch.cat([torch.arange(100), torch.nonzero(public.x[:, JOB] == 3).flatten()])]
    case = make_case(dataclasses.replace(table, public=lopsided), records=200)
    goal = TASK.goal(case)
    attribute._imputed.cache_clear()
    control = TASK.control(case, goal, NOTHING, TASK.blank(goal, table.spec))
    nulls = TASK.nulls(case, goal, NOTHING)
    assert attribute._imputed.cache_info().misses == 1
    assert list(nulls) == ["imputation", "most_frequent"]
    assert torch.equal(nulls["imputation"].values, control.values)
    assert nulls["most_frequent"].values.tolist() == [3] * 200
    truth = TASK.truth(case, goal)
    right = {}
    for name, null in nulls.items():
        TASK.check(null, goal, table.spec)
        right[name] = float(AttributeAccuracy().measure(null, truth)[0].values.mean())
    assert right["imputation"] > 0.9 and right["most_frequent"] < 0.4


def test_another_case_gets_an_imputation_of_its_own(table, make_case):
    """What is kept for the null is not taken for another goal, other public records or another seed."""
    guesses = []
    for split, seed in ((table, 0), (table, 1), (dataclasses.replace(table, public=people(400, 9)), 0)):
        case = make_case(split, seed=seed, records=60)
        guesses.append(TASK.nulls(case, TASK.goal(case), NOTHING)["imputation"].values)
        truth = TASK.truth(case, TASK.goal(case))
        assert float((guesses[-1] == truth.values).double().mean()) > 0.9
    assert not torch.equal(guesses[0], guesses[1])


def test_without_public_records_there_is_no_control(table, make_case):
    case = make_case(dataclasses.replace(table, public=None))
    goal = TASK.goal(case)
    assert TASK.nulls(case, goal, NOTHING) == {}
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
