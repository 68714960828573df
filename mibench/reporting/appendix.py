"""The end of a report: what was not tested, all numbers, and the commands of its tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

from mibench.card import AttackCard, SettingCard
from mibench.leaderboard.language import order
from mibench.leaderboard.lines import DIGITS, interval, name_of, number
from mibench.planning.catalogue import entries
from mibench.reporting.defended import names_of
from mibench.reporting.findings import WHO, Finding, reasons
from mibench.reporting.markup import impersonal, items, legend, pairs, table, text


def _others(found: Sequence[Finding]) -> list[str]:
    """What other attackers were not tried, by the access that the setting offers them."""
    facts, measured = found[0].facts, [one for one in found if one.headline]
    run, tried = {one.facts["attack"] for one in measured}, {one.facts["access"] for one in measured}
    settings = [cast(SettingCard, each.card) for each in entries("setting") if each.name == facts["setting"]]
    untried: dict[str, list[str]] = {
        access: [] for setting in settings for access in setting.access if access != "none"
    }
    for each in entries("attack"):
        card = cast(AttackCard, each.card)
        if card.task == facts["task"] and facts["modality"] in card.modalities and each.name not in run:
            for access in [one for one in card.access if one in untried]:
                untried[access].append(f"{card.title} (attack={each.name})")
    return [
        f"{WHO[access][0].upper()}{WHO[access][1:]}"
        + (f"; with {', '.join(titles)}." if titles else "; mibench has no such attack on these data yet.")
        for access, titles in untried.items()
        if titles or access not in tried
    ]


def untested(found: Sequence[Finding]) -> str:
    """Return what was not tested, and what a reader must keep in mind."""
    facts = found[0].facts
    config = json.loads(facts["config"] or "{}")
    budget = config.get("budget") or {}
    measured = [one for one in found if one.headline]
    lines = _others(found)
    if measured and budget:
        count = {"class": f"{budget.get('targets')} classes, {budget.get('samples')} pictures of each",
                 "instance": f"{budget.get('targets')} client updates",
                 "sequence": f"{budget.get('targets')} client updates",
                 "completion": f"{budget.get('targets')} masked pictures",
                 "attribute": f"{budget.get('records')} records",
                 "edges": f"{budget.get('records')} linked pairs and as many others",
                 }.get(facts["task"], "part of the data")  # fmt: skip
        lines.append(f"More than {count} at most (budget={facts['budget']}); a longer attack may find more.")
    seeds = sorted({int(one.facts["seed"]) for one in found})
    lines.append(f"Other random draws than seed {', '.join(map(str, seeds))}.")
    lines.append("Whether one known record was among the training data (membership), and any leak by other ways.")
    lines += dict.fromkeys(reasons(one) for one in found if not one.headline)
    notes = dict.fromkeys(note for one in found for note in str(one.facts["notes"] or "").split("\n") if note)
    said = '<h2 id="not-tested">What was not tested</h2>' + items(lines)
    return said + ("<h2>To keep in mind</h2>" + items(notes) if notes else "")


def numbers(found: Sequence[Finding]) -> str:
    """Return all numbers, for those who want them."""
    lines, words = [], set()
    for one in found:
        scores = sorted(
            one.scores, key=lambda score: (order(score.evidence), score is not one.headline, name_of(score))
        )
        for score in scores:
            if score.status == "ok":
                words.add(score.evidence)
                lines.append(
                    [
                        one.facts["attack"], one.facts["defense"], str(one.facts["seed"]), name_of(score),
                        " ".join(filter(None, [number(score.value, digits=DIGITS), score.unit,
                                               interval(score.ci_low, score.ci_high, DIGITS)])),
                        number(score.control, digits=DIGITS),
                        " ".join(filter(None, [number(score.lift, True, DIGITS),
                                               interval(score.lift_low, score.lift_high, DIGITS)])),
                        f"{number(score.null, digits=DIGITS)} {score.null_name}".strip(), score.evidence,
                    ]
                )  # fmt: skip
    head = ["attack", "defense", "seed", "metric", "value", "control", "lift", "null", "verdict"]
    body = table(head, lines, ("seed", "value", "control", "lift")) + legend(words)
    return f'<details id="numbers"><summary>All numbers</summary>{body}</details>'


def commands(found: Sequence[Finding], made_by: Mapping[str, str]) -> str:
    """Return the command that makes each cell again, by cell id."""
    made = [(f"{name}, cell {cell}", made_by.get(cell, "")) for cell, name in names_of(found).items()]
    cells = ", ".join(str(one.facts["cell_id"]) for one in found)
    said = [(name, f"<code>{text(impersonal(command))}</code>") for name, command in made if command]
    body = f'<h2 id="commands">The commands of the tests</h2><div class="commands">{pairs(said)}</div>' if said else ""
    return f"{body}<p class=note>Cells: {text(cells)}.</p>"
