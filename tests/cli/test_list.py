"""The catalogue on a terminal: a line per component at any width, and all facts where they are asked for."""

import pytest

from mibench.card import AttackCard, DefenseCard
from mibench.cli.list_command import cut, facts_of, two_facts
from mibench.cli.main import main
from mibench.planning.catalogue import AXES, entries, entry


@pytest.mark.parametrize("width", [50, 80, 100, 200])
def test_the_short_list_has_a_line_per_component_and_fits(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    names = [line.split()[0] for line in lines if line.startswith("  ")]
    assert names == [name for axis in AXES for name in ("name", *(one.name for one in entries(axis)))]
    assert [line for line in lines if line and not line.startswith(" ")][:-1] == [f"{axis}s" for axis in AXES]


def test_without_a_terminal_it_has_100_columns_and_cuts_titles_before_facts(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["list", "defenses"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 90 < max(map(len, lines)) <= 100
    (line,) = [line for line in lines if line.startswith("  dp_sgd ")]
    assert line.split() == ["dp_sgd", "DP-SGD", "2016", "architecture,", "training,", "update", "all"]


def test_the_long_list_says_all_that_a_card_says(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list", "attacks", "--long"]) == 0
    said = capsys.readouterr().out
    for one in entries("attack"):
        card = one.card
        assert isinstance(card, AttackCard)
        for word in (one.name, card.title, *card.access, *card.needs, *card.uses, card.family.split()[0], card.code):
            assert word in said
    assert "defenses" not in said and "largest client batch: 1" in said


def test_facts_come_from_the_card():
    facts = facts_of(entry("defense", "rounding").card)
    assert facts["hooks"] == "output" and facts["affects"] == "scores, explanations"
    assert facts["strength"] == "step, from weak to strong 0.001, 0.01, 0.05, 0.2"
    assert "withholds" not in facts and facts_of(entry("attack", "dlg").card)["revision"] == "2"
    assert two_facts(entry("defense", "bido").card) == ("training", "all")
    assert two_facts(entry("defense", "tl_dmi").card) == ("training", "all but gradients")


def test_no_card_field_is_left_out():
    """A fact that a card gains has to be shown too."""
    card = DefenseCard(
        name="n", title="t", modalities=("image",), year=1, bib="b", code="c", fidelity="official", revision=7,
        hooks=("training", "output"), affects=("scores",), withholds=("labels",), strength="s", levels=(0.25,),
        adaptive=("attack=a",), replaces="tree", finished=("output",),
    )  # fmt: skip
    words = ["image", "official", "c", "7", "training, output", "scores", "labels", "s, from weak to strong 0.25"]
    assert set(facts_of(card).values()) == {*words, "attack=a", "tree", "output"}


@pytest.mark.parametrize("words", [["attacks", "defenses"], ["atacks"], ["--lng"], ["--long", "attacks", "metrics"]])
def test_what_it_does_not_know_is_said(words, capsys):
    assert main(["list", *words]) == 2
    assert "--long" in capsys.readouterr().err or words == ["atacks"]


def test_a_cut_text_ends_in_an_ellipsis():
    assert cut("abcdef", 6) == "abcdef" and cut("abcdef", 4) == "abc…" and cut("abc", 0) == "…"
