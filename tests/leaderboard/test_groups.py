import math

import numpy as np
import pytest
from scipy import stats

from mibench.leaderboard.collect import collect_shards
from mibench.leaderboard.groups import groups_of
from mibench.leaderboard.numbers import by_target, in_common, spread
from mibench.leaderboard.scoring import Score


def test_one_seed_shows_the_cells_own_interval(tmp_path, add_cell):
    add_cell(tmp_path, lift=0.5)
    (group,) = groups_of(collect_shards(tmp_path).table)
    score = group.headline.score
    assert (score.value, score.ci_low, score.ci_high, score.lift_low) == (0.7, 0.6, 0.8, 0.4)
    assert group.headline.verdict == "leak" and not group.old and group.headline.seeds == 1


def test_seeds_of_a_group_become_one_number_with_a_wider_interval(tmp_path, add_cell):
    lifts = [0.5, 0.6, 0.7]
    for seed, lift in enumerate(lifts):
        add_cell(tmp_path, f"seed={seed}", lift=lift)
    add_cell(tmp_path, "defense=bido", lift=0.1)
    other, group = sorted(groups_of(collect_shards(tmp_path).table), key=lambda one: len(one.cells))
    assert [cell.seed for cell in group.cells] == [0, 1, 2] and group.headline.seeds == 3
    score = group.headline.score
    half = math.hypot(stats.t.ppf(0.975, 2) * np.std(lifts, ddof=1) / math.sqrt(3), 0.1)
    assert score.lift == pytest.approx(0.6) and score.control == pytest.approx(0.2)
    assert (score.lift_low, score.lift_high) == pytest.approx((0.6 - half, 0.6 + half), rel=1e-3)
    assert score.n == 120 and other.headline.score.lift == pytest.approx(0.1)


def test_an_interval_of_shares_over_seeds_stays_within_the_scale_where_targets_are_not_known(tmp_path, add_cell):
    told = {"ci_low": 0.9, "ci_high": 1.0, "control": 0.05, "n": 40, "higher_is_leakier": True}
    for seed, lift in enumerate((0.95, 0.75)):
        numbers = {**told, "value": 0.05 + lift, "lift": lift, "lift_low": lift - 0.1, "lift_high": lift + 0.05}
        more = [Score(metric=name, share=name == "share", **numbers) for name in ("share", "decibels")]
        add_cell(tmp_path, f"seed={seed}", more=more)
    (group,) = groups_of(collect_shards(tmp_path).table)
    inside, free = group.number("share").score, group.number("decibels").score
    assert (inside.ci_low, inside.ci_high, inside.lift_high) == (0, 1, 1) and -1 <= inside.lift_low == free.lift_low
    assert free.ci_low < 0 and free.ci_high > 1 and free.lift_high > 1


def test_the_targets_of_all_seeds_make_one_interval(tmp_path, add_cell):
    gains = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.3], [0.2, 0.2, 0.4, 0.4, 0.6, 0.3], [0.1, 0.1, 0.3, 0.3, 0.5, 0.2]])
    for seed, own in enumerate(gains):
        add_cell(tmp_path, f"seed={seed}", lift=float(own.mean()), gains=own.tolist())
    (group,) = groups_of(collect_shards(tmp_path).table)
    found = group.headline
    of_targets = stats.t.ppf(0.975, 5) * gains.mean(0).std(ddof=1) / math.sqrt(6)
    of_seeds = stats.t.ppf(0.975, 2) * gains.mean(1).std(ddof=1) / math.sqrt(3)
    assert found.score.lift == pytest.approx(gains.mean()) and (found.score.n, found.seeds) == (6, 3)
    assert found.score.lift_low == pytest.approx(gains.mean() - math.hypot(of_targets, of_seeds), abs=1e-6)
    assert list(found.score.per_target) == pytest.approx((0.2 + gains.mean(0)).tolist())
    lifts = by_target(found)
    assert lifts.seeds == [0, 1, 2] and lifts.values == pytest.approx(gains, abs=1e-6)
    assert by_target(found, lift=False).values == pytest.approx(gains + 0.2, abs=1e-6)
    few = type(lifts)([1, 2, 7], ["person 3", "stranger", "person 1"], np.arange(9.0).reshape(3, 3))
    seeds, targets, (one, other) = in_common([lifts, few])
    assert (seeds, targets) == ([1, 2], ["person 1", "person 3"])
    assert one == pytest.approx(gains[1:][:, [1, 3]], abs=1e-6) and other.tolist() == [[2, 0], [5, 3]]


