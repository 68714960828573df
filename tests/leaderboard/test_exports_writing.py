"""Tables as LaTeX, Markdown and CSV, and their references, from rows alone."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from exporting import like, skipped, tables

from mibench.leaderboard.compare import groups_in
from mibench.leaderboard.exports.marks import marks_of
from mibench.leaderboard.exports.references import bibliography, keys_of, references
from mibench.leaderboard.exports.writing import latex, latex_text, markdown, tidy
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.verdicts import VERDICTS


def test_marks_are_those_of_the_language_and_no_two_verdicts_of_a_table_share_one():
    marks = marks_of([*VERDICTS, "skipped", ""])
    assert set(marks) == set(VERDICTS) and len({one.text for one in marks.values()}) == len(VERDICTS)
    assert marks["leak"].text == "●" and marks_of(["below null"])["below null"].text == "○"


def test_markdown_has_numbers_intervals_marks_and_their_meaning(six):
    text = markdown(tables(six))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == "| attack | none | bido | dp\\_sgd |" and len(lines) == 4
    assert lines[2].startswith("| gmi | +0.4 \\[0.3, 0.5\\] ")
    head = text.splitlines()[0].replace("\\", "")
    assert head.startswith("Lift of attack_accuracy top1 vote over its control with its 95 % interval")
    for said in ("dataset digits", "target cnn", "access white_box", "budget standard", "n = 40 targets, 1 seed."):
        assert said in head
    verdicts = {one.verdict for one in tables(six)[0].measured}
    assert all(f" {word}: " in text for word in verdicts) and len(verdicts) > 1


def test_counts_are_ranges_and_of_old_rows_unknown(six):
    def counted(groups, counts):
        return [
            replace(group, numbers=[replace(one, score=replace(one.score, n=n), seeds=seeds) for one in group.numbers])
            for group, (n, seeds) in zip(groups, counts, strict=True)
        ]

    assert "n = 5 to 9 targets, 1 to 3 seeds." in markdown(tables(counted(six[:2], [(5, 3), (9, 1)])))
    old = [like(six[0], schema_version="1")]
    assert "n = an unknown number of targets" in markdown(tables(old))


def test_skipped_cells_say_why_and_combinations_that_never_ran_are_empty(six):
    reason = "Vacuous: the | attacker <b>holds</b> the weights."
    (table,) = tables([*six, skipped(six[0], reason, defense="rounding")])
    assert len(table.columns) == 4 and len(table.measured) == 6
    text = markdown([table])
    assert text.splitlines()[4].count("| - |") == 1
    note = "Not measured: gmi / rounding (skipped: Vacuous: the \\| attacker \\<b\\>holds\\</b\\> the weights)."
    assert note in text
    assert "-- \\\\" in latex([table]) and "holds\\textless{}/b" in latex([table])


def test_other_judges_are_told(six):
    assert "same evaluation models" not in markdown(tables(six))
    judged = [like(one, judged_by=f"mlp 0.{place}") for place, one in enumerate(six)]
    assert "Not all cells were judged by the same evaluation models." in markdown(tables(judged))


def test_csv_is_tidy_and_full(six):
    groups = [*six, skipped(six[0], 'It "cannot",\nbe.', defense="rounding")]
    rows = list(csv.DictReader(io.StringIO(tidy(tables(groups)))))
    assert len(rows) == 7 and {row["table"] for row in rows} == {"1"}
    by_id = {one.group_id: one for one in groups}
    for row in rows:
        group = by_id[row["group_id"]]
        assert all(row[name] == group.facts[name] for name in ("attack", "defense", "dataset", "budget"))
        if row["seeds"] != "0":
            score = group.headline.score
            assert float(row["lift"]) == score.lift and float(row["lift_high"]) == score.lift_high
            assert row["verdict"] == score.evidence and float(row["accuracy"]) == 0.9
        else:
            assert row["lift"] == "" and row["reason"] == 'skipped: It "cannot",\nbe.'


def test_latex_is_a_table_of_booktabs(six):
    text = latex(tables(six), lambda axis, cell: keys_of(axis, cell.group))
    rules = [r"\toprule", r"\midrule", r"\bottomrule"]
    assert [text.count(rule) for rule in rules] == [1, 1, 1] and "\\hline" not in text
    assert balanced(text)
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    lines = [line for line in body.splitlines() if line.strip().endswith(r"\\")]
    assert len(lines) == 3 and {line.count(" & ") for line in lines} == {3}
    assert re.search(r"begin\{tabular\}\{l{4}\}", text)
    assert r"gmi~\cite{gmi}" in text and r"mi\_face~\cite{mi_face}" in text and r"dp\_sgd~\cite{dp_sgd}" in text
    assert r"none &" in lines[0] and "$+0.4$ {\\scriptsize$[0.3, 0.5]$}" in lines[1]
    assert "\\cite" not in latex(tables(six))
    assert all(ord(one) < 128 for one in text), "the marks are LaTeX's own symbols"


def balanced(text):
    """Whether braces and environments close in order, as LaTeX needs it."""
    bare = re.sub(r"\\[{}%]", "", re.sub(r"(?m)(?<!\\)%.*$", "", text))
    depth, stack = 0, []
    for one in re.finditer(r"\\(begin|end)\{(\w+)\}|[{}]", bare):
        if one[1] == "begin":
            stack.append(one[2])
        elif one[1] == "end":
            if not stack or stack.pop() != one[2]:
                return False
        else:
            depth += 1 if one[0] == "{" else -1
            if depth < 0:
                return False
    return depth == 0 and not stack


HOSTILE = ["\\input{/etc/passwd}", "a | b", "<script>alert(1)</script>", "100 % & $x_1^2$ #1 ~ {", "two\nlines\x07",
           "^^41", "[x](javascript:y)", '"`quoted`"']  # fmt: skip


def odd(group, hostile):
    """The group as if an option of its defense held these words."""
    config = {**group.config, "defense": {**group.config["defense"], "words": hostile}}
    return replace(group, config_json=json.dumps(config))


def options_of(group):
    hostile = group.config["defense"].get("words")
    return [f"defense.words={hostile}", f"target.words={hostile}"] if hostile else ["target.words=plain"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_words_are_text_everywhere(six, hostile):
    groups = [one if one.facts["defense"] == "none" else odd(one, hostile) for one in six]
    (table,) = tables(groups, options=options_of)
    assert hostile in table.columns[1].text
    shown = latex_text(hostile)
    made = latex([table])
    assert balanced(made) and shown in made and "\\input" not in made and "^^" not in made
    assert "\x07" not in made and not re.search(r"(?<!\\)[$&#]", shown)
    text = markdown([table])
    assert not re.search(r"(?<!\\)<script|(?<!\\)\]\(", text)
    head = text.splitlines()[0]
    assert not re.search(r"(?<!\\)\|", head)
    for line in (one for one in text.splitlines() if one.startswith("|")):
        assert len(re.findall(r"(?<!\\)\|", line)) == 5
    assert next(csv.DictReader(io.StringIO(tidy([table]))))["options"] == f"target.words={hostile}"


def test_references_are_those_of_every_component_and_metric_sorted_and_once(six):
    made = bibliography(six)
    assert {"gmi", "mi_face", "bido", "dp_sgd", "mibench"} <= set(made.keys) and not made.missing
    assert list(made.keys) == sorted(set(made.keys)) == re.findall(r"^@\w+\{([^,]+),", made.text, re.MULTILINE)
    assert "kedmi" not in made.keys and balanced(made.text)
    assert f"version = {{{six[0].facts['mibench_version']}}}" in made.text
    assert references()["bido"] in made.text


def test_references_of_wrapped_attacks_and_of_several_defenses_are_those_of_all_parts(tmp_path, add_cell):
    stack = ("defense=stack", "defense.parts=[bido,dp_sgd]")
    add_cell(tmp_path, "attack=lomma", "attack@attack.base=kedmi", *stack)
    (group,) = groups_in(tmp_path)
    assert {"lomma", "kedmi", "bido", "dp_sgd"} <= set(bibliography([group]).keys)
    assert keys_of("attack", group) == ["lomma", "kedmi"] and keys_of("defense", group) == ["bido", "dp_sgd"]


def test_the_metric_that_is_shown_is_cited(tmp_path, add_cell):
    lpips = Score(metric="lpips", value=0.3, n=6, higher_is_leakier=False)
    add_cell(tmp_path, "attack=gmi", "defense=none", more=[lpips])
    assert "lpips" not in bibliography(groups_in(tmp_path)).keys
    assert "lpips" in bibliography(groups_in(tmp_path), ("lpips", "", "")).keys


def test_what_has_no_entry_is_named(six, monkeypatch):
    known = {key: text for key, text in references().items() if key != "bido"}
    monkeypatch.setattr("mibench.leaderboard.exports.references.references", lambda: known)
    made = bibliography(six)
    assert list(made.missing) == ["references.bib has no entry 'bido' (defense bido)."] and "bido" not in made.keys


def test_mibench_s_own_entry_says_what_citation_cff_says(six):
    import yaml

    from mibench.planning.catalogue import PACKAGE

    said = yaml.safe_load((PACKAGE.parent / "CITATION.cff").read_text())
    text = bibliography(six).text.replace("{mibench}:", "mibench:")
    assert text.count("@software{mibench,") == 1
    for value in (said["title"], said["authors"][0]["name"], said["license"], str(said["date-released"].year)):
        assert value in text
