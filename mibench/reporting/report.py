"""The report page: what leaks, to whom, compared with what, and which defenses to try, for a reader outside the field.

It is made from rows alone; the picture sheets of the cells, where they lie beside the rows, are put inside, so that the
page is one file. It shows the owner's private pictures and is meant for the owner.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mibench.card import AttackCard, Card, DefenseCard, SettingCard
from mibench.errors import UserError
from mibench.planning.catalogue import entries
from mibench.reporting.findings import VERDICTS, WHO, Finding, amount, conclusion, findings_of, reasons, sentences
from mibench.storage.store import digest_of

if TYPE_CHECKING:
    import pandas as pd


def write_report(rows: pd.DataFrame, results: Path, name: str) -> Path:
    """Write ``<results>/reports/<name>.html`` and return its path.

    Args:
        rows: Rows of one cell or several.
        results: The folder ``paths.results``.
        name: Name of the file.

    Raises:
        UserError: If there are no rows, or the page cannot be written.
    """
    found = findings_of(rows)
    if not found:
        raise UserError("There are no rows to report on; run a cell first.")
    path = results / "reports" / f"{name}.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(found, results / "pictures"), encoding="utf-8")
    except OSError as error:
        raise UserError(f"The report {path} cannot be written ({error.strerror}); set paths.results.") from error
    return path


def report_name(rows: pd.DataFrame) -> str:
    """Return a file name for the report on these cells: the id of the only one, or one of their own for several."""
    ids = sorted(set(rows["cell_id"]))
    return str(ids[0]) if len(ids) == 1 else f"report-{digest_of(ids)}"


def page(found: Sequence[Finding], pictures: Path) -> str:
    """Return the page as HTML."""
    heading, tone, lead = conclusion(found)
    first = found[0].facts
    what = f"{first['target']} trained on {first['dataset']}"
    if (weights := _weights(found[0])) is not None:
        what = f"Your model ({Path(weights).name}), attacked for the data of {first['dataset']}"
    body = [
        f'<header class="{tone}"><p class="what">{_text(what)}</p><h1>{_text(heading)}</h1>',
        f"<p>{_text(lead)}</p></header>",
        "<h2>What was found, and by whom it can be found</h2>",
        *(_access(access, found) for access in dict.fromkeys(one.facts["access"] for one in found)),
        _defended(found),
        _to_try(found),
        _sheets(found, pictures),
        _untested(found),
        _numbers(found),
    ]
    return PAGE.replace("<!--title-->", _text(heading)).replace("<!--body-->", "\n".join(part for part in body if part))


def _access(access: str, found: Sequence[Finding]) -> str:
    parts = [f"<h3>To {_text(WHO[access])}</h3>"]
    for one in found:
        if one.facts["access"] == access:
            label, meaning = VERDICTS[one.verdict]
            said = " ".join([*sentences(one), meaning]) if one.headline else reasons(one)
            tag = f'<span class="tag {_tone(one.verdict)}">{label}</span>'
            parts.append(f"<p>{tag} <b>{_text(_named(one))}.</b> {_text(said)}</p>")
    return "\n".join(parts)


def _defended(found: Sequence[Finding]) -> str:
    """The table of defenses that were tried, beside the undefended cell of the same attack."""
    tried = [one for one in found if one.facts["defense"] != "none" and one.headline]
    if not tried:
        return ""
    lines = []
    for one in found:
        if one.headline and one.facts["attack"] in {other.facts["attack"] for other in tried}:
            control = "" if math.isnan(one.headline.control) else amount(one.headline, one.headline.control)
            accuracy = "" if math.isnan(one.accuracy()) else f"{one.accuracy():.0%}"
            lines.append(
                [
                    _title("attack", one.facts["attack"]), _title("defense", one.facts["defense"]),
                    amount(one.headline, one.headline.value), control, VERDICTS[one.verdict][0], accuracy,
                ]
            )  # fmt: skip
    head = ["attack", "defense", "brought out", "comparison model", "verdict", "model is right on"]
    return "<h2>The defenses that were tried</h2>" + _table(head, lines)


def _to_try(found: Sequence[Finding]) -> str:
    """The defenses of the catalogue that can change what a leaking access sees."""
    leaking = {one.facts["access"] for one in found if one.verdict in ("leak", "signs")}
    tried = {one.facts["defense"] for one in found}
    modality, own = found[0].facts["modality"], _weights(found[0]) is not None
    ready: list[list[str]] = []
    retrained: list[list[str]] = []
    for each in entries("defense"):
        card = cast(DefenseCard, each.card)
        helps = sorted(leaking & set(card.affects))
        if helps and each.name not in tried and modality in card.modalities:
            at_once = [access for access in helps if card.reaches_finished(access)] if own else []
            finished, helps = bool(at_once) or not card.trains, at_once or helps
            title = card.title + (f" ({card.year})" if card.year else "")
            title += f", variant {each.name}" if card.variant_of else ""
            options = f"defense={each.name}" + ("" if finished or not own else " target.weights=null")
            line = [title, ", ".join(helps).replace("_", " "), options]
            (ready if finished else retrained).append(line)
    head = ["defense", "can help against access", "to try it, add to the command"]
    parts = []
    if ready:
        parts += ["<p>Without training the model again:</p>", _table(head, ready)]
    if retrained:
        parts += [
            "<p>By training again under the defense"
            + ("; this trains your architecture afresh and attacks the result" if own else "")
            + ":</p>",
            _table(head, retrained),
        ]
    if not parts:
        return ""
    return "<h2>Defenses to try</h2>" + "\n".join(parts) + (
        "<p>None of them is a promise: try it and read this page again. A defense that costs most of the accuracy is "
        "none.</p>"
    )  # fmt: skip


def _sheets(found: Sequence[Finding], pictures: Path) -> str:
    parts = []
    for one in found:
        file = pictures / f"{one.facts['cell_id']}.png"
        if one.headline and file.is_file():
            data = base64.b64encode(file.read_bytes()).decode()
            title = _named(one)
            parts.append(
                f'<figure><img alt="{_text(title)}" src="data:image/png;base64,{data}">'
                f"<figcaption>{_text(title)}</figcaption></figure>"
            )
    if not parts:
        return ""
    return (
        "<h2>What came out</h2><p>Left: private pictures. Middle: what the attack brought out of the model. Right: "
        "what it brings out without the leak. These are private pictures: keep this page to yourself.</p>"
        + "\n".join(parts)
    )


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


def _untested(found: Sequence[Finding]) -> str:
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
    said = "<h2>What was not tested</h2>" + _list(lines)
    return said + ("<h2>To keep in mind</h2>" + _list(notes) if notes else "")


def _numbers(found: Sequence[Finding]) -> str:
    """All numbers, for those who want them."""
    lines = []
    for one in found:
        for score in one.scores:
            if score.status == "ok":
                interval = "" if math.isnan(score.ci_low) else f"[{score.ci_low:.3g}, {score.ci_high:.3g}]"
                name = " ".join(part for part in (score.metric, score.variant, score.evaluator) if part)
                value = f"{score.value:.4g} {score.unit}".strip()
                lines.append(
                    [
                        one.facts["attack"], one.facts["defense"], name, value, interval,
                        "" if math.isnan(score.control) else f"{score.control:.4g}",
                        "" if math.isnan(score.lift) else f"{score.lift:+.4g}", score.evidence,
                    ]
                )  # fmt: skip
    cells = ", ".join(str(one.facts["cell_id"]) for one in found)
    made = f"<p>mibench {_text(str(found[0].facts['mibench_version']))}, cells {_text(cells)}.</p>"
    head = ["attack", "defense", "metric", "value", "95 % interval", "control", "lift", "evidence"]
    return f"<details><summary>All numbers</summary>{_table(head, lines)}</details>{made}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _text(value: str) -> str:
    return html.escape(str(value))


def _weights(one: Finding) -> str | None:
    """The file of the user's own model, None for one that mibench trained."""
    path = (json.loads(one.facts["config"] or "{}").get("target") or {}).get("weights")
    return None if path is None else str(path)


