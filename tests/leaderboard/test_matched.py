"""Defenses at matched utility, from rows alone."""

import pytest

from mibench.cli.main import main
from mibench.leaderboard.collect import collect_shards
from mibench.leaderboard.groups import groups_of
from mibench.leaderboard.matched import matched

STEADY = (0.02, 0.0, -0.02, 0.01, -0.01, 0.0)


@pytest.fixture
def swept(tmp_path, add_cell):
    """Two attacks before no defense, three levels of one of which the strongest costs the model, and a useless one."""
    cells = [("none", (), 0.8, 0.9)]
    cells += [
        ("bido", (f"defense.a1={a1}",), lift, right) for a1, lift, right in ((1, 0.6, 0.9), (2, 0.4, 0.86), (3, 0, 0.5))
    ]
    cells += [("dp_sgd", (), 0.0, 0.2)]
    for defense, words, lift, right in cells:
        for attack, better in (("gmi", 0.0), ("mi_face", -0.1)):
            gains = [lift + better + step for step in STEADY]
            add_cell(tmp_path, f"attack={attack}", f"defense={defense}", *words, gains=gains, accuracy=right)
    return tmp_path


def test_the_best_level_that_keeps_the_accuracy_before_the_strongest_attack(swept):
    found = {one.defense: one for one in matched(groups_of(collect_shards(swept).table))}
    assert list(found) == ["bido", "none", "dp_sgd"], "the least leaky first, those that keep no accuracy last"
    bido = found["bido"]
    assert bido.levels == 2 and len(bido.groups) == 4
    assert bido.chosen[0].config["defense"]["a1"] == 2 and bido.chosen[0].facts["attack"] == "gmi"
    assert bido.spread.mean == pytest.approx(0.4, abs=0.01) and bido.spread.low > 0.3
    assert found["none"].spread.mean == pytest.approx(0.8, abs=0.01)
    assert (found["dp_sgd"].levels, found["dp_sgd"].chosen) == (0, [])


def test_how_much_accuracy_it_may_cost_is_asked(swept):
    groups = groups_of(collect_shards(swept).table)
    assert {one.defense: one.levels for one in matched(groups, 0.5)}["bido"] == 3
    assert {one.defense: one.levels for one in matched(groups, 0.01)}["bido"] == 1


def test_without_an_undefended_victim_or_values_by_target_nothing_is_matched(tmp_path, add_cell):
    add_cell(tmp_path, "defense=bido", gains=STEADY)
    add_cell(tmp_path, "attack=mi_face")
    assert not matched(groups_of(collect_shards(tmp_path).table))


def test_the_table_on_the_command_line(swept, capsys):
    assert main(["compare", "matched=0.05", f"paths.results={swept}", "dataset=digits"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (bido,) = [line for line in lines if line.startswith("bido")]
    assert "bido defense.a1=2" in bido and bido.rstrip().endswith("2")
    assert any(line.startswith("dp_sgd") and "none" in line for line in lines)
    assert main(["compare", "matched=much", f"paths.results={swept}"]) == 2
    assert "from 0 to 1" in capsys.readouterr().err


def test_the_table_of_comparisons_on_the_command_line(swept, capsys):
    assert main(["compare", "by=defense", "base=none", f"paths.results={swept}", "attack=gmi"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("bido", "dp_sgd"))]
    assert len(lines) == 4 and all(line.endswith("less") for line in lines)
    assert main(["compare", "by=defense", f"paths.results={swept}", "attack=gmi"]) == 0
    assert "rank" in capsys.readouterr().out
    mistakes = {
        "by=colour": "compare needs by=AXIS",
        "by=defense colour=red": "picked by",
        "by=defense dataset=lfw": "nothing can be compared",
        "defense": "words like",
    }
    for words, said in mistakes.items():
        assert main(["compare", *words.split(), f"paths.results={swept}"]) == 2
        assert said in capsys.readouterr().err
