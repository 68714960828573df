"""The closing table of a sweep and the table of a cell, as a terminal shows them."""

import dataclasses
import re

import pytest

from mibench.cli.closing import differing, print_closing
from mibench.cli.table import HEAD, concluded, in_order, print_scores
from mibench.leaderboard.language import WORDS
from mibench.leaderboard.lines import COLUMNS
from mibench.leaderboard.rows import CellFacts, make_row, plan_facts
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.shards import write_shard
from mibench.planning.composition import compose
from mibench.planning.grid import PlannedCell
from mibench.planning.plan import plan_cell

LEAK = Score(
    metric="attack_accuracy", variant="top1", evaluator="vote", value=0.61239, ci_low=0.5, ci_high=0.7, control=0.1,
    lift=0.51239, lift_low=0.4, lift_high=0.6, higher_is_leakier=True, null=0.2,
    null_name="nearest_public", null_lift_low=0.1,
)  # fmt: skip

#: A number of every verdict that rows alone can say; the judges of a cell decide the others.
KINDS = {
    "leak": LEAK,
    "below null": dataclasses.replace(LEAK, null_lift_low=-0.1),
    "no evidence": dataclasses.replace(LEAK, lift_low=-0.1),
    "too few targets": dataclasses.replace(LEAK, lift_low=float("nan")),
    "no control": dataclasses.replace(LEAK, control=float("nan"), lift=float("nan")),
}


@pytest.fixture
def cell(tmp_path):
    def add(*words, score=LEAK, status="ok", reason=""):
        plan = plan_cell(compose([*words, f"paths.results={tmp_path}"]))
        facts = CellFacts(
            cell_id=plan.cell_id, group_id=plan.group_id, knowledge="", modality="image", **plan_facts(plan)
        )
        accuracy = Score(metric="target_accuracy", variant="victim", value=0.91239)
        scores = [score, accuracy] if status == "ok" else [Score(metric="", status=status, reason=reason)]
        write_shard(tmp_path, plan.cell_id, [make_row(facts, one) for one in scores])
        return words, plan, status, reason

    return add


def test_the_closing_table_has_the_columns_the_words_and_the_order_of_every_table(cell, capsys):
    defenses = ("bido", "dp_sgd", "mid", "tl_dmi", "none")
    left = [cell(f"defense={name}", score=one) for name, one in zip(defenses, reversed(KINDS.values()), strict=True)]
    print_closing(left, [])
    heading, head, *lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert heading == "digits, attack_accuracy top1 vote"
    assert tuple(head.split()) == (*COLUMNS, "cell")
    said = [re.search(rf"({'|'.join(re.escape(one.shown) for one in WORDS.values())})  ", line)[1] for line in lines]
    assert said == [WORDS[word].shown for word in WORDS if word in KINDS]
    assert "0.6124 [0.5, 0.7]" in lines[0] and "0.9124" in lines[0] and left[-1][1].cell_id in lines[0]
    ends = {re.search(r"\[0\.5, 0\.7\]", line).end() for line in lines}
    assert len(ends) == 1, "numbers end at the same place"


def test_cells_that_were_not_measured_are_grouped_by_their_reason(cell, capsys):
    failed = [
        cell("defense=bido", f"seed={seed}", status="failed", reason=f"Out of memory (log: /x/{seed})")
        for seed in range(7)
    ]
    odd = cell("defense=mid", status="failed", reason="NaN")
    vacuous = PlannedCell(("attack=random_prior", "defense=bido"), {}, "Vacuous: it cannot.")
    print_closing([odd, *failed, cell()], [vacuous])
    out = capsys.readouterr().out
    assert (
        out.index("● leak")
        < out.index("8 failed")
        < out.index("Out of memory")
        < out.index("NaN")
        < out.index("1 skipped")
    )
    assert out.count("Out of memory") == 1 and "and 2 more" in out
    assert out.index("1 skipped") < out.index("  Vacuous: it cannot.\n    attack=random_prior defense=bido")


def test_options_that_cells_differ_in_stand_beside_what_they_belong_to(cell, capsys):
    assert differing([("attack=gmi", "seed=0"), ("attack=dlg", "seed=1")]) == [{}, {}]
    print_closing([cell("defense=bido", f"defense.a1={level}") for level in (0.1, 0.2)], [])
    out = capsys.readouterr().out
    assert "bido (a1=0.1)" in out and "bido (a1=0.2)" in out


def test_a_sweep_without_a_number_prints_no_table(cell, capsys):
    print_closing([cell(status="skipped", reason="why")], [])
    assert capsys.readouterr().out.split("\n")[0] == "1 skipped"


def judged(word):
    return dataclasses.replace(KINDS.get(word, LEAK), evidence=word)


@pytest.mark.parametrize("word", WORDS)
def test_a_cell_ends_with_its_verdict_in_one_sentence(word):
    first, second = concluded([judged(word)], "class", "image")
    assert first == f"verdict   {WORDS[word].shown}: {WORDS[word].meaning}"
    assert "attack_accuracy top1 vote 0.6124 [0.5, 0.7]" in second and "null 0.2 (nearest_public)" in second


def test_a_cell_says_where_other_numbers_say_more_and_where_its_headline_is_missing():
    other = dataclasses.replace(judged("leak"), metric="knn_distance", variant="", evaluator="mlp")
    assert (
        "Another number says more, up to ● leak: knn_distance mlp."
        in concluded([judged("below null"), other], "class", "image")[2]
    )
    assert "this cell has no attack_accuracy top1 vote" in concluded([other], "class", "image")[0]


def test_the_numbers_of_a_cell_stand_in_columns_the_strongest_first(capsys):
    plan = plan_cell(compose([]))
    victim = Score(metric="target_accuracy", variant="victim", value=1.0)
    leak = dataclasses.replace(judged("leak"), metric="a", variant="", value=10.5, unit="dB", confirmed_by="pixels")
    scores = [victim, judged("below null"), leak]
    assert in_order(scores) == scores[::-1]
    print_scores(scores, plan, ["A note."])
    _, title, _, head, *lines = capsys.readouterr().out.splitlines()
    assert plan.cell_id in title and re.split(r"  +", head) == [name for name in HEAD if name] and "A note." in lines
    assert (
        lines[0].startswith("a vote")
        and lines[0].endswith("nearest_public  ● leak (pixels)")
        and " 10.5  dB " in lines[0]
    )
    assert lines[1].endswith("○ below null") and lines[2].split() == ["target_accuracy", "victim", "1"]
    places = [re.search(r" 10\.5 | 0\.6124 | 1$", line).end() for line in lines[:2]]
    assert places[0] == places[1], "numbers end at the same place"
    assert lines[-3].startswith("verdict   ○ below null: ")