def _named(one: Finding) -> str:
    attack, defense = _title("attack", one.facts["attack"]), one.facts["defense"]
    return attack if defense == "none" else f"{attack}, with the defense {_title('defense', defense)}"


def _title(axis: str, name: str) -> str:
    cards: dict[str, Card] = {each.name: each.card for each in entries(axis)}
    return cards[name].title if name in cards else name


def _tone(verdict: str) -> str:
    return {"leak": "bad", "no evidence": "calm"}.get(verdict, "unsure")


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title><!--title--></title>
<style>
:root { color-scheme: light dark; --ink: #202024; --paper: #fafaf8; --line: #d8d8d2; --dim: #5c5c64;
  --bad: #a8261c; --unsure: #80590a; --calm: #2c6444; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e2; --paper: #1b1b1e; --line: #3c3c42; --dim: #a2a2aa;
  --bad: #ff8a7d; --unsure: #e6b450; --calm: #7fcf9f; } }
body { margin: 0 auto; max-width: 46rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; }
header { border-left: .4rem solid; padding: .1rem 0 .1rem 1rem; }
header p { color: var(--ink); margin: .4rem 0; } header .what { color: var(--dim); }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .2rem 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
.bad { color: var(--bad); } .unsure { color: var(--unsure); } .calm { color: var(--calm); }
.tag { border: 1px solid; border-radius: .3rem; padding: 0 .4rem; font-size: .85rem; white-space: nowrap; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top; }
th { color: var(--dim); font-weight: 600; } figure { margin: 1rem 0; overflow-x: auto; }
img { max-width: 100%; } figcaption, summary { color: var(--dim); font-size: .9rem; } details { margin-top: 2rem; }
</style>
<main>
<!--body-->
</main>
</html>
"""
