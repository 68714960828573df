"""Verdicts of claims from rows alone."""

import json
from dataclasses import replace

import pytest

from mibench.errors import UserError
from mibench.leaderboard.claims import Claim, claims_in, effect, judge, read_claim
from mibench.leaderboard.collect import collect_shards
from mibench.leaderboard.groups import groups_of
from mibench.leaderboard.revisions import measured_with
from mibench.leaderboard.scoring import Score
from mibench.planning.identity import REVISED

DIGITS = {"dataset": "digits", "attack": "gmi"}
MI_FACE = {"attack": "mi_face", "budget": "standard", "defense": "none"}


def spread(mean, width=0.02, targets=12):
    return [mean + width * (-1) ** place for place in range(targets)]


def judges(accuracy=0.95, pixels=0.5):
    """Two evaluation models, and an independent judge of pixels with power whose lift is ``pixels``."""
    lift = {"control": 0.0, "value": pixels, "lift": pixels, "lift_low": pixels - 0.1, "lift_high": pixels + 0.1}
    return [
        Score(metric="target_accuracy", variant="evaluator", evaluator="mlp", value=accuracy, n=100),
        Score(metric="agreed_accuracy", variant="judge_true_accepts", value=0.9, n=28),
        Score(metric="agreed_accuracy", variant="judge", evaluator="pixels", n=12, higher_is_leakier=True, **lift),
    ]


def decibels(variant="", null=None):
    """Three decibels above the control, and perhaps half a one above what is answered without the model."""
    lift = {"value": 13.0, "control": 10.0, "lift": 3.0, "lift_low": 2.5, "lift_high": 4.0, "n": 12, "unit": "dB"}
    floor = {} if null is None else {"null_name": "mean", "null_lift": null, "null_lift_low": null - 0.2}
    return Score(metric="psnr", variant=variant, higher_is_leakier=True, **lift, **floor)


@pytest.fixture(scope="module")
def rows(tmp_path_factory, add_cell):
    """Three victims before GMI, three seeds each, and cells that allow no verdict."""
    folder = tmp_path_factory.mktemp("claims")
    for defense, gains in (("none", spread(0.6)), ("bido", spread(0.3)), ("sca", spread(0.01, width=0.6))):
        for seed in (0, 1, 2):
            add_cell(folder, "attack=gmi", f"defense={defense}", f"seed={seed}", gains=gains, more=judges())
    add_cell(folder, "attack=gmi", "defense=precode", gains=spread(0.3), more=judges())
    add_cell(folder, "attack=gmi", "defense=mid", gains=spread(0.3, targets=6), more=judges())
    add_cell(folder, "attack=gmi", "defense=dp_sgd", schema_version=1)
    add_cell(
        folder, "attack=kedmi", gains=spread(0.5), more=[*judges(pixels=0.0), decibels(), decibels("hole", null=0.5)]
    )
    add_cell(folder, "attack=mi_face", gains=spread(0.5), more=judges(accuracy=0.5))
    add_cell(folder, "attack=mi_face", "budget=smoke", gains=spread(0.1))
    add_cell(folder, "attack=vmi", status="skipped", reason="no")
    return groups_of(collect_shards(folder).table)


def said(rows, kind, left, right=None, **more):
    told = {"by": "defense", "left": DIGITS | left, "right": right and DIGITS | right} | more
    return judge(Claim(id="made_up", statement="Somebody says so.", kind=kind, **told), rows)


def of(defense):
    return {"defense": defense}


@pytest.mark.parametrize(
    ("kind", "left", "right", "margin", "verdict"),
    [
        ("difference", "none", "bido", 0.0, "holds"),
        ("difference", "none", "bido", 0.25, "holds"),
        ("difference", "none", "bido", 0.35, "does not hold"),
        ("difference", "bido", "none", 0.0, "does not hold"),
        ("difference", "none", "sca", 0.6, "undecided"),
        ("equivalent", "none", "bido", 0.35, "holds"),
        ("equivalent", "bido", "none", 0.35, "holds"),
        ("equivalent", "none", "bido", 0.05, "does not hold"),
        ("equivalent", "bido", "none", 0.05, "does not hold"),
        ("equivalent", "none", "sca", 0.6, "undecided"),
        ("leak", "none", None, 0.0, "holds"),
        ("leak", "none", None, 0.7, "does not hold"),
        ("leak", "sca", None, 0.0, "undecided"),
        ("no leak", "bido", None, 0.35, "holds"),
        ("no leak", "none", None, 0.1, "does not hold"),
        ("no leak", "sca", None, 0.1, "undecided"),
        ("above", "none", None, 0.7, "holds"),
        ("above", "none", None, 0.9, "does not hold"),
        ("below", "none", None, 0.9, "holds"),
        ("below", "none", None, 0.7, "does not hold"),
        ("below", "none", None, 0.8, "undecided"),
    ],
)
def test_the_whole_interval_decides(rows, kind, left, right, margin, verdict):
    found = said(rows, kind, of(left), right and of(right), margin=margin)
    assert found.verdict == verdict
    assert found.reason == ("the interval holds the margin" if verdict == "undecided" else "")
    assert found.low <= found.effect <= found.high and (found.n, found.seeds) == (12, 3)


