import dataclasses
import math
from typing import ClassVar

import pytest
import torch

from mibench.card import MetricCard
from mibench.errors import NotMeasurableError, WeightsMissingError
from mibench.leaderboard.scoring import facts_as_scores, group_means, score
from mibench.leaderboard.statistics import mean_interval
from mibench.leaderboard.verdicts import above_control, judged
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


class Shares(HigherLeaks):
    card = MetricCard(
        name="shares", title="", modalities=("image",), tasks=("class",), higher_is_leakier=True, share=True
    )


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


def one_score(metric, result, control=None, **nulls):
    (only,) = score(metric, result, control, TRUTH, nulls)
    return only


# Means and intervals


def test_the_mean_is_over_targets_not_samples():
    one = one_score(HigherLeaks(), answer([1, 1, 1, 1, 0], [0, 0, 0, 0, 1]))
    assert (one.value, one.n, one.samples) == (0.5, 2, 5)
    assert group_means(HigherLeaks().measure(answer([1, 1, 0, 0], [2, 2, 2, 7]), TRUTH)[0]).tolist() == [
        pytest.approx(2 / 3),
        0,
    ]


def test_the_interval_is_over_targets_and_of_shares_within_their_range():
    values = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.5, 1.0, 1.0, 1.0])
    one, share = one_score(HigherLeaks(), answer(values)), one_score(Shares(), answer(values))
    assert (one.ci_low, one.ci_high) == pytest.approx(mean_interval(values)) and one.ci_high > 1
    assert 0 < share.ci_low < share.value < share.ci_high < 1 and share.share
    assert (one.n, one.samples) == (8, 8)


# Control and lift


def test_the_lift_is_positive_where_the_result_is_leakier_than_the_control():
    better, worse = answer([0.9, 0.7]), answer([0.2, 0.4])
    up = one_score(HigherLeaks(), better, worse)
    assert (up.value, up.control, up.lift) == pytest.approx((0.8, 0.3, 0.5))
    down = one_score(LowerLeaks(), worse, better)
    assert (down.value, down.control, down.lift) == pytest.approx((0.3, 0.8, 0.5))
    assert one_score(LowerLeaks(), better, worse).lift == pytest.approx(-0.5)


def test_every_target_is_kept_with_its_name_its_control_and_its_null():
    better, worse = answer([0.9, 0.5, 0.1], [4, 4, 7]), answer([0.0, 0.2, 0.4], [4, 4, 7])
    (one,) = score(HigherLeaks(), better, worse, TRUTH, {"mean": worse}, {4: "Ann", 7: "Bo"})
    assert one.targets == ["Ann", "Bo"]
    assert one.per_target == pytest.approx([0.7, 0.1])
    assert one.per_target_control == one.per_target_null == pytest.approx([0.1, 0.4])
    (unnamed,) = score(HigherLeaks(), better, worse, TRUTH, {}, {4: "Ann"})
    assert unnamed.targets == [] and unnamed.per_target == pytest.approx([0.7, 0.1])
    (of_victim,) = score(OfVictim(), better, worse, TRUTH, {"mean": worse}, {4: "Ann", 7: "Bo"})
    assert of_victim.targets == [] and of_victim.null_name == "" and len(of_victim.per_target) == 2


def test_many_targets_are_kept_in_blocks():
    one = one_score(HigherLeaks(), answer(torch.arange(3000.0)), answer(torch.zeros(3000)))
    assert (one.n, len(one.per_target), len(one.per_target_control)) == (3000, 20, 20)
    assert one.lift == pytest.approx(1499.5) and one.per_target[0] == pytest.approx(74.5)


# Nulls


def test_the_strongest_null_counts_and_is_named():
    made, weak, strong = answer([0.9] * 5), answer([0.1] * 5), answer([0.4, 0.6, 0.5, 0.5, 0.5])
    one = one_score(HigherLeaks(), made, weak, weak=weak, strong=strong)
    assert (one.null_name, one.null, one.null_lift) == ("strong", pytest.approx(0.5), pytest.approx(0.4))
    assert 0 < one.null_lift_low < 0.4
    low = one_score(LowerLeaks(), answer([0.1] * 5), made, near=weak, far=strong)
    assert (low.null_name, low.null_lift) == ("near", pytest.approx(0.0))


def test_a_null_that_has_no_answer_to_a_metric_is_left_out():
    class Choosy(HigherLeaks):
        def measure(self, result, truth):
            if float(result.values[0]) == 0.5:
                raise NotMeasurableError("no answer")
            return super().measure(result, truth)

    one = one_score(Choosy(), answer([0.9] * 5), answer([0.1] * 5), none=answer([0.5] * 5))
    assert one.null_name == "" and math.isnan(one.null) and one.lift == pytest.approx(0.8)


def test_the_lift_is_taken_target_by_target():
    """Targets of very unlike hardness with one and the same lift: its interval is a point, the value's is wide."""
    hardness = torch.linspace(0, 0.8, 10)
    one = one_score(HigherLeaks(), answer(hardness + 0.2), answer(hardness))
    assert (one.lift_low, one.lift_high) == pytest.approx((0.2, 0.2))
    assert one.ci_high - one.ci_low > 0.2
    assert above_control(one)


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
    assert judged([one])[0].evidence == ""


class WithYardstick(HigherLeaks):
    def measure(self, result, truth):
        of_judge = Measurement(values=torch.tensor([0.01]), groups=torch.zeros(1), variant="judge", yardstick=True)
        return [*super().measure(result, truth), of_judge]


def test_a_yardstick_has_neither_control_nor_direction():
    leak, yardstick = score(WithYardstick(), answer([1, 0]), answer([0, 0]), TRUTH)
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
        score(Failing(ZeroDivisionError()), answer([1, 0]), None, TRUTH)


# Facts


def test_numbers_a_defense_reports_become_scores_and_words_their_variant():
    truth = dataclasses.replace(TRUTH, facts={"epsilon": 3.0, "delta": 1e-5, "accountant": "prv"})
    rows = {row.metric: row for row in facts_as_scores(truth)}
    assert {name: row.value for name, row in rows.items()} == {"epsilon": 3.0, "delta": 1e-5}
    assert rows["epsilon"].variant == "accountant=prv"
    assert rows["epsilon"].higher_is_leakier is None
