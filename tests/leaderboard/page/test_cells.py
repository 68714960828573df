"""A view as a table: order, settings, what is missing and why."""

import pytest

from mibench.leaderboard.page.records import certain, status_of


def table_of(made):
    (table,) = made.tables
    return table


def test_attacks_stand_by_their_undefended_lift_and_defenses_by_their_mean(group, sources):
    table = table_of(
        sources(
            group("gmi", lift=0.4), group("gmi", "bido", lift=0.3), group("gmi", "mid", lift=0.1),
            group("kedmi", lift=0.6), group("kedmi", "bido", lift=0.1), group("kedmi", "mid", lift=0.2),
            group("brepmi", lift=0.9),
        )
    )  # fmt: skip
    assert table.attacks == ["kedmi", "gmi"] and table.alone == ["brepmi"]
    assert table.defenses == ["none", "mid", "bido"]
    assert ("brepmi", "none") not in table.cells


def test_where_one_attack_alone_met_defenses_nothing_is_left_out(group, sources):
    table = table_of(sources(group("gmi"), group("gmi", "bido"), group("kedmi")))
    assert set(table.attacks) == {"gmi", "kedmi"} and not table.alone


def test_a_cell_has_its_settings_from_weak_to_strong(group, sources):
    own = [group("gmi", "mid", {"defense.beta": beta}, lift=lift) for beta, lift in ((0.1, 0.1), (0.003, 0.5))]
    table = table_of(sources(group("gmi"), *own))
    assert [one.level for one in table.cells["gmi", "mid"]] == ["beta 0.003", "beta 0.1"]


def test_settings_whose_numbers_are_identical_stand_once_and_say_so(group, sources):
    own = [
        group("gmi", "mid", {"defense.beta": beta}, lift=lift) for beta, lift in ((0.3, 0.1), (0.1, 0.5), (0.003, 0.5))
    ]
    made = sources(group("gmi"), *own)
    assert [one.level for one in table_of(made).cells["gmi", "mid"]] == ["beta 0.003", "beta 0.3"]
    said = {one.group.group_id: one.level for one in made.records}
    assert said[own[1].group_id] == "beta 0.1 (all numbers as at beta 0.003)"


def test_who_knows_the_defense_counts_where_he_gets_more_and_other_attackers_do_not(group, sources):
    def settings(beta, lift, **knows):
        options = {"defense.beta": beta, **{f"knowledge.{name}": True for name in knows}}
        return group("inverting_gradients", "mid", options, lift=lift)

    plain = group("inverting_gradients", lift=0.9)
    another = [group("inverting_gradients", name, lift=0.8) for name in ("dp_sgd", "bido")]
    weak, strong = settings(0.01, 0.5), settings(0.1, 0.1)
    aware, unlucky = settings(0.1, 0.4, defense_loss=True), settings(0.01, 0.3, defense_loss=True)
    labels = settings(0.1, 0.7, labels=True)
    made = sources(plain, *another, weak, strong, aware, unlucky, labels)
    shown = table_of(made).cells["inverting_gradients", "mid"]
    assert [one.group for one in shown] == [weak, aware]
    assert [one.adaptive for one in shown] == [False, True] and shown[1].attack_level == "defense loss"


def test_why_a_cell_is_empty(group, sources):
    refused = [
        group("gmi", "rounding", status="skipped", reason="Vacuous: it changes nothing.",
              options={"budget.samples": 4}),
        group("kedmi", "top_k", status="skipped", reason="Incompatible: defense 'x' withholds scores, so no."),
        group("gmi", "dp_sgd", status="skipped", reason="Incompatible: defense works on tabular data."),
    ]  # fmt: skip
    others = [group(attack, name) for attack in ("gmi", "kedmi") for name in ("none", "bido")]
    columns = [group("kedmi", "rounding"), group("gmi", "top_k"), group("kedmi", "dp_sgd")]
    table = table_of(sources(*others, *columns, *refused))
    assert table.empty == {
        ("gmi", "rounding"): ("vacuous", "Vacuous: it changes nothing."),
        ("kedmi", "top_k"): ("withheld", "Incompatible: defense 'x' withholds scores, so no."),
    }
    assert [status_of(one)[0] for one in refused] == ["vacuous", "withheld", "skipped"]


def test_a_floor_without_access_stands_in_no_cell(group, sources):
    table = table_of(sources(group("gmi"), group("gmi", "bido"), group("random_prior", access="none")))
    assert table.attacks == ["gmi"]


def test_accuracies_span_all_settings(group, sources):
    own = [group("gmi", "mid", {"defense.beta": beta}, accuracy=right) for beta, right in ((0.1, 0.5), (0.01, 0.8))]
    table = table_of(sources(group("gmi", accuracy=float("nan")), *own))
    assert table.accuracies == {"mid": (0.5, 0.8)}


@pytest.mark.parametrize(("lift", "control", "low", "high"), [(1.0, 0.0, 0.563, 1.0), (0.0, 0.0, -0.309, 0.309)])
def test_ten_targets_that_agree_are_not_certain(group, lift, control, low, high):
    one = certain(group(lift=lift, control=control, half=0.0, n=40))
    assert (one.lift_low, one.lift_high) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))
    assert one.ci_low < one.ci_high


def test_ends_are_those_of_ten_people_and_not_of_forty_pictures(group):
    few = certain(group(lift=1.0, control=0.0, half=0.0, n=40))
    many = certain(group(lift=1.0, control=0.0, half=0.0, n=40, options={"budget.targets": 40}))
    assert many.lift_low > few.lift_low + 0.2


def test_ends_that_say_something_stay_and_decibels_without_width_say_nothing(group):
    assert certain(group(lift=0.5, half=0.1)).lift_low == pytest.approx(0.4)
    nothing = certain(group(lift=0.0, control=12.0, half=0.0, unit="dB", task="instance"))
    assert nothing.lift_low != nothing.lift_low and nothing.lift_high != nothing.lift_high
    new = certain(group(lift=0.5, half=0.0, gains=[0.5] * 6))
    assert new.lift_low == new.lift_high == 0.5, "rows with values by target were given their ends when they were made"
