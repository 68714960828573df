"""The sentence of a group: what it claims and what it leaves open."""

import pytest

from mibench.leaderboard.page.names import as_text, headline_name, listed, title_in
from mibench.leaderboard.page.sentences import claim
from mibench.leaderboard.scoring import Score

FACES = {"dataset.name": "att_faces", "dataset._target_": "mibench.datasets.att_faces.AttFaces"}
LFW = {"dataset.name": "lfw", "dataset._target_": "mibench.datasets.lfw.Lfw"}


def judge(power, low):
    """A face recogniser that accepts so many real pictures, and whose lift begins there."""
    told = {"metric": "verification_rate", "evaluator": "faces"}
    return [
        Score(metric="target_accuracy", variant="evaluator", evaluator="mlp", value=0.95),
        Score(**told, variant="true_accepts", value=power),
        Score(**told, variant="held_out, from 32 px", value=0.1, control=0.1, lift=low + 0.1, lift_low=low,
              lift_high=low + 0.2, higher_is_leakier=True),
    ]  # fmt: skip


def said(sources, one):
    return as_text(claim(sources(one).records[0]))


@pytest.mark.parametrize(
    ("more", "end"),
    [
        (judge(0.9, -0.1), " No independent judge confirms them."),
        (judge(0.2, -0.1), " No independent judge was able to tell."),
        ([], " No independent judge was able to tell."),
    ],
)
def test_what_classifiers_say_is_no_more_than_what_they_say(group, sources, more, end):
    one = group("gmi", lift=0.82, control=0.1, options=FACES, dataset="att_faces", more=more, evidence="unconfirmed")
    assert said(sources, one) == (
        "With no defense, GMI makes pictures that the classifiers name right: attack accuracy is 0.92; on a model that "
        "never saw these people the same attack gets 0.1." + end
    )


def test_a_leak_names_who_confirms_it_and_links_lead_to_the_methods(group, sources):
    one = group("gmi", "mid", {"defense.beta": 0.1}, lift=0.6, gains=[0.5, 0.6, 0.7, 0.6, 0.6, 0.6], control=0.1,
                more=judge(0.9, 0.2))  # fmt: skip
    found = claim(sources(one).records[0])
    assert as_text(found) == (
        "With MID (beta 0.1), GMI gets private data out of this model: attack accuracy is 0.7; on a model that never "
        "saw these classes the same attack gets 0.1. An independent judge confirms it (faces)."
    )
    assert ["GMI", "#/method/attack/gmi"] in found and ["MID", "#/method/defense/mid"] in found


def test_of_inputs_the_control_is_another_client(group, sources):
    told = {"task": "instance", "access": "gradients", "unit": "dB", "control": 10.0, "half": 0.5}
    one = group("inverting_gradients", lift=14.0, gains=[13, 14, 15, 14, 14, 14], **told)
    assert said(sources, one) == (
        "With no defense, Inverting Gradients gets private data out of this model: PSNR is 24 dB; another client's "
        "update gives 10 dB."
    )
    old = group("inverting_gradients", lift=14.0, **told)
    assert "comes closer to private data than its control" in said(sources, old)


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        ("no evidence", "showed no leak: attack accuracy is 0.7; "),
        ("no evidence", "could be chance. Another attack, or more effort, may still succeed."),
        ("weak judge", "less accurate than the victim, which decides nothing"),
        ("too few targets", "reached 0.7 (attack accuracy), on too few targets for a verdict."),
        ("no control", "there is nothing to compare it with"),
    ],
)
def test_other_verdicts_claim_nothing(group, sources, evidence, words):
    text = said(sources, group(lift=0.5, evidence=evidence))
    assert words in text and "gets private data" not in text
    assert not {"safe", "robust", "protected", "significant"} & set(text.lower().replace(".", " ").split())


def test_what_was_not_measured_says_why(group, sources):
    one = group("gmi", "rounding", status="skipped", reason="Vacuous: it changes nothing.")
    assert said(sources, one) == "With Rounding, GMI was not measured: Vacuous: it changes nothing."


def test_people_are_people(group, sources):
    for options in (FACES, LFW):
        one = group(options=options, dataset=options["dataset.name"], evidence="unconfirmed")
        assert "these people" in said(sources, one)


def test_names():
    assert headline_name(("ssim", "window11", "piq")) == "SSIM window11 (piq)"
    assert listed(["a"]) == ["a"] and "".join(listed(["a", "b", "c"])) == "a, b and c"
    coco = {"defense": {"name": "bido_coco", "variant_of": "bido", "_target_": "mibench.defenses.bido.Bido"}}
    assert title_in(coco, "defense", "bido_coco") == "BiDO (bido_coco)"
    assert title_in({}, "defense", "bido+rounding") == "BiDO + Rounding"
    assert title_in({"attack": {"name": "gone", "_target_": "elsewhere.Gone"}}, "attack", "gone") == "gone"
