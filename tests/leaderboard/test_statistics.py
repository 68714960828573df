import math

import numpy as np
import pytest
from scipy import stats

from mibench.leaderboard.statistics import (
    aligned,
    difference_interval,
    exact,
    holm,
    in_blocks,
    mean_interval,
    over_seeds,
    paired,
    share_interval,
    wilson,
)

# Intervals over targets


def test_students_interval_is_scipys():
    values = np.random.default_rng(0).normal(size=12)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert mean_interval(values) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.6, 0.7, 0.8], [0.5] * 5 + [math.inf], [0.5] * 5 + [math.nan]])
def test_few_targets_or_an_infinite_value_have_no_interval(values):
    for found in (mean_interval(values), share_interval(values), difference_interval(values, values, False)):
        assert all(math.isnan(end) for end in found)


@pytest.mark.parametrize("hits", range(11))
def test_shares_of_right_and_wrong_have_wilsons_interval_and_exact_ends(hits):
    found = share_interval([1.0] * hits + [0.0] * (10 - hits))
    method = "exact" if hits in (0, 10) else "wilson"
    expected = stats.binomtest(hits, 10).proportion_ci(method=method)
    assert found == pytest.approx((expected.low, expected.high))
    assert 0 <= found[0] <= hits / 10 <= found[1] <= 1 and found[1] - found[0] > 0.25


def test_shares_between_have_an_interval_as_wide_as_their_spread():
    alike = share_interval(np.tile([0.4, 0.6], 10))
    apart = share_interval(np.tile([0.0, 1.0], 10))
    unequal = share_interval(np.tile([0.1, 0.9], 10))
    assert alike[1] - alike[0] < 0.5 * (unequal[1] - unequal[0]) < 0.5 * (apart[1] - apart[0]) * 1.1
    many = np.random.default_rng(0).beta(2, 3, size=400)  # of many it is the interval of a mean
    assert share_interval(many) == pytest.approx(mean_interval(many), abs=3e-3)
    binomial = stats.binomtest(15, 50)
    assert wilson(0.3, 50, 1.96) == pytest.approx(tuple(binomial.proportion_ci(method="wilson")), abs=1e-4)
    assert exact(3, 7) == pytest.approx(tuple(stats.binomtest(3, 7).proportion_ci(method="exact")))


def test_a_difference_of_shares_always_has_a_width_and_stays_in_range():
    all_hit, none_hit, half = np.ones(6), np.zeros(6), np.full(6, 0.5)
    low, high = difference_interval(all_hit, none_hit, share=True)
    assert 0 < low < 0.5 and high == 1
    low, high = difference_interval(half, half, share=True)
    assert low < -0.2 and high > 0.2
    one = exact(6, 6)[0]
    assert difference_interval(all_hit, none_hit, True)[0] == pytest.approx(1 - math.hypot(1 - one, 1 - one))
    assert difference_interval(all_hit * 100, none_hit, share=False) == (100, 100)  # decibels have no bounds
    mixed = difference_interval([1, 1, 1, 1, 0], [0, 0, 0, 0, 0], share=True)
    assert mixed[1] == 1 and 0 < mixed[0] < low + 1


# How often the verdict errs

SETS = {
    "share 0.05": lambda draw, shape: draw.random(shape) < 0.05,
    "share 0.3": lambda draw, shape: draw.random(shape) < 0.3,
    "share 0.8": lambda draw, shape: draw.random(shape) < 0.8,
    "8 samples, Beta(1, 4)": lambda draw, shape: draw.binomial(8, draw.beta(1, 4, shape)) / 8,
}


def false_alarms(draws_of, n, share, interval=difference_interval, times=2500):
    """The share of lifts that lie above zero, of answers that are no better than their controls."""
    draw = np.random.default_rng(n)
    pairs = zip(draws_of(draw, (times, n)).astype(float), draws_of(draw, (times, n)).astype(float), strict=True)
    return sum(interval(value, control, share)[0] > 0 for value, control in pairs) / times


@pytest.mark.parametrize("n", [5, 10, 30])
def test_a_leak_is_seen_where_there_is_none_in_at_most_three_and_a_half_percent(n):
    found = {name: false_alarms(draws_of, n, share=True) for name, draws_of in SETS.items()}
    assert max(found.values()) <= 0.035, found


def test_the_percentile_bootstrap_would_err_more_often():
    def bootstrap(value, control, share):
        gain = value - control
        rows = np.random.default_rng(0).integers(5, size=(400, 5))
        return np.quantile(gain[rows].mean(1), 0.025), 0

    assert false_alarms(lambda draw, shape: draw.normal(size=shape), 5, False, bootstrap, times=1500) > 0.06


