"""The worst case of a victim, from rows alone."""

import numpy as np
import pytest

from mibench.leaderboard.collect import collect_shards
from mibench.leaderboard.groups import groups_of
from mibench.leaderboard.worst import picked, worst_cases


def cases(folder):
    return worst_cases(groups_of(collect_shards(folder).table))


def test_the_attack_is_picked_on_one_half_and_reported_on_the_other(tmp_path, add_cell):
    add_cell(tmp_path, "attack=gmi", lift=0.5, halves=(0.9, 0.1))
    add_cell(tmp_path, "attack=mi_face", lift=0.4, halves=(0.2, 0.6))
    add_cell(tmp_path, "attack=kedmi", lift=0.3, halves=(0.3, 0.3))
    (case,) = cases(tmp_path)
    assert case.picked == ["gmi", "mi_face"] and case.attacks == 3
    assert case.lift == pytest.approx((0.1 + 0.2) / 2)


def test_every_victim_and_access_has_its_own(tmp_path, add_cell):
    for defense, lift in (("none", 0.6), ("bido", 0.2)):
        for attack in ("gmi", "mi_face"):
            add_cell(tmp_path, f"attack={attack}", f"defense={defense}", lift=lift)
    add_cell(tmp_path, "attack=random_prior", lift=0.9)  # sees nothing of the victim
    add_cell(tmp_path, "attack=inversion_network", lift=0.9)  # alone at its access
    assert [(case.facts["defense"], case.attacks) for case in cases(tmp_path)] == [("bido", 2), ("none", 2)]


def test_options_of_one_defense_are_different_victims_and_those_of_an_attack_are_not(tmp_path, add_cell):
    for words in (["defense.a1=0.1"], ["defense.a1=0.2"]):
        for attack in ("gmi", "mi_face"):
            add_cell(tmp_path, f"attack={attack}", "defense=bido", *words)
    add_cell(tmp_path, "attack=gmi", "attack.iterations=7", "defense=bido", "defense.a1=0.1", halves=(0.8, 0.8))
    assert [(len(case.groups), case.attacks) for case in cases(tmp_path)] == [(2, 2), (3, 2)]


def test_rows_without_halves_are_left_out(tmp_path, add_cell):
    add_cell(tmp_path, "attack=gmi")
    add_cell(tmp_path, "attack=mi_face", halves=(float("nan"), float("nan")))
    assert not cases(tmp_path)


def test_picking_and_reporting_on_the_same_targets_would_report_luck():
    """Twelve attacks without any effect, on targets that scatter: the worst case is 0 on average, the best is not."""
    trials = np.random.default_rng(0).normal(0, 0.3, (2000, 12, 2))
    assert abs(np.mean([picked(trial)[2] for trial in trials.tolist()])) < 0.02
    assert trials.mean(2).max(1).mean() > 0.3


def test_a_case_says_what_of_defense_and_setting_sets_it_apart(tmp_path, add_cell):
    for attack in ("gmi", "mi_face"):
        add_cell(tmp_path, f"attack={attack}")
    groups = groups_of(collect_shards(tmp_path).table)
    words = ["attack.iterations=7", "defense.scale=2", "setting.sends=16"]
    (case,) = worst_cases(groups, {one.group_id: words for one in groups})
    assert case.options == ["defense.scale=2", "setting.sends=16"]
