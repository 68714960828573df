"""The page says what the rows say, in the words of the house, and nothing else."""

import base64
import dataclasses
import html
import io
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mibench.errors import UserError
from mibench.leaderboard.language import COLOURS, WORDS, shown
from mibench.leaderboard.lines import COLUMNS
from mibench.leaderboard.rows import CellFacts, make_row
from mibench.leaderboard.scoring import Score
from mibench.pictures import Said, SheetRow, draw_sheet
from mibench.reporting.findings import HEADINGS, conclusion, findings_of
from mibench.reporting.report import Origin, report_name, write_report

FACTS = CellFacts(
    cell_id="c1", group_id="g", dataset="image_folder", modality="image", setting="central", target="checkpoint",
    attack="gmi", attack_family="generative", task="class", access="white_box", knowledge="public,prior:wgan_gp",
    defense="none", defense_hooks="", seed=3, budget="standard", fidelity="official", notes="A note.\nAnother <note>.",
    config=json.dumps({"target": {"weights": "/x/mine.pt"}, "budget": {"targets": 10, "samples": 8}}),
    mibench_version="9.9",
)  # fmt: skip
LEAK = Score(
    metric="attack_accuracy", variant="top1", evaluator="vote", value=0.6, ci_low=0.5, ci_high=0.7, n=80, control=0.1,
    lift=0.5, lift_low=0.4, lift_high=0.6, higher_is_leakier=True,
)  # fmt: skip
NO_LEAK = dataclasses.replace(LEAK, value=0.12, lift=0.02, lift_low=-0.1)
FEW = dataclasses.replace(LEAK, lift_low=math.nan)
ALONE = dataclasses.replace(LEAK, control=math.nan, lift=math.nan, lift_low=math.nan)
DISTANT = dataclasses.replace(LEAK, metric="knn_distance", variant="", evaluator="mlp", higher_is_leakier=False)
SKIPPED = Score(metric="", status="skipped", reason="Vacuous: it cannot.")


def accuracy(value, chance=0.05):
    return [
        Score(metric="target_accuracy", variant="victim", value=value),
        Score(metric="target_accuracy", variant="chance", value=chance),
    ]


def rows(*cells):
    """Rows of cells given as (facts that differ, scores)."""
    made = []
    for number, (changes, scores) in enumerate(cells):
        facts = dataclasses.replace(FACTS, **{"cell_id": f"c{number}", "group_id": f"g{number}"} | changes)
        made += [make_row(facts, one) for one in scores]
    return pd.DataFrame(made)


def words(path):
    """The words of a page; a section begins with ``##``."""
    text = re.sub(r"<style>.*?</style>|src=\"[^\"]*\"", "", path.read_text(), flags=re.S)
    text = re.sub(r"<h2[^>]*>|<summary>", " ## ", text)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def section(text, heading):
    """The words between a heading and the next one; empty where there is no such section."""
    return next((one.strip() for one in text.split(" ## ") if one.startswith(heading)), "")


def sheet(folder, cell="c0", pixels=8, **cells):
    """A sheet of two targets, ``first`` and ``second``, with two pictures in each of the three columns."""
    shown = cells.get("cells") or [torch.full((2, 1, pixels, pixels), shade) for shade in (0.0, 0.5, 1.0)]
    targets = [SheetRow(name, shown) for name in ("first", "second <b>")]
    said = Said("○", "below null", COLOURS["calm"], "psnr 1")
    return draw_sheet(
        folder / "pictures" / f"{cell}.png", ["private", "recovered", "control"], targets, "caption", said
    )


@pytest.mark.parametrize(
    ("scores", "heading", "tone"),
    [
        ([LEAK, *accuracy(0.9)], "gives away private data", "leak"),
        ([NO_LEAK, *accuracy(0.9)], "No leak was shown", "calm"),
        ([NO_LEAK, DISTANT, *accuracy(0.9)], "signs", "open"),
        ([FEW, *accuracy(0.9)], "Too little", "open"),
        ([ALONE, *accuracy(0.9)], "nothing to compare", "open"),
        ([SKIPPED], "Nothing was measured", "open"),
        ([NO_LEAK, *accuracy(0.06)], "says nothing yet", "open"),
        ([LEAK, *accuracy(0.06)], "says nothing yet", "open"),
    ],
)
def test_the_heading_is_the_verdict(scores, heading, tone, tmp_path):
    frame = rows(({}, scores))
    said, found_tone, _ = conclusion(findings_of(frame))
    assert heading in said and tone == found_tone
    assert heading in words(write_report(frame, tmp_path, "page"))


