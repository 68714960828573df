"""Ranks in bands: who is chosen, who is better, and what is certain."""

import math

import numpy as np
import pytest

from mibench.leaderboard.page.rankings import Differences, attack_ranks, bands, defense_rankings, unpaired


def ranking(made, loss, attack="gmi"):
    (table,) = made.tables
    ranked, outside = defense_rankings(attack, table, made.in_view(0), Differences(made.paired(0), "defense"))[loss]
    return [(one.record.defense, one.best, one.last, one.word) for one in ranked], outside, ranked


def around(lift, noise=0.02, seed=0, n=40):
    return (lift + noise * np.random.default_rng(seed).standard_normal(n)).tolist()


def test_bands_by_hand(group, sources):
    made = sources(
        group(lift=0.8, half=0.1), group("gmi", "bido", lift=0.1, half=0.1), group("gmi", "mid", lift=0.2, half=0.1),
        group("gmi", "dp_sgd", lift=0.6, half=0.1), group("gmi", "top_k", lift=0.72, half=0.1),
    )  # fmt: skip
    found, outside, ranked = ranking(made, 100)
    assert found == [("bido", 1, 2, "less"), ("mid", 1, 2, "less"), ("dp_sgd", 3, 4, "less"),
                     ("top_k", 3, 4, "undecided")]  # fmt: skip
    assert not outside
    half = math.hypot(0.1, 0.1)
    assert ranked[0].difference.mean == pytest.approx(-0.7)
    assert ranked[0].difference.low == pytest.approx(-0.7 - half)
    assert ranked[0].difference.high == pytest.approx(-0.7 + half)


def test_a_setting_is_chosen_by_accuracy_and_direction_and_never_by_its_lift(group, sources):
    levels = [(0.01, 0.88, 0.1), (0.1, 0.86, 0.5), (1.0, 0.84, 0.05), (2.0, 0.5, 0.0)]
    own = [group("gmi", "mid", {"defense.beta": beta}, accuracy=right, lift=lift) for beta, right, lift in levels]
    weak = group("gmi", "dp_sgd", {"defense.noise_multiplier": 1.0}, accuracy=0.7)
    made = sources(group(accuracy=0.9, lift=0.8), *own, weak)
    chosen = {}
    for loss in (2, 5, 10, 100):
        _, outside, ranked = ranking(made, loss)
        chosen[loss] = ([one.record.level for one in ranked if one.record.defense == "mid"], sorted(outside))
    assert chosen[2] == (["beta 0.01"], ["dp_sgd"])
    assert chosen[5] == (["beta 0.1"], ["dp_sgd"]), "0.86 lies within five points; that its lift is larger is no reason"
    assert chosen[10] == (["beta 1.0"], ["dp_sgd"])
    assert chosen[100] == (["beta 2.0"], [])


def test_a_loss_of_exactly_the_points_is_inside(group, sources):
    made = sources(group(accuracy=0.9), group("gmi", "mid", accuracy=0.85), group("gmi", "bido", accuracy=0.8499))
    assert ranking(made, 5)[1] == ["bido"]


def test_without_accuracies_the_strongest_setting_counts(group, sources):
    nan = float("nan")
    own = [
        group("gmi", "mid", {"defense.beta": beta}, accuracy=nan, lift=lift) for beta, lift in ((0.01, 0.5), (2.0, 0.4))
    ]
    made = sources(group(accuracy=nan), *own, group("gmi", "bido", accuracy=nan))
    assert {one.record.level for one in ranking(made, 2)[2]} == {"beta 2.0", ""}


def test_nothing_is_ranked_without_the_undefended_victim_or_with_one_defense(group, sources):
    for own in ([group("gmi", "mid"), group("gmi", "bido")], [group("gmi"), group("gmi", "bido")]):
        made = sources(*own)
        assert defense_rankings("gmi", made.tables[0], made.in_view(0), Differences(False, "defense")) == {}