def test_skewed_targets_are_met_by_the_interval_too():
    assert false_alarms(lambda draw, shape: draw.lognormal(size=shape), 10, share=False) <= 0.035


def test_there_is_power_to_see_a_leak():
    draw = np.random.default_rng(0)
    seen = [
        difference_interval((draw.random(10) < 0.8).astype(float), (draw.random(10) < 0.1).astype(float), True)[0] > 0
        for _ in range(300)
    ]
    assert np.mean(seen) > 0.9


# Seeds


def crossed(draw, seeds, targets, of_seed, of_target, rest):
    base = draw.normal(0, of_seed, (seeds, 1)) + draw.normal(0, of_target, targets)
    return base + draw.normal(0, rest, (seeds, targets))


@pytest.mark.parametrize(("seeds", "of_seed"), [(3, 0.5), (5, 0.5), (3, 0.05)])
def test_a_mean_over_seeds_and_targets_errs_as_rarely_as_it_says(seeds, of_seed):
    draw, times = np.random.default_rng(1), 1500
    tables = [crossed(draw, seeds, 10, of_seed, 0.3, 0.3) for _ in range(times)]
    assert sum(paired(one).low > 0 for one in tables) / times <= 0.03
    without_seeds = sum(mean_interval(one.mean(0))[0] > 0 for one in tables) / times
    assert without_seeds > 0.08 or of_seed < 0.1  # what is left out of account would be found
    without_targets = sum(mean_interval(np.repeat(one.mean(1), 2))[0] > 0 for one in tables) / times
    assert without_targets > 0.03


def test_one_seed_has_the_interval_over_targets():
    values = np.random.default_rng(0).normal(0.4, 1, (1, 12))
    found = paired(values)
    expected = stats.ttest_1samp(values[0], 0)
    assert (found.low, found.high) == pytest.approx(mean_interval(values[0]))
    assert (found.p, found.n, found.seeds) == (pytest.approx(expected.pvalue), 12, 1)


def test_seeds_and_targets_both_widen_the_interval():
    table = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.2, 0.3, 0.4, 0.5, 0.6, 0.7], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]])
    found = paired(table)
    of_targets = mean_interval(table.mean(0))[1] - table.mean()
    of_seeds = stats.t.ppf(0.975, 2) * table.mean(1).std(ddof=1) / math.sqrt(3)
    assert found.high - found.mean == pytest.approx(math.hypot(of_targets, of_seeds))
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


def test_the_p_value_is_the_level_at_which_the_interval_touches_zero():
    draw = np.random.default_rng(3)
    for shift in (0.0, 0.2, 0.5, 2.0):
        found = paired(crossed(draw, 3, 12, 0.1, 0.3, 0.1) + shift)
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    assert paired(np.zeros((2, 6))).p == 1 and paired(np.ones((2, 6))).p == 0
    assert math.isnan(paired(np.ones((2, 4))).p)


def test_a_share_over_seeds_stays_a_share():
    table = np.array([[1.0] * 6, [0.9] * 6, [0.8] * 6])
    found = over_seeds(table, 0.7, 1.0, share=True, signed=False)
    assert found.high == 1 and 0 <= found.low < 0.9 and math.isnan(found.p)


def test_targets_are_aligned_by_name_and_those_without_one_are_each_seeds_own():
    table = aligned([(["a", "b"], [1, 2]), (["b", "c"], [3, 4])])
    assert np.array_equal(table, [[1, 2, np.nan], [np.nan, 3, 4]], equal_nan=True)
    own = aligned([((), [1, 2]), ((), [3, 4])])
    assert own.shape == (2, 4) and np.isnan(own[0, 2:]).all()


# Tables of comparisons


def test_holms_p_values_grow_with_the_table():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.02]) == [0.02] and holm([0.5, 0.9]) == [1.0, 1.0]
    found = holm([0.01, math.nan, 0.2])
    assert found[0] == pytest.approx(0.02) and math.isnan(found[1]) and found[2] == pytest.approx(0.2)


def test_many_targets_are_stored_as_blocks_with_the_same_mean():
    values = np.random.default_rng(0).random(2000)
    means, names = in_blocks(values, [str(one) for one in range(2000)])
    assert len(means) == len(names) == 20 and means.mean() == pytest.approx(values.mean())
    assert means[0] == pytest.approx(values[:100].mean())
    kept, same = in_blocks(values[:1000], [])
    assert len(kept) == 1000 and same == []
