"""docs/findings.md is its template, the tables and the verdicts of claims; the committed claims are sound."""

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from mibench.leaderboard.claims import Claim, Judgement
from mibench.leaderboard.scoring import Score

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def findings():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        import findings_tables

        yield findings_tables


@pytest.fixture
def defenses(findings):
    import defense_tables

    return defense_tables


def judgement(**more):
    claim = Claim(id="a_over_b", statement="A leaks more than B.", kind="difference", left={})
    return Judgement(claim=claim, **{"verdict": "undecided", "reason": "no values by target"} | more)


def test_every_committed_claim_is_readable_and_is_about_one_group_at_most(findings):
    judgements = findings.judgements()  # refuses a claim that fits two groups
    assert len(judgements) >= 28
    keys = set(re.findall(r"^@\w+\{(\w+),", (ROOT / "references.bib").read_text(), re.MULTILINE))
    for one in judgements.values():
        assert one.claim.source in {"", *keys}, one.claim.id
        assert re.fullmatch(r"[^.]+\.", one.claim.statement.replace("0.", "0")), one.claim.id
        assert not one.reason.startswith("they differ"), f"{one.claim.id}: {one.reason}"


METHODS = [
    path for axis in ("attacks", "defenses", "priors") for path in sorted((ROOT / "mibench" / axis).glob("*.py"))
]


def test_a_measured_figure_in_a_docstring_has_a_claim():
    """What was measured here stands in committed rows: a docstring that tells of it names their claims."""
    known = {path.stem for path in (ROOT / "results" / "claims").glob("*.yaml")}
    for path in METHODS:
        said = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
        named = set(re.findall(r"``(\w+)``", said)) & known
        measured = re.search(r"\d dB|[Mm]easured (on|of|with)|[Ii]n the committed rows", said)
        assert named or not measured, f"{path.name}: '{measured[0]}' has no claim"
        listed = [one for words in re.findall(r"[Cc]laims? ((?:``\w+``(?:, | and |[ ;])*)+)", said)
                  for one in re.findall(r"``(\w+)``", words)]  # fmt: skip
        assert not set(listed) - known, f"{path.name}: there is no claim {set(listed) - known}"


def test_the_template_tells_every_claim_and_holds_no_table_of_its_own(findings):
    template = findings.TEMPLATE.read_text()
    named = re.findall(r"{{claim:(\w+)}}", template)
    assert sorted(named) == sorted(path.stem for path in (ROOT / "results" / "claims").glob("*.yaml"))
    assert len(re.findall(r"<!-- table \w+ -->\n<!-- end -->", template)) == template.count("<!-- table ") > 30
    assert findings.PAGE.read_text().startswith(f"{findings.FIRST}\n\n{template[:200]}")


def test_tables_and_verdicts_are_filled_in(findings, monkeypatch):
    monkeypatch.setitem(findings.TABLES, "att_faces", lambda: [("a", "b"), ("1", "2")])
    template = "# Head\n\n<!-- table att_faces -->\n<!-- end -->\n\n- {{claim:a_over_b}}\n"
    assert findings.written(template, {"a_over_b": judgement()}) == (
        f"{findings.FIRST}\n\n# Head\n\n<!-- table att_faces -->\n| a | b |\n| --- | --- |\n| 1 | 2 |\n<!-- end -->\n\n"
        "- A leaks more than B. **undecided**: no values by target (`a_over_b`)\n"
    )
    shown = judgement(verdict="holds", reason="", effect=0.5, low=0.25, high=0.75, n=12, seeds=1)
    assert "**holds**: +0.5 [0.25, 0.75], 12 targets, 1 seed (" in findings.verdict_line(shown)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{{claim:a_over_b}} {{claim:b_over_c}}", "names a claim that there is none of: b_over_c"),
        ("{{claim:a_over_b}} <!-- table tables -->\n<!-- end -->", "names a table that there is none of: tables"),
        ("nothing", "leaves out the claim a_over_b"),
    ],
)
def test_a_template_that_does_not_fit_the_claims_is_refused(findings, template, sentence):
    with pytest.raises(SystemExit, match=sentence):
        findings.written(template, {"a_over_b": judgement()})


def test_check_fails_where_the_page_differs_and_writes_nothing(findings, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(findings, "TEMPLATE", tmp_path / "page.in.md")
    monkeypatch.setattr(findings, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(findings, "judgements", lambda: {"a_over_b": judgement()})
    findings.TEMPLATE.write_text("{{claim:a_over_b}}\n")
    assert findings.main(["--check"]) == 1 and not findings.PAGE.exists()
    assert findings.main([]) == 0 and findings.main(["--check"]) == 0
    findings.PAGE.write_text(findings.PAGE.read_text().replace("undecided", "holds"))
    assert findings.main(["--check"]) == 1 and "holds" in findings.PAGE.read_text()
    assert "findings_tables.py" in capsys.readouterr().out


def group(accuracy=1.0, lift_low=0.1, evidence="undecided", defense="bido"):
    score = Score(metric="attack_accuracy", variant="top1", evaluator="vote", value=0.5, control=0.2, lift=0.3,
                  lift_low=lift_low, evidence=evidence)  # fmt: skip
    return SimpleNamespace(
        config={"defense": {}}, number=lambda *key: None,
        facts={"defense": defense}, cells=[0], cost={"training_seconds": 2.0}, numbers=[SimpleNamespace(score=score)],
        utility=SimpleNamespace(
            seeds=1, key=("target_accuracy", "victim", ""), score=Score(metric="target_accuracy", value=accuracy)
        ),
    )  # fmt: skip


def test_bold_says_that_the_interval_lies_above_the_control_and_nothing_of_a_leak(findings):
    assert findings.beside(group(), *findings.VOTE) == "**0.5** / 0.2"
    assert findings.beside(group(lift_low=0.0, evidence="leak"), *findings.VOTE) == "0.5 / 0.2"


def test_a_matched_level_is_the_strongest_that_keeps_the_accuracy(defenses, monkeypatch):
    """The order is that of the card (0.0125, 0.05, 0.2, 0.8); what a level leaks has no part in it."""
    accuracies = {"0.0125": 1.0, "0.05": 0.5, "0.2": 0.96, "0.8": 0.94}
    found = {("none", ""): {"gmi": group(1.0)}, ("dp_sgd", "noise_multiplier=1"): {"gmi": group(0.5)}}
    found |= {
        ("bido", f"a1={level}"): {"gmi": group(accuracy, lift_low=0.1 - (level == "0.0125"))}
        for level, accuracy in accuracies.items()
    }
    monkeypatch.setattr(defenses, "swept", lambda dataset: found)
    rows = defenses.matched("att_faces")
    assert [row[:2] for row in rows[1:]] == [
        ("`none`", ""), ("`bido`", "a1=0.2"), ("`dp_sgd`", "none keeps the accuracy"),
    ]  # fmt: skip
    assert {len(row) for row in rows} == {7}