def test_effects_are_paired_differences_lifts_and_values(rows):
    assert said(rows, "difference", of("none"), of("bido")).effect == pytest.approx(0.3)
    assert said(rows, "leak", of("bido")).effect == pytest.approx(0.3)
    assert said(rows, "above", of("bido")).effect == pytest.approx(0.5)
    assert effect(said(rows, "leak", of("bido"))).startswith("+0.3 [0.2")
    assert effect(said(rows, "above", of("bido"))).startswith("0.5 [0.")


@pytest.mark.parametrize(
    ("kind", "variant", "verdict", "interval"),
    [
        ("leak", "", "holds", (3.0, 2.5, 4.0)),
        ("no leak", "", "does not hold", (3.0, 2.5, 4.0)),
        ("leak", "hole", "does not hold", (0.5, 0.3, 0.7)),
        ("no leak", "hole", "holds", (0.5, 0.3, 0.7)),
    ],
)
def test_a_leak_passes_the_null_too(rows, kind, variant, verdict, interval):
    more = {"number": ["psnr", variant], "margin": 1.0, "least": {"seeds": 1}}
    found = said(rows, kind, {"attack": "kedmi"}, **more)
    assert (found.verdict, found.unit) == (verdict, "dB")
    assert (found.effect, found.low, found.high) == pytest.approx(interval)


def test_options_are_named_by_their_dotted_key_and_what_a_group_does_not_have_is_null(rows):
    def tested(**options):
        return (
            said(rows, "leak", {key.replace("__", "."): value for key, value in options.items()}).verdict
            != "not tested"
        )

    assert tested(defense="bido", defense__measure="hsic", budget="standard")
    assert not tested(defense="bido", defense__measure="coco")
    assert tested(defense="none", defense__measure=None) and not tested(defense="bido", defense__measure=None)


def test_rows_of_the_first_schema_do_not_count_targets(rows):
    assert [said(rows, kind, of("dp_sgd")).n for kind in ("leak", "above")] == [0, 0]


@pytest.mark.parametrize(
    ("kind", "left", "right", "more", "reason"),
    [
        ("difference", of("none"), of("precode"), {}, "1 of 3 seeds"),
        ("leak", of("precode"), None, {}, "1 of 3 seeds"),
        ("difference", of("none"), of("mid"), {}, "6 of 10 targets"),
        ("difference", of("none"), of("mid"), {"least": {"targets": 20}}, "6 of 20 targets"),
        ("difference", of("none"), of("mid"), {"least": {"targets": 5}}, "1 of 3 seeds"),
        ("difference", of("none"), of("dp_sgd"), {}, "no values by target"),
        ("leak", of("dp_sgd"), None, {}, "no values by target"),
        ("above", of("dp_sgd"), None, {}, "no values by target"),
        ("leak", {"attack": "kedmi"}, None, {}, "unconfirmed"),
        ("no leak", {"attack": "kedmi"}, None, {}, "1 of 3 seeds"),
        ("leak", MI_FACE, None, {}, "weak judge"),
        ("no leak", MI_FACE, None, {}, "weak judge"),
        ("difference", of("none"), of("bido"), {"by": "attack"}, "they differ in defense too"),
        ("difference", of("none"), of("bido"), {"by": "setting"}, "they differ in defense too"),
        ("difference", of("none"), MI_FACE, {}, "they differ in attack, prior too"),
        ("difference", of("none"), MI_FACE, {"by": "attack"}, "not shown to be converged: gmi, mi_face"),
    ],
)  # fmt: skip
def test_what_rows_do_not_allow_is_undecided_and_says_why(rows, kind, left, right, more, reason):
    found = said(rows, kind, left, right, **more)
    assert found.verdict == "undecided" and found.reason.startswith(reason)


