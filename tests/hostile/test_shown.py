"""A report and a picture of a table that are built from hostile texts hold them as texts."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pandas as pd

from mibench.leaderboard.rows import CellFacts, make_row
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.shards import schema
from mibench.reporting.report import Origin, report_name, write_report
from mibench.reporting.result import Result

SCRIPT = '<script>window.harmed=1</script><img src=x onerror="harm()"> javascript:harm() \'"&</style></title>'

#: Columns by which a report chooses what it says, so that their words must be known.
KEPT = ("task", "status", "modality", "access", "config", "cell_id", "evidence", "defense", "attack")


class Tags(HTMLParser):
    """Collects what would run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        handlers = [name for name, value in attrs if name.startswith("on")]
        addresses = [value for name, value in attrs if name in ("href", "src") and str(value).startswith("javascript")]
        if tag in ("script", "iframe", "object", "embed", "base") or handlers or addresses:
            self.found.append(f"{tag} {attrs}")
        if tag == "img" and dict(attrs).get("src") == "x":
            self.found.append("img of a text")


def hostile(*changed):
    """The rows of a cell with a script in every column of texts, and in those named of which words are known."""
    facts = CellFacts(
        cell_id="c0", group_id="g", dataset="image_folder", modality="image", setting="central", target="checkpoint",
        attack="gmi", attack_family="generative", task="class", access="white_box", knowledge="public", defense="none",
        defense_hooks="", seed=0, budget="standard", fidelity="official",
        config=json.dumps({"target": {"weights": SCRIPT}, "budget": {"targets": SCRIPT, "samples": SCRIPT}}),
    )  # fmt: skip
    scores = [Score(metric=name, variant="top1", evaluator="vote", value=0.6, control=0.1, lift=0.5, lift_low=0.4, n=9)
              for name in ("attack_accuracy", SCRIPT)]  # fmt: skip
    scores += [Score(metric="target_accuracy", variant="victim", value=0.9)]
    scores += [Score(metric="psnr", status="failed", reason=SCRIPT)]
    rows = pd.DataFrame([make_row(facts, one) for one in scores])
    for field in schema():
        if (str(field.type) == "string" and field.name in changed) or (
            str(field.type) == "string" and field.name not in (*KEPT, "metric", "variant", "evaluator")
        ):
            rows[field.name] = SCRIPT
    rows["targets"] = [[SCRIPT]] * len(rows)
    return rows


def tags(text):
    parser = Tags()
    parser.feed(text)
    assert SCRIPT not in text
    return parser.found


def test_a_report_holds_no_script_of_a_row(tmp_path):
    for changed in ((), ("attack", "defense")):
        rows = hostile(*changed)
        origin = Origin(author=SCRIPT, command=SCRIPT, commands={"c0": SCRIPT}, options={"c0": {"attack": SCRIPT}})
        path = write_report(rows, tmp_path, report_name(rows) if not changed else "page", origin)
        assert path.parent.is_relative_to(tmp_path)
        assert not tags(path.read_text())


def test_a_notebook_holds_no_script_of_a_row(tmp_path):
    for changed in ((), ("attack", "defense", "evidence", "access")):
        assert not tags(Result.of(hostile(*changed), tmp_path, {"c0": SCRIPT})._repr_html_())
