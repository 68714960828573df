"""The report page: what leaks, to whom, compared with what, and which defenses to try, for a reader outside the field.

It is made from rows alone; the pictures of the cells, where their sheets lie beside the rows, are put inside, so that
the page is one file that needs neither a network nor a script. It shows the owner's private pictures and is meant for
the owner.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mibench.card import AttackCard, SettingCard
from mibench.errors import UserError
from mibench.leaderboard.language import WORDS, order
from mibench.leaderboard.lines import (
    COLUMNS,
    DIGITS,
    NUMBERS,
    Line,
    interval,
    lines_of,
    name_of,
    number,
    sections,
)
from mibench.leaderboard.shards import schema
from mibench.planning.catalogue import entries
from mibench.reporting.defended import compared, left_out, plain_reason, title_of, to_try, victim_of, weights_of
from mibench.reporting.findings import WHO, Finding, conclusion, findings_of, reasons, sentences
from mibench.reporting.markup import items, pairs, table, text, verdict
from mibench.reporting.style import PAGE
from mibench.reporting.tiles import pictures_of
from mibench.storage.store import digest_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Origin:
    """Where a report comes from, as far as it is to say so.

    Attributes:
        author: Who ran it; empty where nobody is to be named.
        command: The command that wrote it.
        commands: The command that makes a cell again, by cell id.
        options: What of a cell differs from the defaults, by cell id and column (``defense``: ``a1=0.1``).
    """

    author: str = ""
    command: str = ""
    commands: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def write_report(rows: pd.DataFrame, results: Path, name: str, origin: Origin | None = None) -> Path:
    """Write ``<results>/reports/<name>.html`` and return its path.

    Args:
        rows: Rows of one cell or several.
        results: The folder ``paths.results``.
        name: Name of the file.
        origin: Who made it with which command.

    Raises:
        UserError: If there are no rows, or the page cannot be written.
    """
    import pyarrow as pa

    found = findings_of(rows)
    if not found:
        raise UserError("There are no rows to report on; run a cell first.")
    lines = lines_of(pa.Table.from_pylist(rows.to_dict("records"), schema=schema()))
    path = results / "reports" / f"{name}.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(found, lines, results / "pictures", origin or Origin()), encoding="utf-8")
    except OSError as error:
        raise UserError(f"The report {path} cannot be written ({error.strerror}); set paths.results.") from error
    return path


def report_name(rows: pd.DataFrame) -> str:
    """Return a file name for the report on these cells: the id of the only one, or one of their own for several."""
    ids = sorted(set(rows["cell_id"]))
    return str(ids[0]) if len(ids) == 1 else f"report-{digest_of(ids)}"


def page(found: Sequence[Finding], lines: Sequence[Line], pictures: Path, origin: Origin) -> str:
    """Return the page as HTML.

    Args:
        found: The cells.
        lines: Their lines, of cells that differ in the seed alone.
        pictures: The folder of picture sheets.
        origin: Who made it with which command.
    """
    found = sorted(found, key=_strength)
    heading, colour, lead = conclusion(found)
    accesses = dict.fromkeys(one.facts["access"] for one in found)
    body = [
        f'<header class="{colour}"><p class="what">{text(_what(found[0]))}</p><h1>{text(heading)}</h1>',
        f"<p>{text(lead)}</p></header>",
        _summary(found),
        _origin(found, origin),
        '<h2 id="found">What was found, and by whom it can be found</h2>',
        _verdicts(lines, origin),
        *(_access(access, found) for access in accesses),
        _pictures(found, pictures),
        _defended(found, lines, origin),
        to_try(found),
        _untested(found),
        _numbers(found),
        _commands(found, origin),
    ]
    return PAGE.replace("<!--title-->", text(heading)).replace("<!--body-->", "\n".join(part for part in body if part))


def _strength(one: Finding) -> tuple[object, ...]:
    """Place of a cell: the strongest evidence first, then by name; those without a number last."""
    facts, low = one.facts, one.headline.lift_low if one.headline else math.nan
    last = math.isnan(low)
    return (
        order(one.verdict),
        last,
        0.0 if last else -low,
        facts["attack"],
        facts["defense"],
        int(facts["seed"]),
        facts["cell_id"],
    )


def _what(first: Finding) -> str:
    if (weights := weights_of(first)) is not None:
        return f"Your model ({weights}), attacked for the data of {first.facts['dataset']}"
    return f"{first.facts['target']} trained on {first.facts['dataset']}"


def _summary(found: Sequence[Finding]) -> str:
    """What was tested, what was found and what was not tested, in plain sentences."""
    attacks = [title_of("attack", name) for name in dict.fromkeys(one.facts["attack"] for one in found)]
    defenses = [
        title_of("defense", name) for name in dict.fromkeys(one.facts["defense"] for one in found) if name != "none"
    ]
    names = _names(found)
    first, measured = found[0].facts, [one for one in found if one.headline]
    under = f"without a defense and with {_listed(defenses)}" if defenses else "without a defense"
    if defenses and all(one.facts["defense"] != "none" for one in found):
        under = f"with {_listed(defenses)}"
    tested = (
        f"{_what(found[0])} was the subject. {_listed(attacks)} attacked it {under}: {_counted(len(found), 'test')}, "
        f"of which {len(measured)} could be measured. The data are {first['dataset']} ({first['modality']})."
    )
    counts = Counter(one.verdict for one in measured)
    parts = [f"{WORDS[word].shown} ({counts[word]})" for word in WORDS if counts[word]]
    said = f"{conclusion(found)[0]}. Of {_counted(len(measured), 'test')} measured the verdicts are {_listed(parts)}."
    said = said if parts else "Nothing, because nothing could be measured."
    if signs := [names[one.facts["cell_id"]] for one in measured if one.signs]:
        said += f" Beside the number that decides, others are evidence of a leak with {_listed(signs)}."
    missing = len(found) - len(measured)
    left = f"{_counted(missing, 'test')} could not be measured. " if missing else ""
    left += "Other attacks, longer ones, other random draws and other ways for data to leave were not tested; "
    return (
        '<h2 id="summary">Summary</h2>'
        f"<p><b>What was tested.</b> {text(tested)}</p><p><b>What was found.</b> {text(said)}</p>"
        f'<p><b>What was not tested.</b> {text(left)}<a href="#not-tested">the list</a> has them.</p>'
    )


def _origin(found: Sequence[Finding], origin: Origin) -> str:
    """Who ran what and when; what is not known is left out."""

    def each(name: str) -> str:
        return ", ".join(dict.fromkeys(str(one.facts[name]) for one in found if one.facts[name]))

    times = sorted(str(one.facts["created_at"]) for one in found if one.facts["created_at"])
    when = " to ".join(dict.fromkeys(_moment(time) for time in times[:1] + times[-1:]))
    version, commit = each("mibench_version"), each("git_commit")
    facts = [
        ("run by", origin.author), ("when", when), ("with", f"mibench {version}" + (f" ({commit})" if commit else "")),
        ("on", each("device")), ("budget", each("budget")),
        ("seeds", ", ".join(map(str, sorted({int(one.facts["seed"]) for one in found})))),
    ]  # fmt: skip
    said = [(name, text(value)) for name, value in facts if value]
    if origin.command:
        said.append(("written by", f"<code>{text(_impersonal(origin.command))}</code>"))
    link = ' <a href="#commands">The commands of the tests</a> stand at the end.' if origin.commands else ""
    return f'<h2 id="origin">Who, when and how</h2>{pairs(said)}' + (f"<p>{link.strip()}</p>" if link else "")


def _moment(time: str) -> str:
    """Return a time as people write it, to the minute.

    >>> _moment("2026-01-02T03:04:05+00:00")
    '2026-01-02 03:04 UTC'
    """
    return re.sub(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d).*", r"\1 \2 UTC", time)


def _verdicts(lines: Sequence[Line], origin: Origin) -> str:
    """The verdict on every measured combination, the strongest evidence first, and what the verdicts mean."""
    if not lines:
        return ""
    tables = [
        table(COLUMNS, (_cells(line, origin) for line in own), NUMBERS, heading)
        for heading, own in sections(lines).items()
    ]
    return "".join(tables) + _legend({line.verdict for line in lines}) + COLUMNS_SAID


#: What the columns of the table hold, for a reader outside the field.
COLUMNS_SAID = (
    "<p class=note><b>value</b>: what the attack reached, with the interval that holds the true mean 95 times in 100. "
    "<b>control</b>: the same without the leak. <b>lift</b>: how far the value is on the leaking side of the control. "
    "<b>accuracy</b>: how often the model is right. <b>seeds</b>: how many runs with other random draws stand behind "
    "a line.</p>"
)


def _cells(line: Line, origin: Origin) -> list[str]:
    written = line.written(DIGITS, origin.options.get(line.cells[0], {}))
    return list({**written, "verdict": line.verdict}.values())


def _legend(words: set[str]) -> str:
    """What verdicts mean, in the language's order."""
    return '<div class="legend">' + pairs_of_words(words) + "</div>"