def test_no_rows_and_no_number_are_not_tested(rows):
    skipped = said(rows, "leak", {"attack": "vmi"})
    absent = said(rows, "difference", of("none"), of("class_dp"))
    assert {(one.verdict, one.reason) for one in (skipped, absent)} == {("not tested", "no rows")}
    for kind, left, right in (
        ("leak", of("none"), None),
        ("difference", of("none"), of("bido")),
        ("difference", {"attack": "kedmi"}, of("none")),
        ("difference", of("none"), {"attack": "kedmi"}),
    ):
        found = said(rows, kind, left, right, number=["psnr"], by="attack")
        assert (found.verdict, found.reason) == ("not tested", "the number was not measured")


def test_the_number_of_the_claim_is_compared_and_not_the_headline(rows):
    pixels = ["agreed_accuracy", "judge", "pixels"]  # has no values by target, which the headline has
    assert said(rows, "difference", of("none"), of("bido"), number=pixels).reason == "no values by target"
    assert said(rows, "above", of("none"), number=pixels).effect == pytest.approx(0.5)


def test_a_side_that_fits_two_groups_is_refused(rows):
    with pytest.raises(UserError, match=r"'made_up' is about one group, but 2 fit; say more of .*budget"):
        said(rows, "leak", {"attack": "mi_face"})
    assert said(rows, "leak", {"attack": "mi_face", "budget": "smoke"}).reason == "1 of 3 seeds"


GOOD = "statement: It leaks.\nkind: leak\nleft: {dataset: digits}\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "is no readable claim"),
        ("- a\n", "expected a mapping with statement"),
        (GOOD + "verdict: holds\n", "but not verdict"),
        ("statement: It leaks.\nkind: leak\n", "it has no 'left'"),
        (GOOD + "margin: one\n", "'margin' cannot be 'one'"),
        (GOOD.replace("kind: leak", "kind: truth"), "kind is one of difference, .*, but got 'truth'"),
        (GOOD.replace("kind: leak", "kind: difference"), "difference and equivalent need 'right'"),
        (GOOD + "right: {dataset: digits}\n", "no other kind takes it"),
        (GOOD + "least: {people: 3}\n", "least may hold targets, seeds, but not people"),
        (GOOD.replace("kind: leak", "kind: equivalent") + "right: {dataset: lfw}\n", "set 'margin' above 0"),
    ],
)
def test_a_malformed_file_gives_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        read_claim(path)
    assert "odd.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_the_stem_is_the_id_and_locks_beside_it_are_no_claims(tmp_path):
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "it_leaks.yaml").write_text(GOOD)
    (tmp_path / "claims" / "0123.lock").write_text("")
    (one,) = claims_in(tmp_path)
    assert one.id == "it_leaks" and one.by == "attack" and one.right is None


def measured_then(one, **revisions):
    """The same group with other revisions of its components."""
    config = json.loads(one.config_json)
    config["revisions"] = [revisions.get(axis, now) for axis, now in zip(REVISED, config["revisions"], strict=True)]
    return replace(one, group_id=f"{one.group_id} then", config_json=json.dumps(config))


def test_a_verdict_from_rows_of_an_earlier_revision_is_about_that_revision(rows):
    bare, bido = (
        next(one for one in rows if one.facts["attack"] == "gmi" and one.facts["defense"] == name)
        for name in ("none", "bido")
    )
    old = measured_then(bido, defense=1)
    assert (measured_with([bare, bido]), said(rows, "difference", of("none"), of("bido")).remarks) == ("", "")
    found = said([bare, old], "difference", of("none"), of("bido"))
    assert found.verdict == "holds" and not found.reason
    assert found.remarks == found.measured == "measured with revision 1 of bido, the present one is 2"
    for kind in ("leak", "no leak", "above"):
        assert said([bare, old], kind, of("bido")).measured == found.measured
    undecided = said([bare, old], "difference", of("none"), of("bido"), margin=0.3)
    assert undecided.remarks == f"the interval holds the margin; {found.measured}"


def test_of_rows_of_two_revisions_those_of_today_are_meant_and_never_compared_with_others(rows):
    bare = next(one for one in rows if one.facts["attack"] == "gmi" and one.facts["defense"] == "none")
    bido = next(one for one in rows if one.facts["defense"] == "bido")
    both = [bare, measured_then(bido, defense=1), bido]
    assert not said(both, "leak", of("bido")).measured
    other = measured_then(bido, setting=7)
    found = said([bare, other], "difference", of("none"), of("bido"))
    assert (found.verdict, found.reason) == ("undecided", "they differ in the revision of setting too")