def test_an_untrained_models_gradient_gives_away_what_it_gives_away():
    psnr = Score(
        metric="psnr", value=30.0, control=8.0, lift=22.0, lift_low=20.0, n=5, unit="dB", higher_is_leakier=True
    )
    facts = {"setting": "federated", "attack": "dlg", "task": "instance", "access": "gradients"}
    assert conclusion(findings_of(rows((facts, [psnr, *accuracy(0.06)]))))[1] == "leak"


def test_the_heading_is_about_the_model_as_it_is():
    undefended, defended = ({}, [NO_LEAK]), ({"defense": "bido"}, [LEAK])
    assert conclusion(findings_of(rows(undefended, defended)))[1] == "calm"
    assert conclusion(findings_of(rows(defended)))[1] == "leak"


def test_a_page_says_what_leaks_to_whom_compared_with_what(tmp_path):
    text = words(write_report(rows(({}, [LEAK, *accuracy(0.93)])), tmp_path, "page"))
    found = section(text, "What was found")
    for part in (
        "holds the model's file",
        "GMI.",
        "recognised 60%",
        "they recognised 10%",
        "right on 93%",
        WORDS["leak"].meaning,
    ):
        assert part in found
    assert "a generator trained on them" in found and "mine.pt" in text


def test_defenses_to_try_can_reach_the_leak_and_were_not_tried(tmp_path):
    leak = section(words(write_report(rows(({}, [LEAK])), tmp_path, "a")), "Defenses to try")
    assert "defense=dp_sgd target.weights=null" in leak and "defense=bido" in leak
    assert "rounding" not in leak, "rounding changes nothing for someone who holds the weights"
    both = words(write_report(rows(({}, [LEAK]), ({"defense": "bido"}, [NO_LEAK])), tmp_path, "b"))
    assert "defense=bido " not in section(both, "Defenses to try")
    tried = section(both, "The defenses that were tried")
    assert "○ no evidence" in tried and "● leak" in tried and "0.12" in tried and "No leak shown" not in both
    scores = ({"access": "scores", "attack": "x"}, [LEAK])
    served = section(words(write_report(rows(scores), tmp_path, "c")), "Defenses to try")
    assert "Without training the model again" in served and "defense=rounding" in served
    assert "Defenses to try" not in words(write_report(rows(({}, [NO_LEAK])), tmp_path, "d"))


def test_a_model_that_mibench_trained_is_not_called_ones_own(tmp_path):
    text = words(write_report(rows(({"config": "{}", "target": "cnn"}, [LEAK])), tmp_path, "page"))
    assert "cnn trained on image_folder" in text and "weights=null" not in text


def test_a_page_says_what_was_not_tested(tmp_path):
    frame = rows(({}, [LEAK]), ({"defense": "rounding"}, [SKIPPED]))
    text = words(write_report(frame, tmp_path, "page"))
    left = section(text, "What was not tested")
    for part in ("10 classes, 8 pictures", "budget=standard", "seed 3", "membership", "Vacuous: it cannot.", "mi_face"):
        assert part in left
    assert "attack=gmi" not in left and "attack=dlg" not in left
    assert "Another <note>." in section(text, "To keep in mind")


