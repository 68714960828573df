import dataclasses

import pytest
import torch

from mibench.data import Examples, InputSpec, Population, Split
from mibench.knowledge import Knowledge
from mibench.metrics.token_accuracy import TokenAccuracy
from mibench.tasks.sequence import SequenceTask

TASK = SequenceTask()
NOTHING = Knowledge(None, None, {}, ())


def texts(n, seed):
    """Texts of five words: the first and the last are nearly always 1 and 2, those between are any of 50."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.randint(3, 53, (n, 5), generator=draws)
    usual = torch.rand(n, 2, generator=draws) < 0.9
    x[:, 0] = torch.where(usual[:, 0], 1, x[:, 0])
    x[:, 4] = torch.where(usual[:, 1], 2, x[:, 4])
    return Examples(x, torch.zeros(n, dtype=torch.long))


@pytest.fixture
def case(make_case):
    spec = InputSpec("text", (5,), 2, vocabulary=53)
    split = Split(spec=spec, private=Population(texts(300, 0), texts(50, 1)), public=texts(400, 2))
    return make_case(split, targets=60, batch_size=2, secret=texts(120, 3))


def accuracy(case, null):
    truth = TASK.truth(case, TASK.goal(case))
    return float(TokenAccuracy().measure(TASK.align(null, truth), truth)[0].values.mean())


def test_nulls_know_of_a_text_what_public_texts_say(case):
    """Two words of five are nearly always right, the others hardly ever: about 0.37 of all."""
    goal = TASK.goal(case)
    nulls = TASK.nulls(case, goal, NOTHING)
    assert list(nulls) == ["unigram", "prior_text"]
    for null in nulls.values():
        TASK.check(null, goal, case.split.spec)
        assert 0.3 < accuracy(case, null) < 0.45


def test_the_unigram_is_the_most_frequent_word_of_every_position(case):
    made = TASK.nulls(case, TASK.goal(case), NOTHING)["unigram"].values
    counted = [case.split.public.x[:, place].bincount() for place in range(5)]
    assert all(int(counted[place][made[0, place]]) == int(counted[place].max()) for place in range(5))
    assert bool((made == made[:1]).all())


def test_every_text_gets_a_public_one_of_its_own(case):
    drawn = TASK.nulls(case, TASK.goal(case), NOTHING)["prior_text"].values
    public = {tuple(row) for row in case.split.public.x.tolist()}
    assert all(tuple(row) in public for row in drawn.tolist()) and len(drawn.unique(dim=0)) > 90
    again, other = (
        TASK.nulls(dataclasses.replace(case, seed=seed), TASK.goal(case), NOTHING)["prior_text"].values
        for seed in (case.seed, 1)
    )
    assert torch.equal(drawn, again) and not torch.equal(drawn, other)


def test_without_public_texts_there_is_no_null(case):
    alone = dataclasses.replace(case, split=dataclasses.replace(case.split, public=None))
    assert TASK.nulls(alone, TASK.goal(alone), NOTHING) == {}
