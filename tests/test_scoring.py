import dataclasses
import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from mibench.card import MetricCard
from mibench.errors import NotMeasurableError, WeightsMissingError
from mibench.leaderboard.scoring import Score, evidence, facts_as_scores, group_means, interval, score
from mibench.metrics.base import Measurement, Metric
from mibench.tasks.base import Reconstruction, Truth

TRUTH = Truth(correct=torch.ones(1), chance=0.5)


def answer(values, target=None):
    """A reconstruction whose values are the numbers that the metrics below report."""
    values = torch.as_tensor(values, dtype=torch.float64)
    return Reconstruction(values, torch.arange(len(values)) if target is None else torch.tensor(target))


class HigherLeaks(Metric[Truth]):
    card = MetricCard(
        name="higher", title="", modalities=("image",), tasks=("class",), higher_is_leakier=True, unit="dB"
    )

    def measure(self, result, truth):
        return [Measurement(values=result.values, groups=result.target, variant="v", evaluator="e")]


class LowerLeaks(HigherLeaks):
    card = MetricCard(name="lower", title="", modalities=("image",), tasks=("class",), higher_is_leakier=False)


class OfVictim(HigherLeaks):
    of_victim: ClassVar[bool] = True


class Failing(HigherLeaks):
    def __init__(self, error):
        self.error = error

    def measure(self, result, truth):
        raise self.error


class NoValue(HigherLeaks):
    def measure(self, result, truth):
        empty = torch.empty(0)
        return [Measurement(values=empty, groups=empty, variant="top5", evaluator="e", reason="never wrong")]


def one_score(metric, result, control=None, seed=0):
    (only,) = score(metric, result, control, TRUTH, seed)
    return only


# Means and intervals


def test_the_mean_is_over_targets_not_samples():
    one = one_score(HigherLeaks(), answer([1, 1, 1, 1, 0], [0, 0, 0, 0, 1]))
    assert (one.value, one.n) == (0.5, 5)
    assert group_means(HigherLeaks().measure(answer([1, 1, 0, 0], [2, 2, 2, 7]), TRUTH)[0]).tolist() == [
        pytest.approx(2 / 3),
        0,
    ]


def test_the_interval_agrees_with_scipy():
    values = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = interval(values, seed=0)
    expected = bootstrap((values.numpy(),), np.mean, method="percentile", random_state=0).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=3e-3)
    assert low < float(values.mean()) < high


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    """95 % is promised; the percentile interval of 40 values keeps about 94 %. Half an interval would keep 67 %."""
    draw = torch.Generator().manual_seed(0)
    intervals = [interval(torch.randn(40, generator=draw, dtype=torch.float64), seed=i, draws=500) for i in range(200)]
    covered = sum(low < 0 < high for low, high in intervals) / 200
    assert 0.89 < covered < 0.99
    halved = sum(low / 2 + high / 4 < 0 < high / 2 + low / 4 for low, high in intervals) / 200
    assert not 0.89 < halved < 0.99


def test_the_bootstrap_is_seeded():
    values = torch.rand(20, dtype=torch.float64)
    assert interval(values, seed=0) == interval(values, seed=0)
    assert interval(values, seed=0) != interval(values, seed=1)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    interval(values, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.6, 0.7, 0.8], [0.5] * 5 + [math.inf], [0.5] * 5 + [math.nan]])
def test_few_targets_or_an_infinite_value_have_no_interval(values):
    assert all(math.isnan(end) for end in interval(torch.tensor(values, dtype=torch.float64), seed=0))


# Control and lift


def test_the_lift_is_positive_where_the_result_is_leakier_than_the_control():
    better, worse = answer([0.9, 0.7]), answer([0.2, 0.4])
    up = one_score(HigherLeaks(), better, worse)
    assert (up.value, up.control, up.lift) == pytest.approx((0.8, 0.3, 0.5))
    down = one_score(LowerLeaks(), worse, better)
    assert (down.value, down.control, down.lift) == pytest.approx((0.3, 0.8, 0.5))
    assert one_score(LowerLeaks(), better, worse).lift == pytest.approx(-0.5)


def test_the_lift_over_either_half_of_the_targets():
    better, worse = answer([0.9, 0.1, 0.8, 0.2, 0.7]), answer([0.0] * 5)
    one = one_score(HigherLeaks(), better, worse)
    assert (one.lift_even, one.lift_odd) == pytest.approx((0.8, 0.15))
    few = one_score(HigherLeaks(), answer([0.9, 0.1, 0.8]), answer([0.0] * 3))
    assert math.isnan(few.lift_even) and math.isnan(few.lift_odd) and few.lift == pytest.approx(0.6)


