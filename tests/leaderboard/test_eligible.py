"""Which settings of a defense are compared with others: no baselines, and none that spoils the model."""

import pytest

from mibench.leaderboard.compare import compare
from mibench.leaderboard.described import described
from mibench.leaderboard.eligible import BASELINE, SPOILT, baseline, ineligible, spoilt
from mibench.leaderboard.exports.crosstab import crosstabs
from mibench.leaderboard.exports.marks import notes_of
from mibench.leaderboard.matched import matched
from mibench.leaderboard.page.fronts import front_shares
from mibench.leaderboard.page.rankings import Differences, defense_rankings
from mibench.leaderboard.scoring import Score

GAINS = (0.52, 0.5, 0.48, 0.51, 0.49, 0.5)


def naming_one_class(share):
    return (Score(metric="target_accuracy", variant="chance", value=share),)


def trained_together(accuracy):
    return Score(metric="federated_accuracy", value=accuracy, ci_low=accuracy, ci_high=accuracy)


@pytest.mark.parametrize(("accuracy", "chance", "said"), [(0.89, 0.88, ""), (0.88, 0.88, SPOILT), (0.6, 0.88, SPOILT)])
def test_a_model_that_is_no_better_than_the_most_frequent_class_is_not_compared(group, accuracy, chance, said):
    for defense in ("mid", "none"):
        assert ineligible(group(defense=defense, accuracy=accuracy, more=naming_one_class(chance))) == said


def test_where_accuracy_or_the_most_frequent_class_is_not_known_nothing_is_said(group):
    assert not spoilt(group(defense="bido", accuracy=0.1))
    assert not spoilt(group(defense="bido", accuracy=float("nan"), more=naming_one_class(0.2)))


def test_of_a_model_that_clients_still_train_federated_accuracy_alone_tells(group):
    young = {"task": "instance", "access": "gradients", "accuracy": 0.1}
    assert not spoilt(group(defense="bido", more=naming_one_class(0.2), **young))
    assert spoilt(group(defense="bido", more=(*naming_one_class(0.2), trained_together(0.15)), **young))
    assert not spoilt(group(defense="bido", more=(*naming_one_class(0.2), trained_together(0.8)), **young))


def test_a_baseline_is_what_the_card_names(group):
    clipped = group(defense="dp_sgd", options={"defense.noise_multiplier": 0})
    assert baseline(clipped) == "noise_multiplier=0" and ineligible(clipped) == BASELINE
    assert not ineligible(group(defense="dp_sgd", options={"defense.noise_multiplier": 1.0}))
    assert not ineligible(group(defense="bido")) and not ineligible(group())
    both = group(defense="dp_sgd", options={"defense.noise_multiplier": 0}, accuracy=0.1, more=naming_one_class(0.2))
    assert ineligible(both) == SPOILT


@pytest.fixture
def swept(group):
    """No defense; a level that keeps the model, its baseline, one that spoils it; two defenses more."""

    def at(defense, noise, lift, accuracy):
        options = {"defense.noise_multiplier": noise} if noise is not None else {}
        gains = [lift + one - 0.5 for one in GAINS]
        return group(defense=defense, options=options, lift=lift, gains=gains, accuracy=accuracy,
                     more=naming_one_class(0.88))  # fmt: skip

    return [at("none", None, 0.8, 0.91), at("dp_sgd", 1.0, 0.5, 0.9), at("dp_sgd", 0, 0.1, 0.91),
            at("dp_sgd", 3.0, 0.0, 0.87), at("mid", None, 0.0, 0.88), at("bido", None, 0.6, 0.9)]  # fmt: skip


def test_such_settings_are_neither_matched_nor_ranked_nor_on_the_front(swept, sources):
    found = {one.defense: one for one in matched(swept)}
    assert [one.config["defense"]["noise_multiplier"] for one in found["dp_sgd"].groups] == [1.0]
    assert (found["mid"].levels, found["bido"].levels, found["none"].levels) == (0, 1, 1)
    made = sources(*swept)
    (table,) = made.tables
    ranked, outside = defense_rankings("gmi", table, made.in_view(0), Differences(made.paired(0), "defense"))[5]
    chosen = {one.record.defense: one.record.group for one in ranked}
    assert chosen.keys() == {"dp_sgd", "bido"} and outside == ["mid"]
    assert chosen["dp_sgd"].config["defense"]["noise_multiplier"] == 1.0
    assert front_shares(made.records).keys() == {0, 1, 2, 5}, "a baseline is a point of the plane, a spoilt model none"


def test_every_table_says_why(swept, sources):
    made = sources(*swept)
    said = {(one.defense, one.group.config["defense"].get("noise_multiplier")): one.level for one in made.records}
    assert said["dp_sgd", 3.0].endswith(f"({SPOILT})") and said["mid", None].endswith(f"({SPOILT})")
    assert said["dp_sgd", 0].endswith(f"({BASELINE})") and "(" not in said["dp_sgd", 1.0] + said["bido", None]
    (table,) = crosstabs(swept, "attack", "defense", lambda one: [])
    (note,) = [one for one in notes_of(table) if SPOILT in one]
    assert note.startswith("Not compared") and "dp_sgd (noise_multiplier 3)" in note and "bido" not in note
    column = described(swept)["not_compared"]
    assert [column[one.group_id] for one in swept] == ["", "", BASELINE, SPOILT, SPOILT, ""]


def test_a_paired_comparison_of_a_spoilt_model_decides_nothing(swept):
    bare, level, clipped, strong, *_ = swept
    assert compare(strong, bare, "defense").reason == f"the model is {SPOILT}: dp_sgd"
    assert not compare(level, bare, "defense").reason and not compare(clipped, bare, "defense").reason
    assert not compare(strong, bare, "attack").reason.startswith("the model"), "attacks meet the same victim"