def test_other_tasks_have_their_own_words(tmp_path):
    attribute = dataclasses.replace(LEAK, metric="attribute_accuracy", variant="", evaluator="")
    facts = {"task": "attribute", "attack": "fredrikson_map", "access": "scores", "modality": "tabular"}
    assert "hidden column rightly in 60%" in words(write_report(rows((facts, [attribute])), tmp_path, "a"))
    instance = dataclasses.replace(LEAK, metric="psnr", variant="", evaluator="", value=21.5, control=8.0, unit="dB")
    facts = {"task": "instance", "attack": "dlg", "access": "gradients", "setting": "federated"}
    text = words(write_report(rows((facts, [instance])), tmp_path, "b"))
    assert "21.5 dB" in text and "8 dB" in text and "defense=dgc" in section(text, "Defenses to try")


def test_a_completion_is_told_as_what_it_is(tmp_path):
    hole = dataclasses.replace(LEAK, metric="psnr", variant="hole", evaluator="", value=17.5, control=9.5, unit="dB")
    facts = {"task": "completion", "attack": "secretgen", "access": "scores", "knowledge": "masked_image:centre"}
    text = words(write_report(rows((facts, [hole])), tmp_path, "c"))
    assert "17.5 dB" in text and "9.5 dB" in text and "a part that was hidden" in text and "masked pictures" in text


def test_links_are_told_as_what_they_are(tmp_path):
    auc = dataclasses.replace(LEAK, metric="edge_auc", variant="", evaluator="", value=0.94, control=0.75)
    facts = {"attack": "link_stealing", "task": "edges", "modality": "graph", "access": "scores", "knowledge": ""}
    text = words(write_report(rows(({**facts, "dataset": "cora", "target": "gcn"}, [auc])), tmp_path, "d"))
    assert "ranked a linked pair of nodes above one that is not linked in 94% of all cases" in text
    assert "comparison model that never saw a link, the same attack did so in 75%" in text


def test_every_number_stands_in_the_table(tmp_path):
    numbers = section(words(write_report(rows(({}, [LEAK, DISTANT])), tmp_path, "page")), "All numbers")
    assert "attack_accuracy top1 vote 0.6 [0.5, 0.7] 0.1 +0.5 [0.4, 0.6] ● leak" in numbers
    assert "knn_distance mlp" in numbers


def test_the_pictures_are_inside_and_nothing_is_fetched(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "pictures" / "c0.png")
    page = write_report(rows(({}, [LEAK])), tmp_path, "page")
    text = page.read_text()
    assert page == tmp_path / "reports" / "page.html" and text.count("data:image/png;base64,") == 1
    assert not re.search(r"(src|href)=\"(?!data:|#)", text) and "http" not in text and "<script" not in text
    assert "keep this page to yourself" in text


def test_text_of_the_rows_cannot_become_markup(tmp_path):
    text = write_report(rows(({"dataset": "<script>x</script>"}, [LEAK])), tmp_path, "page").read_text()
    assert "<script" not in text and "&lt;script&gt;" in text


HOSTILE = '"><script>x</script><img src=x onerror=y>'


@pytest.mark.parametrize("fact", ["dataset", "target", "attack", "defense", "notes", "device", "mibench_version"])
def test_no_fact_can_become_markup(tmp_path, fact):
    (tmp_path / "pictures").mkdir()
    sheet(tmp_path)
    odd = dataclasses.replace(SKIPPED, reason=HOSTILE)
    frame = rows(({fact: HOSTILE}, [LEAK]), ({"defense": "bido"}, [odd]))
    origin = Origin(author=HOSTILE, command=HOSTILE, commands={"c0": HOSTILE}, options={"c0": {"defense": HOSTILE}})
    text = write_report(frame, tmp_path, "page", origin).read_text()
    assert "<script" not in text and "<img src=x" not in text and "onerror" in text


