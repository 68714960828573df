"""What rows and columns of a paper's tables are, from rows alone."""

from dataclasses import replace

import pytest
from exporting import like, nothing, tables

from mibench.errors import UserError
from mibench.leaderboard.compare import groups_in
from mibench.leaderboard.exports.labels import labels
from mibench.leaderboard.exports.writing import markdown, why_parted


def by_name(table):
    return {(row.text, column.text): cell for (row, column), cell in table.cells.items()}


def test_a_table_has_every_group_once_and_the_undefended_column_first(six):
    (table,) = tables(six)
    assert [one.text for one in table.rows] == ["gmi", "mi_face"]
    assert [one.text for one in table.columns] == ["none", "bido", "dp_sgd"]
    cells = by_name(table)
    assert len(cells) == 6 == len({one.group.group_id for one in cells.values()})
    for (attack, defense), cell in cells.items():
        assert (cell.group.facts["attack"], cell.group.facts["defense"]) == (attack, defense)
        assert cell.span == (cell.number.score.lift, cell.number.score.lift_low, cell.number.score.lift_high)
    assert table.metric == "attack_accuracy top1 vote" and table.facts["dataset"] == "digits"
    (turned,) = tables(six, "defense", "attack")
    assert {(column, row) for row, column in by_name(turned)} == set(cells)


def test_the_value_is_shown_where_it_is_asked_for_and_where_there_is_no_control(six):
    (table,) = tables(six, show="value")
    assert all(one.span[0] == one.number.score.value for one in table.measured)
    (utility,) = tables(six, key=("target_accuracy", "victim", ""))
    assert utility.show == "value" and {one.span[0] for one in utility.measured} == {0.9}
    assert "Target_accuracy victim with its 95 % interval" in markdown([utility]).replace("\\_", "_")


@pytest.mark.parametrize(
    ("facts", "config", "differs"),
    [
        ({"target": "mlp"}, {"target": {"name": "mlp"}}, "target"),
        ({"budget": "smoke"}, {"budget": {"name": "smoke"}}, "budget"),
        ({"access": "labels"}, {"attack": {"access": "labels"}}, "access"),
        ({}, {"evaluation": {"models": ["mlp"]}}, "evaluation.models"),
    ],
)
def test_what_cannot_be_compared_is_another_table(six, facts, config, differs):
    other = like(six[0], config, **facts)

    def options(group):
        return ["evaluation.models=[mlp]"] if group is other and not facts else []

    found = tables([*six, other], options=options)
    assert len(found) == 2 and sorted(len(one.cells) for one in found) == [1, 6]
    assert why_parted(found).endswith(f"they differ in {differs}.")
    assert why_parted(found[:1]) == ""


def test_levels_of_a_defense_are_columns_of_their_own_and_never_averaged(six):
    bido = next(one for one in six if (one.facts["attack"], one.facts["defense"]) == ("gmi", "bido"))
    levels = [like(bido, {"defense": {"a1": level}}, lift=lift) for level, lift in ((0.5, 0.11), (10, 0.01), (2, 0.05))]
    (table,) = tables([*six, *levels])
    assert [one.text for one in table.columns] == [
        "none", "bido (a1 0.05)", "bido (a1 0.5)", "bido (a1 2)", "bido (a1 10)", "dp_sgd",
    ]  # fmt: skip
    cells = by_name(table)
    assert len(cells) == 9 and cells["gmi", "bido (a1 2)"].span[0] == pytest.approx(0.05)
    assert ("mi_face", "bido (a1 2)") not in cells


def test_options_that_differ_from_the_defaults_stand_in_the_name_even_of_the_only_level(six):
    (group,) = (one for one in six if (one.facts["attack"], one.facts["defense"]) == ("gmi", "bido"))
    words = ["defense.a1=2", "target.width=8", "dataset.root='/home/me/faces'"]
    (table,) = tables([like(group, {"defense": {"a1": 2}})], options=lambda _: words)
    assert [one.text for one in table.columns] == ["bido (a1 2)"]
    assert list(table.options) == ["target.width=8", "dataset.root=faces"], "nobody learns where folders lie"


def test_a_wrapped_attack_is_told_by_the_name_of_what_it_wraps(tmp_path, add_cell):
    add_cell(tmp_path, "attack=lomma")
    add_cell(tmp_path, "attack=lomma", "attack@attack.base=kedmi")
    names = [one.text for one in tables(groups_in(tmp_path))[0].rows]
    assert [name.startswith("lomma (base ") for name in names] == [True, True] and len(set(names)) == 2
    assert "_target_" not in "".join(names)


def test_groups_that_nothing_tells_apart_bear_their_ids(six):
    (group, *_) = six
    other = replace(group, group_id="0" * 16)
    named = labels([group, other], ("attack", "defense"), nothing)
    assert len({own[0].text for own in named.values()}) == 2 and "group 00000000" in named["0" * 16][0].text


@pytest.mark.parametrize(
    ("words", "said"),
    [(("attack", "attack"), "both 'attack'"), (("colour", "attack"), "no axis of a table 'colour'"),
     (("attack", "seed"), "no axis of a table 'seed'")],
)  # fmt: skip
def test_what_is_no_axis_is_refused(six, words, said):
    with pytest.raises(UserError, match=said):
        tables(six, *words)
    with pytest.raises(UserError, match="show"):
        tables(six, show="median")
    with pytest.raises(UserError, match="has no_such"):
        tables(six, key=("no_such", "", ""))


@pytest.mark.parametrize("axis", ["target", "dataset", "setting", "access", "budget", "precision"])
def test_every_other_fact_can_be_an_axis(six, axis):
    group = six[0]
    config = {axis: "bfloat16"} if axis == "precision" else {} if axis == "access" else {axis: {"name": "other"}}
    if axis == "budget":
        config |= {"attack": {"iterations": 3}}  # lengths follow the budget
    other = like(group, config, **({} if axis == "precision" else {axis: "other"}))
    found = tables([group, other], axis, "attack" if axis == "access" else "defense")
    assert len(found) == 1 and len(found[0].cells) == 2 and len(found[0].rows) == 2
    assert axis not in found[0].facts
