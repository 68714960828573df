"""Paired comparisons, from rows alone."""

import math

import numpy as np
import pytest

import mibench
from mibench.cli import compare_command
from mibench.errors import UserError
from mibench.leaderboard.collect import collect_shards
from mibench.leaderboard.compare import compared, groups_in, picked, standings
from mibench.leaderboard.groups import groups_of

BASE = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.4])
NOISE = np.array([0.02, -0.01, 0.0, 0.01, -0.02, 0.0])


def gains(shift, noise=0.0):
    """Lifts of targets of very unlike hardness, moved by a little: as intervals they overlap, paired they do not."""
    return (BASE + shift + noise * NOISE).tolist()


@pytest.fixture
def three(tmp_path, add_cell):
    """Three defenses before one attack, two seeds each."""
    for defense, shift in (("none", 0.0), ("bido", -0.05), ("bido_coco", -0.051)):
        for seed in (0, 1):
            own = gains(shift, 1 + seed if defense == "bido" else 0.5)
            add_cell(tmp_path, f"defense={defense}", f"seed={seed}", lift=float(np.mean(own)), gains=own)
    return tmp_path


def groups(folder):
    return groups_of(collect_shards(folder).table)


def test_the_difference_is_taken_target_by_target_and_seed_by_seed(three):
    found = {one.left.facts["defense"]: one for one in compared(groups(three), "defense", base="none")}
    bido = found["bido"]
    assert bido.right.facts["defense"] == "none" and bido.verdict == "less"
    assert bido.spread.mean == pytest.approx(-0.05) and (bido.spread.n, bido.spread.seeds) == (6, 2)
    assert -0.15 < bido.spread.low < -0.05 < bido.spread.high < 0, "unpaired, the interval would be wider than 0.3"
    assert bido.key == ("attack_accuracy", "top1", "vote")


def test_p_values_hold_for_the_whole_table(three):
    alone = [one.spread.p for one in compared(groups(three), "defense", base="none")]
    adjusted = [one.p for one in compared(groups(three), "defense", base="none")]
    assert max(adjusted) >= max(alone) and min(adjusted) == pytest.approx(min(1, 2 * min(alone)))
    every = compared(groups(three), "defense")
    assert len(every) == 3 and every[0].p >= every[0].spread.p


def test_only_what_differs_in_one_axis_alone_is_compared(tmp_path, add_cell):
    add_cell(tmp_path, gains=gains(0))
    add_cell(tmp_path, "defense=bido", "target=mlp", gains=gains(0.3))
    assert not compared(groups(tmp_path), "defense")
    add_cell(tmp_path, "defense=bido", gains=gains(0.3))
    assert len(compared(groups(tmp_path), "defense")) == 1


@pytest.mark.parametrize(
    ("words", "told", "reason"),
    [
        ({"gains": ()}, {}, "no values by target"),
        ({}, {"judged_by": "mlp 0.7"}, "other judges"),
        ({"gains": gains(0.3)[:4]}, {}, "fewer than 5 targets in common"),
        ({"status": "skipped", "reason": "it cannot"}, {}, "the number was not measured in both"),
    ],
)
def test_a_comparison_says_why_it_decides_nothing(tmp_path, add_cell, words, told, reason):
    add_cell(tmp_path, gains=gains(0), judged_by="mlp 0.9")
    add_cell(tmp_path, "defense=bido", **{"gains": gains(0.3), **words, **{"judged_by": "mlp 0.9", **told}})
    (one,) = compared(groups(tmp_path), "defense")
    assert (one.verdict, one.reason) == ("undecided", reason) and math.isnan(one.p)


def test_seeds_or_targets_in_common_are_needed(tmp_path, add_cell):
    add_cell(tmp_path, "seed=0", gains=gains(0))
    add_cell(tmp_path, "defense=bido", "seed=1", gains=gains(0.3))
    (one,) = compared(groups(tmp_path), "defense")
    assert one.reason == "no seed or target in common"


@pytest.mark.parametrize(
    ("convergence", "gradients", "reason"),
    [
        (("converged", "converged"), (96, 96), ""),
        (("converged", "not converged"), (96, 96), "not shown to be converged: mi_face"),
        (("", ""), (96, 96), "not shown to be converged: gmi, mi_face"),
        (("converged", "converged"), (0, 96), ""),
        (("converged", "converged"), (50, 96), "50 and 96 victim gradients (set budget.gradients)"),
    ],
)
def test_attacks_are_ranked_where_they_are_converged_and_equal_in_gradients(
    tmp_path, add_cell, convergence, gradients, reason
):
    for attack, shift, said, count in zip(("gmi", "mi_face"), (0.3, 0.0), convergence, gradients, strict=True):
        add_cell(tmp_path, f"attack={attack}", gains=gains(shift), convergence=said, gradient_evals=count)
    (one,) = compared(groups(tmp_path), "attack")
    assert one.spread.mean == pytest.approx(0.3)
    assert one.reason == reason and one.verdict == ("undecided" if reason else "more")


def test_ranks_that_nothing_tells_apart_are_shared(three, add_cell):
    for seed in (0, 1):
        add_cell(three, "defense=dp_sgd", f"seed={seed}", gains=gains(-0.3, 0.7), lift=0.1)
    (block,) = standings(groups(three), "defense")
    ranks = {one.group.facts["defense"]: (one.best, one.last) for one in block}
    assert ranks == {"none": (1, 1), "bido": (2, 3), "bido_coco": (2, 3), "dp_sgd": (4, 4)}
    assert block[0].group.facts["defense"] == "none"


def test_what_is_not_ranked_says_so(tmp_path, add_cell):
    add_cell(tmp_path, "attack=gmi", gains=gains(0.3))
    add_cell(tmp_path, "attack=mi_face", gains=gains(0))
    (block,) = standings(groups(tmp_path), "attack")
    assert {one.reason for one in block} == {"not shown to be converged: gmi, mi_face"}


def test_the_same_from_python(three):
    frame = mibench.compare("defense", "none", results=three, dataset="digits")
    assert frame["left_defense"].tolist() == ["bido", "bido_coco"] and set(frame["right_defense"]) == {"none"}
    assert frame["verdict"].tolist() == ["less", "less"] and (frame["difference"] < 0).all()
    with pytest.raises(UserError, match="attack, defense, target"):
        mibench.compare("colour", results=three)
    with pytest.raises(UserError, match="picked by"):
        picked(groups_in(three), {"colour": "red"})


def test_groups_are_picked_by_facts_and_by_options(tmp_path, add_cell):
    for a1 in ("0.05", "0.5"):
        add_cell(tmp_path, "defense=bido", f"defense.a1={a1}")
    add_cell(tmp_path, "defense=none")
    found = groups_in(tmp_path)
    assert [one.config["defense"]["a1"] for one in picked(found, {"defense.a1": "5e-1"})] == [0.5]
    assert len(picked(found, {"defense.a1": "0.05,0.5", "dataset": "digits"})) == 2
    assert len(picked(found, {"budget.targets": "5,10"})) == 3 and picked(found, {"budget.targets": "7"}) == []
    with pytest.raises(UserError, match=r"has an option 'defense\.colour'"):
        picked(found, {"defense.colour": "red"})


def test_a_number_that_was_measured_nowhere_is_said_to_be_missing(tmp_path, add_cell, capsys):
    add_cell(tmp_path, gains=gains(0))
    add_cell(tmp_path, "defense=bido", gains=gains(0.3))
    assert compare_command.run(["by=defense", "metric=psnr", f"paths.results={tmp_path}"]) == 0
    assert "the number was not measured in both" in capsys.readouterr().out