def test_rows_that_tell_no_targets_are_those_of_the_first_schema(tmp_path, add_cell):
    add_cell(tmp_path, lift=0.5, schema_version=1)
    (group,) = groups_of(collect_shards(tmp_path).table)
    assert group.old and group.headline.verdict == "undecided" and by_target(group.headline) is None


def test_seeds_that_disagree_are_no_evidence_though_each_cell_said_leak(tmp_path, add_cell):
    for seed, lift in enumerate([0.12, 0.9]):
        add_cell(tmp_path, f"seed={seed}", lift=lift)
    (group,) = groups_of(collect_shards(tmp_path).table)
    assert group.headline.score.lift > 0.5 and group.headline.verdict == "no evidence"


def test_the_interval_over_seeds_keeps_its_level():
    """Of 2,000 made-up studies with three seeds, about 95 % of intervals hold the truth; the cells' own do not."""
    rng = np.random.default_rng(0)
    seeds = rng.normal(0.5, 0.1, (2000, 3))
    half = spread(seeds.ravel(), (seeds - 0.02).ravel(), np.arange(0, 6000, 3))
    covered = np.mean(np.abs(seeds.mean(1) - 0.5) <= half)
    own = np.mean(np.abs(seeds.mean(1) - 0.5) <= 0.02)
    assert 0.93 < covered < 0.99 and own < 0.5


def test_a_skipped_cell_keeps_its_reason_and_a_failed_seed_is_counted(tmp_path, add_cell):
    add_cell(tmp_path, "attack=random_prior", "defense=bido", status="skipped", reason="Vacuous: it says.")
    add_cell(tmp_path, "seed=0", lift=0.5)
    add_cell(tmp_path, "seed=1", status="failed", reason="it broke")
    found = {group.facts["attack"]: group for group in groups_of(collect_shards(tmp_path).table)}
    assert found["random_prior"].cells[0].reason == "Vacuous: it says." and not found["random_prior"].measured
    assert found["random_prior"].headline is None
    assert found["gmi"].headline.seeds == 1 and [cell.status for cell in found["gmi"].cells] == ["ok", "failed"]
    skipped = found["gmi"].number("attack_accuracy", "top5")
    assert skipped.score.status == "skipped" and skipped.verdict == "" and math.isnan(skipped.score.value)


def test_training_is_compared_with_that_of_the_same_target_without_a_defense(tmp_path, add_cell):
    add_cell(tmp_path, training_seconds=2.0)
    add_cell(tmp_path, "defense=bido", training_seconds=3.0)
    add_cell(tmp_path, "defense=bido", "target=mlp", training_seconds=3.0)  # of another target nothing is known
    add_cell(tmp_path, "defense=rounding")  # nor of what was not measured
    found = {(one.facts["defense"], one.facts["target"]): one.cost for one in groups_of(collect_shards(tmp_path).table)}
    assert found["bido", "cnn"]["training_times"] == 1.5 and found["none", "cnn"]["training_times"] == 1
    assert math.isnan(found["bido", "mlp"]["training_times"]) and math.isnan(found["rounding", "cnn"]["training_times"])


def test_an_infinite_value_is_no_cause_for_a_warning(recwarn):
    spread(np.array([np.inf, 1.0]), np.array([np.inf, 1.5]), np.array([0, 1]))
    assert not recwarn.list


def test_clients_that_train_together_are_judged_by_the_model_that_they_make(tmp_path, add_cell):
    """An observed global model may be untrained: it counts only where nobody measured what training makes of it."""
    together = Score(metric="federated_accuracy", value=0.6)
    untold = Score(metric="federated_accuracy", status="skipped", reason="no clients")
    yardstick = Score(metric="federated_accuracy", variant="undefended", value=0.7)
    for seed, more in enumerate([(together, yardstick), (untold, yardstick), ()]):
        add_cell(tmp_path, "attack=gmi", f"target={('cnn', 'mlp', 'lenet')[seed]}", accuracy=0.1, more=more)
    groups = groups_of(collect_shards(tmp_path).table)
    assert {one.facts["target"]: one.utility.score.value for one in groups} == {"cnn": 0.6, "mlp": 0.1, "lenet": 0.1}
