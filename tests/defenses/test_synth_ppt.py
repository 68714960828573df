import math

import pytest
import torch
from sklearn.metrics import mutual_info_score

from mibench.data import Column, Examples, InputSpec
from mibench.defenses.base import DefenderData, DefenseContext
from mibench.defenses.synth_ppt import SynthPpt, drawn_within, pram, swapped
from mibench.errors import UserError
from mibench.targets.mlp import Mlp
from mibench.training import Recipe, Training, is_correct

CPU = torch.device("cpu")
COLUMNS = (Column("job", ("a", "b", "c", "d")), Column("marital", ("x", "y", "z")), Column("age"), Column("balance"))
SPEC = InputSpec("tabular", (4,), 2, COLUMNS)
N = 2000


def people(seed):
    """Marital status follows the job, age the status; the response follows age and balance."""
    draws = torch.Generator().manual_seed(seed)
    job = torch.randint(4, (N,), generator=draws)
    follows = torch.rand(N, generator=draws) < 0.7
    marital = torch.where(follows, job % 3, torch.randint(3, (N,), generator=draws))
    age, balance = 3 * torch.randn(2, N, generator=draws)
    age = age + 4 * marital
    return Examples(torch.stack([job, marital, age, balance], 1).float(), (age + balance > 4).long())


@pytest.fixture(scope="module")
def real():
    return people(0)


def defended(real, seed=0, **options):
    context = DefenseContext(SPEC, DefenderData(real, real, None), seed, CPU)
    return SynthPpt(**{"sensitive": "marital", **options}).data(real, context)


def copies(table, real):
    """Rows of ``table`` that are rows of the real one, the perturbed column left aside."""
    keep = [0, 2, 3]
    theirs = {tuple(row) for row in real.x[:, keep].tolist()}
    return sum(tuple(row) in theirs for row in table.x[:, keep].tolist())


def test_pram_draws_by_frequency_and_swaps_stay_in_their_group():
    """Values of which nine in ten are 0 stay so where all are drawn anew; half of them anew changes 9 % of all."""
    values = (torch.arange(5000) % 10 == 0).float()
    drawn, half = (pram(values, share, torch.Generator().manual_seed(0)) for share in (1.0, 0.5))
    assert float(drawn.mean()) == pytest.approx(0.1, abs=0.015)
    assert float((drawn != values).double().mean()) == pytest.approx(0.18, abs=0.02)
    assert float((half != values).double().mean()) == pytest.approx(0.09, abs=0.015)
    groups, many = (torch.arange(5000) % 2)[:, None].float(), torch.arange(5000.0)
    for share in (1.0, 0.3):
        moved = swapped(many, groups, share, torch.Generator().manual_seed(0))
        assert torch.equal(moved % 2, many % 2) and torch.equal(moved.sort().values, many)
        assert float((moved != many).double().mean()) == pytest.approx(share, abs=0.03)


def test_no_synthetic_row_is_a_real_one(real):
    """Measured: 0 of 2000 for synthetic rows; a stub that perturbs the real table has 2000. Fresh people have none."""
    assert copies(people(1), real) == 0
    assert copies(defended(real), real) <= 20
    assert copies(defended(real, synthesise=False), real) == N


def test_synthetic_rows_are_like_real_ones(real):
    """Frequencies, means and the dependence of status on job are kept, and a model of them works on real people."""
    made = defended(real, share=0.0)
    assert abs(made.x[:, 1].long().bincount() / N - real.x[:, 1].long().bincount() / N).max() < 0.05
    assert (made.x[:, 2:].mean(0) - real.x[:, 2:].mean(0)).abs().max() < 0.4
    assert not torch.isin(made.x[:, 2:], real.x[:, 2:])[:, 1].any(), "numbers are drawn between those of their leaf"
    ratio = dependence(made) / dependence(real)
    assert 0.7 < ratio < 1.3

    def accuracy(train):
        torch.manual_seed(0)
        model = Mlp(spec=SPEC, hidden=(16,))
        model.adapt(train.x)
        trained = Training(model, train, Recipe(epochs=5, lr=1e-2), 0, CPU).run()
        return float(is_correct(trained.predict_proba, people(2)).double().mean())

    assert accuracy(made) > accuracy(real) - 0.05
    independent = Examples(torch.stack([column[torch.randperm(N)] for column in real.x.T], 1), real.y)
    assert not dependence(independent) / dependence(real) > 0.7, "a stub that draws columns one by one"