def test_values_by_target_are_compared_in_pairs(group, sources):
    easy = np.random.default_rng(3).uniform(-0.4, 0.4, 40)  # targets differ far more than defenses do
    base = (0.5 + easy).tolist()
    made = sources(
        group(lift=0.5, half=0.13, gains=base),
        group("gmi", "bido", lift=0.45, half=0.13, gains=(0.45 + easy + np.array(around(0, seed=1))).tolist()),
        group("gmi", "mid", lift=0.5, half=0.13, gains=(0.5 + easy + np.array(around(0, seed=2))).tolist()),
    )
    assert made.paired(0)
    found, _, _ = ranking(made, 100)
    assert found == [("bido", 1, 1, "less"), ("mid", 2, 2, "undecided")]
    unknowing = bands([made.records[1], made.records[2]], Differences(False, "defense"), made.records[0])
    assert {one.word for one in unknowing} == {"undecided"}, "without pairs the same difference could be chance"


def test_p_values_are_those_of_the_whole_table(group, sources):
    def chance(n):
        own = [("bido", 0.0), *((name, 0.0) for name in ("mid", "dp_sgd", "top_k", "rounding"))][:n]
        return [
            group("gmi", name, gains=(np.linspace(-0.1, 0.1, 12) + shift - (0.058 if name == "bido" else 0)
                                      + around(0, 0.09, seed, 12)).tolist())
            for seed, (name, shift) in enumerate(own)
        ]  # fmt: skip

    base = group(gains=np.linspace(-0.1, 0.1, 12).tolist())
    words = {}
    for n in (1, 5):
        made = sources(base, *chance(n))
        differences = Differences(True, "defense")
        pairs = [(one, made.records[0]) for one in made.records[1:]]
        words[n] = differences.words(pairs)[0]
        p = differences.of(made.records[1], made.records[0]).p
    assert 0.01 < p < 0.05 and words == {1: "less", 5: "undecided"}


def test_a_view_of_old_and_new_rows_is_not_paired(group, sources):
    made = sources(group(), group("gmi", "mid", gains=around(0.5)), group("gmi", "bido", gains=around(0.4)))
    assert not made.paired(0)


def test_attacks_rank_from_the_leakiest_and_floors_stand_among_them(group, sources):
    made = sources(
        group("kedmi", lift=0.9, half=0.05), group("gmi", lift=0.5, half=0.05), group("brepmi", lift=0.45, half=0.05),
        group("random_prior", lift=0.4, half=0.3, access="none"), group("gmi", "bido", lift=0.99, half=0.01),
    )  # fmt: skip
    ranks = attack_ranks(made.in_view(0), Differences(False, "attack"))
    assert [(one.record.attack, one.best, one.last) for one in ranks] == [
        ("kedmi", 1, 1), ("gmi", 2, 4), ("brepmi", 2, 4), ("random_prior", 2, 4),
    ]  # fmt: skip


def test_attacks_that_may_not_be_ranked_stand_last_and_say_why(group, sources):
    made = sources(
        group("kedmi", gains=around(0.9)), group("gmi", gains=around(0.5, seed=1)),
        group("brepmi", gains=around(0.95, seed=2), convergence="not converged"),
    )  # fmt: skip
    ranks = attack_ranks(made.in_view(0), Differences(True, "attack"))
    assert [one.record.attack for one in ranks] == ["kedmi", "gmi", "brepmi"]
    assert [bool(one.reason) for one in ranks] == [False, False, True]
    assert "not shown to be converged: brepmi" in ranks[-1].reason


def test_differences_turn_around(group, sources):
    made = sources(group(lift=0.8), group("gmi", "bido", lift=0.3))
    differences = Differences(False, "defense")
    one, other = made.records
    there, back = differences.of(one, other), differences.of(other, one)
    assert (there.mean, there.low, there.high) == (-back.mean, -back.high, -back.low)
    assert unpaired(other, one).mean == pytest.approx(-0.5)
