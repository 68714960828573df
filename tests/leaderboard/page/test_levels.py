"""Settings of a defense from weak to strong, and attackers of one name told apart."""

import pytest

from mibench.leaderboard.page.levels import adaptive, attack_levels, attacker, defense_level, strengths, usual


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), ""),
        (("attack.steps=3", "dataset.size=2"), ""),
        (("defense.alpha=0.1", "defense.full=true", "defense.cap=null"), "alpha 0.1, full, no cap"),
        (("defense.options.bido.a1=2",), "bido a1 2"),
    ],
)
def test_a_level_says_what_differs_from_the_defaults(options, said):
    assert defense_level(options) == said


@pytest.mark.parametrize(
    ("defense", "option", "weak_to_strong"),
    [("mid", "beta", [0.001, 0.03, 2.0]), ("gradient_pruning", "keep", [0.5, 0.1, 0.02]), ("top_k", "k", [10, 5, 1])],
)
def test_the_card_says_which_way_is_stronger(group, defense, option, weak_to_strong):
    groups = [group(defense=defense, options={f"defense.{option}": value}) for value in weak_to_strong]
    levels = {one.group_id: f"{option} {one.config['defense'][option]}" for one in groups}
    found = strengths(groups[::-1], levels)
    assert [found[one.group_id] for one in groups] == [0, 1, 2]


def test_equal_settings_are_equally_strong_and_one_without_a_value_is_the_weakest(group):
    twice = [group(defense="mid", options={"defense.beta": 0.1, "attack.iterations": n}) for n in (1, 2)]
    off = group(defense="mid", options={"defense.beta": None})
    found = strengths([*twice, off], {one.group_id: str(one.config["defense"]["beta"]) for one in [*twice, off]})
    assert [found[one.group_id] for one in [*twice, off]] == [1, 1, 0]


@pytest.mark.parametrize(
    ("attack", "defense", "options", "knows"),
    [
        ("inverting_gradients", "mid", {"knowledge.defense_loss": True}, True),
        ("inverting_gradients", "mid", {"knowledge.defense_loss": False}, False),
        ("inverting_gradients", "gradient_pruning", {"attack.mask_sent": True}, True),
        ("inverting_gradients", "gradient_pruning", {}, False),
        ("inverting_gradients", "dp_sgd", {"knowledge.defense_loss": True}, False),
        ("brepmi", "bido", {}, False),
    ],
)
def test_an_attacker_is_adaptive_by_the_options_that_the_defenses_card_names(group, attack, defense, options, knows):
    assert adaptive(group(attack, defense, options)) is knows


def test_the_usual_attacker_met_the_most_defenses_and_others_say_in_what_they_differ(group):
    plain = [group(defense=defense) for defense in ("none", "bido", "mid")]
    longer = group(defense="bido", options={"attack.iterations": 900, "knowledge.labels": True})
    other = group(options={"prior.name": "style_gan", "prior.iterations": 3, "attack.iterations": 300})
    groups = [longer, other, *plain]
    base = usual(groups)
    assert base == attacker(plain[0])
    found = attack_levels(groups, base)
    assert [found[one.group_id] for one in groups] == ["iterations 900, labels", "prior style_gan", "", "", ""]