def test_the_lift_is_taken_target_by_target():
    """Targets of very unlike hardness with one and the same lift: its interval is a point, the value's is wide."""
    hardness = torch.linspace(0, 0.8, 10)
    one = one_score(HigherLeaks(), answer(hardness + 0.2), answer(hardness))
    assert (one.lift_low, one.lift_high) == pytest.approx((0.2, 0.2))
    assert one.ci_high - one.ci_low > 0.2
    assert evidence(one) == "leak"


def test_a_score_carries_variant_evaluator_direction_and_unit():
    one = one_score(HigherLeaks(), answer([1, 0]))
    assert (one.metric, one.variant, one.evaluator, one.unit) == ("higher", "v", "e", "dB")
    assert (one.status, one.higher_is_leakier) == ("ok", True)


def test_without_a_control_there_is_no_lift():
    one = one_score(HigherLeaks(), answer([1, 0]))
    assert all(math.isnan(number) for number in (one.control, one.lift, one.lift_low, one.lift_high))


def test_a_metric_of_the_victim_has_neither_control_nor_direction():
    one = one_score(OfVictim(), answer([1, 0]), answer([0, 0]))
    assert (one.value, one.higher_is_leakier) == (0.5, None)
    assert math.isnan(one.control)
    assert math.isnan(one.lift)


class Describing(HigherLeaks):
    card = MetricCard(name="plain", title="", modalities=("image",), tasks=("class",), higher_is_leakier=None)


def test_a_metric_without_a_direction_has_a_control_and_no_lift():
    one = one_score(Describing(), answer([1, 0]), answer([0.2, 0.4]))
    assert (one.value, one.control, one.higher_is_leakier) == (0.5, pytest.approx(0.3), None)
    assert math.isnan(one.lift)
    assert evidence(one) == ""


class WithYardstick(HigherLeaks):
    def measure(self, result, truth):
        of_judge = Measurement(values=torch.tensor([0.01]), groups=torch.zeros(1), variant="judge", yardstick=True)
        return [*super().measure(result, truth), of_judge]


def test_a_yardstick_has_neither_control_nor_direction():
    leak, yardstick = score(WithYardstick(), answer([1, 0]), answer([0, 0]), TRUTH, 0)
    assert (leak.lift, yardstick.value, yardstick.higher_is_leakier) == (0.5, pytest.approx(0.01), None)
    assert math.isnan(yardstick.control)
    assert math.isnan(yardstick.lift)


# Rows without a number


@pytest.mark.parametrize("error", [WeightsMissingError("no such file"), NotMeasurableError("no such file")])
def test_what_cannot_be_measured_is_a_skipped_row_with_its_reason(error):
    one = one_score(Failing(error), answer([1, 0]), answer([0, 0]))
    assert (one.metric, one.status, one.reason, one.n) == ("higher", "skipped", "no such file", 0)
    assert math.isnan(one.value)


def test_a_single_variant_can_be_skipped():
    one = one_score(NoValue(), answer([1, 0]), answer([0, 0]))
    assert (one.variant, one.status, one.reason) == ("top5", "skipped", "never wrong")
    assert math.isnan(one.value)


def test_a_mistake_in_a_metric_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        score(Failing(ZeroDivisionError()), answer([1, 0]), None, TRUTH, 0)


# Facts and evidence


def test_numbers_a_defense_reports_become_scores_and_words_their_variant():
    truth = dataclasses.replace(TRUTH, facts={"epsilon": 3.0, "delta": 1e-5, "accountant": "prv"})
    rows = {row.metric: row for row in facts_as_scores(truth)}
    assert {name: row.value for name, row in rows.items()} == {"epsilon": 3.0, "delta": 1e-5}
    assert rows["epsilon"].variant == "accountant=prv"
    assert rows["epsilon"].higher_is_leakier is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "leak"),
        ({"lift_low": 0.0}, "no evidence"),
        ({"lift": -0.2, "lift_low": -0.3}, "no evidence"),
        ({"lift_low": math.nan}, "too few targets"),
        ({"lift": math.nan}, ""),
        ({"control": math.nan, "lift": math.nan}, "no control"),
        ({"higher_is_leakier": None}, ""),
        ({"status": "skipped"}, ""),
    ],
)
def test_evidence_is_a_lift_whose_whole_interval_lies_above_zero(changes, said):
    good = Score(metric="m", value=0.9, control=0.2, lift=0.7, lift_low=0.5, lift_high=0.8, higher_is_leakier=True)
    assert evidence(dataclasses.replace(good, **changes)) == said
