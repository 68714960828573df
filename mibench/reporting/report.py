"""The report page: what leaks, to whom, compared with what, and which defenses to try, for a reader outside the field.

It is made from rows alone; the pictures of the cells, where their sheets lie beside the rows, are put inside, so that
the page is one file that needs neither a network nor a script. It shows the owner's private pictures and is meant for
the owner.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mibench.errors import UserError
from mibench.files import write_text
from mibench.leaderboard.language import WORDS, order
from mibench.leaderboard.lines import (
    COLUMNS,
    DIGITS,
    NUMBERS,
    Line,
    lines_of,
    sections,
)
from mibench.leaderboard.page.names import title_of
from mibench.leaderboard.shards import schema
from mibench.reporting.appendix import commands, numbers, untested
from mibench.reporting.defended import (
    compared,
    left_out,
    names_of,
    plain_reason,
    to_try,
    victim_of,
    weights_of,
)
from mibench.reporting.findings import WHO, Finding, conclusion, findings_of, reasons, sentences
from mibench.reporting.markup import counted, impersonal, legend, listed, pairs, table, text, verdict
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
        write_text(path, page(found, lines, results / "pictures", origin or Origin()))
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
        untested(found),
        numbers(found),
        commands(found, origin.commands),
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
    names = names_of(found)
    first, measured = found[0].facts, [one for one in found if one.headline]
    under = f"without a defense and with {listed(defenses)}" if defenses else "without a defense"
    if defenses and all(one.facts["defense"] != "none" for one in found):
        under = f"with {listed(defenses)}"
    tested = (
        f"{_what(found[0])} was the subject. {listed(attacks)} attacked it {under}: {counted(len(found), 'test')}, "
        f"of which {len(measured)} could be measured. The data are {first['dataset']} ({first['modality']})."
    )
    counts = Counter(one.verdict for one in measured)
    parts = [f"{WORDS[word].shown} ({counts[word]})" for word in WORDS if counts[word]]
    said = f"{conclusion(found)[0]}. Of {counted(len(measured), 'test')} measured the verdicts are {listed(parts)}."
    said = said if parts else "Nothing, because nothing could be measured."
    if signs := [names[one.facts["cell_id"]] for one in measured if one.signs]:
        said += f" Beside the number that decides, others are evidence of a leak with {listed(signs)}."
    missing = len(found) - len(measured)
    left = f"{counted(missing, 'test')} could not be measured. " if missing else ""
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
        said.append(("written by", f"<code>{text(impersonal(origin.command))}</code>"))
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
    return "".join(tables) + legend({line.verdict for line in lines}) + COLUMNS_SAID


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


def _access(access: str, found: Sequence[Finding]) -> str:
    names = names_of(found)
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
    names = names_of(found)
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
                title_of("attack", attack), listed([_under(name) for name in names]), why, reason,
            ]
            for (why, attack, reason), names in sorted(left.items())
        ]  # fmt: skip
        parts.append(table(("attack", "defense", "left out because", "reason"), facts, caption="Not in this table"))
    return "\n".join(parts)


def _under(defense: str) -> str:
    return "without a defense" if defense == "none" else title_of("defense", defense)
