"""The worst case of a victim, from rows alone."""

import math

import numpy as np
import pytest

from mibench.leaderboard.collect import collect_shards
from mibench.leaderboard.groups import groups_of
from mibench.leaderboard.selection import cross_fitted, strongest, weakest_of_strongest
from mibench.leaderboard.worst import worst_cases

STEADY = (0.4, 0.5, 0.4, 0.5, 0.4, 0.5)


def cases(folder):
    return worst_cases(groups_of(collect_shards(folder).table))


def test_the_attack_is_picked_on_targets_on_which_it_is_not_reported(tmp_path, add_cell):
    add_cell(tmp_path, "attack=gmi", gains=STEADY)
    add_cell(tmp_path, "attack=mi_face", gains=[0.2] * 6)
    add_cell(tmp_path, "attack=kedmi", gains=[0.9, 0.0, 0.0, 0.0, 0.0, 0.0])
    (case,) = cases(tmp_path)
    assert case.attacks == 3 and case.picked[0] == "gmi"
    assert case.lift == pytest.approx(0.45, abs=0.01)  # of kedmi's lucky target no half can boast
    assert case.spread.low < case.lift < case.spread.high and case.spread.n == 6


def test_every_victim_and_access_has_its_own(tmp_path, add_cell):
    for defense, lift in (("none", 0.6), ("bido", 0.2)):
        for attack in ("gmi", "mi_face"):
            add_cell(tmp_path, f"attack={attack}", f"defense={defense}", gains=[lift] * 6)
    add_cell(tmp_path, "attack=random_prior", gains=[0.9] * 6)  # sees nothing of the victim
    add_cell(tmp_path, "attack=inversion_network", gains=[0.9] * 6)  # alone at its access
    assert [(case.facts["defense"], case.attacks) for case in cases(tmp_path)] == [("bido", 2), ("none", 2)]


def test_other_judges_or_another_control_make_another_case(tmp_path, add_cell):
    for words in ([], ["evaluation.count=1"], ["control=none"]):
        for attack in ("gmi", "mi_face"):
            add_cell(tmp_path, f"attack={attack}", *words, gains=STEADY)
    assert len(cases(tmp_path)) == 3


def test_options_of_one_defense_are_different_victims_and_those_of_an_attack_are_not(tmp_path, add_cell):
    for words in (["defense.a1=0.1"], ["defense.a1=0.2"]):
        for attack in ("gmi", "mi_face"):
            add_cell(tmp_path, f"attack={attack}", "defense=bido", *words, gains=STEADY)
    add_cell(tmp_path, "attack=gmi", "attack.iterations=7", "defense=bido", "defense.a1=0.1", gains=[0.8] * 6)
    assert [(len(case.groups), case.attacks) for case in cases(tmp_path)] == [(2, 2), (3, 2)]


def test_rows_without_values_by_target_and_few_targets_are_left_out(tmp_path, add_cell):
    add_cell(tmp_path, "attack=gmi", gains=STEADY)
    add_cell(tmp_path, "attack=mi_face")
    assert not cases(tmp_path)
    add_cell(tmp_path, "attack=kedmi", gains=STEADY[:4])
    assert not cases(tmp_path)


def test_the_worst_case_is_neither_luck_nor_below_the_mean_of_its_candidates():
    """Twelve attacks without any effect, and twelve of unlike effect, on targets that scatter."""
    draw = np.random.default_rng(0)
    lucky, fair, low = [], [], []
    for _ in range(60):
        tables = list(draw.normal(0, 0.3, (12, 1, 10)))
        found = cross_fitted(tables, strongest).spread
        lucky.append(max(one.mean() for one in tables))
        fair.append(found.mean)
        low.append(found.low > 0)
    assert abs(np.mean(fair)) < 0.04 < 0.1 < np.mean(lucky) and np.mean(low) < 0.12
    effects = np.linspace(0, 0.3, 12)
    worst = [
        cross_fitted(list(draw.normal(effects[:, None, None], 0.3, (12, 1, 10))), strongest).spread.mean
        for _ in range(60)
    ]
    assert np.mean(worst) > effects.mean() + 0.02


def test_a_defense_gains_nothing_by_having_many_levels():
    """Six levels of one effect before three attacks: the best one, reported where it was picked, is something else."""
    draw = np.random.default_rng(1)
    levels = [[3 * place, 3 * place + 1, 3 * place + 2] for place in range(6)]
    honest, flattered = [], []
    for _ in range(60):
        tables = list(draw.normal(0.5, 0.3, (18, 1, 10)))
        honest.append(cross_fitted(tables, weakest_of_strongest(levels)).spread.mean)
        flattered.append(min(max(tables[place].mean() for place in own) for own in levels))
    assert np.mean(honest) == pytest.approx(0.5, abs=0.04) and abs(np.mean(flattered) - 0.5) > 0.01


def test_the_level_is_the_one_whose_strongest_attack_is_weakest():
    choose = weakest_of_strongest([[0, 1], [2, 3]])
    assert (choose([0.1, 0.9, 0.3, 0.2]), choose([0.1, 0.2, 0.3, 0.0])) == (2, 1)


def test_fewer_than_five_targets_select_nothing():
    assert math.isnan(cross_fitted([np.ones((1, 4)), np.zeros((1, 4))], strongest).spread.mean)


def test_a_case_says_what_of_defense_and_setting_sets_it_apart(tmp_path, add_cell):
    for attack in ("gmi", "mi_face"):
        add_cell(tmp_path, f"attack={attack}", gains=STEADY)
    groups = groups_of(collect_shards(tmp_path).table)
    words = ["attack.iterations=7", "defense.scale=2", "setting.sends=16"]
    (case,) = worst_cases(groups, {one.group_id: words for one in groups})
    assert case.options == ["defense.scale=2", "setting.sends=16"]
