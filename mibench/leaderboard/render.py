"""The Markdown beside the page: one table per dataset and task, headline numbers only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

from mibench.card import headline_of
from mibench.leaderboard.groups import Group
from mibench.leaderboard.language import WORDS
from mibench.leaderboard.lines import COLUMNS, Line, interval, line_of, number, strength
from mibench.leaderboard.reference import Published, ours, protocol
from mibench.leaderboard.worst import WorstCase

#: Most lines of one table; the page and the parquet file hold the rest.
LONGEST = 100

#: Columns behind those of every table.
HEADER = (*COLUMNS, "budget", "training")

OF_STUDIES = """# Results

Built by `python -m mibench leaderboard` from [`studies/`](studies) alone; [`index.html`](index.html) is the same as a
page to sort and filter (open it from a clone, where `page/numbers.js` lies beside it: it needs no server),
[`leaderboard.parquet`](leaderboard.parquet) holds every row, and [`docs/leaderboard.md`](../docs/leaderboard.md) says
how to read them. What your own runs leave here (`shards/`, `pictures/`, `local/`) is yours alone and ignored by git.
"""

OF_SHARDS = """# Results, with the shards of this machine

Built by `python -m mibench leaderboard` from committed studies and the shards beside this folder;
[`index.html`](index.html) is the same as a page, [`leaderboard.parquet`](leaderboard.parquet) holds every row. Pictures
may show real people: keep this folder to yourself.
"""


def markdown(
    groups: Sequence[Group],
    options: Mapping[str, str],
    set_aside: Mapping[str, str],
    local: bool,
    figures: Sequence[Published] = (),
    cases: Sequence[WorstCase] = (),
) -> str:
    """Return the README of a results folder.

    Args:
        groups: The groups, sorted by task and dataset.
        options: By group id, what differs from the defaults.
        set_aside: Files that were left out, with the reason.
        local: Whether one's own shards are part of it.
        figures: Published figures.
        cases: Worst cases.
    """
    parts, unmeasured = [OF_SHARDS if local else OF_STUDIES], 0
    for (task, dataset), found in groupby(groups, key=lambda one: (one.facts["task"], one.facts["dataset"])):
        section = list(found)
        if any(one.headline is not None for one in section):
            parts.append(_section(task, dataset, section, options))
        else:
            unmeasured += len(section)
    if len(parts) > 1:
        parts.append(LEGEND)
    if unmeasured:
        parts.append(f"{unmeasured} groups of other datasets and tasks have no number: the page says why.\n")
    if cases:
        parts.append(_worst(cases))
    if figures:
        parts.append(_published(figures, groups))
    if set_aside:
        parts.append("## Set aside\n\nThese files gave no rows:\n")
        parts.append("\n".join(f"- `{name}`: {_plain(reason)}" for name, reason in sorted(set_aside.items())) + "\n")
    return "\n".join(parts)


#: What the verdicts mean.
LEGEND = "## The verdicts\n\nThe strongest evidence stands first, in the order of this list.\n\n" + "".join(
    f"- `{one.shown}`: {one.meaning}\n" for one in WORDS.values()
)


WORST = """## Worst case

The strongest of several attacks on one victim, picked on random halves of the targets and reported on the others, with
its 95 % interval; per victim the higher, the worse.

| dataset | target | access | defense | lift | attacks | strongest | victim's accuracy | training |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def _worst(cases: Sequence[WorstCase]) -> str:
    lines = [WORST]
    for one in cases:
        facts, group = one.facts, one.groups[0]
        defense = f"{facts['defense']} ({', '.join(one.options)})" if one.options else facts["defense"]
        accuracy = group.utility
        cells = [
            facts["dataset"], facts["target"], facts["access"], defense,
            f"{number(one.lift, signed=True)} {one.unit} {interval(one.spread.low, one.spread.high)}".strip(),
            str(one.attacks), ", ".join(one.picked),
            number(accuracy.score.value) if accuracy else "", _times(group),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(_plain, cells))} |")
    return "\n".join([*lines, ""])


PUBLISHED = """## Published figures

Quoted from their sources (`reference/`, with the place of each and what keeps it from a comparison), not measured here.
Ours stands beside a figure where the same dataset, target, attack and metric were measured without a defense; the
protocols still differ.

| dataset | target | attack | metric | published | source | ours |
| --- | --- | --- | --- | --- | --- | --- |"""


def _published(figures: Sequence[Published], groups: Sequence[Group]) -> str:
    lines = [PUBLISHED]
    for one in figures:
        pixels = f" ({one.resolution} px)" if one.resolution else ""
        deviation = "" if math.isnan(one.std) else f" ± {number(one.std)}"
        cells = [
            one.dataset, f"{one.target}{pixels}", one.attack, f"{one.metric} {one.variant}".strip(),
            f"{number(one.value)}{deviation} {one.unit}".strip(), f"{one.source_bib}, {one.read}", "",
        ]  # fmt: skip
        if (found := ours(one, groups)) is not None:
            cells[-1] = f"{number(found[1].score.value)} ({protocol(found[0])})"
        lines.append(f"| {' | '.join(map(_plain, cells))} |")
    return "\n".join([*lines, ""])


def _section(task: str, dataset: str, groups: Sequence[Group], options: Mapping[str, str]) -> str:
    metric, variant, evaluator = headline_of(task, groups[0].facts["modality"])
    name = " ".join(word for word in (metric, variant, evaluator) if word) or "no headline number"
    lines = [f"## {dataset}, task `{task}`: {name}\n", f"| {' | '.join(HEADER)} |", f"|{' --- |' * len(HEADER)}"]
    measured = sorted((one for one in groups if one.headline is not None), key=lambda one: strength(_line(one)))
    for one in measured[:LONGEST]:
        written = _line(one).written(3, {"defense": options.get(one.group_id, "")})
        cells = [*written.values(), one.facts["budget"], _times(one)]
        lines.append(f"| {' | '.join(map(_plain, cells))} |")
    lines.append("")
    if len(measured) > LONGEST:
        lines.append(f"{len(measured) - LONGEST} more groups stand on the page.\n")
    notes = dict.fromkeys(note for one in measured for note in one.facts["notes"].split("\n") if note)
    lines += [f"- {_plain(note)}" for note in list(notes)[:5]] + [""] * bool(notes)
    if missing := len(groups) - len(measured):
        lines.append(f"{missing} {'group' if missing == 1 else 'groups'} without this number: the page says why.\n")
    return "\n".join(lines)


def _line(group: Group) -> Line:
    assert group.headline is not None
    return line_of(group, group.headline.score, group.headline.seeds)


def _times(group: Group) -> str:
    """Return how many times as long as without a defense the victim's training took, to two digits."""
    ratio = group.cost["training_times"]
    return "" if math.isnan(ratio) else f"{number(float(f'{ratio:.2g}'))}x"


def _plain(text: str) -> str:
    """Return text that cannot end a table's cell or line."""
    return " ".join(text.split()).replace("|", "\\|")