def pairs_of_words(words: set[str]) -> str:
    """Return the verdicts among some words with their meanings."""
    lines = [
        f"<div><dt>{verdict(word)}</dt><dd>{text(one.meaning)}</dd></div>"
        for word, one in WORDS.items()
        if word in words
    ]
    return f"<dl>{''.join(lines)}</dl>"


def _access(access: str, found: Sequence[Finding]) -> str:
    names = _names(found)
    parts = [f"<h3>To {text(WHO[access])}</h3>"]
    for one in found:
        if one.facts["access"] == access:
            said = [*sentences(one), _meant(one)] if one.headline else [plain_reason(reasons(one))]
            if one.signs:
                said.append(f"Other numbers of this test are evidence of a leak: {', '.join(one.signs)}.")
            name = text(names[one.facts["cell_id"]])
            parts.append(f"<p>{verdict(one.verdict)} <b>{name}.</b> {text(' '.join(said))}</p>")
    return "\n".join(parts)


def _meant(one: Finding) -> str:
    return WORDS[one.verdict].meaning if one.verdict in WORDS else ""


def _pictures(found: Sequence[Finding], folder: Path) -> str:
    names = _names(found)
    parts = []
    for one in found:
        name = names[one.facts["cell_id"]]
        if one.headline and (shown := pictures_of(folder / f"{one.facts['cell_id']}.png", name)):
            parts.append(f"<h3>{verdict(one.verdict)} {text(name)}</h3>{shown}")
    if not parts:
        return ""
    return (
        '<h2 id="pictures">What came out</h2><p><b>private</b>: what the model was trained on. <b>recovered</b>: what '
        "the attack brought out. <b>control</b>: what it brings out without the leak. Where <i>recovered</i> is no "
        "closer to <i>private</i> than <i>control</i> is, nothing was given away. These are private data: keep this "
        "page to yourself.</p>" + "\n".join(parts)
    )