def dependence(table):
    return mutual_info_score(table.x[:, 0].long(), table.x[:, 1].long())


def test_swapping_keeps_the_frequencies_exactly_and_breaks_the_dependence(real):
    """Measured: 0.001 of the mutual information is left; a share of a tenth leaves 0.8."""
    made = defended(real, technique="swap", share=1.0, synthesise=False)
    assert torch.equal(made.x[:, 1].sort().values, real.x[:, 1].sort().values)
    assert dependence(made) < 0.1 * dependence(real)
    assert torch.equal(made.x[:, [0, 2, 3]], real.x[:, [0, 2, 3]]) and torch.equal(made.y, real.y)
    assert dependence(defended(real, technique="swap", share=0.1, synthesise=False)) > 0.1 * dependence(real)


def test_conditional_swapping_stays_among_rows_that_agree(real):
    made = defended(real, technique="conditional_swap", share=1.0, keys=["job"], synthesise=False)
    assert not torch.equal(made.x, real.x)
    assert dependence(made) == pytest.approx(dependence(real)), "the job's own frequencies are kept"
    for job in range(4):
        for label in range(2):
            rows = (real.x[:, 0] == job) & (real.y == label)
            assert torch.equal(made.x[rows, 1].sort().values, real.x[rows, 1].sort().values)
    plain = defended(real, technique="swap", share=1.0, synthesise=False)
    assert dependence(plain) < 0.1 * dependence(real)


def test_pram_keeps_the_frequencies_in_expectation(real):
    """Every frequency within 3 / sqrt(n); values change at the rate of the Markov matrix."""
    made = defended(real, share=0.4, synthesise=False)
    before, after = (table.x[:, 1].long().bincount(minlength=3) / N for table in (real, made))
    assert (before - after).abs().max() < 3 / math.sqrt(N)
    rate = 0.4 * float(1 - before.square().sum())
    assert float((made.x[:, 1] != real.x[:, 1]).double().mean()) == pytest.approx(rate, abs=0.03)
    uniform = torch.randint(3, (N,)).bincount(minlength=3) / N
    assert not (before * 0.6 + uniform * 0.4 - before).abs().max() < 1e-6


def test_at_share_zero_the_real_table_is_untouched(real):
    for technique in ("swap", "conditional_swap", "pram"):
        made = defended(real, technique=technique, share=0.0, synthesise=False)
        assert torch.equal(made.x, real.x) and torch.equal(made.y, real.y)


def test_the_same_seed_gives_the_same_rows(real):
    assert torch.equal(defended(real).x, defended(real).x)
    assert not torch.equal(defended(real).x, defended(real, seed=1).x)


def test_values_are_drawn_from_their_own_leaf():
    groups, values = torch.tensor([5, 2, 5, 2, 9]), torch.tensor([50.0, 20.0, 51.0, 21.0, 90.0])
    wanted = torch.tensor([9] + [5, 2] * 20)
    found = drawn_within(groups, values, wanted, torch.Generator().manual_seed(0), between=False)
    assert found[0] == 90
    assert set(found[1::2].tolist()) == {50.0, 51.0} and set(found[2::2].tolist()) == {20.0, 21.0}
    found = drawn_within(groups, values, wanted, torch.Generator().manual_seed(0), between=True)
    assert found[0] == 90 and ((found[1::2] > 50) & (found[1::2] < 51)).all()


def test_a_column_that_is_not_there_is_said(real):
    with pytest.raises(UserError, match=r"defense\.sensitive=sex"):
        defended(real, sensitive="sex")
    with pytest.raises(UserError, match="sex"):
        defended(real, technique="conditional_swap", keys=["sex"])
