"""One line of a table: its columns, its order, its numbers."""

import dataclasses
import math
import random

import pyarrow as pa
import pytest

from mibench.leaderboard.language import WORDS
from mibench.leaderboard.lines import COLUMNS, Line, headline, lines_of, number, sections, strength, told
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.shards import schema

SCORE = Score(metric="psnr", value=21.456, ci_low=20.0, ci_high=23.0, control=8.0, lift=13.456, lift_low=12.0,
              lift_high=14.0, unit="dB", null=9.0, null_name="public_mean")  # fmt: skip


def line(word="leak", lift_low=0.1, attack="a", group="g", metric="psnr", dataset="d"):
    facts = {"attack": attack, "access": "gradients", "defense": "none", "target": "cnn", "dataset": dataset}
    score = dataclasses.replace(SCORE, evidence=word, lift_low=lift_low, metric=metric)
    return Line(facts=facts, score=score, accuracy=0.91239, seeds="2 of 3", cells=["c"], group_id=group)


def test_a_line_has_the_columns_in_their_order():
    written = line().written(options={"defense": "a1=2"})
    assert tuple(written) == COLUMNS
    assert list(written.values()) == [
        "a", "gradients", "none (a1=2)", "cnn", "21.46 dB [20, 23]", "8", "+13.46 [0.1, 14]", "● leak", "0.9124",
        "2 of 3",
    ]  # fmt: skip


def test_the_strongest_evidence_stands_first_whatever_the_order_of_the_files():
    lines = [line(word) for word in WORDS]
    lines[1:1] = [line("leak", 0.05), line("leak", 0.05, "b"), line("leak", 0.05, "b", "h"), line("leak", math.nan)]
    for seed in range(5):
        mixed = random.Random(seed).sample(lines, len(lines))
        assert sorted(mixed, key=strength) == lines


def test_numbers_of_two_kinds_share_no_table():
    found = sections([line("no evidence"), line("leak", metric="ssim"), line("below null"), line("leak", dataset="e")])
    assert list(found) == ["d, ssim", "e, psnr", "d, psnr"]
    assert [one.verdict for one in found["d, psnr"]] == ["below null", "no evidence"]


def test_a_headline_that_could_not_be_measured_is_taken_from_another_judge():
    scores = [Score(metric="attack_accuracy", variant="top1", evaluator=name, status=status) for name, status in
              (("vote", "skipped"), ("mlp", "ok"))]  # fmt: skip
    assert headline(scores, "class", "image") is scores[1]
    assert headline(scores[:1], "class", "image") is None


def test_a_number_is_told_with_all_that_it_is_compared_with():
    assert told(SCORE) == "psnr 21.46 dB [20, 23], control 8, lift +13.46 [12, 14], null 9 (public_mean)"
    alone = dataclasses.replace(SCORE, control=math.nan, lift=math.nan, null_name="", ci_low=math.nan)
    assert told(alone) == "psnr 21.46 dB"


@pytest.mark.parametrize(
    ("value", "three", "four"),
    [(0.97512, "0.975", "0.9751"), (12345.6, "12346", "12346"), (0.0, "0", "0"), (-0.00001234, "-1.2e-05", "-1.23e-05"),
     (math.inf, "inf", "inf"), (math.nan, "", ""), (0.99999, "1", "1")],
)  # fmt: skip
def test_numbers_have_so_many_digits(value, three, four):
    assert (number(value), number(value, digits=4)) == (three, four)


def test_lines_of_rows_are_those_whose_headline_was_measured(tmp_path, add_cell):
    from mibench.leaderboard.collect import readable

    add_cell(tmp_path, "seed=0")
    add_cell(tmp_path, "seed=1", status="failed", reason="x")
    add_cell(tmp_path, "defense=bido", lift=0.0)
    add_cell(tmp_path, "defense=dp_sgd", status="skipped", reason="y")
    table = pa.concat_tables([readable(path) for path in sorted((tmp_path / "shards").glob("*.parquet"))])
    assert table.schema.names == schema().names
    found = lines_of(table)
    assert [(one.facts["defense"], one.seeds) for one in found] == [("none", "1 of 2"), ("bido", "1")]
    assert found[0].accuracy == 0.9 and found[1].verdict == "no evidence"
