"""Findings are what the rows say, counted again here in another way."""

import pytest

from mibench.leaderboard.page.findings import (
    defenses_that_lower,
    findings,
    leaks_shown,
    named_and_recognised,
    one_update,
)
from mibench.leaderboard.page.names import as_text
from mibench.leaderboard.scoring import Score

FACES = {"dataset.name": "att_faces", "dataset._target_": "mibench.datasets.att_faces.AttFaces"}


def recognised(share, power=0.9):
    told = {"metric": "verification_rate", "evaluator": "faces"}
    return [Score(**told, variant="true_accepts", value=power),
            Score(**told, variant="held_out, from 32 px", value=share, lift=0.0, lift_low=-0.1,
                  higher_is_leakier=True)]  # fmt: skip


def test_the_best_attack_by_classifiers_beside_what_a_recogniser_accepts(group, sources):
    def face(attack, lift, **told):
        return group(attack, lift=lift, control=0.1, options=FACES, dataset="att_faces", **told)

    own = [
        face("gmi", 0.82, more=recognised(0.004)), face("kedmi", 0.5, more=recognised(0.03)),
        face("brepmi", 0.85, more=recognised(0.9, power=0.1)), face("random_prior", 0.89),
        group("gmi", "bido", lift=0.88, control=0.1, options=FACES, dataset="att_faces", more=recognised(0.5)),
    ]  # fmt: skip
    found = named_and_recognised(sources(*own))
    assert (found["number"], found["unit"]) == ("92", "%")
    text = as_text(found["text"])
    assert text.startswith("of GMI's pictures of AT&T faces are named right by the evaluation models.")
    assert text.endswith("accepts 0.4 % of them; of 2 attacks on this model none passes 3 %.")
    assert named_and_recognised(sources(own[2], own[3], own[4])) is None, "a judge without power tells nothing"


def test_defenses_that_clearly_lower_within_five_points(group, sources):
    own = [group(lift=0.8, half=0.05, accuracy=0.9)]
    for name, lift, right in (("bido", 0.3, 0.88), ("mid", 0.79, 0.87), ("dp_sgd", 0.1, 0.6), ("top_k", 0.4, 0.86)):
        own.append(group("gmi", name, lift=lift, half=0.05, accuracy=right))
    own += [group("kedmi", lift=0.8), group("kedmi", "bido", lift=0.1)]
    found = defenses_that_lower(sources(*own))
    assert (found["number"], found["unit"]) == ("2", "of 4")
    text = as_text(found["text"])
    assert "defenses clearly lower the lift of GMI on Digits at a cost of at most five points of accuracy" in text
    assert "(BiDO and Top-k truncation); 3 have a setting that stays within it." in text
    assert defenses_that_lower(sources(*own[:3])) is None, "two defenses are too few to be counted"


def test_one_update_of_two_networks(group, sources):
    def update(attack, target, lift, batch=1):
        options = {"target.name": target, "setting": {"name": "federated", "batch_size": batch}}
        return group(attack, options=options, lift=lift, control=12.0, half=0.5, unit="dB", task="instance",
                     access="gradients", setting="federated", target=target)  # fmt: skip

    own = [update("gmi", "mlp", 88.0), update("kedmi", "cnn", 9.0), update("gmi", "cnn", 12.0),
           update("gmi", "lenet", 99.0, batch=4)]  # fmt: skip
    found = one_update(sources(*own))
    assert (found["number"], found["unit"]) == ("100", "dB")
    assert as_text(found["text"]) == (
        "PSNR of what GMI gets back from one update of an undefended mlp on Digits (control 12 dB). From a cnn's "
        "update the best attack, GMI, gets 24 dB (control 12 dB)."
    )
    assert one_update(sources(group())) is None


def test_leaks_are_counted_among_groups_with_values_by_target(group, sources):
    gains = [0.5, 0.6, 0.7, 0.6, 0.6, 0.6]
    own = [group(gains=gains, evidence="leak"), group("kedmi", gains=gains, evidence="no evidence"),
           group("brepmi", evidence="undecided"), group("gmi", "bido", gains=gains, evidence="leak")]  # fmt: skip
    found = leaks_shown(sources(*own))
    assert (found["number"], found["unit"]) == ("1", "of 2")


@pytest.mark.parametrize("many", [0, 1])
def test_there_are_as_many_as_the_rows_allow(group, sources, many):
    found = findings(sources(*[group()] * many))
    assert len(found) == many and all(set(one) == {"number", "unit", "text"} for one in found)
