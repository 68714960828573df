"""The page says what the rows say, in words, and nothing else."""

import dataclasses
import html
import json
import math
import re

import pandas as pd
import pytest
from PIL import Image

from mibench.errors import UserError
from mibench.leaderboard.rows import CellFacts, make_row
from mibench.leaderboard.scoring import Score
from mibench.reporting.findings import conclusion, findings_of
from mibench.reporting.report import report_name, write_report

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
        facts = dataclasses.replace(FACTS, cell_id=f"c{number}", **changes)
        made += [make_row(facts, one) for one in scores]
    return pd.DataFrame(made)


def words(path):
    text = re.sub(r"<style>.*?</style>|src=\"[^\"]*\"", "", path.read_text(), flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def section(text, heading):
    """The words between a heading and the next one."""
    headings = ["What was found", "The defenses that were tried", "Defenses to try", "What came out",
                "What was not tested", "To keep in mind", "All numbers"]  # fmt: skip
    assert heading in headings
    rest = text.partition(heading)[2]
    ends = [rest.find(other) for other in headings if other in rest]
    return rest[: min(ends)] if ends else rest


@pytest.mark.parametrize(
    ("scores", "heading", "tone"),
    [
        ([LEAK, *accuracy(0.9)], "gives away private data", "bad"),
        ([NO_LEAK, *accuracy(0.9)], "No leak was shown", "calm"),
        ([NO_LEAK, DISTANT, *accuracy(0.9)], "signs", "unsure"),
        ([FEW, *accuracy(0.9)], "Too little", "unsure"),
        ([ALONE, *accuracy(0.9)], "nothing to compare", "unsure"),
        ([SKIPPED], "Nothing was measured", "unsure"),
        ([NO_LEAK, *accuracy(0.06)], "says nothing yet", "unsure"),
        ([LEAK, *accuracy(0.06)], "says nothing yet", "unsure"),
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
    assert conclusion(findings_of(rows((facts, [psnr, *accuracy(0.06)]))))[1] == "bad"


def test_the_heading_is_about_the_model_as_it_is():
    undefended, defended = ({}, [NO_LEAK]), ({"defense": "bido"}, [LEAK])
    assert conclusion(findings_of(rows(undefended, defended)))[1] == "calm"
    assert conclusion(findings_of(rows(defended)))[1] == "bad"


def test_a_page_says_what_leaks_to_whom_compared_with_what(tmp_path):
    text = words(write_report(rows(({}, [LEAK, *accuracy(0.93)])), tmp_path, "page"))
    found = section(text, "What was found")
    for part in (
        "holds the model's file",
        "GMI.",
        "recognised 60%",
        "they recognised 10%",
        "right on 93%",
        "this is a leak",
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
    assert "No leak shown" in tried and "It leaks" in tried and "12%" in tried
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
    assert "attack_accuracy top1 vote 0.6 [0.5, 0.7] 0.1 +0.5 leak" in numbers and "knn_distance mlp" in numbers


def test_the_pictures_are_inside_and_nothing_is_fetched(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "pictures" / "c0.png")
    page = write_report(rows(({}, [LEAK])), tmp_path, "page")
    text = page.read_text()
    assert page == tmp_path / "reports" / "page.html" and text.count("data:image/png;base64,") == 1
    assert not re.search(r"(src|href)=\"(?!data:)", text) and "http" not in text
    assert "keep this page to yourself" in text


def test_text_of_the_rows_cannot_become_markup(tmp_path):
    text = write_report(rows(({"dataset": "<script>x</script>"}, [LEAK])), tmp_path, "page").read_text()
    assert "<script" not in text and "&lt;script&gt;" in text


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