def test_a_page_speaks_the_one_language(tmp_path):
    """Every verdict in a page is a mark and a word of the language, in the colour of its tone and in its order."""
    kinds = {
        "leak": LEAK,
        "below null": dataclasses.replace(LEAK, null=0.6, null_name="nearest_public", null_lift_low=-0.1),
        "no evidence": NO_LEAK, "too few targets": FEW, "no control": ALONE,
    }  # fmt: skip
    made = reversed(list(kinds.values()))
    page = write_report(rows(*(({"attack": f"a{n}"}, [one]) for n, one in enumerate(made))), tmp_path, "page")
    said = re.findall(r'<span class="verdict (\w+)">(.*?)</span>', page.read_text())
    assert {html.unescape(word) for _, word in said} == {shown(word) for word in kinds}
    assert all(WORDS[word.partition(" ")[2]].tone == tone for tone, word in said)
    table = re.search(r"<tbody>.*?</tbody>", page.read_text(), re.S)[0]
    assert re.findall(r"[^ ] ([a-z ]+)</span>", table) == [word for word in WORDS if word in kinds]
    head = re.search(r"<thead>.*?</thead>", page.read_text(), re.S)[0]
    assert tuple(re.findall(r">(\w+)</th>", head)) == COLUMNS
    text = words(page)
    for word in kinds:
        assert WORDS[word].meaning in section(text, "What was found"), "the legend"
    assert set(HEADINGS) - {"signs"} == set(WORDS)
    for tone, colour in COLOURS.items():
        assert f"--{tone}: {colour};" in page.read_text()


def test_a_number_below_its_null_is_told_with_the_null(tmp_path):
    below = dataclasses.replace(LEAK, null=0.6, null_name="nearest_public", null_lift_low=-0.1)
    text = words(write_report(rows(({}, [below])), tmp_path, "page"))
    assert "No leak was shown" in text and "(nearest public) reaches 60%" in section(text, "What was found")


def test_a_page_says_who_ran_it_only_where_it_is_told_and_never_a_login(tmp_path, monkeypatch):
    monkeypatch.setenv("USER", "annlogin")
    monkeypatch.setenv("HOME", "/home/annlogin")
    when = {"created_at": "2026-01-02T03:04:05+00:00", "device": "cpu", "git_commit": "abc"}
    origin = Origin(command="python -m mibench report c0 paths.results=/home/annlogin/r",
                    commands={"c0": "python -m mibench dataset.root=/Users/annlogin/d seed=3"})  # fmt: skip
    text = words(write_report(rows((when, [LEAK])), tmp_path, "page", origin))
    how = section(text, "Who, when and how")
    assert "annlogin" not in text and "run by" not in how
    assert "2026-01-02 03:04 UTC" in how and "mibench 9.9 (abc)" in how and "on cpu" in how
    assert "report c0 paths.results=~/r" in how and "dataset.root=~/d seed=3" in text
    named = write_report(rows((when, [LEAK])), tmp_path, "page", dataclasses.replace(origin, author="Ann Audit"))
    assert "run by Ann Audit" in section(words(named), "Who, when and how")


def test_the_summary_says_what_was_tested_found_and_not_tested(tmp_path):
    cells = ({}, [LEAK]), ({"defense": "bido"}, [NO_LEAK]), ({"attack": "mi_face", "defense": "rounding"}, [SKIPPED])
    said = section(words(write_report(rows(*cells), tmp_path, "page")), "Summary")
    assert "3 tests, of which 2 could be measured" in said and "GMI and MI-Face" in said
    assert "Of 2 tests measured the verdicts are ● leak (1) and ○ no evidence (1)" in said
    assert "1 test could not be measured" in said


def test_the_table_of_defenses_says_what_it_leaves_out_and_why(tmp_path):
    other = {"config": json.dumps({"target": {"weights": "/x/mine.pt", "size": 9}, "budget": {}})}
    withheld = dataclasses.replace(
        SKIPPED, reason="Incompatible: defense 'x' withholds scores, so it is given nothing."
    )
    failed = dataclasses.replace(SKIPPED, status="failed", reason="RuntimeError: memory (log: /home/ann/x.log)")
    frame = rows(
        ({}, [LEAK]), ({"defense": "bido"}, [NO_LEAK]),
        ({"attack": "mi_face", "defense": "bido"}, [failed]),
        ({"attack": "mi_face", "defense": "rounding"}, [SKIPPED]),
        ({"attack": "brepmi", "access": "labels"}, [LEAK]),
        ({"attack": "brepmi", "access": "labels", "defense": "rounding"}, [withheld]),
        ({"attack": "kedmi", **other}, [LEAK]),
    )  # fmt: skip
    page = write_report(frame, tmp_path, "page")
    tried = section(words(page), "The defenses that were tried")
    table, _, left = tried.partition("Not in this table")
    assert "gmi" in table and "mi_face" not in table and "brepmi" not in table and "kedmi" not in table
    assert re.search(r"MI-Face BiDO not measured RuntimeError: memory ", left) and "/home/ann" not in left
    assert "cannot matter it cannot." in left.lower()
    assert "withheld Defense 'x' withholds scores" in left
    assert re.search(r"KEDMI BiDO.* other victim ", left)
    assert re.search(r"BREP-MI BiDO not measured .* need the model trained again", left)
    assert re.search(r"GMI \S.* cannot matter .*acts on output", left), "a rule of the catalogue says why"


