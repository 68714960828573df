import dataclasses
import math

import pytest

from mibench.leaderboard.scoring import Score
from mibench.leaderboard.verdicts import judged, verdict

GOOD = Score(
    metric="attack_accuracy", variant="top1", evaluator="vote", value=0.9, control=0.2, lift=0.7, lift_low=0.5,
    lift_high=0.8, null=0.3, null_name="nearest_public", null_lift=0.6, null_lift_low=0.4, higher_is_leakier=True,
)  # fmt: skip


def cell(victim=0.9, vote=0.95, judge_low=0.2, power=0.8, **changes):
    """The scores of a cell: victim, two evaluation models, their vote, an independent judge, and the number."""
    models = {"mlp": 0.85, "residual": 0.95, "vote": vote}
    return [
        Score(metric="target_accuracy", variant="victim", value=victim),
        *(Score(metric="target_accuracy", variant="evaluator", evaluator=k, value=v) for k, v in models.items()),
        dataclasses.replace(GOOD, metric="agreed_accuracy", variant="judge", evaluator="pixels", lift_low=judge_low),
        Score(metric="agreed_accuracy", variant="judge_true_accepts", value=power),
        dataclasses.replace(GOOD, **changes),
    ]


def said(**changes):
    found = judged(cell(**changes))[-1]
    return found.evidence, found.confirmed_by


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "leak"),
        ({"control": math.nan, "lift": math.nan}, "no control"),
        ({"lift_low": math.nan}, "too few targets"),
        ({"vote": 0.89}, "weak judge"),
        ({"evaluator": "mlp"}, "weak judge"),
        ({"evaluator": "residual"}, "leak"),
        ({"lift_low": 0.0}, "no evidence"),
        ({"lift": -0.2, "lift_low": -0.3}, "no evidence"),
        ({"null_lift_low": 0.0}, "below null"),
        ({"null_lift_low": math.nan}, "below null"),
        ({"null_lift_low": -0.2, "null_name": ""}, "leak"),
        ({"judge_low": 0.0}, "unconfirmed"),
        ({"power": 0.49}, "unconfirmed"),
        ({"higher_is_leakier": None}, ""),
        ({"status": "skipped"}, ""),
        ({"lift": math.nan}, ""),
    ],
)
def test_a_leak_is_above_control_and_null_under_a_judge_that_can_tell_and_is_confirmed(changes, word):
    assert said(**changes) == (word, "pixels" if word == "leak" else "")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"lift_low": math.nan, "vote": 0.5}, "too few targets"),
        ({"vote": 0.5, "lift_low": -0.1}, "weak judge"),
        ({"lift_low": -0.1, "null_lift_low": -0.2}, "no evidence"),
        ({"null_lift_low": -0.2, "judge_low": -0.1}, "below null"),
    ],
)
def test_of_several_objections_the_first_is_said(changes, word):
    assert said(**changes)[0] == word


def test_a_number_that_no_evaluation_model_gives_needs_no_confirmation():
    decibels = dataclasses.replace(GOOD, metric="psnr", variant="", evaluator="")
    assert judged([decibels])[0].evidence == "leak"
    assert verdict(decibels, weak=False, witnesses=None) == ("leak", "")


def test_an_embedding_of_faces_confirms_as_well_whatever_its_variant():
    scores = cell(judge_low=-0.1)
    rate = dataclasses.replace(GOOD, metric="verification_rate", variant="held_out, from 32 px", evaluator="net:1")
    power = Score(metric="verification_rate", variant="true_accepts", evaluator="net:1", value=0.94)
    assert judged([*scores[:-1], rate, power, scores[-1]])[-1].confirmed_by == "net:1"
    weak = dataclasses.replace(power, value=0.2)
    assert judged([*scores[:-1], rate, weak, scores[-1]])[-1].evidence == "unconfirmed"


def test_rows_of_the_first_schema_decide_no_leak():
    assert judged(cell(), old=True)[-1].evidence == "undecided"
    assert judged(cell(null_lift_low=-0.2), old=True)[-1].evidence == "undecided"
    assert judged(cell(lift_low=-0.2), old=True)[-1].evidence == "no evidence"
