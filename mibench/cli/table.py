"""The tables of the terminal: of one cell, and of the lines that a sweep leaves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mibench.card import headline_of
from mibench.leaderboard.language import WORDS, order, shown
from mibench.leaderboard.lines import DIGITS, headline, interval, name_of, told
from mibench.leaderboard.lines import number as written
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.verdicts import judged
from mibench.planning.plan import Plan

if TYPE_CHECKING:
    import pandas as pd

HEAD = ("metric", "value", "unit", "95 % interval", "control", "lift", "95 % interval", "null", "", "verdict")

#: Columns of ``HEAD`` that hold numbers.
RIGHT = (1, 4, 5, 7)


def print_scores(scores: Sequence[Score], plan: Plan, notes: Sequence[str], cell_id: str = "") -> None:
    """Print one line per number, the strongest evidence first, then what could not be measured, notes and verdict."""
    cards = plan.cards
    print(
        f"\n{cards.attack.title} ({plan.access}) on {cards.dataset.name}, {cards.setting.name}, {cards.target.name}, "
        f"defense {cards.defense.name}, seed {plan.config['seed']}, cell {cell_id or plan.cell_id}\n"
    )
    task, modality = cards.attack.task, cards.dataset.modalities[0]
    table = [HEAD, *(line_of(one) for one in in_order(scores, headline(scores, task, modality)) if one.status == "ok")]
    empty = {place for place in range(len(HEAD)) if place and not any(line[place] for line in table[1:])}
    kept = [place for place in range(len(HEAD)) if place not in empty]
    print_table([[line[place] for place in kept] for line in table], [kept.index(n) for n in RIGHT if n in kept])
    missing: dict[str, list[str]] = {}
    for one in scores:
        if one.status != "ok":
            missing.setdefault(f"{one.status}: {one.reason}", []).append(name_of(one))
    for reason, names in missing.items():
        print(f"{', '.join(names)} {reason}".strip())
    for note in notes:
        print(note)
    if missing or notes:
        print()
    for sentence in concluded(scores, task, modality):
        print(sentence)


def line_of(one: Score) -> tuple[str, ...]:
    """Return the line of a number in the table of its cell, the columns of ``HEAD``."""
    verdict = shown(one.evidence) + (f" ({one.confirmed_by})" if one.confirmed_by else "")
    return (
        name_of(one), number(one.value), one.unit, interval(one.ci_low, one.ci_high, DIGITS), number(one.control),
        number(one.lift, signed=True), interval(one.lift_low, one.lift_high, DIGITS), number(one.null), one.null_name,
        verdict,
    )  # fmt: skip


def in_order(scores: Sequence[Score], first: Score | None = None) -> list[Score]:
    """Return the numbers of a cell, the strongest evidence first; of one verdict the cell's headline, then by name.

    What speaks of no leak (accuracies, rates of judges) stands last.
    """
    return sorted(scores, key=lambda one: (order(one.evidence), one is not first, name_of(one)))


def concluded(scores: Sequence[Score], task: str, modality: str) -> list[str]:
    """Return the verdict on a cell: its word, what that means, the number behind it, and numbers that say more."""
    one = headline(scores, task, modality)
    if one is None:
        wanted = " ".join(part for part in headline_of(task, modality) if part)
        return [f"verdict   not measured: this cell has no {wanted}, the number by which its task is read."]
    if one.evidence not in WORDS:
        return [f"verdict   none: {told(one)}"]
    word = WORDS[one.evidence]
    said = [f"verdict   {word.shown}: {word.meaning}", f"          {told(one)}"]
    stronger = [other for other in in_order(scores) if order(other.evidence) < order(word.word)]
    if more := [name_of(other) for other in stronger if WORDS[other.evidence].tone != "calm"]:
        strongest = WORDS[in_order(scores)[0].evidence]
        say = "Another number says" if len(more) == 1 else f"{len(more)} other numbers say"
        said.append(f"          {say} more, up to {strongest.shown}: {', '.join(more)}.")
    return said


def print_table(table: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print lines of equally many cells in columns, and an empty line.

    Args:
        table: The lines, the head first.
        right: Columns whose entries end at the same place, as numbers do.
    """
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        cells = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    print()


def number(value: float, signed: bool = False) -> str:
    """Return a number with four significant digits, empty for NaN."""
    return "" if math.isnan(value) else written(value, signed, DIGITS)


def scores_of(frame: pd.DataFrame) -> list[Score]:
    """Return the scores of stored rows."""
    names = [field.name for field in dataclasses.fields(Score)]
    rows = frame[names].to_dict("records")
    scores = [Score(**{str(name): value for name, value in row.items()}) for row in rows]
    return judged(scores, old=bool((frame["schema_version"] < 2).any()))


def notes_of(frame: pd.DataFrame) -> list[str]:
    """Return the notes of stored rows."""
    return [note for note in str(frame["notes"].iloc[0]).split("\n") if note]