def test_pictures_are_seen_one_by_one_with_captions_and_words_for_those_who_do_not_see_them(tmp_path):
    (tmp_path / "pictures").mkdir()
    sheet(tmp_path)
    page = write_report(rows(({}, [LEAK])), tmp_path, "page").read_text()
    shown = re.findall(r'<img class="small" width="(\d+)" height="(\d+)" alt="([^"]*)" src="([^"]*)">', page)
    assert len(shown) == 12 and {(width, height) for width, height, _, _ in shown} == {("96", "96")}
    assert [alt for _, _, alt, _ in shown[:3]] == [
        "private 1 of 2, first",
        "private 2 of 2, first",
        "recovered 1 of 2, first",
    ]
    shades = [np.asarray(Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2])))) for *_, src in shown]
    assert [int(one.mean()) for one in shades[:6]] == [0, 0, 128, 128, 255, 255]
    assert all(one.shape[:2] == (96, 96) and one.std() == 0 for one in shades), "cut at the edges of the tiles"
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert captions == ["private", "recovered", "control"] * 2
    sheet(tmp_path, pixels=128)
    assert 'class="small"' not in write_report(rows(({}, [LEAK])), tmp_path, "page").read_text()


def test_a_sheet_of_texts_is_a_table_of_texts(tmp_path):
    (tmp_path / "pictures").mkdir()
    sheet(tmp_path, cells=["a true line", "a read <i>line</i>", None])
    page = write_report(rows(({}, [LEAK])), tmp_path, "page")
    assert "<img" not in page.read_text() and "<i>line" not in page.read_text()
    assert "first a true line a read <i>line</i>" in section(words(page), "What came out")


def test_cells_that_differ_in_the_seed_are_one_line(tmp_path):
    lists = {"targets": list("abcdef"), "per_target": [0.6] * 6, "per_target_control": [0.1] * 6, "n": 6}
    both = [({"group_id": "g", "seed": seed}, [dataclasses.replace(LEAK, **lists)]) for seed in (0, 1)]
    page = write_report(rows(*both), tmp_path, "page").read_text()
    (line,) = re.findall(r"<tr>(.*?)</tr>", re.search(r"<tbody>.*?</tbody>", page, re.S)[0])
    assert '<td data-name="seeds" class="number">2</td>' in line


def test_the_style_knows_paper_dark_screens_and_narrow_ones(tmp_path):
    page = write_report(rows(({}, [LEAK])), tmp_path, "page").read_text()
    for rule in ("@media print", "prefers-color-scheme: dark", "@media (max-width", "break-inside: avoid", "attr(href)",
                 "image-rendering: pixelated"):  # fmt: skip
        assert rule in page


def test_the_name_is_that_of_the_cells(tmp_path):
    assert report_name(rows(({}, [LEAK]))) == "c0"
    several = rows(({}, [LEAK]), ({}, [LEAK]))
    assert report_name(several).startswith("report-") and report_name(several) == report_name(several[::-1])


def test_nothing_to_report_and_nowhere_to_write_are_said(tmp_path):
    with pytest.raises(UserError, match="no rows"):
        write_report(rows(({}, [LEAK])).iloc[:0], tmp_path, "page")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"paths\.results"):
        write_report(rows(({}, [LEAK])), tmp_path / "file", "page")