def _defended(found: Sequence[Finding], lines: Sequence[Line], origin: Origin) -> str:
    """The defenses that were tried, beside the undefended cell of the same attack, and what the table leaves out."""
    if all(one.facts["defense"] == "none" for one in found):
        return ""
    there = {one.facts["cell_id"]: victim_of(one) for one in compared(found)}
    parts = ['<h2 id="defenses">The defenses that were tried</h2>']
    for victim in dict.fromkeys(there.values()):
        own = [line for line in lines if there.get(line.cells[0]) == victim]
        for heading, some in sections(own).items():
            parts.append(table(COLUMNS, (_cells(line, origin) for line in some), NUMBERS, heading))
    if not there:
        parts.append("<p>None of them could be measured.</p>")
    if any(weights_of(one) for one in found) and len({weights_of(one) for one in found}) > 1:
        parts.append("<p>Without a defense this is your model; under a defense it was trained again.</p>")
    left: dict[tuple[str, str, str], list[str]] = {}
    for each in left_out(found):
        left.setdefault((each.why, each.attack, each.reason), []).append(each.defense)
    if left:
        facts = [
            [
                title_of("attack", attack), _listed([_under(name) for name in names]), why, reason,
            ]
            for (why, attack, reason), names in sorted(left.items())
        ]  # fmt: skip
        parts.append(table(("attack", "defense", "left out because", "reason"), facts, caption="Not in this table"))
    return "\n".join(parts)


def _under(defense: str) -> str:
    return "without a defense" if defense == "none" else title_of("defense", defense)


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
    """What was not tested, and what a reader must keep in mind."""
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


def _numbers(found: Sequence[Finding]) -> str:
    """All numbers, for those who want them."""
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
    body = table(head, lines, ("seed", "value", "control", "lift")) + _legend(words)
    return f'<details id="numbers"><summary>All numbers</summary>{body}</details>'


def _commands(found: Sequence[Finding], origin: Origin) -> str:
    """The command that makes each cell again."""
    made = [(f"{name}, cell {cell}", origin.commands.get(cell, "")) for cell, name in _names(found).items()]
    cells = ", ".join(str(one.facts["cell_id"]) for one in found)
    said = [(name, f"<code>{text(_impersonal(command))}</code>") for name, command in made if command]
    body = f'<h2 id="commands">The commands of the tests</h2><div class="commands">{pairs(said)}</div>' if said else ""
    return f"{body}<p class=note>Cells: {text(cells)}.</p>"


def _impersonal(command: str) -> str:
    """Return a command without the name of a person's folder, which often is that of a login.

    >>> _impersonal("dataset.root=/home/ann/data x=/Users/ann/y")
    'dataset.root=~/data x=~/y'
    """
    return re.sub(r"/(?:home|Users)/[^/\s'\"]+", "~", command.replace(str(Path.home()), "~"))


def _listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them.

    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _names(found: Sequence[Finding]) -> dict[str, str]:
    """Return what every cell is called, by its id: attack and defense, and the seed where the cells have several."""
    several = len({int(one.facts["seed"]) for one in found}) > 1
    names = {}
    for one in found:
        attack, defense = title_of("attack", one.facts["attack"]), one.facts["defense"]
        name = attack if defense == "none" else f"{attack}, with the defense {title_of('defense', defense)}"
        names[one.facts["cell_id"]] = f"{name}, seed {one.facts['seed']}" if several else name
    return names
